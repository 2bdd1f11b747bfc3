package heartbeat

import (
	"bytes"
	"flag"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	modelDepth = flag.Int("model-depth", 0, "events in a row that the model of the election explores; 0: as many as take seconds")
	modelRules = flag.String("model-rules", "", "the rules that the model of the election is explored by; all if empty")
	modelPlain = flag.Bool("model-plain", false, "explore all that follows from worlds that look the same, too")
)

const (
	// twoLimit is how long two candidates that hear each other may both own the
	// address: a heartbeat, and its answer.
	twoLimit = 250 * time.Millisecond
	// strangeLimit is the same for two that are not, by one's program, candidates of the
	// same address any more: the planner has to tell the other one.
	strangeLimit = writeTime + handoverPatience + 250*time.Millisecond
	// noneLimit is how long nobody may answer after the last event, though somebody
	// could. It has room for what others tell of an owner (longRelayTime) and for the
	// hosts to be asked again that were dead (deadPace).
	noneLimit = 1200 * time.Millisecond
	// lateLimit is the same where the planner has to help.
	lateLimit = noneLimit + notReadyTime + writeTime
	// maxMoves is how often the planner may move the address after an event: each
	// candidate gives it up twice, then it is patient, but
	// for signs of life in between.
	maxMoves = 4 * uint32(len(order{}))
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
		runs := func(w *world) bool { return w.nodes[i].core != nil && !w.nodes[i].stopped.After(w.now) }
		add(runs, func(w *world) { w.kill(i) }, "kill %s", nodeName(i))
		add(runs, func(w *world) { w.stop(i, 250*time.Millisecond) }, "stop %s for 250 ms", nodeName(i))
		add(runs, func(w *world) { w.stop(i, time.Second) }, "stop %s for 1 s", nodeName(i))
		add(func(w *world) bool { return w.nodes[i].powered && w.nodes[i].core == nil }, func(w *world) { w.start(i) }, "start %s", nodeName(i))
		add(func(w *world) bool { return w.nodes[i].powered }, func(w *world) { w.powerOff(i) }, "power off %s", nodeName(i))
		add(func(w *world) bool { return !w.nodes[i].powered }, func(w *world) { w.powerOn(i) }, "power on %s", nodeName(i))
		add(func(w *world) bool { return w.reaches(i, w.client()) }, func(w *world) { w.isolate(i) }, "isolate %s", nodeName(i))
		add(func(w *world) bool { return !w.reaches(i, w.client()) }, func(w *world) { w.rejoin(i) }, "rejoin %s", nodeName(i))
		add(func(w *world) bool { return w.meets(i, w.client()) }, func(w *world) { w.deafen(i) }, "deafen %s", nodeName(i))
		add(func(w *world) bool { return w.reaches(i, w.client()) && !w.meets(i, w.client()) }, func(w *world) { w.rejoin(i) }, "%s hears", nodeName(i))
		add(func(w *world) bool { return !w.nodes[i].offline }, func(w *world) { w.nodes[i].offline = true }, "%s loses the API", nodeName(i))
		add(func(w *world) bool { return w.nodes[i].offline }, func(w *world) { w.nodes[i].offline = false }, "%s finds the API", nodeName(i))
		add(func(w *world) bool { return !w.nodes[i].slow }, func(w *world) { w.nodes[i].slow = true }, "programs do not reach %s", nodeName(i))
		add(func(w *world) bool { return w.nodes[i].slow }, func(w *world) { w.nodes[i].slow = false }, "programs reach %s", nodeName(i))
		add(func(w *world) bool { return w.api && w.planner.drained != i }, func(w *world) { w.planner.drained = i }, "drain %s", nodeName(i))
		add(func(w *world) bool { return w.api && w.planner.drained == i }, func(w *world) { w.planner.drained = nobody }, "undrain %s", nodeName(i))
		add(runs, func(w *world) { w.change(i, func(m *machine) { m.releasing, m.kept = !m.releasing, w.now }) }, "%s releases, or not", nodeName(i))
		add(runs, func(w *world) { w.change(i, func(m *machine) { m.unfit, m.kept = !m.unfit, w.now }) }, "%s is unfit, or not", nodeName(i))
		for j := range n {
			if j > i {
				add(func(w *world) bool { return w.meets(i, j) }, func(w *world) { w.separate(i, j) }, "cut %s-%s", nodeName(i), nodeName(j))
				add(func(w *world) bool { return !w.meets(i, j) }, func(w *world) { w.join(i, j) }, "heal %s-%s", nodeName(i), nodeName(j))
			}
			if j != i {
				add(func(w *world) bool { return w.reaches(i, j) }, func(w *world) { w.cut(i, j) }, "one way cut %s>%s", nodeName(i), nodeName(j))
			}
		}
	}
	add(func(w *world) bool { return w.api }, func(w *world) { w.api = false }, "API away")
	add(func(w *world) bool { return !w.api }, func(w *world) { w.api = true }, "API back")
	return all
}

