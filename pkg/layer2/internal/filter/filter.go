package filter

import (
	"go4.org/netipx"
	"golang.org/x/net/bpf"
)

// What stands where in a frame, Ethernet header included.
const (
	etherTypeOffset = 12

	arpHeaderOffset  = 14 // hardware and protocol type
	arpLengthsOffset = 18 // lengths of the addresses, operation
	arpSenderOffset  = 28
	arpTargetOffset  = 38

	ipv6VersionOffset = 14
	ipv6NextOffset    = 20 // next header and hop limit
	ipv6SourceOffset  = 22
	icmpTypeOffset    = 54 // type and code
	ndpTargetOffset   = 62
)

const (
	etherTypeARP  = 0x0806
	etherTypeIPv6 = 0x86dd

	arpIPv4OverEthernet = 0x0001_0800
	arpRequest          = 0x0604_0001
	arpReply            = 0x0604_0002
	// arpOperation is where these are remembered.
	arpOperation = 0

	icmpv6Unforwarded = 58<<8 | 255
	solicitation      = 135 << 8
	advertisement     = 136 << 8

	// packetOtherHost and packetOutgoing are PACKET_OTHERHOST and PACKET_OUTGOING
	// of linux/if_packet.h.
	packetOtherHost = 3
	packetOutgoing  = 4
	// wholeFrame is longer than any frame: what is accepted is not cut.
	wholeFrame = 0x40000
)

// ARP is a program for a socket that is bound to ETH_P_ARP and the interface of
// that index. It accepts frames to the interface of ARP about IPv4 on Ethernet:
// requests for an address of the set, and requests and replies whose sender says
// that it has one. IPv6 ranges are ignored.
func ARP(index int, addresses []netipx.IPRange) ([]bpf.RawInstruction, error) {
	ranges, err := normalize(addresses, ipv4)
	if err != nil {
		return nil, err
	}
	return fitting(ranges, ipv4, func(ranges []span) *program { return arp(index, ranges) })
}

// NDP is a program for a socket that is bound to ETH_P_IPV6 and the interface of
// that index. It accepts frames to the interface of Neighbor Solicitations and
// Advertisements whose target is in the set and that no router has forwarded.
// IPv4 ranges are ignored. Solicitations that only come from an address of the
// set are not accepted: whoever has that address has announced or probed it with
// the address as target before.
func NDP(index int, addresses []netipx.IPRange) ([]bpf.RawInstruction, error) {
	ranges, err := normalize(addresses, ipv6)
	if err != nil {
		return nil, err
	}
	return fitting(ranges, ipv6, func(ranges []span) *program { return ndp(index, ranges) })
}

// ARPFrom is like ARP, but accepts only what a host of the set sends: requests and
// replies whose sender has an address of it.
func ARPFrom(index int, hosts []netipx.IPRange) ([]bpf.RawInstruction, error) {
	ranges, err := normalize(hosts, ipv4)
	if err != nil {
		return nil, err
	}
	return fitting(ranges, ipv4, func(ranges []span) *program { return arpFrom(index, ranges) })
}

// NDPFrom is like NDP, but accepts only what a host of the set sends:
// Solicitations and Advertisements whose source is in it, and Advertisements whose
// target is.
func NDPFrom(index int, hosts []netipx.IPRange) ([]bpf.RawInstruction, error) {
	ranges, err := normalize(hosts, ipv6)
	if err != nil {
		return nil, err
	}
	return fitting(ranges, ipv6, func(ranges []span) *program { return ndpFrom(index, ranges) })
}

// The programs are written from the last instruction to the first, because BPF
// jumps forward only and a jump must know where it leads.

func arp(index int, ranges []span) *program {
	p := newProgram()
	target := p.find(ranges, ipv4, arpTargetOffset, p.reject)
	isRequest := p.recall(arpOperation, p.test(bpf.JumpEqual, arpRequest, target, p.reject))
	sender := p.find(ranges, ipv4, arpSenderOffset, isRequest)
	lengths := p.remember(arpLengthsOffset, arpOperation, p.operation(sender))
	p.renew()
	p.arp(index, lengths)
	return p
}

func arpFrom(index int, ranges []span) *program {
	p := newProgram()
	sender := p.find(ranges, ipv4, arpSenderOffset, p.reject)
	p.arp(index, p.load(arpLengthsOffset, 4, p.operation(sender)))
	return p
}

// operation leads to next if requests or replies with the right lengths are
// loaded.
func (p *program) operation(next *label) *label {
	isReply := p.test(bpf.JumpEqual, arpReply, next, p.reject)
	return p.test(bpf.JumpEqual, arpRequest, next, isReply)
}

// arp leads to next for frames of ARP about IPv4 on Ethernet.
func (p *program) arp(index int, next *label) {
	header := p.check(arpHeaderOffset, 4, arpIPv4OverEthernet, next)
	p.incoming(index, p.check(etherTypeOffset, 2, etherTypeARP, header))
}

func ndp(index int, ranges []span) *program {
	p := newProgram()
	s := searcher{program: p, load: p.recall, yes: p.accept, no: p.reject}
	target := s.search(ranges, ipv6)
	for word := lastWord; word >= ipv6; word-- {
		target = p.remember(ndpTargetOffset+4*uint32(word), word, target)
	}
	p.renew()
	p.ndp(index, target, target)
	return p
}

func ndpFrom(index int, ranges []span) *program {
	p := newProgram()
	source := p.find(ranges, ipv6, ipv6SourceOffset, p.reject)
	p.ndp(index, source, p.find(ranges, ipv6, ndpTargetOffset, source))
	return p
}

// ndp leads to one of the labels for Solicitations and Advertisements.
func (p *program) ndp(index int, solicited, advertised *label) {
	isAdvertisement := p.test(bpf.JumpEqual, advertisement, advertised, p.reject)
	message := p.load(icmpTypeOffset, 2, p.test(bpf.JumpEqual, solicitation, solicited, isAdvertisement))
	next := p.check(ipv6NextOffset, 2, icmpv6Unforwarded, message)
	belowVersion7 := p.test(bpf.JumpLessThan, 7<<4, next, p.reject)
	version := p.load(ipv6VersionOffset, 1, p.test(bpf.JumpGreaterOrEqual, 6<<4, belowVersion7, p.reject))
	p.incoming(index, p.check(etherTypeOffset, 2, etherTypeIPv6, version))
}

// find searches for the address at the offset, and leads to no if it is not in the
// set.
func (p *program) find(ranges []span, family int, offset uint32, no *label) *label {
	s := searcher{program: p, yes: p.accept, no: no}
	s.load = func(word int, next *label) *label { return p.load(offset+4*uint32(word-family), 4, next) }
	return s.search(ranges, family)
}

// incoming leads to next for frames that the interface of that index received for
// itself or for all.
//
// Where a NIC is in several VLANs, a socket bound to a protocol gets the frames of
// all of them, with the tag taken away. Those of a VLAN that the node does not know
// have the type of frames for other hosts, as frames for other MAC addresses have
// while the interface is promiscuous; those of a VLAN interface have its index. A
// frame of VLAN 0 has only a priority, and is the interface's own.
func (p *program) incoming(index int, next *label) {
	own := p.extension(bpf.ExtInterfaceIndex, p.test(bpf.JumpEqual, uint32(index), next, p.reject))
	notOutgoing := p.test(bpf.JumpNotEqual, packetOutgoing, own, p.reject)
	p.extension(bpf.ExtType, p.test(bpf.JumpNotEqual, packetOtherHost, notOutgoing, p.reject))
}
