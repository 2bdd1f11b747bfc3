package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"
)

// GarbleOptions describe malformed frames.
type GarbleOptions struct {
	// Interface to send on. Default eth0.
	Interface string `json:"interface,omitempty"`
	// Victims are the addresses that the frames are about, Strangers those
	// that they come from: single ones, ranges, or prefixes, of one family or
	// of both. No frame that a kernel could obey claims the address of a victim.
	Victims   []string `json:"victims"`
	Strangers []string `json:"strangers"`
	// Seed of the random numbers: equal seeds send equal frames.
	Seed uint64 `json:"seed,omitempty"`
	// Rate is how many frames to send each second. Default 1,000.
	Rate int `json:"rate,omitempty"`
	// Duration of it. Default 10s.
	Duration time.Duration `json:"duration,omitempty"`
}

// garble sends malformed frames.
func garble(ctx context.Context, o GarbleOptions, out *printer) (report Report, err error) {
	if o.Rate <= 0 {
		o.Rate = 1000
	}
	if o.Duration <= 0 {
		o.Duration = 10 * time.Second
	}
	p, err := open(o.Interface, nothing)
	if err != nil {
		return report, err
	}
	defer p.conn.Close()
	g, err := newGarbler(o, p.mac)
	if err != nil {
		return report, err
	}
	report.Kinds = map[string]int{}
	return report, transmit(ctx, p, o.Rate, o.Duration, out, &report, func(int) []byte {
		kind, frame := g.next()
		report.Kinds[kind]++
		return frame
	})
}

// parties are a victim and a stranger of one family.
type parties struct {
	victim, stranger netip.Addr
	mac              net.HardwareAddr // of the stranger
}

// garbler makes malformed frames.
type garbler struct {
	random             *rand.Rand
	source             net.HardwareAddr
	victims, strangers [2][]netip.Addr // IPv4, IPv6
	kinds              []garbleKind
}

type garbleKind struct {
	name string
	ipv6 bool
	make func(g *garbler, p parties) []byte
}

func newGarbler(o GarbleOptions, source net.HardwareAddr) (*garbler, error) {
	g := &garbler{random: rand.New(rand.NewPCG(o.Seed, 0)), source: source}
	for into, items := range map[*[2][]netip.Addr][]string{&g.victims: o.Victims, &g.strangers: o.Strangers} {
		addresses, err := Expand(items)
		if err != nil {
			return nil, err
		}
		for _, a := range addresses {
			into[family(a.Is6())] = append(into[family(a.Is6())], a)
		}
	}
	for _, kind := range garbleKinds {
		if f := family(kind.ipv6); len(g.victims[f]) > 0 && len(g.strangers[f]) > 0 {
			g.kinds = append(g.kinds, kind)
		}
	}
	if len(g.kinds) == 0 {
		return nil, errors.New("no victim and stranger of one family")
	}
	return g, nil
}

func family(ipv6 bool) int {
	if ipv6 {
		return 1
	}
	return 0
}

func (g *garbler) next() (string, []byte) {
	kind := g.kinds[g.random.IntN(len(g.kinds))]
	f := family(kind.ipv6)
	p := parties{
		victim:   g.victims[f][g.random.IntN(len(g.victims[f]))],
		stranger: g.strangers[f][g.random.IntN(len(g.strangers[f]))],
		// One of the addresses for documentation (RFC 7042 section 2.1.2).
		mac: net.HardwareAddr{0, 0, 0x5e, 0, 0x53, byte(g.random.IntN(256))},
	}
	return kind.name, kind.make(g, p)
}

func (g *garbler) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(g.random.IntN(256))
	}
	return b
}

// otherThan is a random number that is none of these.
func (g *garbler) otherThan(bound int, values ...int) int {
	for {
		n := g.random.IntN(bound)
		free := true
		for _, v := range values {
			free = free && n != v
		}
		if free {
			return n
		}
	}
}

func (g *garbler) arp(body []byte) []byte { return etherFrame(broadcast, g.source, etherARP, body) }

func (g *garbler) request(p parties) []byte {
	return arpBody(1, p.mac, p.stranger, nobody, p.victim)
}

func (g *garbler) arpClaim(p parties) []byte {
	return arpBody(uint16(1+g.random.IntN(2)), p.mac, p.victim, nobody, p.victim)
}

// nd sends to the victim's group, where the speaker listens.
func (g *garbler) nd(p parties, source netip.Addr, hopLimit byte, icmp []byte) []byte {
	group := solicitedNode(p.victim)
	return etherFrame(multicastMAC(group), g.source, etherIPv6, ipv6Body(source, group, hopLimit, icmp))
}

func (g *garbler) solicitation(p parties, options ...byte) []byte {
	return ndMessage(typeNS, 0, p.victim, options...)
}

func (g *garbler) ndClaim(p parties) []byte {
	return ndMessage(typeNA, flagOverride, p.victim, linkOption(optionTarget, p.mac)...)
}

// vlan puts a tag into a frame.
func (g *garbler) vlan(frame []byte) []byte {
	tag := binary.BigEndian.AppendUint16(nil, etherVLAN)
	tag = binary.BigEndian.AppendUint16(tag, uint16(1+g.random.IntN(4094)))
	return append(append(append([]byte(nil), frame[:12]...), tag...), frame[12:]...)
}

// flip turns over some bits.
func (g *garbler) flip(b []byte) []byte {
	for range 1 + g.random.IntN(4) {
		b[g.random.IntN(len(b))] ^= 1 << g.random.IntN(8)
	}
	return b
}

const etherMaximum = 1500

