package heartbeat

import (
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"
)

// clone is a copy that goes on by itself. What is never changed once it is there is
// shared: programs, packets, tables.
func (w *world) clone() *world {
	out := *w
	out.nodes = slices.Clone(w.nodes)
	for i := range out.nodes {
		out.nodes[i].core = w.nodes[i].core.clone()
	}
	out.reach = slices.Clone(w.reach)
	out.frames = slices.Clone(w.frames)
	out.planner.nodes = slices.Clone(w.planner.nodes)
	out.trace = slices.Clip(w.trace)
	return &out
}

func (c *core) clone() *core {
	if c == nil {
		return nil
	}
	out := *c
	out.past = slices.Clone(c.past)
	out.up = maps.Clone(c.up)
	out.viewed = maps.Clone(c.viewed)
	out.arrived = maps.Clone(c.arrived)
	out.links = make(map[int]*link, len(c.links))
	for index, l := range c.links {
		copied := *l
		out.links[index] = &copied
	}
	out.sorted = slices.Clone(c.sorted)
	out.entries = make(map[netip.Addr]*entry, len(c.entries))
	for i, e := range c.sorted {
		copied := *e
		out.sorted[i], out.entries[e.addr] = &copied, &copied
	}
	out.peers = make(map[id]*peer, len(c.peers))
	for key, p := range c.peers {
		copied := *p
		copied.adjacencies = nil
		copied.former = slices.Clone(p.former)
		copied.says = maps.Clone(p.says)
		if p.parts != nil {
			parts := *p.parts
			parts.chunks = slices.Clone(parts.chunks)
			copied.parts = &parts
		}
		out.peers[key] = &copied
	}
	out.adjacencies = slices.Clone(c.adjacencies)
	out.byKey = make(map[adjacencyKey]*adjacency, len(c.byKey))
	for i, a := range c.adjacencies {
		copied := *a
		copied.peer = out.peers[a.peer.id]
		copied.peer.adjacencies = append(copied.peer.adjacencies, &copied)
		out.adjacencies[i], out.byKey[adjacencyKey{a.peer.id, a.link}] = &copied, &copied
	}
	return &out
}

// TestClone has clones go on in another way than the original, which must not
// notice, and in the same way, which must end in the same world.
func TestClone(t *testing.T) {
	script := []func(w *world){
		func(w *world) { w.kill(0) },
		func(w *world) { w.isolate(1) },
		func(w *world) { w.start(0); w.change(2, func(m *machine) { m.releasing = true }) },
		func(w *world) { w.rejoin(1); w.planner.drained = 0 },
		func(w *world) { w.powerOff(2); w.stop(1, time.Second) },
	}
	replayed, original := newWorld(3), newWorld(3)
	copied := original.clone()
	for i, step := range script {
		for k, other := range script {
			if k != i {
				stray := original.clone()
				other(stray)
				stray.run(2*time.Second, nil)
			}
		}
		for _, w := range []*world{replayed, original, copied} {
			step(w)
			w.run(330*time.Millisecond, nil)
		}
		if !reflect.DeepEqual(original, replayed) {
			t.Fatalf("after step %d clones have changed the original: %v; want %v", i, original, replayed)
		}
		if !reflect.DeepEqual(copied, original) {
			t.Fatalf("after step %d the clone is %v, want %v", i, copied, original)
		}
		copied = copied.clone()
	}
}
