package speaker

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/layer2"
)

// lanProgram announces addresses on the LAN, of each group by an owner.
func lanProgram(epoch int64, groups ...announce.Group) *announce.Program {
	p := &announce.Program{Epoch: epoch, Cluster: "c", Groups: groups, Nodes: []announce.Node{
		{Name: "here", MACs: []announce.MAC{{2, 0, 0x5e, 0, 0x53, 1}}},
		{Name: "there", MACs: []announce.MAC{{2, 0, 0x5e, 0, 0x53, 2}}},
	}}
	p.Normalize()
	return p
}

func group(owner string, probe bool, addresses ...string) announce.Group {
	return announce.Group{Pool: "lan", Layer2: &announce.Layer2{Candidates: []string{owner}, Probe: probe}, Addresses: ranges(addresses...)}
}

func encode(t testing.TB, p *announce.Program) string {
	t.Helper()
	value, err := announce.Encode(*p)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func TestCompileLAN(t *testing.T) {
	t.Parallel()
	addr := netip.MustParseAddr
	fellows := []announce.MAC{{2, 0, 0x5e, 0, 0x53, 2}}
	for name, test := range map[string]struct {
		groups   []announce.Group
		standing standing
		want     []layer2.Group
	}{
		"nothing":   {},
		"another's": {groups: []announce.Group{group("there", true, "192.0.2.1")}},
		"taken over": {
			groups: []announce.Group{group("here", false, "192.0.2.1-192.0.2.2", "2001:db8::1")},
			want:   []layer2.Group{{Addresses: []netip.Addr{addr("192.0.2.1"), addr("192.0.2.2"), addr("2001:db8::1")}}},
		},
		"new": {
			groups: []announce.Group{group("here", true, "192.0.2.1")},
			want:   []layer2.Group{{Addresses: []netip.Addr{addr("192.0.2.1")}, Caution: layer2.Fresh}},
		},
		"owned before a restart": {
			groups:   []announce.Group{group("here", true, "192.0.2.1", "192.0.2.2")},
			standing: standing{before: lanProgram(1, group("here", true, "192.0.2.2")).Owned("here")},
			want: []layer2.Group{
				{Addresses: []netip.Addr{addr("192.0.2.2")}},
				{Addresses: []netip.Addr{addr("192.0.2.1")}, Caution: layer2.Fresh},
			},
		},
		"of another node before a restart": {
			groups:   []announce.Group{group("here", true, "192.0.2.1")},
			standing: standing{before: lanProgram(1, group("there", true, "192.0.2.1")).Owned("here")},
			want:     []layer2.Group{{Addresses: []netip.Addr{addr("192.0.2.1")}, Caution: layer2.Fresh}},
		},
		"doubtful": {
			groups:   []announce.Group{group("here", true, "192.0.2.1"), group("here", false, "192.0.2.3")},
			standing: standing{doubtful: true},
			want: []layer2.Group{
				{Addresses: []netip.Addr{addr("192.0.2.1")}, Caution: layer2.Doubtful},
				{Addresses: []netip.Addr{addr("192.0.2.3")}, Caution: layer2.Doubtful},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test.standing.node = "here"
			i := inventory{links: []layer2.Interface{{Index: 2, Name: "eth0"}}}
			got, err := compileLAN(lanProgram(1, test.groups...), test.standing, i, ways{
				reached:  []announce.Reach{{Target: addr("192.0.2.9"), Interface: "eth0"}, {Target: addr("192.0.2.8"), Error: "no route"}},
				gateways: []netip.Addr{addr("192.0.2.254")},
			})
			if err != nil {
				t.Fatal(err)
			}
			want := layer2.State{Interfaces: i.links, Groups: test.want, Fellows: fellows, Reach: map[netip.Addr]string{addr("192.0.2.9"): "eth0"}, Gateways: []netip.Addr{addr("192.0.2.254")}}
			if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
				t.Error(diff)
			}
		})
	}
	if _, err := compileLAN(lanProgram(1, group("here", false, "2001:db8::-2001:db8::ffff:ffff")), standing{node: "here"}, inventory{}, ways{}); err == nil {
		t.Error("a range of four thousand million addresses was expanded")
	}
}

