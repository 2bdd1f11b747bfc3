package heartbeat

import (
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	modelDepth = flag.Int("model-depth", 2, "events in a row that the model of the election explores")
	modelNodes = flag.Int("model-nodes", 3, "candidates in the model of the election")
)

const (
	// twoLimit is how long two candidates that hear each other may both own the
	// address: a heartbeat, and its answer.
	twoLimit = 250 * time.Millisecond
	// noneLimit is how long nobody may answer after the last event, though somebody
	// could. It has room for a process that has just started (freshTime), for the
	// detection, and for the hosts to be asked again that were dead (deadPace).
	noneLimit = 900 * time.Millisecond
)

// happening is something that happens to the world.
type happening struct {
	name string
	when func(w *world) bool
	do   func(w *world)
}

// events are all that can happen to n nodes.
func events(n int) (all []happening) {
	add := func(when func(*world) bool, do func(*world), name string, args ...any) {
		all = append(all, happening{fmt.Sprintf(name, args...), when, do})
	}
	for i := range n {
		add(func(w *world) bool { return w.nodes[i].core != nil }, func(w *world) { w.kill(i) }, "kill %s", nodeName(i))
		add(func(w *world) bool { return w.nodes[i].powered && w.nodes[i].core == nil }, func(w *world) { w.start(i) }, "start %s", nodeName(i))
		add(func(w *world) bool { return w.nodes[i].powered }, func(w *world) { w.powerOff(i) }, "power off %s", nodeName(i))
		add(func(w *world) bool { return !w.nodes[i].powered }, func(w *world) { w.powerOn(i) }, "power on %s", nodeName(i))
		add(func(w *world) bool { return w.reach[i][client] }, func(w *world) { w.isolate(i) }, "isolate %s", nodeName(i))
		add(func(w *world) bool { return !w.reach[i][client] }, func(w *world) { w.rejoin(i) }, "rejoin %s", nodeName(i))
		add(func(w *world) bool { return !w.nodes[i].offline }, func(w *world) { w.nodes[i].offline = true }, "%s loses the API", nodeName(i))
		add(func(w *world) bool { return w.nodes[i].offline }, func(w *world) { w.nodes[i].offline = false }, "%s finds the API", nodeName(i))
		add(func(w *world) bool { return w.api && w.owner != i && w.online(w.nodes[i]) }, func(w *world) { w.move(i) }, "move to %s", nodeName(i))
		add(func(w *world) bool { return w.nodes[i].core != nil }, func(w *world) {
			w.nodes[i].releasing = !w.nodes[i].releasing
			w.tell(w.nodes[i])
		}, "%s releases, or not", nodeName(i))
		for j := range n {
			if j > i {
				add(func(w *world) bool { return w.reach[i][j] }, func(w *world) { w.cut(i, j) }, "cut %s-%s", nodeName(i), nodeName(j))
				add(func(w *world) bool { return !w.reach[i][j] }, func(w *world) { w.heal(i, j) }, "heal %s-%s", nodeName(i), nodeName(j))
			}
			if j != i {
				add(func(w *world) bool { return w.reach[i][j] }, func(w *world) { w.reach[i][j] = false }, "one way cut %s>%s", nodeName(i), nodeName(j))
			}
		}
	}
	add(func(w *world) bool { return w.api }, func(w *world) { w.api = false }, "API away")
	add(func(w *world) bool { return !w.api }, func(w *world) { w.api = true }, "API back")
	return all
}

// judge holds the world against the two invariants.
type judge struct {
	two  time.Duration // how long two owners have heard each other
	none time.Duration // how long nobody has answered
}

func (j *judge) look(w *world) error {
	if w.twoOwners() {
		if j.two += step; j.two > twoLimit {
			return fmt.Errorf("two owners hear each other for %v", j.two)
		}
	} else {
		j.two = 0
	}
	if w.servable() && !w.served() {
		if j.none += step; j.none > noneLimit {
			return fmt.Errorf("nobody has answered for %v", j.none)
		}
	} else {
		j.none = 0
	}
	return nil
}

func (w *world) twoOwners() bool {
	owners := w.owners()
	for _, i := range owners {
		for _, j := range owners {
			if i < j && w.reach[i][j] && w.reach[j][i] {
				return true
			}
		}
	}
	return false
}

