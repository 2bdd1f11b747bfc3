package wire

import (
	"encoding/binary"
	"errors"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

const (
	etherTypeARP  = 0x0806
	etherTypeIPv6 = 0x86dd
	// What stands in the place of the EtherType of a tagged frame: IEEE 802.1Q,
	// 802.1ad, and what was in use before the latter.
	etherTypeVLAN       = 0x8100
	etherTypeService    = 0x88a8
	etherTypeOldService = 0x9100

	ethernetLength = 14
)

// Errors are values made once, because anybody on the segment can cause them at
// line rate.
var (
	errShort      = errors.New("the frame is too short")
	errVLAN       = errors.New("the frame has a VLAN tag")
	errEtherType  = errors.New("the EtherType is another protocol's")
	errFrameMAC   = errors.New("the Ethernet source is no host's address")
	errSenderMAC  = errors.New("the sender's link-layer address is no host's address")
	errSenderAddr = errors.New("the sender's address is no host's address")
)

var broadcast = announce.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// ParseFrame reads an Ethernet frame of ARP or NDP, as AF_PACKET delivers it.
func ParseFrame(frame []byte) (Message, error) {
	if len(frame) >= ethernetLength && etherType(frame) == etherTypeARP {
		return ParseARP(frame)
	}
	return ParseNDP(frame)
}

func etherType(frame []byte) uint16 {
	return binary.BigEndian.Uint16(frame[12:])
}

// parseEthernet wants that EtherType and a payload of at least that length. Where
// a VLAN's frame is seen on the parent interface, to answer it there without the
// tag would be wrong, hence such frames are refused.
func (m *Message) parseEthernet(frame []byte, want uint16, payload int) error {
	if len(frame) < ethernetLength {
		return errShort
	}
	switch etherType(frame) {
	case want:
	case etherTypeVLAN, etherTypeService, etherTypeOldService:
		return errVLAN
	default:
		return errEtherType
	}
	if len(frame) < ethernetLength+payload {
		return errShort
	}
	m.Destination = announce.MAC(frame[0:])
	m.Source = announce.MAC(frame[6:])
	if !isHost(m.Source) {
		return errFrameMAC
	}
	return nil
}

// ethernetFrame is a frame with that header and payload.
func ethernetFrame(to, from announce.MAC, etherType uint16, payload ...[]byte) []byte {
	length := ethernetLength
	for _, part := range payload {
		length += len(part)
	}
	frame := make([]byte, 0, length)
	frame = append(frame, to[:]...)
	frame = append(frame, from[:]...)
	frame = binary.BigEndian.AppendUint16(frame, etherType)
	for _, part := range payload {
		frame = append(frame, part...)
	}
	return frame
}

// SetSource makes mac the Ethernet source of a frame that speaks for another
// host, so that switches go on to look for that host where it is.
func SetSource(frame []byte, mac announce.MAC) { setMAC(frame, 6, mac) }

// SetDestination makes mac the Ethernet destination of a frame that would go to
// all hosts.
func SetDestination(frame []byte, mac announce.MAC) { setMAC(frame, 0, mac) }

// setMAC leaves what is no frame alone.
func setMAC(frame []byte, offset int, mac announce.MAC) {
	if len(frame) >= ethernetLength {
		copy(frame[offset:], mac[:])
	}
}

// isHost tells whether a single interface can have the address: no group, the
// broadcast address included, and not zero.
func isHost(mac announce.MAC) bool {
	return mac[0]&1 == 0 && mac != announce.MAC{}
}

// IsVirtualRouter tells whether the address is one that routers share by VRRP
// (RFC 5798 section 7.3, and CARP, which borrows it), HSRP (RFC 2281 section 5.4
// and its version 2 for IPv4 and IPv6) or GLBP.
func IsVirtualRouter(mac announce.MAC) bool {
	switch [3]byte(mac[:]) {
	case [3]byte{0x00, 0x00, 0x5e}: // VRRP
		return mac[3] == 0 && (mac[4] == 1 || mac[4] == 2)
	case [3]byte{0x00, 0x00, 0x0c}: // HSRP, version 1 and version 2 for IPv4
		return mac[3] == 0x07 && mac[4] == 0xac || mac[3] == 0x9f && mac[4]&0xf0 == 0xf0
	case [3]byte{0x00, 0x05, 0x73}: // HSRP version 2 for IPv6
		return mac[3] == 0xa0 && mac[4]&0xf0 == 0
	case [3]byte{0x00, 0x07, 0xb4}: // GLBP
		return true
	}
	return false
}
