package heartbeat

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// situation is a row of the table in docs/concepts/layer2-failover.md. a owns the
// address, and b and c stand by; or b alone, where there are two.
type situation struct {
	name  string
	nodes int
	rules func(*rules)
	// steps are what happens, each with the time that passes then.
	steps []step
	// sees is what candidates see of their fellows during the last step, roles what each
	// does then.
	sees, roles string
	// gap is the longest time without an answer to the client that there may be. least
	// is one that there is, where nothing can be done about it.
	gap, least time.Duration
	// plan is what the planner has made of it.
	plan string
}

type step struct {
	do   func(w *world)
	time time.Duration
}

const (
	failover = 500 * time.Millisecond
	// noticed is the longest gap where a speaker is covered.
	noticed = 400 * time.Millisecond
)

func without(api ...int) func(w *world) {
	return func(w *world) {
		if len(api) == 0 {
			w.api = false
		}
		for _, i := range api {
			w.nodes[i].offline = true
		}
	}
}

// all does several things at once.
func all(things ...func(w *world)) func(w *world) {
	return func(w *world) {
		for _, f := range things {
			f(w)
		}
	}
}

func on(f func(w *world, i int), nodes ...int) func(w *world) {
	return func(w *world) {
		for _, i := range nodes {
			f(w, i)
		}
	}
}

func separating(i int, from ...int) func(w *world) {
	return on(func(w *world, j int) { w.separate(i, j) }, from...)
}

func joining(i int, to ...int) func(w *world) {
	return on(func(w *world, j int) { w.join(i, j) }, to...)
}

func releasing(is bool, nodes ...int) func(w *world) {
	return on(func(w *world, i int) { w.change(i, func(m *machine) { m.releasing = is }) }, nodes...)
}

func unfit(nodes ...int) func(w *world) {
	return on(func(w *world, i int) { w.change(i, func(m *machine) { m.unfit = true }) }, nodes...)
}

func drained(w *world) { w.planner.drained = 0 }

// muted is that heartbeats are filtered, keyless that there is no key, bare that the
// interface has no carrier.
func muted(w *world, i int)   { w.nodes[i].mute = true }
func keyless(w *world, i int) { w.change(i, func(m *machine) { m.keyless = true }) }
func bare(w *world, i int)    { w.change(i, func(m *machine) { m.bare = true }) }

var (
	noWitness = func(r *rules) { r.noWitness = true }
	apiOnLAN  = func(r *rules) { r.noWitness, r.apiLink = true, true }
	brief     = func(r *rules) { r.grace = 10 * time.Second }
)

const (
	a, b, c = 0, 1, 2
	clients = 3 // beside three nodes
)

