package wire

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"

	"github.com/mdlayher/ndp"
)

const (
	ipv6Length = 40
	icmpv6     = 58
	// maxHops is a hop limit that no router has touched, hence proof that the
	// sender is on the link (RFC 4861 section 11.2).
	maxHops = 255

	// ndpLength is that of a Solicitation or an Advertisement without options.
	ndpLength     = 24
	solicitType   = 135
	advertiseType = 136

	optionUnit      = 8 // octets that an option's length counts
	sourceLinkLayer = 1
	targetLinkLayer = 2
)

var (
	errIPv6Header     = errors.New("the IPv6 packet is not ICMPv6, or has been forwarded")
	errIPv6Length     = errors.New("the IPv6 payload length is wrong")
	errICMPType       = errors.New("the ICMPv6 message is neither solicitation nor advertisement")
	errChecksum       = errors.New("the ICMPv6 checksum is wrong")
	errTarget         = errors.New("the target is no host's address")
	errOption         = errors.New("an option has a wrong length")
	errProbeTo        = errors.New("a solicitation without a source goes elsewhere than to a solicited-node group")
	errProbeOption    = errors.New("a solicitation without a source has a source link-layer address")
	errGroupSolicited = errors.New("a multicast advertisement says that it was solicited")
)

var (
	allNodes           = netip.IPv6LinkLocalAllNodes()
	allNodesMAC        = groupMAC(allNodes)
	solicitedNodeGroup = netip.MustParsePrefix("ff02::1:ff00:0/104")
)

// ParseNDP reads an Ethernet frame of a Neighbor Solicitation or Advertisement.
func ParseNDP(frame []byte) (Message, error) {
	var m Message
	if err := m.parseEthernet(frame, etherTypeIPv6, ipv6Length+ndpLength); err != nil {
		return Message{}, err
	}
	message, err := m.parseIPv6(frame[ethernetLength:])
	if err != nil {
		return Message{}, err
	}
	if err := m.parseNDP(message); err != nil {
		return Message{}, err
	}
	return m, nil
}

// parseIPv6 returns the ICMPv6 message, with its checksum verified.
func (m *Message) parseIPv6(packet []byte) ([]byte, error) {
	// An extension header before ICMPv6 would be legal and is sent by nobody;
	// RFC 6980 forbids the one that hides messages from filters.
	if packet[0]>>4 != 6 || packet[6] != icmpv6 || packet[7] != maxHops {
		return nil, errIPv6Header
	}
	length := int(binary.BigEndian.Uint16(packet[4:]))
	if length < ndpLength || length > len(packet)-ipv6Length {
		return nil, errIPv6Length
	}
	m.Sender = netip.AddrFrom16([16]byte(packet[8:]))
	m.To = netip.AddrFrom16([16]byte(packet[24:]))
	if !m.Sender.IsUnspecified() && !isIPv6Host(m.Sender) {
		return nil, errSenderAddr
	}
	message := packet[ipv6Length : ipv6Length+length]
	// The pseudo header of RFC 8200 section 8.1: both addresses, which precede
	// the message anyhow, its length, and the number of the protocol.
	if checksum(packet[8:ipv6Length+length], uint32(length)+icmpv6) != 0xffff {
		return nil, errChecksum
	}
	return message, nil
}

