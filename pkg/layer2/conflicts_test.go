package layer2

import (
	"net/netip"
	"testing"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/layer2/internal/wire"
)

// TestHeldConflictsFirst: claims of announced addresses never hide why an address
// is held.
func TestHeldConflictsFirst(t *testing.T) {
	s := newSim(t)
	s.reply = func(*link, *wire.Message) {}
	addrs := many(3000)
	state := wide(1500, Certain)
	s.set(state)
	s.run(10 * time.Second)
	for _, addr := range addrs[:maxConflicts] {
		s.claim(addr, thiefMAC)
	}
	count := func() (held int) {
		for _, c := range s.b.status().Conflicts {
			if c.Held {
				held++
			}
		}
		if got := len(s.b.status().Conflicts); got != maxConflicts {
			t.Errorf("%d conflicts in the status", got)
		}
		return held
	}
	last := netip.MustParseAddr("10.9.9.9") // the last one in the order of the report
	state.Groups = append(state.Groups, Group{Addresses: []netip.Addr{last}, Caution: Fresh})
	s.set(state)
	s.run(10 * time.Millisecond)
	s.claim(last, otherNIC)
	s.run(time.Second)
	s.is(last, held)
	if got := count(); got != 1 {
		t.Errorf("%d held conflicts", got)
	}

	// When it is announced all the same, it counts like the others.
	state.Groups[1].Caution = Certain
	s.set(state)
	s.is(last, announced)
	if got := count(); got != 0 || s.b.conflicts != maxConflicts {
		t.Errorf("%d held conflicts, %d others", got, s.b.conflicts)
	}
	s.set(State{})
	if s.b.conflicts != 0 {
		t.Errorf("%d conflicts of no address", s.b.conflicts)
	}
}

// TestHeldConflictStays: a virtual router beside the host because of which an
// address is held changes nothing.
func TestHeldConflictStays(t *testing.T) {
	s := newSim(t)
	s.set(one(Fresh, vip))
	s.claim(vip, thiefMAC)
	s.run(time.Second)
	s.is(vip, held)
	for range 4 {
		s.run(2 * time.Second)
		s.claim(vip, vrrpMAC)
		s.conflicts(conflictOf(vip, thiefMAC, true, false))
	}
	s.run(5 * time.Second)
	s.is(vip, announced)

	// Nor does what it has to say itself, if it asked at the same time.
	s = newSim(t)
	s.set(one(Fresh, vip))
	s.probe(vip, vrrpMAC)
	s.is(vip, held)
	s.run(5 * time.Second)
	s.claim(vip, vrrpMAC)
	s.conflicts(conflictOf(vip, vrrpMAC, true, false))
}

// TestDefenceOfEachLink: hosts of one LAN do not hear what is said on another.
func TestDefenceOfEachLink(t *testing.T) {
	s := newSim(t)
	state := one(Certain, vip)
	state.Interfaces = append(state.Interfaces, eth(1))
	state.Groups[0].Interfaces = []string{"eth*"}
	s.set(state)
	s.run(8 * time.Second)
	s.log, s.start = nil, s.now
	for range 11 {
		s.claim(vip, thiefMAC) // on eth0
		s.run(500 * time.Millisecond)
		m := wire.Message{Kind: wire.ARPRequest, Source: thiefMAC, Sender: vip, SenderMAC: thiefMAC, Target: vip}
		s.b.hear(s.b.links[3], &m, s.now)
		s.run(500 * time.Millisecond)
	}
	s.unquestioned()
	s.said(
		"0s eth0 announce 192.0.2.10", "500ms eth1 announce 192.0.2.10",
		"10s eth0 announce 192.0.2.10", "10.5s eth1 announce 192.0.2.10",
	)
}

// answer is another host's to the probes of the node.
func (s *sim) answer(addr netip.Addr, by announce.MAC) {
	m := wire.Message{Kind: wire.ARPReply, Source: by, Destination: nodeMAC, Sender: addr, SenderMAC: by}
	if addr.Is6() {
		m.Kind, m.Target = wire.Advertisement, addr
	}
	s.hear(m)
}

func TestLateAnswer(t *testing.T) {
	for _, addr := range []netip.Addr{vip, vip6} {
		s := newSim(t)
		s.set(one(Fresh, addr))
		s.run(450 * time.Millisecond)
		s.is(addr, announced)
		s.answer(addr, thiefMAC)
		s.is(addr, probing)
		s.run(2 * time.Second)
		s.is(addr, held)
		s.conflicts(conflictOf(addr, thiefMAC, true, false))
		// Asked again, it is late again: that is waited for.
		e := s.b.entries[addr]
		s.run(e.recheckAt.Sub(s.now) + 900*time.Millisecond)
		s.is(addr, held)
		s.answer(addr, thiefMAC)
		s.run(2 * time.Second)
		s.is(addr, held)
		s.run(12 * time.Second)
		s.is(addr, announced)
		s.conflicts()
		// Later on it is one who claims what he did not have.
		s.run(lateTime)
		s.answer(addr, thiefMAC)
		s.run(2 * time.Second)
		s.is(addr, announced)
		s.conflicts(conflictOf(addr, thiefMAC, false, false))
	}

	// A claim that is no answer is defended against.
	s := newSim(t)
	s.set(one(Fresh, vip))
	s.run(450 * time.Millisecond)
	s.claim(vip, thiefMAC)
	s.run(time.Second)
	s.is(vip, announced)

	// So are all claims of what is certain.
	for _, change := range []bool{false, true} {
		s = newSim(t)
		if change {
			s.set(one(Fresh, vip))
			s.run(450 * time.Millisecond)
		}
		s.set(one(Certain, vip))
		s.answer(vip, thiefMAC)
		s.run(time.Second)
		s.is(vip, announced)
		s.conflicts(conflictOf(vip, thiefMAC, false, false))
	}
}
