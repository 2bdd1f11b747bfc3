package heartbeat

import (
	"flag"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

var soakTime = flag.Duration("soak", 30*time.Second, "virtual time of the soak test of the election")

// lanOf are the rules of a LAN of n nodes, each of which owns so many addresses; all others stand by
// for some of them.
func lanOf(n, each int) func(*rules) {
	addr := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)}) }
	var groups []Group
	for owner := range n {
		for k := range each {
			first := 1 + k%(n-1)
			second := 1 + (k+first)%(n-1)
			if second == first {
				second = 1 + first%(n-1)
			}
			groups = append(groups, Group{
				Addresses:  []netip.Addr{addr(k*n + owner)}, // those of an owner are apart
				Candidates: []string{nodeName(owner), nodeName((owner + first) % n), nodeName((owner + second) % n)},
				Links:      []int{1},
			})
		}
	}
	return func(r *rules) {
		r.groups = func(node int) (own []Group) {
			for _, g := range groups {
				for _, name := range g.Candidates {
					if name == nodeName(node) {
						own = append(own, g)
					}
				}
			}
			return own
		}
	}
}

// count counts the addresses in each role at all nodes.
func (w *world) count() map[Role]int {
	roles := make(map[Role]int)
	for i := range w.nodes {
		if c := w.nodes[i].core; c != nil {
			for _, e := range c.sorted {
				roles[e.role]++
			}
		}
	}
	return roles
}

func (w *world) takeovers() (all uint64) {
	for i := range w.nodes {
		if c := w.nodes[i].core; c != nil {
			all += c.takeovers
		}
	}
	return all
}

// TestSoak: where nodes are busy and frames get lost, no address moves.
func TestSoak(t *testing.T) {
	const n, each = 10, 50
	w := newWorld(n, lanOf(n, each), func(r *rules) { r.loss = 100; r.grid = time.Millisecond })
	w.run(3*time.Second, nil)
	random := rand.New(rand.NewPCG(1, 2))
	for end := w.now.Add(*soakTime); w.now.Before(end); {
		w.stop(random.IntN(n), 250*time.Millisecond)
		// Two nodes have 20 ms of CPU time of each 100 ms for a while.
		for range 10 {
			for i := range 2 {
				if w.nodes[i].stopped.IsZero() {
					w.stop(i, 80*time.Millisecond)
				}
			}
			w.run(100*time.Millisecond, nil)
		}
		w.run(time.Duration(random.IntN(1000))*time.Millisecond, nil)
		if taken := w.takeovers(); taken > 0 {
			t.Fatalf("%d addresses were taken over", taken)
		}
	}
	w.run(3*time.Second, nil)
	if roles := w.count(); roles[Own] != n*each || roles[Standby] != 2*n*each {
		t.Errorf("the roles are %v, want %d times own and the rest standby", roles, n*each)
	}
}
