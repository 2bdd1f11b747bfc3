package wire

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// Kinds of packets.
const (
	ARPRequest   = "arp-request"
	ARPReply     = "arp-reply"
	Solicitation = "neighbor-solicitation"
	Advertising  = "neighbor-advertisement"
)

// Packet is an ARP packet, a neighbour solicitation or a neighbour
// advertisement. MAC addresses are text, such as "00:00:5e:00:53:01".
type Packet struct {
	Time time.Time `json:"time"`
	// Sent tells that the capturing host itself has sent it.
	Sent bool   `json:"sent,omitempty"`
	Kind string `json:"kind,omitempty"`
	// Source and Destination are those of the Ethernet header.
	Source      string `json:"source"`
	Destination string `json:"destination"`
	// SenderIP is the sender's protocol address or the source of the IPv6
	// packet, SenderMAC the sender's hardware address or the source link-layer
	// address option; it is empty if there is none.
	SenderIP  netip.Addr `json:"senderIP,omitzero"`
	SenderMAC string     `json:"senderMAC,omitempty"`
	// TargetIP is the target's protocol address or the target of the NDP
	// message, TargetMAC the target's hardware address or the target
	// link-layer address option.
	TargetIP  netip.Addr `json:"targetIP,omitzero"`
	TargetMAC string     `json:"targetMAC,omitempty"`
	// Solicited, Override and Router are flags of advertisements.
	Solicited bool `json:"solicited,omitempty"`
	Override  bool `json:"override,omitempty"`
	Router    bool `json:"router,omitempty"`
	// Malformed says why every receiver has to drop the packet.
	Malformed string `json:"malformed,omitempty"`
}

// Gratuitous tells whether nobody has asked for it: an ARP packet with the
// sender's address as its target, or an unsolicited advertisement.
func (p *Packet) Gratuitous() bool {
	switch p.Kind {
	case ARPRequest, ARPReply:
		return p.SenderIP == p.TargetIP
	case Advertising:
		return !p.Solicited
	}
	return false
}

// Claim returns whose address the packet says to be at which MAC address. ARP
// probes and solicitations of duplicate address detection claim nothing.
func (p *Packet) Claim() (address netip.Addr, mac string, ok bool) {
	if p.Malformed != "" {
		return netip.Addr{}, "", false
	}
	switch p.Kind {
	case ARPRequest, ARPReply, Solicitation:
		return p.SenderIP, p.SenderMAC, !p.SenderIP.IsUnspecified() && p.SenderMAC != ""
	case Advertising:
		if p.TargetMAC == "" {
			return p.TargetIP, p.Source, true
		}
		return p.TargetIP, p.TargetMAC, true
	}
	return netip.Addr{}, "", false
}

// String shows the packet as one line.
func (p *Packet) String() string {
	text := fmt.Sprintf("%s %s %s > %s %s", p.Time.Format("15:04:05.000000"), p.Kind, p.Source, p.Destination, p.TargetIP)
	switch p.Kind {
	case ARPRequest, Solicitation:
		text += fmt.Sprintf(" asked by %s (%s)", p.SenderIP, p.SenderMAC)
	case ARPReply:
		text += fmt.Sprintf(" told that %s is at %s", p.SenderIP, p.SenderMAC)
	case Advertising:
		text += fmt.Sprintf(" is at %s, solicited %t, override %t", p.TargetMAC, p.Solicited, p.Override)
	}
	if p.Gratuitous() {
		text += ", gratuitous"
	}
	if p.Malformed != "" {
		text += ", malformed: " + p.Malformed
	}
	return text
}

// Numbers of the protocols.
const (
	etherHeader  = 14
	etherARP     = 0x0806
	etherIPv6    = 0x86dd
	etherVLAN    = 0x8100
	arpLength    = 28
	ipv6Header   = 40
	nextICMPv6   = 58
	typeNS       = 135
	typeNA       = 136
	ndLength     = 24 // of the message without options
	optionSource = 1
	optionTarget = 2
)

