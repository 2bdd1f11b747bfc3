package heartbeat

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

// TestSetOften: programs that change all the time neither make fellows strangers nor
// put off what is to be decided.
func TestSetOften(t *testing.T) {
	w := settled(t, 3)
	w.api = false
	often := func(d time.Duration) (longest time.Duration) {
		var gap time.Duration
		for ; d > 0; d -= 10 * time.Millisecond {
			for i := range w.nodes {
				w.tell(&w.nodes[i])
			}
			w.run(10*time.Millisecond, func(d time.Duration) {
				if gap += d; w.served() {
					gap = 0
				}
				longest = max(longest, gap)
			})
		}
		return longest
	}
	if gap := often(5 * time.Second); gap > 0 || w.takeovers() > 0 {
		t.Errorf("nobody answered for %v, %d takeovers: %v", gap, w.takeovers(), w)
	}
	w.powerOff(0)
	if gap := often(3 * time.Second); gap > failover {
		t.Errorf("nobody answered for %v: %v", gap, w)
	}
	w.wantOwners(t, 1)
}

// TestSecondLink: an owner that is cut off on one of two links is not dead.
func TestSecondLink(t *testing.T) {
	w := settled(t, 3, func(r *rules) { r.second = true })
	w.api = false
	w.isolate(0)
	w.run(5*time.Second, nil)
	w.wantOwners(t, 0)
	w.rejoin(0)
	w.run(time.Second, nil)
	w.deafen(0) // on one of them
	w.run(5*time.Second, nil)
	w.wantOwners(t, 0)
	w.rejoin(0)
	w.run(time.Second, nil)
	w.nodes[1].severed = true // who cannot know that the owner hears on the other one is told
	w.run(time.Second, nil)
	w.deafen(0)
	w.run(5*time.Second, nil)
	w.wantOwners(t, 0)
	w.rejoin(0)
	w.nodes[1].severed = false
	w.run(time.Second, nil)
	w.nodes[0].severed = true
	w.run(5*time.Second, nil)
	w.wantOwners(t, 0)
	w.isolate(0)
	w.run(failover, nil)
	w.wantOwners(t, 0, 1)
	w.nodes[0].severed = false // the other one is enough to settle it
	w.run(failover, nil)
	w.wantOwners(t, 1)
}

// TestFellowChanges: a fellow whose MAC address or address is another one than the
// programs say is not dead, and is taken over from in time as soon as they do.
func TestFellowChanges(t *testing.T) {
	for name, host := range map[string]station{
		"MAC":     {nodeAddr(0), announce.MAC{2, 7}},
		"address": {netip.MustParseAddr("192.0.2.77"), nodeMAC(0)},
		"both":    {netip.MustParseAddr("192.0.2.77"), announce.MAC{2, 7}},
	} {
		t.Run(name, func(t *testing.T) {
			w := settled(t, 3)
			w.api = false
			w.nodes[0].host = host
			w.run(5*time.Second, nil)
			w.wantOwners(t, 0)
			w.nodes[0].known = host
			for i := range w.nodes {
				w.tell(&w.nodes[i])
			}
			w.run(time.Second, nil)
			w.wantOwners(t, 0)
			if seen := w.nodes[1].core.status(w.now)[0]; seen.Liveness != Up || seen.MAC != host.mac {
				t.Errorf("the owner is %+v", seen)
			}
			w.powerOff(0)
			if gap := w.gap(3 * time.Second); gap > failover {
				t.Errorf("nobody answered for %v: %v", gap, w)
			}
			w.wantOwners(t, 1)
		})
	}
}