// checksum is the one's complement sum of data (RFC 1071), over a start value.
func checksum(data []byte, sum uint32) uint16 {
	// No payload is so long that 32 bits could overflow.
	for ; len(data) >= 2; data = data[2:] {
		sum += uint32(binary.BigEndian.Uint16(data))
	}
	if len(data) == 1 {
		sum += uint32(data[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

func (m *Message) parseNDP(message []byte) error {
	option := byte(sourceLinkLayer)
	switch binary.BigEndian.Uint16(message) { // the type, and a code of zero
	case solicitType << 8:
		m.Kind = Solicitation
	case advertiseType << 8:
		m.Kind, option = Advertisement, targetLinkLayer
		m.Router = message[4]&0x80 != 0
		m.Solicited = message[4]&0x40 != 0
		m.Override = message[4]&0x20 != 0
	default:
		return errICMPType
	}
	m.Target = netip.AddrFrom16([16]byte(message[8:]))
	if !isIPv6Host(m.Target) {
		return errTarget
	}
	mac, found, err := linkLayer(message[ndpLength:], option)
	if err != nil {
		return err
	}
	if m.SenderMAC = m.Source; found {
		m.SenderMAC = mac
	}
	if m.Kind == Solicitation {
		return m.checkSolicitation(found)
	}
	return m.checkAdvertisement()
}

// checkSolicitation holds a Solicitation against what RFC 4861 section 7.1.1 says
// about probes.
func (m *Message) checkSolicitation(hasOption bool) error {
	switch {
	case !m.Sender.IsUnspecified():
		return nil
	case !solicitedNodeGroup.Contains(m.To):
		return errProbeTo
	case hasOption:
		return errProbeOption
	}
	return nil
}

// checkAdvertisement holds an Advertisement against RFC 4861 section 7.1.2.
func (m *Message) checkAdvertisement() error {
	switch {
	case m.Sender.IsUnspecified():
		return errSenderAddr
	case m.Solicited && m.To.IsMulticast():
		return errGroupSolicited
	}
	return nil
}

// linkLayer is the link-layer address in the first option of that type, as other
// hosts take it. All options are checked for their lengths; those that mean
// nothing in the message are otherwise passed over.
func linkLayer(options []byte, wanted byte) (mac announce.MAC, found bool, err error) {
	for len(options) > 0 {
		if len(options) < optionUnit {
			return announce.MAC{}, false, errOption
		}
		length := int(options[1]) * optionUnit
		if length == 0 || length > len(options) {
			return announce.MAC{}, false, errOption
		}
		if options[0] == wanted {
			if length != optionUnit {
				return announce.MAC{}, false, errOption
			}
			if !isHost(announce.MAC(options[2:])) {
				return announce.MAC{}, false, errSenderMAC
			}
			if !found {
				mac, found = announce.MAC(options[2:]), true
			}
		}
		options = options[length:]
	}
	return mac, found, nil
}

// isIPv6Host tells whether an interface can have the address. IPv4-mapped
// addresses are for programs; on the wire they could only be mistaken for IPv4.
func isIPv6Host(addr netip.Addr) bool {
	return !addr.IsUnspecified() && !addr.IsMulticast() && !addr.IsLoopback() && !addr.Is4In6()
}

// NDPAnswer tells the sender of a Solicitation that own has addr. Where the
// sender has no address yet, all nodes are told (RFC 4861 section 7.2.4).
// Override is set in each case: an address moves between nodes, and who asks may
// still have the one that had it before. It is nil unless addr is IPv6.
func NDPAnswer(own announce.MAC, addr netip.Addr, request *Message) []byte {
	if request.Sender.IsUnspecified() {
		return NDPAnnouncement(own, addr)
	}
	return advertisement(own, addr, request.SenderMAC, request.Sender, true)
}

// NDPAnnouncement tells all nodes, unasked, that own has addr (RFC 4861 section
// 7.2.6). It is nil unless addr is IPv6.
func NDPAnnouncement(own announce.MAC, addr netip.Addr) []byte {
	return advertisement(own, addr, allNodesMAC, allNodes, false)
}

func advertisement(own announce.MAC, addr netip.Addr, mac announce.MAC, to netip.Addr, solicited bool) []byte {
	return ndpFrame(mac, own, addr, to, &ndp.NeighborAdvertisement{
		Solicited:     solicited,
		Override:      true,
		TargetAddress: addr,
		Options:       []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Target, Addr: own[:]}},
	})
}

// NDPProbe asks who has addr without claiming it (RFC 4862 section 5.4.2). It is
// nil unless addr is IPv6.
func NDPProbe(own announce.MAC, addr netip.Addr) []byte {
	group, mac := SolicitedNode(addr)
	return ndpFrame(mac, own, netip.IPv6Unspecified(), group, &ndp.NeighborSolicitation{TargetAddress: addr})
}

// NDPQuestion asks the host with the MAC to who has addr, as neighbour
// unreachability detection does (RFC 4861 section 7.3), or all hosts if that MAC
// is zero. The answer goes to sender. It is nil unless addr is IPv6.
func NDPQuestion(own announce.MAC, sender, addr netip.Addr, to announce.MAC) []byte {
	destination := addr
	if to == (announce.MAC{}) {
		destination, to = SolicitedNode(addr)
	}
	return ndpFrame(to, own, sender, destination, &ndp.NeighborSolicitation{
		TargetAddress: addr,
		Options:       []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Source, Addr: own[:]}},
	})
}

// ndpFrame is a frame with that message. The message vouches for the family: it
// cannot be written with a target that is not IPv6.
func ndpFrame(mac, own announce.MAC, from, to netip.Addr, message ndp.Message) []byte {
	payload, err := ndp.MarshalMessageChecksum(message, from, to)
	if err != nil {
		return nil
	}
	var header [ipv6Length]byte
	header[0] = 6 << 4
	binary.BigEndian.PutUint16(header[4:], uint16(len(payload)))
	header[6], header[7] = icmpv6, maxHops
	source, destination := from.As16(), to.As16()
	copy(header[8:], source[:])
	copy(header[24:], destination[:])
	return ethernetFrame(mac, own, etherTypeIPv6, header[:], payload)
}

// SolicitedNode is the group at which a host with the IPv6 address must be found
// (RFC 4291 section 2.7.1), and the Ethernet group that carries it (RFC 2464
// section 7).
func SolicitedNode(addr netip.Addr) (group netip.Addr, mac announce.MAC) {
	octets, last := solicitedNodeGroup.Addr().As16(), addr.As16()
	copy(octets[13:], last[13:])
	group = netip.AddrFrom16(octets)
	return group, groupMAC(group)
}

func groupMAC(group netip.Addr) announce.MAC {
	octets := group.As16()
	return announce.MAC{0x33, 0x33, octets[12], octets[13], octets[14], octets[15]}
}
