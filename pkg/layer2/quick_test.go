package layer2

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/layer2/internal/wire"
)

// TestQuick does anything in any order, and looks after each step whether the
// book is in order.
func TestQuick(t *testing.T) {
	for seed := range uint64(200) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 0))
			s := newSim(t)
			s.reply = func(l *link, m *wire.Message) {
				if m.Probe() && random.IntN(20) == 0 {
					s.claim(m.Target, anyMAC(random))
				}
			}
			wanted := State{}
			for range 200 {
				s.log = nil
				switch random.IntN(13) {
				case 0, 1:
					wanted = anyState(random)
					s.set(wanted)
				case 2, 3:
					s.run(time.Duration(random.Int64N(int64(time.Second))))
				case 4:
					s.run(time.Duration(random.Int64N(int64(time.Minute))))
				case 5, 6:
					s.claim(anyAddr(random), anyMAC(random))
				case 7:
					s.probe(anyAddr(random), anyMAC(random))
				case 8:
					for _, l := range s.b.links {
						if f := family(random.IntN(2)); l.open[f] {
							s.b.closed(l, f, s.now)
							s.b.dirty = true
						}
					}
				case 9:
					s.refuse = nil
					if random.IntN(3) == 0 {
						s.refuse = unix.ENOBUFS
					}
					s.refuses = nil
					if deaf := family(random.IntN(4)); deaf < families {
						s.refuses = func(l *link, f family, _ []byte) bool { return f == deaf && l.name != "eth1" }
					}
				case 10:
					s.answer(anyAddr(random), anyMAC(random))
				case 11:
					for _, question := range asking(anyAddr(random)) {
						s.receive(question)
					}
				case 12:
					_ = s.b.check(2, anyAddr(random), fellowMAC) // there may be nothing to check
				}
				s.check(wanted)
				if t.Failed() {
					return
				}
			}
			// Left alone, everything that can be announced is.
			s.refuse, s.refuses, s.reply = nil, nil, nil
			s.set(wanted)
			s.run(30 * time.Second)
			s.check(wanted)
			for addr, e := range s.b.entries {
				if len(e.places) > 0 && e.phase != announced && e.phase != aside {
					t.Errorf("%v is left in phase %d", addr, e.phase)
				}
			}
			s.run(10 * time.Minute)
			s.conflicts()
			s.set(State{})
			if len(s.b.links)+len(s.b.entries)+len(s.b.wakes)+s.b.conflicts > 0 {
				t.Errorf("an empty state leaves %d links, %d entries, %d wakes, %d conflicts",
					len(s.b.links), len(s.b.entries), len(s.b.wakes), s.b.conflicts)
			}
		})
	}
}

func anyAddr(random *rand.Rand) netip.Addr {
	pool := []netip.Addr{vip, vip6, vip.Next(), vip6.Next(), self, netip.MustParseAddr("2001:db8::1")}
	return pool[random.IntN(len(pool))]
}

func anyMAC(random *rand.Rand) announce.MAC {
	pool := []announce.MAC{fellowMAC, lowFellow, thiefMAC, vrrpMAC, {2, 2, 2, 2, 2, byte(random.IntN(100))}}
	return pool[random.IntN(len(pool))]
}

func anyState(random *rand.Rand) State {
	state := State{Fellows: []announce.MAC{fellowMAC}}
	for n := range 3 {
		i := eth(n)
		i.Carrier = random.IntN(4) > 0
		if random.IntN(5) == 0 {
			i.MAC[2] = byte(random.IntN(3))
		}
		if random.IntN(8) == 0 {
			i.Index += 10
		}
		if random.IntN(8) == 0 {
			i.Prefixes = nil
		}
		if random.IntN(6) > 0 {
			state.Interfaces = append(state.Interfaces, i)
		}
	}
	for _, addr := range []netip.Addr{vip, vip6, vip.Next(), vip6.Next()} {
		if random.IntN(4) == 0 {
			continue
		}
		g := Group{Addresses: []netip.Addr{addr}, Caution: Caution(random.IntN(3))}
		if random.IntN(2) == 0 {
			g.Role = Role(random.IntN(3))
			g.Owner = map[string]announce.MAC{"eth0": fellowMAC, "eth1": lowFellow}
		}
		switch random.IntN(3) {
		case 0:
			g.Interfaces = []string{"eth*"}
		case 1:
			g.Interfaces = []string{fmt.Sprintf("eth%d", random.IntN(3))}
		}
		state.Groups = append(state.Groups, g)
		if random.IntN(10) == 0 {
			state.Gateways = append(state.Gateways, addr)
		}
		if random.IntN(5) == 0 {
			state.Bound = append(state.Bound, addr)
		}
		if random.IntN(20) == 0 && len(state.Interfaces) > 0 {
			i := &state.Interfaces[0]
			i.Prefixes = append(i.Prefixes, netip.PrefixFrom(addr, addr.BitLen()))
		}
	}
	return state
}

