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

// arp and ndp are written from the last instruction to the first, because BPF
// jumps forward only and a jump must know where it leads.

func arp(index int, ranges []span) *program {
	p := newProgram()
	search := func(offset uint32, no *label) *label {
		s := searcher{program: p, yes: p.accept, no: no}
		s.load = func(_ int, next *label) *label { return p.load(offset, 4, next) }
		return s.search(ranges, ipv4)
	}
	target := search(arpTargetOffset, p.reject)
	isRequest := p.recall(arpOperation, p.test(bpf.JumpEqual, arpRequest, target, p.reject))
	sender := search(arpSenderOffset, isRequest)
	isReply := p.test(bpf.JumpEqual, arpReply, sender, p.reject)
	isEither := p.test(bpf.JumpEqual, arpRequest, sender, isReply)
	lengths := p.remember(arpLengthsOffset, arpOperation, isEither)
	p.renew()
	header := p.check(arpHeaderOffset, 4, arpIPv4OverEthernet, lengths)
	p.incoming(index, p.check(etherTypeOffset, 2, etherTypeARP, header))
	return p
}

func ndp(index int, ranges []span) *program {
	p := newProgram()
	s := searcher{program: p, load: p.recall, yes: p.accept, no: p.reject}
	target := s.search(ranges, ipv6)
	for word := lastWord; word >= ipv6; word-- {
		target = p.remember(ndpTargetOffset+4*uint32(word), word, target)
	}
	p.renew()
	isAdvertisement := p.test(bpf.JumpEqual, advertisement, target, p.reject)
	message := p.load(icmpTypeOffset, 2, p.test(bpf.JumpEqual, solicitation, target, isAdvertisement))
	next := p.check(ipv6NextOffset, 2, icmpv6Unforwarded, message)
	belowVersion7 := p.test(bpf.JumpLessThan, 7<<4, next, p.reject)
	version := p.load(ipv6VersionOffset, 1, p.test(bpf.JumpGreaterOrEqual, 6<<4, belowVersion7, p.reject))
	p.incoming(index, p.check(etherTypeOffset, 2, etherTypeIPv6, version))
	return p
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