// TestCandidatesChange: while the owner is dead, its address gets other candidates.
func TestCandidatesChange(t *testing.T) {
	w := settled(t, 3)
	w.api = false
	w.powerOff(0)
	w.run(time.Second, nil)
	w.wantOwners(t, 1)
	for _, i := range []int{1, 2} { // b is none any more
		w.nodes[i].program = program{0, orderOf(0, 2)}
		w.tell(&w.nodes[i])
	}
	if gap := w.gap(3 * time.Second); gap > failover {
		t.Errorf("nobody answered for %v: %v", gap, w)
	}
	w.wantOwners(t, 2)
	for _, i := range []int{1, 2} { // b is one again
		w.nodes[i].program = program{0, orderOf(0, 1, 2)}
		w.tell(&w.nodes[i])
	}
	w.run(3*time.Second, nil)
	w.wantOwners(t, 2)
}

// TestEpochsBeginAnew: an address that another Service gets has the epoch 0 again. An
// owner that is not told is the one as long as it stands, for all of them.
func TestEpochsBeginAnew(t *testing.T) {
	w := newWorld(3)
	w.planner.program = program{5, orderOf(1, 0, 2)}
	for i := range w.planner.nodes {
		w.planner.nodes[i].program = w.planner.program
	}
	w.run(2*time.Second, nil)
	w.wantOwners(t, 1)
	w.api = false
	for _, i := range []int{0, 2, 1} {
		w.nodes[i].program = program{0, orderOf(0, 1, 2)}
		w.tell(&w.nodes[i])
		if gap := w.gap(2 * time.Second); gap > 0 {
			t.Errorf("nobody answered for %v: %v", gap, w)
		}
		w.wantOwners(t, 1)
	}
	if e := w.entry(1); e.best == e.group.program() {
		t.Error("the planner is not told of it")
	}
	w.nodes[1].program = program{0, orderOf(0, 2)}
	w.tell(&w.nodes[1])
	w.nodes[0].program, w.nodes[2].program = w.nodes[1].program, w.nodes[1].program
	w.tell(&w.nodes[0])
	w.tell(&w.nodes[2])
	w.run(time.Second, nil)
	w.wantOwners(t, 0)
}

// TestTies: candidates whose programs have them in different orders, and that took an
// address over at the same time, agree all the same.
func TestTies(t *testing.T) {
	for _, order := range []order{orderOf(0, 1, 2), orderOf(0, 2, 1)} {
		w := settled(t, 3)
		w.api = false
		w.powerOff(0)
		w.separate(1, 2)
		w.run(time.Second, nil)
		w.wantOwners(t, 1, 2)
		w.nodes[2].program.order = order
		w.tell(&w.nodes[2])
		w.join(1, 2)
		w.run(time.Second, nil)
		if len(w.owners()) != 1 {
			t.Errorf("the owners are %v: %v", w.owners(), w)
		}
	}
}

// TestBegin: where all speakers start, nobody covers for one that has not answered
// yet, and nobody owns what another one does.
func TestBegin(t *testing.T) {
	w := newWorld(3)
	for i := range w.nodes {
		w.kill(i)
	}
	for i := range w.nodes {
		w.start(i)
	}
	w.run(2*time.Second, func(time.Duration) {
		if w.role(1) > Standby || w.role(2) > Standby {
			t.Fatalf("a standby answers: %v", w)
		}
	})
	w.wantOwners(t, 0)
}

// TestRefusalsReplaceNobody: who can send ICMP on the LAN can have an owner covered, but not
// replaced.
func TestRefusalsReplaceNobody(t *testing.T) {
	for _, noCover := range []bool{false, true} {
		w := settled(t, 3, func(r *rules) { r.noCover = noCover })
		for range 200 {
			w.nodes[1].core.refused(1, nodeAddr(0), w.now)
			w.run(10*time.Millisecond, nil)
		}
		w.wantOwners(t, 0)
		if taken := w.takeovers(); taken > 0 {
			t.Errorf("%d takeovers: %v", taken, w)
		}
	}
}

