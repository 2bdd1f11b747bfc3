package heartbeat

import (
	"fmt"
	"testing"
	"time"
)

// TestStopped: a process that stands still, whichever it is, and for how long, takes
// nothing over when it goes on, and loses nothing but for the time being.
func TestStopped(t *testing.T) {
	for _, d := range []time.Duration{250 * time.Millisecond, time.Second, 10 * time.Second} {
		for node := range 3 {
			for phase := range 5 {
				w := settled(t, 3)
				w.api = false
				w.run(time.Duration(phase)*20*time.Millisecond, nil)
				w.stop(node, d)
				gap := w.gap(d + 2*time.Second)
				if taken := w.takeovers(); taken > 0 || gap > noticed {
					t.Errorf("%s stood still for %v: %d takeovers, nobody answered for %v: %v", nodeName(node), d, taken, gap, w)
				}
				w.wantOwners(t, 0)
			}
		}
	}
}

// throttle has the processes of nodes run for 20 ms of each 100 ms.
func (w *world) throttle(d time.Duration, nodes ...int) (longest time.Duration) {
	var gap time.Duration
	for ; d > 0; d -= 100 * time.Millisecond {
		for _, i := range nodes {
			w.stop(i, 80*time.Millisecond)
		}
		w.run(100*time.Millisecond, func(d time.Duration) {
			if gap += d; w.served() || w.throttledOwner() {
				gap = 0
			}
			longest = max(longest, gap)
		})
	}
	return longest
}

// throttledOwner reports whether somebody answers as soon as it has CPU time.
func (w *world) throttledOwner() bool {
	for i := range w.nodes {
		if e := w.entry(i); e != nil && e.role == Own {
			return true
		}
	}
	return false
}

// TestThrottled: nodes that have little CPU time take nothing over, and do when there
// is something to be taken over.
func TestThrottled(t *testing.T) {
	for _, nodes := range [][]int{{0}, {1}, {2}, {0, 1}, {1, 2}, {0, 1, 2}} {
		t.Run(fmt.Sprint(nodes), func(t *testing.T) {
			w := settled(t, 3)
			w.api = false
			w.throttle(time.Minute, nodes...)
			if taken := w.takeovers(); taken > 0 {
				t.Fatalf("%d takeovers: %v", taken, w)
			}
			w.powerOff(0)
			if gap := w.throttle(5*time.Second, nodes...); gap > time.Second {
				t.Errorf("nobody answered for %v: %v", gap, w)
			}
			w.run(time.Second, nil)
			w.wantOwners(t, 1)
		})
	}
}