// judge holds the world against the two invariants.
type judge struct {
	limits limits
	two, strange,
	none, late time.Duration // for how long it has been so
	epoch uint32 // of the plan at the last event
	// claims are those that each node's process has made.
	claims [len(order{})]uint64
}

type limits struct{ two, none time.Duration }

func (j *judge) look(w *world, d time.Duration) error {
	last := func(count *time.Duration, so bool, limit time.Duration, what string) error {
		if !so {
			*count = 0
			return nil
		}
		if *count += d; *count > limit {
			return fmt.Errorf("%s for %v", what, *count)
		}
		return nil
	}
	fellows, strangers := w.twoOwners()
	could, planned := w.servable()
	served := w.served()
	if err := j.lookAtClaims(w); err != nil {
		return err
	}
	if moves := w.planner.program.epoch - j.epoch; moves > maxMoves {
		return fmt.Errorf("the planner has moved the address %d times", moves)
	}
	for _, err := range []error{
		last(&j.two, fellows, j.limits.two, "two owners hear each other"),
		last(&j.strange, strangers, strangeLimit+j.limits.two, "two owners are not told of each other"),
		last(&j.none, could && !served, j.limits.none, "nobody has answered"),
		last(&j.late, planned && !served, lateLimit+j.limits.none, "nobody has been planned to answer"),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}

// lookAtClaims looks for takeovers that nobody needed: of an owner that the taker, or
// a candidate that the taker hears, reaches.
func (j *judge) lookAtClaims(w *world) error {
	for i := range w.nodes {
		m, e := &w.nodes[i], w.entry(i)
		if e == nil {
			j.claims[i] = m.claims
			continue
		}
		claimed := m.claims > j.claims[i]
		j.claims[i] = m.claims
		from := m.taken
		if !claimed || from == i || w.rules.loss > 0 || w.returns(i, from) {
			continue
		}
		o := &w.nodes[from]
		covered := e.seen == nodeID(from) && !w.rules.noCover && w.rules.grace > rest
		if !o.powered || o.bare || o.releasing || o.unfit || w.now.Sub(o.kept) < 2*time.Second || !w.steady(from) && !covered {
			continue
		}
		knows := func(k, l int) bool {
			a := w.nodes[k].core.byKey[adjacencyKey{nodeID(l), 1}]
			return a != nil && (w.steady(from) || w.now.Sub(a.since) > 400*time.Millisecond)
		}
		exchange := func(k, l int) bool { return w.meets(k, l) && knows(k, l) && (w.nodes[l].core == nil || knows(l, k)) }
		for k := range w.nodes {
			relays := k == i || k != from && w.steady(k) && exchange(i, k)
			if relays && exchange(k, from) && (k == i || w.now.Sub(w.healed) > 250*time.Millisecond) {
				return fmt.Errorf("%s has taken the address from %s, which lives, and which %s reaches", nodeName(i), nodeName(from), nodeName(k))
			}
		}
	}
	return nil
}

// returns reports whether a cut has just ended, so that answers to the questions of
// before may be missing.
func (w *world) returns(i, from int) bool {
	c := w.nodes[i].core
	a := c.byKey[adjacencyKey{nodeID(from), 1}]
	if !w.steady(from) && w.now.Sub(w.healed) < deadPace+100*time.Millisecond {
		return true // a kernel that nobody had an answer of is asked from time to time
	}
	return w.now.Sub(w.healed) < 100*time.Millisecond && (w.now.Sub(latest(a.evidence(), c.viewed[viewKey{nodeID(from), a.segment}])) < 2*deadTime || !w.steady(i))
}

// forgive begins anew for those invariants that hold some time after an event.
func (j *judge) forgive(w *world) {
	j.none, j.late, j.strange, j.epoch = 0, 0, 0, w.planner.program.epoch
}

// twoOwners reports whether two nodes own the address and reach each other: such
// that exchange heartbeats, and such that do not but are online.
func (w *world) twoOwners() (fellows, strangers bool) {
	owners := w.owners()
	for _, i := range owners {
		for _, j := range owners {
			if i >= j || !w.meets(i, j) {
				continue
			}
			m, n := &w.nodes[i], &w.nodes[j]
			switch {
			case m.core.peers[nodeID(j)] != nil && n.core.peers[nodeID(i)] != nil:
				fellows = true
			case w.online(m) && w.online(n) && !m.slow && !n.slow:
				strangers = true
			}
		}
	}
	return fellows, strangers
}

// servable reports whether somebody is there to answer by itself, and whether there
// is somebody whom the planner could ask to: the client's part of the LAN is one whose
// hosts all reach each other and nobody else, and that nobody else reaches but such as
// reach all of it and hear nobody; and the speaker of a candidate runs in it.
// Where an owner without a speaker lives in it, somebody must remember that it
// answered.
func (w *world) servable() (could, planned bool) {
	client := w.client()
	inside := func(i int) bool {
		return i == client || w.meets(i, client) && w.nodes[i].powered
	}
	for i := range client + 1 {
		for j := range client + 1 {
			if i == j || j != client && !w.nodes[j].powered {
				continue
			}
			if !inside(i) {
				if i != client && w.nodes[i].powered && w.reaches(i, client) && w.reaches(j, i) {
					return false, false
				}
				continue
			}
			if w.reaches(i, j) != inside(j) || w.reaches(j, i) != w.reaches(j, client) {
				return false, false
			}
		}
	}
	for i := range w.nodes {
		m, e := &w.nodes[i], w.entry(i)
		if !inside(i) || m.core == nil || m.stopped.After(w.now) {
			continue
		}
		planned = planned || w.online(m) && !m.slow && w.planner.relieves(i)
		if e == nil {
			continue
		}
		owner := w.ownerAt(i)
		if o := &w.nodes[owner]; inside(owner) {
			if (o.core == nil || o.stopped.After(w.now)) && e.seen != e.best.owner {
				continue // whether it answered is not known
			}
			if o.core != nil && w.entry(owner) == nil {
				continue // it was told that it is no candidate any more, this one was not
			}
		} else if !w.witnessed(i, inside) {
			continue // it may be this one that is cut off
		} else if w.now.Before(e.barred) {
			return false, false // once too often
		}
		could = true
	}
	return could, planned && w.api
}

// witnessed reports whether a candidate can know that it is not itself cut off.
func (w *world) witnessed(i int, inside func(int) bool) bool {
	if !w.rules.noWitness {
		return true
	}
	e := w.entry(i)
	for _, j := range w.nodes[i].program.order.nodes() {
		if j != i && nodeID(j) != e.best.owner && inside(j) {
			return true
		}
	}
	owner := &w.nodes[w.ownerAt(i)]
	return len(e.group.candidates) == 2 && w.online(&w.nodes[i]) && !owner.powered // else it is a coin toss
}

// fingerprint stands for the look of a world.
type fingerprint [2]uint64

// look is all that the future of a world depends on that has come to rest.
func (w *world) look() []byte {
	low := w.planner.program.epoch
	for i := range w.nodes {
		low = min(low, w.nodes[i].program.epoch, w.planner.nodes[i].program.epoch)
		if e := w.entry(i); e != nil {
			low = min(low, e.best.epoch)
		}
	}
	b := make([]byte, 0, 512)
	flag := func(all ...bool) {
		for _, f := range all {
			b = append(b, '0')
			if f {
				b[len(b)-1]++
			}
		}
	}
	put := func(p program) {
		b = append(b, byte(p.epoch-low), byte(p.order[0]), byte(p.order[1]), byte(p.order[2]))
	}
	flag(w.reach...)
	flag(w.api)
	put(w.planner.program)
	b = append(b, byte(w.planner.drained))
	for i := range w.nodes {
		m, n := &w.nodes[i], &w.planner.nodes[i]
		b = append(b, '|')
		flag(m.powered, m.offline, m.slow, m.releasing, m.unfit, m.core != nil, m.stopped.After(w.now), n.silent.IsZero(), n.away.IsZero())
		put(m.program)
		put(n.program)
		put(n.report.applied)
		flag(n.report.owns, n.report.leaving)
		flag(n.report.hears[:]...)
		b = append(b, byte(n.report.claim.epoch-low), byte(n.report.claim.term))
		if m.core == nil {
			continue
		}
		b = append(b, '>')
		e := w.entry(i)
		if e != nil {
			b = append(b, byte(e.role), byte(w.ownerAt(i)), byte(e.best.epoch-low), byte(e.best.term), byte(slices.Index(nodeIDs[:], e.seen)), byte(min(e.yields, 2)))
			put(program{e.group.epoch, order{int8(slices.Index(nodeIDs[:], e.group.candidates[0]))}})
		}
		for _, a := range m.core.adjacencies {
			p := a.peer
			other := w.nodes[p.name[0]-'a'].core
			b = append(b, ',', p.name[0], byte(a.liveness(w.now)), p.flags)
			flag(other != nil && other.life == p.life, p.life == 0, p.synced(), p.has == p.version, p.unfit[virtual], a.deaf, m.core.links[1].deaf, a.heard.IsZero(), a.answered.IsZero(), w.now.Sub(a.evidence()) < witnessMargin, w.now.Sub(m.core.up[1]) < youth)
			for _, claim := range p.claims {
				b = append(b, byte(slices.Index(nodeIDs[:], claim.owner)), byte(claim.rank.epoch-low), byte(claim.rank.term))
			}
		}
	}
	return b
}

// model is a set of rules by which the election is explored.
type model struct {
	name  string
	nodes int
	depth int // that takes seconds
	rule  func(*rules)
}

var modelled = []model{
	{"three", 3, 2, func(*rules) {}},
	{"two", 2, 3, func(*rules) {}},
	{"no witness", 3, 2, func(r *rules) { r.noWitness = true }},
	{"two, no witness", 2, 3, func(r *rules) { r.noWitness = true }},
	{"no cover", 3, 2, func(r *rules) { r.noCover = true }},
	{"short grace", 3, 2, func(r *rules) { r.grace = 600 * time.Millisecond }},
	{"no refusals", 3, 2, func(r *rules) { r.noRefusal = true }},
	{"no API", 3, 2, func(r *rules) { r.noAPI = true }},
	{"two, no API", 2, 3, func(r *rules) { r.noAPI = true }},
	{"loss", 3, 2, func(r *rules) { r.loss = 5 }},
}

// start is a world at rest.
func (m *model) start() (*world, judge) {
	w := newWorld(m.nodes, m.rule)
	w.run(rest, nil)
	w.api = !w.rules.noAPI
	j := judge{limits: limits{twoLimit, noneLimit}}
	if w.rules.loss > 0 {
		j.limits = limits{3 * twoLimit, 2 * noneLimit}
	}
	return w, j
}

// TestModel explores all sequences of events up to a depth, each followed by a
// moment or by rest, and holds each moment against the invariants.
func TestModel(t *testing.T) {
	for _, m := range modelled {
		if *modelRules != "" && *modelRules != m.name {
			continue
		}
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			depth := m.depth
			switch {
			case *modelDepth > 0:
				depth = *modelDepth
			case raced:
				depth--
			}
			x := &explorer{events: events(m.nodes), seen: make(map[fingerprint]int8), seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}}
			w, j := m.start()
			x.explore(w, j, depth)
			t.Logf("%d states at rest, %d moments, %d sequences", len(x.seen), x.moments, x.sequences)
			for _, failure := range x.failures {
				t.Error(failure)
			}
		})
	}
}

