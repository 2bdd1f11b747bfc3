package heartbeat

import (
	"slices"
	"testing"
	"time"
)

// TestAlone: a node whose fellows are all dead hears its witness, with whatever delay that
// answers, and where some of the questions get lost.
func TestAlone(t *testing.T) {
	for _, n := range []int{2, 3} {
		for _, loss := range []int{0, 20} {
			w := settled(t, n, func(r *rules) { r.slowClient, r.grid = true, time.Millisecond })
			w.api, w.rules.loss = false, loss
			for i := 1; i < n; i++ {
				w.powerOff(i)
			}
			w.run(2*time.Second, nil)
			deaf := time.Duration(0)
			w.run(time.Minute, func(d time.Duration) {
				if w.nodes[0].core.links[1].deaf {
					deaf += d
				}
			})
			if deaf > 0 {
				t.Errorf("%d nodes, one of %d frames lost: heard nobody for %v", n, loss, deaf)
			}
		}
	}
}

// TestAloneAsksFew: a node whose fellows are dead for days does not ask all that it knows
// all the time.
func TestAloneAsksFew(t *testing.T) {
	w := settled(t, 2)
	w.api = false
	w.powerOff(1)
	c := w.nodes[0].core
	s := c.state
	s.Links[0].Witnesses = append(slices.Clone(s.Links[0].Witnesses), nodeAddr(20), nodeAddr(21), nodeAddr(22), nodeAddr(23), nodeAddr(24))
	c.set(s, w.now)
	w.run(2*time.Second, nil)
	before := w.asked
	w.run(10*time.Second, nil)
	if n := w.asked - before; n > 100 || c.links[1].deaf { // of one witness, and of the fellow's kernel
		t.Errorf("%d questions in 10 s; hears nobody: %t", n, c.links[1].deaf)
	}
}

// TestSwitchRestarts: nobody hears anybody for a while. Whoever is heard again first says
// that it hears nobody, and is about to.
func TestSwitchRestarts(t *testing.T) {
	for _, n := range []int{2, 3} {
		for phase := range 30 {
			w := settled(t, n)
			w.api = false
			nodes := []int{0, 1, 2}[:n]
			on((*world).isolate, nodes...)(w)
			w.run(3*time.Second+time.Duration(phase)*10*time.Millisecond, nil)
			on((*world).rejoin, nodes...)(w)
			w.run(2*time.Second, nil)
			if w.takeovers() > 0 {
				t.Errorf("%d nodes, after %d ms: %v", n, phase*10, w)
			}
		}
	}
}

// TestDeafInTwoOrders: candidates whose programs have them in different orders do not wait
// for each other to replace an owner that hears nobody.
func TestDeafInTwoOrders(t *testing.T) {
	for phase := range 10 {
		w := settled(t, 3)
		w.api = false
		w.nodes[1].program.order = orderOf(0, 2, 1)
		w.tell(&w.nodes[1])
		w.run(time.Second+time.Duration(phase)*10*time.Millisecond, nil)
		w.deafen(0)
		if gap := w.gap(3 * time.Second); gap > failover+followTime {
			t.Errorf("nobody answered for %v: %v", gap, w)
		}
	}
}

// TestStoppedWhileDeaf: an owner that stands still while the switch is back says what it knew
// before when it goes on.
func TestStoppedWhileDeaf(t *testing.T) {
	for _, n := range []int{2, 3} {
		for phase := range 30 {
			w := settled(t, n)
			w.api = false
			nodes := []int{0, 1, 2}[:n]
			on((*world).isolate, nodes...)(w)
			w.run(400*time.Millisecond+time.Duration(phase)*10*time.Millisecond, nil)
			w.stop(0, time.Second)
			w.run(100*time.Millisecond, nil)
			on((*world).rejoin, nodes...)(w)
			w.run(3*time.Second, nil)
			if w.takeovers() > 0 {
				t.Errorf("%d nodes, after %d ms: %v", n, phase*10, w)
			}
		}
	}
}

// TestOwnsDeaf: an owner that hears nobody is to be quiet, at once; but who has claimed the
// address as the last one that lives makes that known first.
func TestOwnsDeaf(t *testing.T) {
	quiet := func(w *world, node int) bool { return w.nodes[node].core.decisions(w.now)[virtual].Deaf }
	w := settled(t, 3)
	w.api = false
	w.deafen(0)
	w.run(failover, func(time.Duration) {
		if w.nodes[0].core.links[1].deaf != quiet(w, 0) {
			t.Errorf("a says that it hears nobody: %t; quiet: %t", !quiet(w, 0), quiet(w, 0))
		}
	})
	if !quiet(w, 0) || quiet(w, 1) {
		t.Errorf("quiet: a %t, b %t: %v", quiet(w, 0), quiet(w, 1), w)
	}
	w.rejoin(0)
	w.run(2*loudTime, nil)
	w.wantOwners(t, 1)
	w.deafen(1) // which has claimed it long ago
	w.run(failover, nil)
	if !quiet(w, 1) {
		t.Errorf("b is not quiet: %v", w)
	}
	w = settled(t, 2, func(r *rules) { r.noWitness = true })
	w.nodes[1].slow = true // the planner's word does not arrive
	w.powerOff(0)
	w.run(failover, nil)
	w.wantOwners(t, 1)
	w.run(loudTime-time.Second, func(time.Duration) {
		if quiet(w, 1) {
			t.Fatalf("b is quiet: %v", w)
		}
	})
	w.run(2*time.Second, nil)
	if !quiet(w, 1) {
		t.Errorf("b is not quiet: %v", w)
	}
}
