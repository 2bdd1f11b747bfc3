package wire

import (
	"encoding/binary"
	"net"
	"net/netip"
)

var (
	broadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	nobody    = net.HardwareAddr{0, 0, 0, 0, 0, 0}
	allNodes  = netip.MustParseAddr("ff02::1")
)

func etherFrame(destination, source net.HardwareAddr, kind uint16, body []byte) []byte {
	frame := make([]byte, 0, etherHeader+len(body))
	frame = append(frame, destination...)
	frame = append(frame, source...)
	frame = binary.BigEndian.AppendUint16(frame, kind)
	return append(frame, body...)
}

// arpBody is an ARP packet for IPv4 over Ethernet.
func arpBody(operation uint16, senderMAC net.HardwareAddr, sender netip.Addr, targetMAC net.HardwareAddr, target netip.Addr) []byte {
	b := []byte{0, 1, 8, 0, 6, 4}
	b = binary.BigEndian.AppendUint16(b, operation)
	b = append(b, senderMAC...)
	b = append(b, sender.AsSlice()...)
	b = append(b, targetMAC...)
	return append(b, target.AsSlice()...)
}

// ndMessage is a solicitation or an advertisement without its checksum.
func ndMessage(kind, flags byte, target netip.Addr, options ...byte) []byte {
	b := []byte{kind, 0, 0, 0, flags, 0, 0, 0}
	b = append(b, target.AsSlice()...)
	return append(b, options...)
}

// linkOption is an option with a link-layer address.
func linkOption(kind byte, mac net.HardwareAddr) []byte {
	return append([]byte{kind, 1}, mac...)
}

// ipv6Body is an IPv6 packet with a message of ICMPv6, whose checksum it sets.
func ipv6Body(source, destination netip.Addr, hopLimit byte, icmp []byte) []byte {
	b := []byte{0x60, 0, 0, 0}
	b = binary.BigEndian.AppendUint16(b, uint16(len(icmp)))
	b = append(b, nextICMPv6, hopLimit)
	b = append(b, source.AsSlice()...)
	b = append(b, destination.AsSlice()...)
	b = append(b, icmp...)
	message := b[ipv6Header:]
	message[2], message[3] = 0, 0
	binary.BigEndian.PutUint16(message[2:4], checksum(b[8:40], message))
	return b
}

// solicitedNode is the multicast group of an address (RFC 4291 section 2.7.1).
func solicitedNode(target netip.Addr) netip.Addr {
	group := netip.MustParseAddr("ff02::1:ff00:0").As16()
	t := target.As16()
	copy(group[13:], t[13:])
	return netip.AddrFrom16(group)
}

// multicastMAC is the Ethernet address of a group (RFC 2464 section 7).
func multicastMAC(group netip.Addr) net.HardwareAddr {
	g := group.As16()
	return net.HardwareAddr{0x33, 0x33, g[12], g[13], g[14], g[15]}
}

// request asks for an address. The zero sender is a probe.
func request(mac net.HardwareAddr, sender, target netip.Addr, to net.HardwareAddr, option bool) []byte {
	if target.Is4() {
		if to == nil {
			to = broadcast
		}
		return etherFrame(to, mac, etherARP, arpBody(1, mac, sender, nobody, target))
	}
	var options []byte
	if option {
		options = linkOption(optionSource, mac)
	}
	destination := target
	if to == nil {
		destination = solicitedNode(target)
		to = multicastMAC(destination)
	}
	return etherFrame(to, mac, etherIPv6, ipv6Body(sender, destination, 255, ndMessage(typeNS, 0, target, options...)))
}

// Flags of advertisements.
const (
	flagSolicited = 0x40
	flagOverride  = 0x20
)

// answer answers a request on behalf of the host with the MAC address.
func answer(p *Packet, source, mac net.HardwareAddr) ([]byte, error) {
	to, err := net.ParseMAC(p.Source)
	if err != nil {
		return nil, err
	}
	if p.Kind == ARPRequest {
		asker, err := net.ParseMAC(p.SenderMAC)
		if err != nil {
			return nil, err
		}
		return etherFrame(to, source, etherARP, arpBody(2, mac, p.TargetIP, asker, p.SenderIP)), nil
	}
	flags, destination := byte(flagSolicited|flagOverride), p.SenderIP
	if destination.IsUnspecified() {
		flags, destination, to = flagOverride, allNodes, multicastMAC(allNodes)
	}
	message := ndMessage(typeNA, flags, p.TargetIP, linkOption(optionTarget, mac)...)
	return etherFrame(to, source, etherIPv6, ipv6Body(p.TargetIP, destination, 255, message)), nil
}

// gratuitous claims an address unasked.
func gratuitous(address netip.Addr, source, mac net.HardwareAddr, reply bool) []byte {
	if address.Is6() {
		message := ndMessage(typeNA, flagOverride, address, linkOption(optionTarget, mac)...)
		return etherFrame(multicastMAC(allNodes), source, etherIPv6, ipv6Body(address, allNodes, 255, message))
	}
	operation, target := uint16(1), nobody
	if reply {
		// Linux takes a reply as gratuitous only if the sender is its target.
		operation, target = 2, mac
	}
	return etherFrame(broadcast, source, etherARP, arpBody(operation, mac, address, target, address))
}