type explorer struct {
	events             []happening
	seen               map[fingerprint]int8 // with the depth left when they were explored
	seeds              [2]maphash.Seed
	moments, sequences int
	failures           []string
}

// pauses are how long the world goes on after an event. In the last one it comes to
// rest.
var pauses = []time.Duration{40 * time.Millisecond, 270 * time.Millisecond, rest}

const (
	rest = 3 * time.Second
	// still is how long nothing has changed in a world that is at rest before that.
	still = 500 * time.Millisecond
)

// atRest lets the world come to rest.
func (x *explorer) atRest(w *world, j *judge, most time.Duration) error {
	const pace = 130 * time.Millisecond // so that all phases of heartbeats occur
	look, quiet := []byte(nil), time.Duration(0)
	for passed := time.Duration(0); passed < most && quiet < still; passed += pace {
		if err := x.pass(w, j, pace); err != nil {
			return err
		}
		next := w.look()
		if quiet += pace; !bytes.Equal(next, look) || w.awaits(most-passed) {
			look, quiet = next, 0
		}
	}
	return nil
}

// awaits reports whether something is to happen within that time that can be told
// now.
func (w *world) awaits(within time.Duration) bool {
	soon := func(at time.Time) bool { return at.After(w.now) && !at.After(w.now.Add(within)) }
	for i := range w.nodes {
		if m := &w.nodes[i]; soon(m.stopped) || m.core != nil && soon(m.core.awaited) {
			return true
		}
	}
	return w.api && soon(w.planner.next)
}