var situations = []situation{
	// Deaths.
	{name: "The owner's node dies",
		steps: []step{{on((*world).powerOff, a), 5 * time.Second}},
		sees:  "b: a dead, c up; c: a dead, b up", roles: "-, own, standby", gap: failover, plan: "1:bc"},
	{name: "The owner's node dies while the API server is away",
		steps: []step{{all(without(), on((*world).powerOff, a)), 5 * time.Second}},
		sees:  "b: a dead, c up; c: a dead, b up", roles: "-, own, standby", gap: failover, plan: "0:abc"},
	{name: "The owner's node dies, of two nodes", nodes: 2,
		steps: []step{{all(without(), on((*world).powerOff, a)), 5 * time.Second}},
		sees:  "b: a dead", roles: "-, own", gap: failover, plan: "0:ab"},
	{name: "The nodes of the owner and of the first standby die together",
		steps: []step{{all(without(), on((*world).powerOff, a, b)), 5 * time.Second}},
		sees:  "c: a dead, b dead", roles: "-, -, own", gap: failover, plan: "0:abc"},
	{name: "A node that died is back",
		steps: []step{{on((*world).powerOff, a), 5 * time.Second}, {on((*world).powerOn, a), 5 * time.Second}},
		sees:  "a: b up, c up", roles: "standby, own, standby", gap: failover, plan: "1:bca"},
	{name: "A node that died is back while the API server is away",
		steps: []step{{all(without(), on((*world).powerOff, a)), 5 * time.Second}, {on((*world).powerOn, a), 5 * time.Second}},
		sees:  "a: b up, c up", roles: "standby, own, standby", gap: failover, plan: "0:abc"},
	{name: "The owner's interface loses its carrier",
		steps: []step{{all(without(), on(bare, a)), 5 * time.Second}},
		sees:  "b: a dead, c up", roles: "standby, own, standby", gap: failover, plan: "0:abc"},

	// Speakers.
	{name: "The owner's speaker is stopped to be restarted (SIGTERM)",
		steps: []step{{on((*world).restart, a), 100 * time.Millisecond}, {on((*world).kill, a), 5 * time.Second}},
		sees:  "b: a silent, c up; c: a silent, b up", roles: "-, cover, standby", plan: "0:abc"},
	{name: "The owner's speaker is killed (kill -9)",
		steps: []step{{on((*world).kill, a), 5 * time.Second}},
		sees:  "b: a silent, c up; c: a silent, b up", roles: "-, cover, standby", gap: noticed, plan: "0:abc"},
	{name: "The owner's speaker is back within the grace",
		steps: []step{{on((*world).kill, a), 5 * time.Second}, {on((*world).start, a), 5 * time.Second}},
		sees:  "b: a up, c up", roles: "own, standby, standby", gap: noticed, plan: "0:abc"},
	{name: "The owner's speaker is away for longer than the grace", rules: brief,
		steps: []step{{on((*world).kill, a), 9 * time.Second}, {nil, 2 * time.Second}},
		sees:  "b: a silent, c up", roles: "-, own, standby", gap: noticed, plan: "1:bc"},
	{name: "The owner's speaker is back after the grace", rules: brief,
		steps: []step{{on((*world).kill, a), 12 * time.Second}, {on((*world).start, a), 5 * time.Second}},
		sees:  "a: b up, c up", roles: "standby, own, standby", gap: noticed, plan: "1:bca"},
	{name: "A node dies whose speaker is covered",
		steps: []step{{on((*world).kill, a), 5 * time.Second}, {on((*world).powerOff, a), 5 * time.Second}},
		sees:  "b: a dead, c up", roles: "-, own, standby", gap: failover, plan: "1:bc"},
	{name: "The speakers of the owner and of the first standby are away",
		steps: []step{{on((*world).kill, a, b), 5 * time.Second}},
		sees:  "c: a silent", roles: "-, -, cover", gap: noticed, plan: "0:ac"},
	{name: "The owner's process stands still for a second, or has no CPU",
		steps: []step{{func(w *world) { w.stop(a, time.Second) }, 900 * time.Millisecond}},
		sees:  "b: a silent, c up", roles: "undecided, cover, standby", gap: noticed, plan: "0:abc"},
	{name: "The owner's speaker is away, and nodes must not answer for others (`--cover-restarts=false`)", rules: func(r *rules) { r.noCover = true },
		steps: []step{{on((*world).kill, a), 5 * time.Second}},
		sees:  "b: a silent, c up", roles: "-, own, standby", gap: failover, plan: "1:bc"},
	{name: "The owner's speaker is away, and the network inspects ARP", rules: func(r *rules) { r.inspects = true },
		steps: []step{{nil, 10 * time.Second}, {on((*world).kill, a), 5 * time.Second}},
		sees:  "b: a silent, c up", roles: "-, own, standby", gap: failover, plan: "1:bc"},

	// Cuts.
	{name: "The owner is cut off from everything (2+1)",
		steps: []step{{all(without(a), on((*world).isolate, a)), 5 * time.Second}},
		sees:  "a: b dead, c dead; b: a dead, c up", roles: "own, own, standby", gap: failover, plan: "1:bc"},
	{name: "The owner is cut off from everything (1+1)", nodes: 2,
		steps: []step{{all(without(a), on((*world).isolate, a)), 5 * time.Second}},
		sees:  "a: b dead; b: a dead", roles: "own, own", gap: failover, plan: "1:b"},
	{name: "A standby is cut off from everything",
		steps: []step{{all(without(b), on((*world).isolate, b)), 5 * time.Second}},
		sees:  "a: b dead, c up; b: a dead, c dead", roles: "own, standby, standby", plan: "0:ac"},
	{name: "Every node is cut off from every other host: the switch restarts",
		steps: []step{{all(without(), on((*world).isolate, a, b, c)), 10 * time.Second}, {on((*world).rejoin, a, b, c), 5 * time.Second}},
		sees:  "a: b up, c up; b: a up, c up", roles: "own, standby, standby", gap: 11 * time.Second, least: 9 * time.Second, plan: "0:abc"},
	{name: "The owner is cut off from the API server only, for an hour",
		steps: []step{{without(a), time.Hour}},
		sees:  "b: a up, c up", roles: "own, standby, standby", plan: "0:abc"},
	{name: "The owner is cut off from its fellows, but not from clients",
		steps: []step{{separating(a, b, c), 5 * time.Second}},
		sees:  "a: b dead, c dead; b: a dead, c up", roles: "standby, own, standby", plan: "1:bca"},
	{name: "The owner is cut off from its fellows, but not from clients, while the API server is away",
		steps: []step{{all(without(), separating(a, b, c)), 5 * time.Second}},
		sees:  "a: b dead, c dead; b: a dead, c up", roles: "own, own, standby", plan: "0:abc"},
	{name: "Two nodes are cut off from each other, each with clients (1+1)", nodes: 2,
		steps: []step{{separating(a, b), 5 * time.Second}},
		sees:  "a: b dead; b: a dead", roles: "standby, own", plan: "1:ba"},
	{name: "The node that lost the address in such a cut is cut off from everything", nodes: 2,
		steps: []step{{separating(a, b), 5 * time.Second}, {all(without(a), on((*world).isolate, a)), 30 * time.Second}},
		sees:  "a: b dead", roles: "standby, own", plan: "1:b"},
	{name: "Such a cut ends, and then the owner's node dies", nodes: 2,
		steps: []step{{separating(a, b), 5 * time.Second}, {joining(a, b), 5 * time.Second}, {on((*world).powerOff, b), 5 * time.Second}},
		sees:  "a: b dead", roles: "own, -", gap: failover, plan: "2:a"},
	{name: "Two nodes are cut off from each other, each with clients, while the API server is away", nodes: 2,
		steps: []step{{all(without(), separating(a, b)), 5 * time.Second}},
		sees:  "a: b dead; b: a dead", roles: "own, own", plan: "0:ab"},
	{name: "A cut with two owners ends",
		steps: []step{{all(without(), separating(a, b, c)), 5 * time.Second}, {joining(a, b, c), 300 * time.Millisecond}},
		sees:  "a: b up, c up; b: a up, c up", roles: "standby, own, standby", plan: "0:abc"},
	{name: "Two standbys that have both taken over meet",
		steps: []step{
			{all(without(), on((*world).powerOff, a), separating(b, c)), 5 * time.Second},
			{joining(b, c), 300 * time.Millisecond},
		},
		sees: "b: a dead, c up; c: a dead, b up", roles: "one", gap: failover, plan: "0:abc"},
	{name: "The owner is cut off from one standby",
		steps: []step{{separating(a, b), time.Hour}},
		sees:  "b: a dead, c up; c: a up, b up", roles: "own, standby, standby", plan: "0:abc"},
	{name: "The owner is cut off from one standby, and then dies",
		steps: []step{{separating(a, b), 5 * time.Second}, {on((*world).powerOff, a), 5 * time.Second}},
		sees:  "b: a dead, c up; c: a dead, b up", roles: "-, standby, own", gap: time.Second, plan: "1:cb"},
	{name: "The owner is cut off from the clients only",
		steps: []step{{separating(a, clients), 5 * time.Second}},
		sees:  "b: a up, c up", roles: "own, standby, standby", gap: time.Hour, least: 5 * time.Second, plan: "0:abc"},
	{name: "What the owner sends is lost",
		steps: []step{{all(without(), on(func(w *world, i int) { w.cut(a, i) }, b, c, clients)), 5 * time.Second}},
		sees:  "a: b up, c up; b: a dead, c up", roles: "standby, own, standby", gap: failover, plan: "0:abc"},
	{name: "What is sent to the owner is lost",
		steps: []step{{on((*world).deafen, a), 5 * time.Second}},
		sees:  "a: b dead, c dead; b: a up, c up", roles: "standby, own, standby", gap: failover, plan: "1:bca"},
	{name: "What is sent to the owner is lost, from the API server, too",
		steps: []step{{all(without(a), on((*world).deafen, a)), 5 * time.Second}},
		sees:  "a: b dead, c dead; b: a up, c up", roles: "own, own, standby", gap: failover, plan: "1:bc"},
	{name: "What was sent to the owner was lost, and arrives again",
		steps: []step{
			{all(without(), on((*world).deafen, a)), 5 * time.Second},
			{on(func(w *world, i int) { w.heal(i, a) }, b, c, clients), 300 * time.Millisecond},
		},
		sees: "a: b up, c up", roles: "standby, own, standby", gap: failover, plan: "0:abc"},
	{name: "What is sent to the owner is lost, of two nodes", nodes: 2,
		steps: []step{{all(without(), on((*world).deafen, a)), 5 * time.Second}},
		sees:  "a: b dead; b: a up", roles: "own, own", gap: failover, plan: "0:ab"},
	{name: "What is sent to the owner is lost, of two nodes, and there is no witness", nodes: 2, rules: noWitness,
		steps: []step{{all(without(), on((*world).deafen, a)), 5 * time.Second}},
		sees:  "a: b dead; b: a up", roles: "own, standby", gap: time.Hour, least: 5 * time.Second, plan: "0:ab"},
	{name: "What is sent to the owner is lost, and so is what the first standby sends",
		steps: []step{{all(without(), on((*world).deafen, a), on(func(w *world, i int) { w.cut(b, i) }, a, c, clients)), 5 * time.Second}},
		sees:  "b: a up, c up; c: a up, b dead", roles: "own, standby, own", gap: time.Second, plan: "0:abc"},
	{name: "The owner's node dies, and there is no witness but a fellow", rules: noWitness,
		steps: []step{{all(without(), on((*world).powerOff, a)), 5 * time.Second}},
		sees:  "b: a dead, c up", roles: "-, own, standby", gap: failover, plan: "0:abc"},
	{name: "The owner's node dies, of two nodes, and there is no witness but the API server", nodes: 2, rules: noWitness,
		steps: []step{{on((*world).powerOff, a), 5 * time.Second}},
		sees:  "b: a dead", roles: "-, own", gap: failover, plan: "1:b"},
	{name: "The nodes of the owner and of the first standby die together, and there is no witness but the API server by the same interface", rules: apiOnLAN,
		steps: []step{{on((*world).powerOff, a, b), 5 * time.Second}},
		sees:  "c: a dead, b dead", roles: "-, -, own", gap: failover, plan: "1:cab"},
	{name: "The owner's node dies, of two nodes, and there is no witness at all", nodes: 2, rules: noWitness,
		steps: []step{{all(without(), on((*world).powerOff, a)), 5 * time.Second}},
		sees:  "b: a dead", roles: "-, standby", gap: time.Hour, least: 4 * time.Second, plan: "0:ab"},
	{name: "A standby is cut off from all of several candidates, and there is no witness but the API server by another way", rules: noWitness,
		steps: []step{{on((*world).isolate, b), 5 * time.Second}},
		sees:  "b: a dead, c dead", roles: "own, standby, standby", plan: "0:abc"},

	// What keeps heartbeats away.
	{name: "The owner has no key",
		steps: []step{{on(keyless, a), 5 * time.Second}},
		sees:  "b: a serving, c up", roles: "own, standby, standby", plan: "0:abc"},
	{name: "The owner has no key, and its node dies",
		steps: []step{{on(keyless, a), 5 * time.Second}, {on((*world).powerOff, a), 5 * time.Second}},
		sees:  "b: a dead, c up", roles: "-, own, standby", gap: time.Second, plan: "1:bc"},
	{name: "The first standby has no key, and the owner's node dies while the API server is away",
		steps: []step{{on(keyless, b), 5 * time.Second}, {all(without(), on((*world).powerOff, a)), 5 * time.Second}},
		sees:  "c: a dead, b silent", roles: "-, standby, own", gap: failover, plan: "0:abc"},
	{name: "UDP is filtered, and ARP is not",
		steps: []step{{on(muted, a, b, c), 5 * time.Second}},
		sees:  "b: a serving, c silent; c: a serving, b silent", roles: "own, standby, standby", plan: "0:abc"},
	{name: "UDP is filtered, and the owner's node dies",
		steps: []step{{on(muted, a, b, c), 5 * time.Second}, {on((*world).powerOff, a), 5 * time.Second}},
		sees:  "b: a dead, c silent", roles: "-, own, standby", gap: time.Second, plan: "1:bc"},
	{name: "UDP is filtered, and the owner's node dies while the API server is away",
		steps: []step{{all(without(), on(muted, a, b, c)), 5 * time.Second}, {on((*world).powerOff, a), 5 * time.Second}},
		sees:  "b: a dead, c silent; c: a dead, b silent", roles: "-, own, own", gap: time.Second, plan: "0:abc"},
	{name: "UDP is filtered from the start, and the owner's speaker is away",
		steps: []step{{all(on((*world).kill, a, b, c), on(muted, a, b, c), on((*world).start, a, b, c)), 5 * time.Second}, {on((*world).kill, a), 5 * time.Second}},
		sees:  "b: c silent", roles: "-, own, standby", gap: patience + failover, least: patience / 2, plan: "1:bc"},

	// More than one thing at a time.
	{name: "The owner's node dies while the first standby's speaker is about to restart",
		steps: []step{{all(without(), on((*world).restart, b)), 100 * time.Millisecond}, {on((*world).powerOff, a), 2 * time.Second}},
		sees:  "c: a dead, b up", roles: "-, standby, own", gap: failover, plan: "0:abc"},
	{name: "The owner's node dies while the first standby's speaker starts",
		steps: []step{
			{all(without(), on((*world).kill, b)), time.Second},
			{on((*world).powerOff, a), 200 * time.Millisecond},
			{on((*world).start, b), 2 * time.Second},
		},
		sees: "c: a dead, b up", roles: "-, standby, own", gap: failover, plan: "0:abc"},
	{name: "The owner says that it restarts, and its node dies",
		steps: []step{{all(without(), on((*world).restart, a)), 100 * time.Millisecond}, {on((*world).powerOff, a), 2 * time.Second}},
		sees:  "b: a dead, c up", roles: "-, own, standby", gap: failover, plan: "0:abc"},
	{name: "The owner's speaker starts again while a standby's node is down",
		steps: []step{
			{all(without(), on((*world).powerOff, c)), time.Second}, {on((*world).kill, a), 5 * time.Second}, {on((*world).start, a), 5 * time.Second},
		},
		sees: "a: b up, c dead", roles: "own, standby, -", gap: noticed, plan: "0:abc"},

	// People and the planner.
	{name: "kube-proxy on the owner answers 503",
		steps: []step{{all(without(), releasing(true, a)), 5 * time.Second}},
		sees:  "b: a up, c up", roles: "standby, own, standby", plan: "0:abc"},
	{name: "kube-proxy answers 503 on all candidates",
		steps: []step{{all(without(), releasing(true, a, b, c)), 5 * time.Second}},
		sees:  "b: a up, c up", roles: "own, standby, standby", plan: "0:abc"},
	{name: "kube-proxy answers 503 on all candidates, and the owner's node dies",
		steps: []step{{all(without(), releasing(true, a, b, c)), 5 * time.Second}, {on((*world).powerOff, a), 5 * time.Second}},
		sees:  "b: a dead, c up", roles: "-, own, standby", gap: failover, plan: "0:abc"},
	{name: "The owner has no endpoint left, and the planner is away",
		steps: []step{{all(without(), unfit(a)), 5 * time.Second}},
		sees:  "b: a up, c up", roles: "standby, own, standby", plan: "0:abc"},
	{name: "The owner and the first standby have no endpoint left, and the planner is away",
		steps: []step{{all(without(), unfit(a, b)), 5 * time.Second}},
		sees:  "b: a up, c up", roles: "standby, standby, own", plan: "0:abc"},
	{name: "No candidate has an endpoint left, and the planner is away",
		steps: []step{{all(without(), unfit(a, b, c)), 5 * time.Second}},
		sees:  "b: a up, c up", roles: "own, standby, standby", plan: "0:abc"},
	{name: "The first standby has no endpoint left, and the owner's node dies",
		steps: []step{{all(without(), unfit(b)), 5 * time.Second}, {on((*world).powerOff, a), 5 * time.Second}},
		sees:  "c: a dead, b up", roles: "-, standby, own", gap: failover, plan: "0:abc"},
	{name: "No candidate has an endpoint left, and the owner's node dies",
		steps: []step{{all(without(), unfit(a, b, c)), 5 * time.Second}, {on((*world).powerOff, a), 5 * time.Second}},
		sees:  "b: a dead, c up", roles: "-, own, standby", gap: failover, plan: "0:abc"},
	{name: "The owner is drained",
		steps: []step{{drained, 5 * time.Second}},
		sees:  "b: c up", roles: "-, own, standby", plan: "1:bc"},
	{name: "The owner is drained, and its program does not reach it",
		steps: []step{{all(drained, func(w *world) { w.nodes[a].slow = true }), 5 * time.Second}},
		sees:  "b: c up", roles: "own, own, standby", plan: "1:bc"},
	{name: "The owner is drained, and the program of the next one does not reach it",
		steps: []step{{all(drained, func(w *world) { w.nodes[b].slow = true }), 5 * time.Second}},
		sees:  "b: a silent, c up", roles: "-, own, standby", plan: "1:bc"},
	{name: "The owner dies while the planner moves the address from it",
		steps: []step{{drained, 60 * time.Millisecond}, {on((*world).powerOff, a), 5 * time.Second}},
		sees:  "b: c up", roles: "-, own, standby", plan: "1:bc"},
	{name: "The planner gives the address to a node that has just died",
		steps: []step{{all(drained, on((*world).powerOff, b)), 5 * time.Second}},
		sees:  "c: b dead", roles: "-, -, own", gap: failover, plan: "2:c"},
	{name: "The planner gives the address to a node that is cut off from the LAN",
		steps: []step{{on((*world).isolate, b), 5 * time.Second}, {drained, 5 * time.Second}},
		sees:  "b: c dead; c: b dead", roles: "-, standby, own", gap: failover, plan: "2:cb"},
	{name: "A candidate that took over has another program than the one that stands by, and dies",
		steps: []step{
			{all(without(c), func(w *world) { w.nodes[c].slow = true }, on((*world).powerOff, a)), 5 * time.Second},
			{on((*world).powerOff, b), 5 * time.Second},
		},
		sees: "c: a dead, b dead", roles: "-, -, own", gap: failover, plan: "1:bca"},
}