// parse reads a frame.
func parse(frame []byte) Packet {
	var p Packet
	if len(frame) < etherHeader {
		p.Malformed = "truncated"
		return p
	}
	p.Destination, p.Source = macText(frame[0:6]), macText(frame[6:12])
	body := frame[etherHeader:]
	switch binary.BigEndian.Uint16(frame[12:14]) {
	case etherARP:
		p.parseARP(body)
	case etherIPv6:
		p.parseIPv6(body)
	default:
		p.Malformed = "neither ARP nor IPv6"
	}
	return p
}

func (p *Packet) parseARP(b []byte) {
	if len(b) < 8 {
		p.Malformed = "truncated"
		return
	}
	switch binary.BigEndian.Uint16(b[6:8]) {
	case 1:
		p.Kind = ARPRequest
	case 2:
		p.Kind = ARPReply
	default:
		p.Malformed = "neither request nor reply"
		return
	}
	switch {
	case binary.BigEndian.Uint16(b[0:2]) != 1 || binary.BigEndian.Uint16(b[2:4]) != 0x0800:
		p.Malformed = "not IPv4 over Ethernet"
	case b[4] != 6 || b[5] != 4:
		p.Malformed = "wrong address lengths"
	case len(b) < arpLength:
		p.Malformed = "truncated"
	default:
		p.SenderMAC, p.TargetMAC = macText(b[8:14]), macText(b[18:24])
		p.SenderIP, p.TargetIP = netip.AddrFrom4([4]byte(b[14:18])), netip.AddrFrom4([4]byte(b[24:28]))
		if b[8]&1 != 0 {
			p.Malformed = "multicast sender"
		}
	}
}

func (p *Packet) parseIPv6(b []byte) {
	if len(b) < ipv6Header+ndLength {
		p.Malformed = "truncated"
		return
	}
	length := int(binary.BigEndian.Uint16(b[4:6]))
	icmp := b[ipv6Header:]
	switch icmp[0] {
	case typeNS:
		p.Kind = Solicitation
	case typeNA:
		p.Kind = Advertising
		p.Router, p.Solicited, p.Override = icmp[4]&0x80 != 0, icmp[4]&0x40 != 0, icmp[4]&0x20 != 0
	default:
		p.Malformed = "neither solicitation nor advertisement"
		return
	}
	p.SenderIP, p.TargetIP = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(icmp[8:24]))
	if length < ndLength || length > len(icmp) {
		p.Malformed = "wrong payload length"
		return
	}
	icmp = icmp[:length]
	switch {
	case b[7] != 255:
		p.Malformed = fmt.Sprintf("hop limit %d", b[7])
	case icmp[1] != 0:
		p.Malformed = fmt.Sprintf("code %d", icmp[1])
	case checksum(b[8:40], icmp) != 0:
		p.Malformed = "wrong checksum"
	case p.TargetIP.IsMulticast():
		p.Malformed = "multicast target"
	default:
		p.parseOptions(icmp[ndLength:])
	}
	if p.Malformed == "" && p.Kind == Solicitation && p.SenderIP.IsUnspecified() && p.SenderMAC != "" {
		p.Malformed = "source link-layer address of nobody" // RFC 4861 section 7.1.1
	}
}

func (p *Packet) parseOptions(b []byte) {
	for len(b) > 0 {
		if len(b) < 8 || b[1] == 0 || int(b[1])*8 > len(b) {
			p.Malformed = "wrong option length"
			return
		}
		option := b[:int(b[1])*8]
		b = b[len(option):]
		switch {
		case option[0] == optionSource && p.Kind == Solicitation:
			p.SenderMAC = macText(option[2:8])
		case option[0] == optionTarget && p.Kind == Advertising:
			p.TargetMAC = macText(option[2:8])
		}
	}
}

func macText(b []byte) string { return net.HardwareAddr(b).String() }

// checksum is that of ICMPv6 (RFC 4443 section 2.3); over a message that holds
// its checksum it is 0.
func checksum(addresses, icmp []byte) uint16 {
	sum := uint32(len(icmp)) + nextICMPv6
	for _, b := range [][]byte{addresses, icmp} {
		for i := 0; i+1 < len(b); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(b[i:]))
		}
		if len(b)%2 == 1 {
			sum += uint32(b[len(b)-1]) << 8
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