func TestTakesOver(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		next, before *announce.Program
		want         bool
	}{
		"moved here":          {lanProgram(2, group("here", false, "192.0.2.1")), lanProgram(1, group("there", false, "192.0.2.1")), true},
		"moved here, unknown": {lanProgram(2, group("here", false, "192.0.2.1")), lanProgram(1), true},
		"new":                 {lanProgram(2, group("here", true, "192.0.2.1")), lanProgram(1), false},
		"kept":                {lanProgram(2, group("here", false, "192.0.2.1")), lanProgram(1, group("here", true, "192.0.2.1")), false},
		"one of two moved":    {lanProgram(2, group("here", false, "192.0.2.1-192.0.2.2")), lanProgram(1, group("here", true, "192.0.2.1")), true},
		"moved away":          {lanProgram(2, group("there", false, "192.0.2.1")), lanProgram(1, group("here", true, "192.0.2.1")), false},
	} {
		if got := takesOver(test.next, test.before, "here"); got != test.want {
			t.Errorf("%s: %t, want %t", name, got, test.want)
		}
	}
}

func (h *harness) onLAN(t *testing.T, what, want string) {
	t.Helper()
	synctest.Wait()
	if got := h.wall.shown(); got != want {
		t.Errorf("%s: on the LAN %q, want %q", what, got, want)
	}
}

// away shows the loop that the API server does not answer.
func (h *harness) away() {
	h.nodes.put(node{read: true, offline: true, uid: h.shown.uid, announced: h.shown.announced, program: h.shown.program})
	synctest.Wait()
}

// show shows the loop a Node of a UID with the program, if there is one.
func (h *harness) show(uid, program string) {
	h.shown = node{read: true, uid: uid, announced: program != "", program: program}
	h.nodes.put(h.shown)
	synctest.Wait()
}

func TestAddressesAreDoubtfulWhileTheAPIServerIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.show("u", encode(t, lanProgram(1, group("here", false, "192.0.2.1"), group("there", false, "192.0.2.2"))))
		h.onLAN(t, "connected", "192.0.2.1 certain")
		if kept := h.wall.keeps(); kept == nil || kept.NodeUID != "u" || kept.Cluster != "c" || kept.Node != "here" {
			t.Errorf("kept %+v", kept)
		}
		h.away()
		h.onLAN(t, "away", "192.0.2.1 doubtful")
		h.show("u", encode(t, lanProgram(1, group("here", false, "192.0.2.1"), group("there", false, "192.0.2.2"))))
		h.onLAN(t, "back", "192.0.2.1 certain")
		h.nodes.put(node{read: true, gone: true})
		h.onLAN(t, "the Node is gone", "192.0.2.1 doubtful")
		h.show("u", "malformed")
		h.onLAN(t, "the program is malformed", "192.0.2.1 doubtful")
		h.show("u", encode(t, lanProgram(2, group("here", false, "192.0.2.1"))))
		h.onLAN(t, "mended", "192.0.2.1 certain")
		h.away()
		h.show("u", encode(t, lanProgram(3, group("there", false, "192.0.2.1"))))
		h.onLAN(t, "back, and moved meanwhile", "")
		h.stop()
		<-h.ended
		if h.wall.forgot {
			t.Error("a restart forgets")
		}
	})
}

func TestLeavingNodeStopsAnswering(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.nodes.put(node{read: true, uid: "u", announced: true, draining: true, program: encode(t, lanProgram(1, group("here", false, "192.0.2.1")))})
		h.onLAN(t, "running", "192.0.2.1 certain")
		h.stop()
		<-h.ended
		if got := h.wall.shown(); got != "" {
			t.Errorf("still on the LAN: %s", got)
		}
	})
}

// TestLeavingNodeHandsOver: it answers until others own its addresses.
func TestLeavingNodeHandsOver(t *testing.T) {
	for name, test := range map[string]struct {
		moved bool
		took  time.Duration
	}{
		"to another node": {true, 0},
		"to nobody":       {false, handoverTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHarness(t)
				n := node{read: true, uid: "u", announced: true, cordoned: true, program: encode(t, lanProgram(1, group("here", false, "192.0.2.1")))}
				h.nodes.put(n)
				h.onLAN(t, "running", "192.0.2.1 certain")
				stopped := time.Now()
				h.stop()
				h.onLAN(t, "leaving", "192.0.2.1 certain")
				if r := h.report(t); !r.Leaving || h.reporter.hurried() != reportNow {
					t.Errorf("report %+v, urgency %d", r, h.reporter.hurried())
				}
				if test.moved {
					n.program = encode(t, lanProgram(2, group("there", false, "192.0.2.1")))
					h.nodes.put(n)
				}
				<-h.ended
				if took := time.Since(stopped); took != test.took {
					t.Errorf("it took %v, want %v", took, test.took)
				}
				h.onLAN(t, "at the end", "")
			})
		})
	}
}