func TestDecisionTable(t *testing.T) {
	for _, s := range situations {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			nodes, rule := max(s.nodes, 2), s.rules
			if s.nodes == 0 {
				nodes = 3
			}
			if rule == nil {
				rule = func(*rules) {}
			}
			w := settled(t, nodes, rule)
			var gap time.Duration
			saw := make(map[string]bool)
			for _, step := range s.steps {
				if step.do != nil {
					step.do(w)
				}
				clear(saw)
				gap = max(gap, w.gap(step.time, func() { w.sees(saw) }))
			}
			if gap > s.gap || gap < s.least {
				t.Errorf("nobody answered for %v, want %v to %v", gap, s.least, s.gap)
			}
			for part := range strings.SplitSeq(s.sees, "; ") {
				if !saw[part] {
					t.Errorf("not seen: %s; but %v", part, slices.Sorted(maps.Keys(saw)))
				}
			}
			if roles := w.roles(); s.roles == "one" && len(w.owners()) != 1 || s.roles != "one" && roles != s.roles {
				t.Errorf("the roles are %s, want %s", roles, s.roles)
			}
			if plan := w.planner.program.String(); plan != s.plan {
				t.Errorf("the plan is %s, want %s", plan, s.plan)
			}
			if t.Failed() {
				t.Log(w)
			}
		})
	}
}

