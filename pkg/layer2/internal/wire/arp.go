package wire

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"

	"github.com/mdlayher/arp"
)

const (
	// arpHeader is hardware type Ethernet, protocol type IPv4, and their address
	// lengths: the only ARP there is on Ethernet.
	arpHeader = 0x0001_0800_0604
	arpLength = 28
)

var (
	errARPHeader    = errors.New("the ARP packet is not about IPv4 on Ethernet")
	errARPOperation = errors.New("the ARP operation is neither request nor reply")
)

var limitedBroadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// ParseARP reads an Ethernet frame of ARP. What follows the packet is padding.
func ParseARP(frame []byte) (Message, error) {
	var m Message
	if err := m.parseEthernet(frame, etherTypeARP, arpLength); err != nil {
		return Message{}, err
	}
	if err := m.parseARP(frame[ethernetLength:]); err != nil {
		return Message{}, err
	}
	return m, nil
}

func (m *Message) parseARP(packet []byte) error {
	header := binary.BigEndian.Uint64(packet)
	if header>>16 != arpHeader {
		return errARPHeader
	}
	switch arp.Operation(header & 0xffff) {
	case arp.OperationRequest:
		m.Kind = ARPRequest
	case arp.OperationReply:
		m.Kind = ARPReply
	default:
		return errARPOperation
	}
	m.SenderMAC = announce.MAC(packet[8:])
	m.Sender = netip.AddrFrom4([4]byte(packet[14:]))
	// The target's MAC says nothing: zero in most requests, anything in some.
	m.Target = netip.AddrFrom4([4]byte(packet[24:]))
	if !isHost(m.SenderMAC) {
		return errSenderMAC
	}
	if m.Sender.IsMulticast() || m.Sender.IsLoopback() || m.Sender == limitedBroadcast {
		return errSenderAddr
	}
	return nil
}

// ARPAnswer tells one host that own has addr. It is nil unless both addresses are
// IPv4.
func ARPAnswer(own announce.MAC, addr netip.Addr, to announce.MAC, toIP netip.Addr) []byte {
	return arpFrame(to, own, arp.OperationReply, addr, to, toIP)
}

// ARPAnnouncement tells all hosts that own has addr, in the form that RFC 5227
// section 3 prefers: a request whose sender and target are both addr, with a
// target MAC of zero. It is nil unless addr is IPv4.
func ARPAnnouncement(own announce.MAC, addr netip.Addr) []byte {
	return arpFrame(broadcast, own, arp.OperationRequest, addr, announce.MAC{}, addr)
}

// ARPGratuitousReply tells the same in a reply, for hosts that update their cache
// from replies only. Its target is the sender, address and MAC, as `arping -A` of
// iputils sends it. It is nil unless addr is IPv4.
func ARPGratuitousReply(own announce.MAC, addr netip.Addr) []byte {
	return arpFrame(broadcast, own, arp.OperationReply, addr, own, addr)
}

// ARPProbe asks who has addr without claiming it (RFC 5227 section 2.1.1). It is
// nil unless addr is IPv4.
func ARPProbe(own announce.MAC, addr netip.Addr) []byte {
	return arpFrame(broadcast, own, arp.OperationRequest, netip.IPv4Unspecified(), announce.MAC{}, addr)
}

// ARPQuestion asks the host with the MAC to, or all hosts if that is zero, who has
// addr. The answer goes to sender. It is nil unless both addresses are IPv4.
func ARPQuestion(own announce.MAC, sender, addr netip.Addr, to announce.MAC) []byte {
	if to == (announce.MAC{}) {
		to = broadcast
	}
	return arpFrame(to, own, arp.OperationRequest, sender, announce.MAC{}, addr)
}

// arpFrame is a frame from own to a MAC with an ARP packet in which own is the
// sender's MAC.
func arpFrame(to, own announce.MAC, op arp.Operation, sender netip.Addr, targetMAC announce.MAC, target netip.Addr) []byte {
	packet, err := arp.NewPacket(op, own[:], sender, targetMAC[:], target)
	if err != nil {
		return nil
	}
	payload, err := packet.MarshalBinary()
	if err != nil {
		return nil
	}
	return ethernetFrame(to, own, etherTypeARP, payload)
}