func TestProgramOfBefore(t *testing.T) {
	old := lanProgram(5, group("here", true, "192.0.2.1"))
	gateOf := func(state gateState) *gate {
		g := newGate("http://127.0.0.1:10256/healthz", func() {})
		g.last = state
		return g
	}
	for name, test := range map[string]struct {
		before memory
		gate   *gate
		then   func(t *testing.T, h *harness)
	}{
		"the API server is away": {before: memory{program: old, nodeUID: "u"}, then: func(t *testing.T, h *harness) {
			h.onLAN(t, "at once, after a question", "192.0.2.1 doubtful")
			if _, sets := h.board.shown(); sets != 0 {
				t.Error("routers are told before the API server has had its time")
			}
			time.Sleep(apiPatience)
			synctest.Wait()
			if _, sets := h.board.shown(); sets == 0 {
				t.Error("routers are not told")
			}
			h.onLAN(t, "then", "192.0.2.1 doubtful")
			h.show("u", encode(t, lanProgram(6, group("here", true, "192.0.2.1"))))
			h.onLAN(t, "confirmed", "192.0.2.1 certain")
		}},
		"restarted": {before: memory{program: old, nodeUID: "u"}, then: func(t *testing.T, h *harness) {
			h.show("u", encode(t, old))
			h.onLAN(t, "owned before", "192.0.2.1 certain")
			h.show("u", encode(t, lanProgram(6, group("here", true, "192.0.2.1", "192.0.2.2"))))
			h.onLAN(t, "from then on", "192.0.2.1 fresh, 192.0.2.2 fresh")
		}},
		"restarted, another host had the address": {before: memory{program: old, nodeUID: "u"}, then: func(t *testing.T, h *harness) {
			h.nodes.put(node{read: true, uid: "u", announced: true, program: encode(t, old),
				report: `{"conflicts":[{"address":"192.0.2.1","interface":"eth0","mac":"02:00:5e:00:53:ff","held":true}]}`})
			h.onLAN(t, "held before", "192.0.2.1 fresh")
		}},
		"another host has the address": {before: memory{program: old, nodeUID: "u"}, then: func(t *testing.T, h *harness) {
			h.wall.status.Conflicts = []announce.Conflict{{Address: netip.MustParseAddr("192.0.2.1"), Held: true}}
			h.nodes.put(node{offline: true})
			h.onLAN(t, "alone", "192.0.2.1 doubtful")
			h.show("u", encode(t, old))
			h.onLAN(t, "confirmed, and held", "192.0.2.1 fresh")
		}},
		"the API server refuses": {before: memory{program: old, nodeUID: "u"}, then: func(t *testing.T, h *harness) {
			h.nodes.put(node{offline: true})
			h.onLAN(t, "at once", "192.0.2.1 doubtful")
		}},
		"the API server answers": {before: memory{program: old, nodeUID: "u"}, then: func(t *testing.T, h *harness) {
			h.show("u", encode(t, lanProgram(6, group("there", false, "192.0.2.1"))))
			time.Sleep(time.Minute)
			h.onLAN(t, "moved meanwhile", "")
		}},
		"the program cannot be read": {before: memory{program: old, nodeUID: "u"}, then: func(t *testing.T, h *harness) {
			h.show("u", "{\"version\":99}")
			h.onLAN(t, "the last state", "192.0.2.1 doubtful")
		}},
		"the Node has no program": {before: memory{program: old, nodeUID: "u"}, then: func(t *testing.T, h *harness) {
			h.show("u", "")
			h.onLAN(t, "the last state", "192.0.2.1 doubtful")
		}},
		"another Node of the name": {before: memory{program: old, nodeUID: "u"}, then: func(t *testing.T, h *harness) {
			h.onLAN(t, "before that is known", "192.0.2.1 doubtful")
			h.show("other", "")
			h.onLAN(t, "then", "")
			if !h.wall.forgot {
				t.Error("the state is still kept")
			}
			if r := h.report(t); len(r.Problems) != 1 || !strings.Contains(r.Problems[0], "--state-dir") {
				t.Errorf("problems %q", r.Problems)
			}
		}},
		"refused": {before: memory{refused: errors.New("/state/program.json: damaged; not used")}, then: func(t *testing.T, h *harness) {
			time.Sleep(time.Minute)
			h.onLAN(t, "alone", "")
			h.show("u", encode(t, old))
			h.onLAN(t, "told", "192.0.2.1 fresh")
			if r := h.report(t); len(r.Problems) != 1 || !strings.Contains(r.Problems[0], "damaged") {
				t.Errorf("problems %q", r.Problems)
			}
		}},
		"booted, the API server is away": {before: memory{program: old, nodeUID: "u", booted: true}, gate: gateOf(gateUnknown), then: func(t *testing.T, h *harness) {
			time.Sleep(time.Hour)
			h.onLAN(t, "kube-proxy silent", "")
			h.gate.take(503)
			h.gates.put(struct{}{})
			h.onLAN(t, "kube-proxy unhealthy", "")
			h.gate.take(200)
			h.gates.put(struct{}{})
			h.onLAN(t, "kube-proxy healthy", "192.0.2.1 doubtful")
		}},
		"booted, kube-proxy is unhealthy": {before: memory{program: old, nodeUID: "u", booted: true}, gate: gateOf(gateUnhealthy), then: func(t *testing.T, h *harness) {
			h.show("u", encode(t, old))
			time.Sleep(time.Hour)
			h.onLAN(t, "it says so", "")
			h.gate.take(200)
			h.gates.put(struct{}{})
			h.onLAN(t, "it is healthy", "192.0.2.1 fresh")
		}},
		"booted, confirmed unchanged": {before: memory{program: old, nodeUID: "u", booted: true}, gate: gateOf(gateUnknown), then: func(t *testing.T, h *harness) {
			h.nodes.put(node{offline: true})
			time.Sleep(time.Hour)
			h.show("u", encode(t, old))
			time.Sleep(gatePatience)
			h.onLAN(t, "after a while", "192.0.2.1 fresh")
		}},
		"booted, the API server answers": {before: memory{program: old, nodeUID: "u", booted: true}, gate: gateOf(gateUnknown), then: func(t *testing.T, h *harness) {
			h.show("u", encode(t, old))
			h.onLAN(t, "kube-proxy silent", "")
			if r := h.report(t); r.Epoch != 0 || !strings.Contains(r.Error, "kube-proxy") {
				t.Errorf("report %+v", r)
			}
			if h.ready(t.Context()) == nil {
				t.Error("ready")
			}
			if h.wall.keeps() != nil {
				t.Error("a restart now would not know of the boot")
			}
			time.Sleep(gatePatience)
			h.onLAN(t, "after a while", "192.0.2.1 fresh")
			if h.wall.keeps() == nil {
				t.Error("the program is not kept")
			}
			if err := h.ready(t.Context()); err != nil {
				t.Error(err)
			}
		}},
		"booted, kube-proxy is there": {before: memory{program: old, nodeUID: "u", booted: true}, gate: gateOf(gateHealthy), then: func(t *testing.T, h *harness) {
			h.show("u", encode(t, old))
			h.onLAN(t, "at once", "192.0.2.1 fresh")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				test.then(t, newHarnessAfter(t, test.before, test.gate))
			})
		})
	}
}