// check looks whether everything fits together.
func (s *sim) check(state State) {
	s.t.Helper()
	b := s.b
	want := make(map[netip.Addr]Group)
	for _, g := range state.Groups {
		for _, addr := range g.Addresses {
			taken := slices.ContainsFunc(state.Interfaces, func(i Interface) bool {
				return slices.Contains(i.Prefixes, netip.PrefixFrom(addr, addr.BitLen()))
			})
			if !slices.Contains(state.Gateways, addr) && (!taken || slices.Contains(state.Bound, addr)) {
				want[addr] = g
			}
		}
	}
	if len(want) != len(b.entries) {
		s.t.Errorf("%d entries, want %d", len(b.entries), len(want))
	}
	conflicts, places := 0, 0
	for addr, e := range b.entries {
		chosen, _ := NewSelection(state.Interfaces, state.Reach, want[addr].Interfaces).Of(addr)
		if len(chosen) != len(e.places) {
			s.t.Errorf("%v has %d places, want %d", addr, len(e.places), len(chosen))
		}
		for i, p := range e.places {
			places++
			if p.link != b.links[state.Interfaces[chosen[i]].Index] || p.link.places[addr] != p {
				s.t.Errorf("%v is at the wrong place", addr)
			}
			d, known := p.link.station.known[addr]
			aside := d.stance == covers || d.stance == waits
			if !known || d != p.duty || (d.stance == answers) != (e.phase == announced) || aside != (want[addr].Role != Own) {
				s.t.Errorf("%v in phase %d: known %v, duty %+v", addr, e.phase, known, d)
			}
			owner, named := want[addr].Owner[p.link.name]
			if covering := named && want[addr].Role == Cover; covering != (d == duty{stance: covers, owner: owner}) {
				s.t.Errorf("%v on %s: duty %+v, want %+v", addr, p.link.name, d, want[addr])
			}
			if aside && (p.queued || p.asserting || !p.due.IsZero()) {
				s.t.Errorf("%v is another node's, and something is to be sent: %+v", addr, p)
			}
			if p.open() && !p.queued && p.due.IsZero() && (e.phase == announced || e.asking && !p.done) {
				s.t.Errorf("%v in phase %d waits for nothing: %+v", addr, e.phase, p)
			}
		}
		if e.conflict != nil {
			if !e.conflict.Held {
				conflicts++
			}
			if e.conflict.Held && e.phase == announced {
				s.t.Errorf("%v is announced with %+v", addr, e.conflict)
			}
		}
		if e.caution == Certain && e.role == Own && len(e.places) > 0 && e.phase != announced {
			s.t.Errorf("%v is certain, but in phase %d", addr, e.phase)
		}
		// Early is harmless: the time of a suspect, whom several entries may wait
		// for, has moved. Late may be what advance adds to what is over already.
		if at := e.deadline(); !at.IsZero() && (e.wake.IsZero() || e.wake.After(at) && e.wake.After(s.now.Add(slotTime))) {
			s.t.Errorf("%v in phase %d wakes at %v, should at %v", addr, e.phase, e.wake.Sub(s.start), at.Sub(s.start))
		}
		if (e.index >= 0) == e.wake.IsZero() || e.index >= 0 && b.wakes[e.index] != e {
			s.t.Errorf("%v: index %d, wake %v", addr, e.index, e.wake)
		}
	}
	if conflicts != b.conflicts {
		s.t.Errorf("%d conflicts counted, there are %d", b.conflicts, conflicts)
	}
	for _, l := range b.links {
		places -= len(l.places)
		for f := range families {
			if _, known := l.station.known[l.watched[f]]; l.watched[f].IsValid() && !known {
				s.t.Errorf("%v is asked for, but not listened to", l.watched[f])
			}
		}
		for addr := range l.station.known {
			if l.places[addr] == nil && !slices.Contains(l.watched[:], addr) {
				s.t.Errorf("%s still knows %v", l.name, addr)
			}
		}
	}
	if places != 0 {
		s.t.Errorf("%d places are on one side only", places)
	}
}