// TestStartingIsCovered: others cover for a speaker that has begun until it says that it
// answers.
func TestStartingIsCovered(t *testing.T) {
	w := settled(t, 3)
	w.api = false
	w.kill(0)
	w.run(time.Second, nil)
	w.start(0)
	starting := func(is bool) {
		s := w.nodes[0].core.state
		s.Starting = is
		w.nodes[0].core.set(s, w.now)
		w.nodes[0].next = w.now
	}
	starting(true)
	w.run(2*time.Second, func(time.Duration) {
		if w.role(1) != Cover {
			t.Fatalf("nobody covers: %v", w)
		}
	})
	w.wantOwners(t, 0)
	starting(false)
	w.run(200*time.Millisecond, nil)
	if w.role(1) != Standby || w.takeovers() > 0 {
		t.Errorf("%d takeovers: %v", w.takeovers(), w)
	}
}

// TestCoverLasts: who covers does so until it owns the address, or is not needed.
func TestCoverLasts(t *testing.T) {
	for phase := range 10 {
		w := settled(t, 3)
		w.api = false
		w.restart(0)
		w.run(100*time.Millisecond+time.Duration(phase)*10*time.Millisecond, nil)
		w.powerOff(0)
		last := w.role(1)
		w.run(time.Second, func(time.Duration) {
			if role := w.role(1); role != last && (last != Cover || role != Own) {
				t.Fatalf("from %v to %v: %v", last, role, w)
			}
			last = w.role(1)
		})
		if last != Own {
			t.Errorf("the role is %v: %v", last, w)
		}
	}
}

// TestManyAddresses: more than fit into a packet go to whose turn it is, on a LAN that
// loses frames, and are learnt of by the node that owned them when it is back.
func TestManyAddresses(t *testing.T) {
	const n, each = 4, 1500
	w := newWorld(n, lanOf(n, each), func(r *rules) { r.loss = 50 })
	w.run(2*time.Second, nil)
	want := w.nodes[1].core.peers[nodeID(0)]
	if parts := len(want.chunks); parts < 2 {
		t.Fatalf("the table has %d parts only", parts)
	}
	w.powerOff(0)
	w.run(failover, nil)
	w.wantEach(t, func(candidates []int) int {
		if candidates[0] == 0 {
			return candidates[1]
		}
		return candidates[0]
	})
	w.powerOn(0)
	w.run(2*time.Second, nil)
	w.wantEach(t, func(candidates []int) int {
		if candidates[0] == 0 {
			return candidates[1]
		}
		return candidates[0]
	})
	if taken := w.takeovers(); taken != each {
		t.Errorf("%d takeovers, want %d", taken, each)
	}
}

// wantEach wants each address to be owned by one node, which owner tells.
func (w *world) wantEach(t *testing.T, owner func(candidates []int) int) {
	t.Helper()
	wrong := 0
	for i := range w.nodes {
		if w.nodes[i].core == nil {
			continue
		}
		for _, e := range w.nodes[i].core.sorted {
			var candidates []int
			for _, c := range e.group.candidates {
				candidates = append(candidates, slices.Index(nodeIDs[:], c))
			}
			if (e.role == Own) != (owner(candidates) == i) {
				wrong++
			}
		}
	}
	if wrong > 0 {
		t.Errorf("%d times an address is owned by a wrong node, or not by the right one; the roles are %v", wrong, w.count())
	}
}

// TestUnsure: where all lose what they serve an address with, it does not go from one that
// has found out to one that has not yet.
func TestUnsure(t *testing.T) {
	w := settled(t, 3)
	w.api = false
	now := func(i int, unfit, unsure bool) {
		w.change(i, func(m *machine) { m.unfit, m.unsure = unfit, unsure })
		w.run(time.Second, nil)
	}
	now(1, false, true)
	now(2, false, true)
	now(0, true, false)
	w.wantOwners(t, 0)
	now(1, true, false)
	now(2, true, false)
	w.wantOwners(t, 0)
	now(1, false, true) // its speaker is a new one
	w.wantOwners(t, 0)
	now(1, false, false)
	w.wantOwners(t, 1)
	now(2, false, true)
	w.powerOff(1) // what one cannot be sure of is better than nobody
	w.run(time.Second, nil)
	w.wantOwners(t, 2)
}
