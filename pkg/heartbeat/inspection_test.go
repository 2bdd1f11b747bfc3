package heartbeat

import (
	"strings"
	"testing"
	"time"
)

// TestInspection: where the network drops answers with the MAC address of others,
// that is noticed, told, and nobody relies on them.
func TestInspection(t *testing.T) {
	w := newWorld(3, func(r *rules) { r.inspects = true })
	w.run(10*time.Second, nil)
	w.wantOwners(t, 0)
	problems := w.nodes[1].core.inspectionProblems()
	if len(problems) != 1 || !strings.Contains(problems[0], "(a") && !strings.Contains(problems[0], "[a") {
		t.Errorf("the problems are %q", problems)
	}
	w.kill(0)
	if gap := w.gap(3 * time.Second); gap > 500*time.Millisecond {
		t.Errorf("nobody answered for %v", gap)
	}
	w.wantOwners(t, 1)

	w.start(0)
	w.rules.inspects = false
	w.run(3*time.Minute, nil)
	if problems := w.nodes[0].core.inspectionProblems(); len(problems) > 0 {
		t.Errorf("the problems are %q although the network lets checks through", problems)
	}
}

// TestRestartWithoutCover: who says that it restarts loses its addresses at once.
func TestRestartWithoutCover(t *testing.T) {
	w := settled(t, 3, func(r *rules) { r.noCover = true })
	w.restart(0)
	if gap := w.gap(300 * time.Millisecond); gap > 0 {
		t.Errorf("nobody answered for %v", gap)
	}
	w.kill(0)
	if gap := w.gap(3 * time.Second); gap > 0 {
		t.Errorf("nobody answered for %v", gap)
	}
	w.wantOwners(t, 1)
}

// TestChecksAreFew: where they arrive, there is no need for many.
func TestChecksAreFew(t *testing.T) {
	w := newWorld(3)
	w.run(time.Hour, nil)
	if problems := w.nodes[1].core.inspectionProblems(); len(problems) > 0 {
		t.Errorf("the problems are %q", problems)
	}
	if n := w.nodes[0].core.arrived[nodeMAC(1)]; n == 0 || n > 10 {
		t.Errorf("%d checks in an hour", n)
	}
}
