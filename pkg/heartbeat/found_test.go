package heartbeat

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// found are sequences of events by which the model, or somebody who read the code,
// found a mistake in the election. What the mistake was is before each.
var found = []struct{ rules, trace string }{
	// A fellow that came back into the program was told tables with the numbers of
	// those of before, and took them for known.
	{"two", "programs do not reach a, 40ms; drain a, 270ms; undrain a, 3s"},
	{"two", "programs do not reach a, 40ms; a releases, or not, 3s; a releases, or not, 3s"},
	// A late turn of a node without fellows was the last one.
	{"two", "stop a for 250 ms, 50ms; drain a, 50ms; stop b for 250 ms, 3s"},
	// A witness that was heard after the owner, but before the cut, counted as one.
	{"three", "cut a-c, 3s; isolate c, 3s"},
	{"three", "one way cut a>c, 250ms; isolate c, 3s"},
	// That the API server answers by another way was a witness though no fellow did.
	{"no witness", "isolate b, 3s"},
	{"no witness", "programs do not reach c, 3s; isolate b, 3s"},
	// Two nodes that do not see each other took the address from each other in turn, as
	// fast as the planner made it official.
	{"no witness", "isolate b, 250ms; c loses the API, 3s"},
	{"two", "cut a-b, 3s"},
	// A node that the planner had to take the address from could not claim it from one
	// that was cut off.
	{"three", "isolate b, 3s; a releases, or not, 3s"},
	// Nobody covered for an owner after the one that did had been no candidate for a
	// while.
	{"three", "kill a, 50ms; drain b, 3s; undrain b, 3s"},
	{"three", "kill a, 50ms; b releases, or not, 250ms; b releases, or not, 3s"},
	// A candidate with an old program was not told who owns the address, and it was its
	// turn; or each of two was waiting for the other one.
	{"three", "cut a-b, 50ms; c loses the API, 3s; power off b, 3s"},
	{"no cover", "stop a for 1 s, 50ms; programs do not reach c, 3s; kill b, 3s"},
	{"three", "cut a-c, 50ms; b loses the API, 3s; power off c, 3s"},
	{"three", "power off a, 40ms; programs do not reach c, 270ms; power on a, 3s; kill b, 3s"},
	// An answer of long ago was one of now to a process that had been stopped.
	{"short grace", "kill a, 270ms; cut a-b, 40ms; start a, 40ms; stop b for 1 s, 3s"},
	{"no cover", "stop a for 250 ms, 3s; stop b for 250 ms, 270ms; cut a-b, 40ms; stop b for 250 ms, 3s"},
	// Where a cut ended, who answered first was a witness against who was about to.
	{"three", "stop a for 250 ms, 40ms; isolate b, 3s; rejoin b, 3s"},
	{"two", "isolate b, 3s; rejoin b, 3s"},
	{"no witness", "isolate a, 3s; rejoin a, 3s"},
	{"three", "kill a, 250ms; isolate c, 3s; heal b-c, 3s"},
	// The same for a speaker whose kernel answered first.
	{"no cover", "isolate b, 3s; rejoin b, 3s"},
	{"short grace", "isolate b, 3s; rejoin b, 3s"},
	// What a fellow told of an owner behind a cut ran out while it asked the kernel.
	{"three", "isolate a, 40ms; heal a-c, 3s; kill a, 3s"},
	{"three", "isolate a, 40ms; heal a-c, 3s; stop a for 1 s, 3s"},
	// A fellow that came back did not say that it heard the owner, for it had heard it
	// at that very moment.
	{"three", "b loses the API, 270ms; a loses the API, 270ms; cut a-b, 3s"},
	// A fellow that was new was not waited for.
	{"three", "cut a-b, 40ms; drain c, 270ms; undrain c, 3s"},
}

func TestFound(t *testing.T) {
	for _, f := range found {
		t.Run(f.rules+": "+f.trace, func(t *testing.T) {
			t.Parallel()
			for phase := range 10 {
				if err := replay(f.rules, f.trace, time.Duration(phase)*10*time.Millisecond); err != nil {
					t.Fatalf("%v into an interval: %v", time.Duration(phase)*10*time.Millisecond, err)
				}
			}
		})
	}
}

// replay is a trace of the model, held against its invariants.
func replay(rules, trace string, phase time.Duration) error {
	for _, m := range modelled {
		if m.name != rules {
			continue
		}
		w, j := m.start()
		w.run(phase, nil)
		for step := range strings.SplitSeq(trace, "; ") {
			name, pause, _ := cutLast(step, ", ")
			d, err := time.ParseDuration(pause)
			if err != nil {
				return err
			}
			e, err := eventOf(w, name)
			if err != nil {
				return err
			}
			e.do(w)
			j.forgive(w)
			if err := (&explorer{}).pass(w, &j, d); err != nil {
				return fmt.Errorf("%s: %w: %v", step, err, w)
			}
		}
		return nil
	}
	return fmt.Errorf("there are no rules %q", rules)
}

// eventOf is the event of that name, which can happen now.
func eventOf(w *world, name string) (happening, error) {
	for _, e := range events(len(w.nodes)) {
		if e.name == name && e.when(w) {
			return e, nil
		}
	}
	return happening{}, fmt.Errorf("%q cannot happen: %v", name, w)
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}