func TestReportOfTheLAN(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		p := lanProgram(1, group("here", false, "192.0.2.1"))
		p.Reach = []netip.Addr{netip.MustParseAddr("192.0.2.9")}
		p.Normalize()
		conflict := announce.Conflict{Address: netip.MustParseAddr("192.0.2.1"), Interface: "eth0", MAC: announce.MAC{2}, Held: true}
		h.wall.status = layer2.Status{Conflicts: []announce.Conflict{conflict}, Problems: []string{"eth1 has no carrier"}}
		h.show("u", encode(t, p))
		r := h.report(t)
		got := fmt.Sprint(r.Epoch, r.Reach, r.Conflicts, r.Problems)
		if want := fmt.Sprint(1, []announce.Reach{{Target: p.Reach[0], Interface: "eth0"}}, []announce.Conflict{conflict}, []string{"eth1 has no carrier"}); got != want {
			t.Errorf("report %s, want %s", got, want)
		}
		if h.reporter.hurried() != reportNow {
			t.Error("nobody is told at once that the address moved")
		}
		h.wall.status.Conflicts = nil
		h.claims.put(struct{}{})
		synctest.Wait()
		if h.reporter.hurried() != reportNow {
			t.Error("what is urgent is so no longer, though it was not written")
		}
	})
}
