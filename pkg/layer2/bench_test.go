package layer2

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/layer2/internal/wire"
)

// BenchmarkAnswer is the way from a frame in the buffer to the one that is sent.
func BenchmarkAnswer(b *testing.B) {
	for name, request := range map[string][]byte{
		"ARP":   arpRequest(thiefMAC, client, vip, broadcastMAC),
		"NDP":   solicitation(thiefMAC, client6, vip6, nil, true, nil),
		"other": arpRequest(thiefMAC, client, netip.MustParseAddr("192.0.2.11"), broadcastMAC),
		// Remembered, and not answered.
		"standby": arpRequest(thiefMAC, client, vip, broadcastMAC),
	} {
		b.Run(name, func(b *testing.B) {
			book := newBook()
			state := one(Certain, append(many(10_000), vip, vip6)...)
			state.Groups[0].Interfaces = []string{"eth0"}
			if name == "standby" {
				state = in(Standby, state)
			}
			book.apply(compile(&state), time.Now())
			s := book.links[2].station
			sent := 0
			send := func([]byte) error { sent++; return nil }
			b.ReportAllocs()
			for b.Loop() {
				s.receive(request, send)
			}
			if (sent > 0) != (name == "ARP" || name == "NDP") {
				b.Errorf("%d answers", sent)
			}
		})
	}
}

// BenchmarkClaim is a claim that reaches the book.
func BenchmarkClaim(b *testing.B) {
	book := newBook()
	state := wide(10_000, Certain)
	now := time.Now()
	book.apply(compile(&state), now)
	l := book.links[2]
	m := wire.Message{Kind: wire.ARPRequest, Sender: many(1)[0], SenderMAC: thiefMAC, Target: many(1)[0]}
	b.ReportAllocs()
	n := uint32(0)
	for b.Loop() {
		n++
		m.SenderMAC = announce.MAC{2, 1, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
		now = now.Add(time.Millisecond)
		book.hear(l, &m, now)
	}
}

// BenchmarkSet changes one of many addresses.
func BenchmarkSet(b *testing.B) {
	for _, n := range []int{2_000, 10_000} {
		for _, change := range []string{"one", "none", "interface", "standby", "cover"} {
			b.Run(fmt.Sprintf("%d/%s", n, change), func(b *testing.B) {
				states := [2]State{wide(n, Certain), wide(n+1, Certain)}
				switch change {
				case "none":
					states[1] = wide(n, Certain)
				case "interface":
					states[1] = wide(n, Certain)
					states[1].Interfaces = append(states[1].Interfaces, eth(1))
				case "standby":
					states[0], states[1] = in(Standby, states[0]), in(Standby, states[1])
				case "cover":
					states[0], states[1] = in(Standby, states[0]), in(Cover, states[0])
				}
				a := New(Config{})
				a.Set(states[0])
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					a.Set(states[(i+1)%2])
				}
			})
		}
	}
}

// BenchmarkSockets is what a change of one address costs besides Set: the ranges
// and groups of the sockets.
func BenchmarkSockets(b *testing.B) {
	book := newBook()
	state := wide(10_000, Certain)
	book.apply(compile(&state), time.Now())
	b.ReportAllocs()
	for b.Loop() {
		for _, w := range book.wanted() {
			w.ranges()
		}
	}
}