// servable reports whether somebody is there to answer: the client's part of the
// LAN is one whose hosts all reach each other and nobody else, and a speaker runs in
// it. Where an owner without a speaker lives in it, somebody must remember that it
// answered.
func (w *world) servable() bool {
	inside := func(i int) bool { return i == client || w.reach[i][client] }
	speakers := false
	for i := range hosts {
		if i != client && (i >= len(w.nodes) || !w.nodes[i].powered) {
			continue
		}
		for j := range hosts {
			if j != client && (j >= len(w.nodes) || !w.nodes[j].powered) || i == j {
				continue
			}
			if together := inside(i) && inside(j); w.reach[i][j] != together && (inside(i) || inside(j)) {
				return false
			}
		}
		if i != client && inside(i) && w.nodes[i].core != nil {
			speakers = true
		}
	}
	if !speakers {
		return false
	}
	for i, m := range w.nodes {
		if m.core == nil || !inside(i) {
			continue
		}
		e := m.core.entries[virtual]
		owner := slices.IndexFunc(w.nodes, func(o *machine) bool { return e.best.owner == idOf("cluster", nodeName(o.index)) })
		if o := w.nodes[owner]; o.powered && inside(owner) && o.core == nil && e.seen != e.best.owner {
			return false
		}
	}
	return true
}

// fingerprint is all that the future of a world depends on that has come to rest.
func (w *world) fingerprint() string {
	var b strings.Builder
	low := ^uint32(0)
	for _, m := range w.nodes {
		low = min(low, m.program.epoch)
	}
	fmt.Fprint(&b, w.reach, w.api, w.owner, w.epoch-low, len(w.late))
	for _, m := range w.nodes {
		fmt.Fprint(&b, "|", m.powered, m.offline, m.releasing, m.program.owner, m.program.epoch-low)
		if m.core == nil {
			continue
		}
		e := m.core.entries[virtual]
		fmt.Fprint(&b, e.role, e.best.owner, e.best.epoch-low, e.best.term, e.seen)
		for _, a := range m.core.adjacencies {
			other := w.nodes[slices.IndexFunc(w.nodes, func(o *machine) bool { return nodeName(o.index) == a.peer.name })]
			same := other.core != nil && other.core.life == a.peer.life
			fmt.Fprint(&b, ",", a.liveness(w.now), same, a.peer.life == 0, a.peer.flags, a.peer.synced(), a.peer.owns[e], a.heard.IsZero())
		}
	}
	return b.String()
}

// TestModel explores all sequences of events up to a depth, each followed by a
// moment or by rest, and holds each moment against the invariants.
func TestModel(t *testing.T) {
	x := &explorer{events: events(*modelNodes), seen: make(map[string]int)}
	w := newWorld(*modelNodes)
	w.run(3*time.Second, nil)
	x.explore(w, judge{}, *modelDepth)
	t.Logf("%d states at rest, %d moments, %d sequences", len(x.seen), x.moments, x.sequences)
	for _, failure := range x.failures {
		t.Error(failure)
	}
}

type explorer struct {
	events             []happening
	seen               map[string]int // fingerprints, and the depth left when they were explored
	moments, sequences int
	failures           []string
}

// pauses are how long the world goes on after an event. In the long one it comes to
// rest.
var pauses = []time.Duration{50 * time.Millisecond, 250 * time.Millisecond, 3 * time.Second}

func (x *explorer) explore(w *world, j judge, depth int) {
	if depth == 0 || len(x.failures) > 5 {
		return
	}
	for _, e := range x.events {
		if !e.when(w) {
			continue
		}
		next, after := clone(w), j
		e.do(next)
		after.none = 0
		before := time.Duration(0)
		for i, pause := range pauses {
			if depth == 1 && i < len(pauses)-1 {
				continue
			}
			next.trace = append(slices.Clone(w.trace), fmt.Sprintf("%s, %v", e.name, pause))
			if err := x.pass(next, &after, pause-before); err != nil {
				x.failures = append(x.failures, fmt.Sprintf("%s: %v: %v", strings.Join(next.trace, "; "), err, next))
				break
			}
			before = pause
			x.sequences++
			if i == len(pauses)-1 {
				print := next.fingerprint()
				if left, known := x.seen[print]; known && left >= depth-1 {
					continue
				}
				x.seen[print] = depth - 1
			}
			x.explore(next, after, depth-1)
		}
	}
}

// pass lets time pass.
func (x *explorer) pass(w *world, j *judge, d time.Duration) (err error) {
	w.run(d, func() {
		x.moments++
		if err == nil {
			err = j.look(w)
		}
	})
	return err
}
