package heartbeat

import (
	"slices"
	"testing"
	"time"
)

// gap runs the world and returns how long the client was not served at a stretch.
func (w *world) gap(d time.Duration, watch ...func()) (longest time.Duration) {
	var gap time.Duration
	w.run(d, func(d time.Duration) {
		for _, f := range watch {
			f()
		}
		if gap += d; w.served() {
			gap = 0
		}
		longest = max(longest, gap)
	})
	return longest
}

// settled is a world in which the first node owns the address.
func settled(t *testing.T, n int, change ...func(*rules)) *world {
	t.Helper()
	w := newWorld(n, change...)
	w.run(2*time.Second, nil)
	w.wantOwners(t, 0)
	return w
}

func (w *world) wantOwners(t *testing.T, want ...int) {
	t.Helper()
	if got := w.owners(); !slices.Equal(got, want) {
		t.Fatalf("the owners are %v, want %v: %v", got, want, w)
	}
}

func TestTakeover(t *testing.T) {
	const limit = 500 * time.Millisecond
	for name, test := range map[string]struct {
		nodes int
		fail  func(w *world)
		owner int
	}{
		"power":            {3, func(w *world) { w.powerOff(0) }, 1},
		"link":             {3, func(w *world) { w.isolate(0) }, 1},
		"of two":           {2, func(w *world) { w.powerOff(0) }, 1},
		"without API":      {3, func(w *world) { w.api = false; w.powerOff(0) }, 1},
		"two, without API": {2, func(w *world) { w.api = false; w.powerOff(0) }, 1},
		"two at once":      {3, func(w *world) { w.api = false; w.powerOff(0); w.powerOff(1) }, 2},
	} {
		t.Run(name, func(t *testing.T) {
			w := settled(t, test.nodes)
			test.fail(w)
			if gap := w.gap(3 * time.Second); gap > limit {
				t.Errorf("nobody answered for %v: %v", gap, w)
			}
			if w.role(test.owner) != Own {
				t.Errorf("%s does not own the address: %v", nodeName(test.owner), w)
			}
		})
	}
}

func TestRestart(t *testing.T) {
	for _, api := range []bool{true, false} {
		w := settled(t, 3)
		w.api = api
		w.kill(0)
		if gap := w.gap(time.Minute); gap > 400*time.Millisecond {
			t.Errorf("nobody answered for %v", gap)
		}
		w.wantOwners(t)
		if w.role(1) != Cover {
			t.Fatalf("nobody covers: %v", w)
		}
		w.start(0)
		if gap := w.gap(2 * time.Second); gap > 0 {
			t.Errorf("nobody answered for %v when the speaker was back", gap)
		}
		w.wantOwners(t, 0)
		if w.role(1) != Standby || w.role(2) != Standby {
			t.Errorf("it is still covered: %v", w)
		}
	}
}

func TestGraceEnds(t *testing.T) {
	w := settled(t, 3, func(r *rules) { r.grace = 10 * time.Second })
	w.kill(0)
	w.run(9*time.Second, nil)
	w.wantOwners(t)
	if gap := w.gap(2 * time.Second); gap > 100*time.Millisecond {
		t.Errorf("nobody answered for %v", gap)
	}
	w.wantOwners(t, 1)
}