var garbleKinds = []garbleKind{
	{"arp-truncated", false, func(g *garbler, p parties) []byte { return g.arp(g.arpClaim(p)[:g.random.IntN(arpLength)]) }},
	{"arp-address-lengths", false, func(g *garbler, p parties) []byte {
		b := g.arpClaim(p)
		b[4], b[5] = byte(g.otherThan(256, 6)), byte(g.otherThan(256, 4))
		return g.arp(b)
	}},
	{"arp-types", false, func(g *garbler, p parties) []byte {
		b := g.arpClaim(p)
		binary.BigEndian.PutUint16(b[2:4], uint16(g.otherThan(1<<16, 0x0800)))
		return g.arp(b)
	}},
	{"arp-operation", false, func(g *garbler, p parties) []byte {
		b := g.arpClaim(p)
		binary.BigEndian.PutUint16(b[6:8], uint16(g.otherThan(1<<16, 1, 2)))
		return g.arp(b)
	}},
	{"arp-multicast-sender", false, func(g *garbler, p parties) []byte {
		p.mac = append(net.HardwareAddr{1, 0, 0x5e}, p.mac[3:]...)
		return g.arp(g.request(p))
	}},
	{"arp-broadcast-sender", false, func(g *garbler, p parties) []byte {
		p.mac = broadcast
		return g.arp(g.request(p))
	}},
	{"arp-oversized", false, func(g *garbler, p parties) []byte {
		return g.arp(append(g.request(p), g.bytes(etherMaximum-arpLength)...))
	}},
	{"arp-vlan", false, func(g *garbler, p parties) []byte { return g.vlan(g.arp(g.arpClaim(p))) }},
	{"arp-flipped", false, func(g *garbler, p parties) []byte {
		b := g.flip(g.request(p))
		copy(b[14:18], p.stranger.AsSlice()) // one bit off may be a victim
		return g.arp(b)
	}},
	{"arp-noise", false, func(g *garbler, _ parties) []byte { return g.arp(g.bytes(g.random.IntN(etherMaximum))) }},

	{"nd-truncated", true, func(g *garbler, p parties) []byte {
		frame := g.nd(p, p.stranger, 255, g.ndClaim(p))
		return frame[:etherHeader+g.random.IntN(ipv6Header+ndLength)]
	}},
	{"nd-zero-option", true, func(g *garbler, p parties) []byte {
		return g.nd(p, p.stranger, 255, append(g.ndClaim(p), g.bytes(1)[0], 0, 0, 0, 0, 0, 0, 0))
	}},
	{"nd-long-option", true, func(g *garbler, p parties) []byte {
		b := g.ndClaim(p)
		b[ndLength+1] = byte(2 + g.random.IntN(254))
		return g.nd(p, p.stranger, 255, b)
	}},
	{"nd-odd-option", true, func(g *garbler, p parties) []byte {
		return g.nd(p, p.stranger, 255, append(g.ndClaim(p), g.bytes(1+g.random.IntN(7))...))
	}},
	{"nd-many-options", true, func(g *garbler, p parties) []byte {
		b := g.solicitation(p)
		for len(b) < 1400 {
			b = append(b, byte(g.otherThan(256, optionSource)), 1, 0, 0, 0, 0, 0, 0)
		}
		return g.nd(p, p.stranger, 255, b)
	}},
	{"nd-wide-address", true, func(g *garbler, p parties) []byte {
		option := append([]byte{optionSource, 2}, g.bytes(14)...)
		option[2] |= 1
		return g.nd(p, p.stranger, 255, g.solicitation(p, option...))
	}},
	{"nd-hop-limit", true, func(g *garbler, p parties) []byte {
		return g.nd(p, p.victim, byte(g.otherThan(255)), g.ndClaim(p))
	}},
	{"nd-checksum", true, func(g *garbler, p parties) []byte {
		frame := g.nd(p, p.victim, 255, g.ndClaim(p))
		frame[etherHeader+ipv6Header+2] ^= byte(1 + g.random.IntN(255))
		return frame
	}},
	{"nd-code", true, func(g *garbler, p parties) []byte {
		b := g.ndClaim(p)
		b[1] = byte(1 + g.random.IntN(255))
		return g.nd(p, p.victim, 255, b)
	}},
	{"nd-multicast-target", true, func(g *garbler, p parties) []byte {
		return g.nd(p, p.stranger, 255, ndMessage(typeNS, 0, solicitedNode(p.victim), linkOption(optionSource, p.mac)...))
	}},
	{"nd-payload-length", true, func(g *garbler, p parties) []byte {
		frame := g.nd(p, p.victim, 255, g.ndClaim(p))
		binary.BigEndian.PutUint16(frame[etherHeader+4:], uint16(g.otherThan(1<<16, ndLength+8)))
		return frame
	}},
	{"nd-probe-with-address", true, func(g *garbler, p parties) []byte {
		return g.nd(p, netip.IPv6Unspecified(), 255, g.solicitation(p, linkOption(optionSource, p.mac)...))
	}},
	{"nd-multicast-sender", true, func(g *garbler, p parties) []byte {
		p.mac = append(net.HardwareAddr{0x33, 0x33, 0}, p.mac[3:]...)
		return g.nd(p, p.stranger, 255, g.solicitation(p, linkOption(optionSource, p.mac)...))
	}},
	{"nd-vlan", true, func(g *garbler, p parties) []byte { return g.vlan(g.nd(p, p.victim, 255, g.ndClaim(p))) }},
	{"nd-flipped", true, func(g *garbler, p parties) []byte {
		return g.nd(p, p.stranger, 255, g.flip(g.solicitation(p, linkOption(optionSource, p.mac)...)))
	}},
	{"nd-noise", true, func(g *garbler, p parties) []byte {
		b := append([]byte{byte(typeNS + g.random.IntN(2))}, g.bytes(3+g.random.IntN(1400))...)
		return g.nd(p, p.stranger, 255, b)
	}},
}