// sees notes the liveness of each node's fellows.
func (w *world) sees(saw map[string]bool) {
	for i := range w.nodes {
		if w.nodes[i].core == nil {
			continue
		}
		var fellows []string
		for _, a := range w.nodes[i].core.status(w.now) {
			fellows = append(fellows, fmt.Sprintf("%s %v", a.Node, a.Liveness))
		}
		saw[nodeName(i)+": "+strings.Join(fellows, ", ")] = true
	}
}

// roles is what each node does, or a dash.
func (w *world) roles() string {
	var roles []string
	for i := range w.nodes {
		if w.entry(i) == nil {
			roles = append(roles, "-")
			continue
		}
		roles = append(roles, w.role(i).String())
	}
	return strings.Join(roles, ", ")
}

// TestDecisionTableIsDocumented: the rows of the document are those of the test.
func TestDecisionTableIsDocumented(t *testing.T) {
	const path = "../../docs/concepts/layer2-failover.md"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var documented, tested []string
	_, table, _ := strings.Cut(string(text), "\n## All cases\n")
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.Trim(line, "|\n"), " | ")
		if name := strings.TrimSpace(cells[0]); len(cells) == 5 && name != "situation" && !strings.HasPrefix(name, "**") {
			documented = append(documented, name)
		}
	}
	for _, s := range situations {
		tested = append(tested, s.name)
	}
	for _, name := range tested {
		if !slices.Contains(documented, name) {
			t.Errorf("%s has no row %q", path, name)
		}
	}
	for _, name := range documented {
		if !slices.Contains(tested, name) {
			t.Errorf("the row %q of %s has no test", name, path)
		}
	}
}