func (x *explorer) explore(w *world, j judge, depth int) {
	for _, e := range x.events {
		if depth == 0 || len(x.failures) > 5 {
			return
		}
		if !e.when(w) {
			continue
		}
		next, after := w.clone(), j
		e.do(next)
		after.forgive(next)
		before := time.Duration(0)
		for i, pause := range pauses {
			if depth == 1 && i < len(pauses)-1 {
				continue
			}
			next.trace = append(slices.Clip(w.trace), fmt.Sprintf("%s, %v", e.name, pause))
			pass := x.pass
			if pause == rest {
				pass = x.atRest
			}
			if err := pass(next, &after, pause-before); err != nil {
				x.failures = append(x.failures, fmt.Sprintf("%s: %v: %v", strings.Join(next.trace, "; "), err, next))
				break
			}
			before = pause
			x.sequences++
			if i == len(pauses)-1 && !*modelPlain {
				look := next.look()
				print := fingerprint{maphash.Bytes(x.seeds[0], look), maphash.Bytes(x.seeds[1], look)}
				if left, known := x.seen[print]; known && int(left) >= depth-1 {
					continue
				}
				x.seen[print] = int8(depth - 1)
			}
			x.explore(next, after, depth-1)
		}
	}
}

// pass lets time pass.
func (x *explorer) pass(w *world, j *judge, d time.Duration) (err error) {
	w.run(d, func(d time.Duration) {
		x.moments++
		if err == nil {
			err = j.look(w, d)
		}
	})
	return err
}
