package layer2

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/layer2/internal/wire"
)

// TestSlowProxy has a proxy that puts off its answers (RFC 4861 section 7.2.8).
// What hosts alone are asked, it answers at once.
func TestSlowProxy(t *testing.T) {
	for _, addr := range []netip.Addr{vip, vip6} {
		for seed := range uint64(100) {
			random := rand.New(rand.NewPCG(seed, 1))
			s := newSim(t)
			type answer struct {
				at   time.Time
				addr netip.Addr
			}
			var answers []answer
			s.reply = func(_ *link, m *wire.Message) {
				delay := time.Duration(random.Int64N(int64(time.Second)))
				if m.Destination == thiefMAC && addr.Is4() {
					delay = 0
				}
				if m.Probe() {
					answers = append(answers, answer{s.now.Add(delay), m.Target})
				}
			}
			s.set(one(Fresh, addr))
			for s.now.Sub(s.start) < 8*time.Second {
				s.run(5 * time.Millisecond)
				for i := 0; i < len(answers); i++ {
					if a := answers[i]; !a.at.After(s.now) {
						answers = append(answers[:i], answers[i+1:]...)
						i--
						s.answer(a.addr, thiefMAC)
					}
				}
				if s.b.entries[addr].phase == held {
					t.Fatalf("seed %d: %v is held because of a proxy", seed, addr)
				}
			}
			s.is(addr, announced)
		}
	}
}

// TestQuestions: a suspect is asked twice, the second time alone, and no address
// is held before its time is over.
func TestQuestions(t *testing.T) {
	for _, addr := range []netip.Addr{vip, vip6} {
		s := newSim(t)
		var to []announce.MAC
		s.reply = func(_ *link, m *wire.Message) {
			if m.Probe() && m.Target != addr {
				to = append(to, m.Destination)
			}
		}
		s.set(one(Fresh, addr))
		s.run(150 * time.Millisecond)
		s.claim(addr, thiefMAC)
		s.run(probeInterval + checkTime[familyOf(addr)] - time.Millisecond)
		s.is(addr, probing)
		s.run(2 * time.Millisecond)
		s.is(addr, held)
		if len(to) != 2 || to[0][0]&1 == 0 || to[1] != thiefMAC {
			t.Errorf("%v: questions to %v", addr, to)
		}
	}
}

// TestFellowProxy has a node that answers for everything.
func TestFellowProxy(t *testing.T) {
	for _, caution := range []Caution{Fresh, Doubtful} {
		s := newSim(t)
		s.reply = func(_ *link, m *wire.Message) {
			if m.Probe() {
				s.claim(m.Target, fellowMAC)
			}
		}
		s.set(one(caution, vip))
		s.run(time.Second)
		s.is(vip, announced)
		s.conflicts(conflictOf(vip, fellowMAC, false, true))
		s.claim(vip, fellowMAC) // it is known
		s.is(vip, announced)
	}
}

// TestOldOwner: a node that answers for a new address has it, or has not yet been
// told that it has it no more.
func TestOldOwner(t *testing.T) {
	s := newSim(t)
	s.reply = func(_ *link, m *wire.Message) {
		if m.Probe() && (m.Target == vip || m.Target == vip6) {
			s.claim(m.Target, fellowMAC)
		}
	}
	s.set(one(Fresh, vip))
	s.run(time.Second)
	s.is(vip, held)
	s.conflicts(conflictOf(vip, fellowMAC, true, false))
	s.run(time.Minute)
	s.is(vip, held)
	s.reply = nil
	s.run(yieldTime + 500*time.Millisecond)
	s.is(vip, announced)
	s.conflicts()

	// kube-proxy has made all nodes' kernels answer ARP for it.
	s = newSim(t)
	s.reply = func(_ *link, m *wire.Message) {
		if m.Probe() && (m.Target == vip || m.Target == vip6) {
			s.claim(m.Target, fellowMAC)
		}
	}
	state := one(Fresh, vip, vip6)
	state.Bound = []netip.Addr{vip, vip6}
	s.set(state)
	s.run(3 * time.Second)
	s.is(vip, announced)
	s.is(vip6, held) // no kernel does that by NDP
	s.conflicts(conflictOf(vip6, fellowMAC, true, false))
}

// TestClosedSuspects: without a socket nothing is decided, and nothing is to be
// done.
func TestClosedSuspects(t *testing.T) {
	s := newSim(t)
	s.reply = func(_ *link, m *wire.Message) {
		if m.Probe() {
			s.claim(m.Target, thiefMAC) // a proxy
		}
	}
	s.set(one(Fresh, vip))
	s.run(20 * time.Millisecond)
	s.b.closed(s.b.links[2], ipv4, s.now)
	turns := 0
	for end := s.now.Add(10 * time.Second); ; turns++ {
		next := s.b.turn(s.now, s.send)
		if next.IsZero() || next.After(end) {
			break
		}
		s.now = next
	}
	if turns > 5 {
		t.Errorf("%d turns in 10 s", turns)
	}
	s.b.opened(s.b.links[2], ipv4, s.now)
	s.run(time.Second)
	s.is(vip, announced)
}

// TestOwnAddressMoves: what was the node's own address, asked for just now, may
// become one to announce.
func TestOwnAddressMoves(t *testing.T) {
	s := newSim(t)
	s.set(one(Certain, vip))
	s.run(8 * time.Second)
	s.claim(vip, thiefMAC)
	if s.b.links[2].watched[ipv4] != self {
		t.Fatal("the node's address is not asked for")
	}
	state := one(Certain, vip, self)
	state.Interfaces[0].Prefixes = []netip.Prefix{netip.MustParsePrefix("192.0.2.2/24")}
	s.set(state)
	s.claim(self, otherNIC) // no answer to the question any more
	if c := s.b.entries[self].conflict; c == nil || c.MAC != otherNIC {
		t.Errorf("conflict %+v", c)
	}
	s.run(5 * time.Second)
	s.is(self, announced)
	if s.b.links[2].watched[ipv4].IsValid() {
		t.Error("the check has not ended")
	}
	// And the other way round: then it is announced no longer.
	s.set(one(Certain, vip, self))
	if s.b.entries[self] != nil {
		t.Error("the node's own address is announced")
	}
	// Unless kube-proxy has bound it.
	s.run(5 * time.Second)
	s.claim(vip, thiefMAC)
	state = one(Certain, vip, self)
	state.Bound = []netip.Addr{self}
	s.set(state)
	s.run(5 * time.Second)
	s.is(self, announced)
}
