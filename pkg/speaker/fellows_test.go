package speaker

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/heartbeat"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/layer2"
)

var sameAddr = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
var samePrefix = cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })

// shared is a group of addresses with candidates.
func shared(epoch uint32, candidates []string, addresses ...string) announce.Group {
	return announce.Group{Pool: "lan", Layer2: &announce.Layer2{Candidates: candidates, Epoch: epoch}, Addresses: ranges(addresses...)}
}

func addrs(texts ...string) (out []netip.Addr) {
	for _, text := range texts {
		out = append(out, netip.MustParseAddr(text))
	}
	return out
}

func prefixes(texts ...string) (out []netip.Prefix) {
	for _, text := range texts {
		out = append(out, netip.MustParsePrefix(text))
	}
	return out
}

func TestCompileFellows(t *testing.T) {
	t.Parallel()
	mac := announce.MAC{2, 0, 0x5e, 0, 0x53, 1}
	i := inventory{links: []layer2.Interface{
		{Index: 1, Name: "eth0", MAC: mac, Carrier: true, Prefixes: prefixes("192.0.2.1/24", "2001:db8::1/64")},
		{Index: 2, Name: "eth1", MAC: mac, Prefixes: prefixes("198.51.100.1/24")},                              // no carrier
		{Index: 3, Name: "eth2", MAC: mac, Carrier: true, Master: "br0", Prefixes: prefixes("203.0.113.1/24")}, // a member
		{Index: 4, Name: "wg0", Carrier: true, NoARP: true, Prefixes: prefixes("203.0.113.1/24")},
	}}
	p := lanProgram(1,
		shared(3, []string{"here", "there"}, "192.0.2.10-192.0.2.11", "2001:db8::10", "198.51.100.10"),
		shared(0, []string{"there", "here"}, "192.0.2.20"),
		shared(0, []string{"there", "elsewhere"}, "192.0.2.30"), // the node is no candidate
		announce.Group{Pool: "bgp", BGP: &announce.BGP{}, Addresses: ranges("203.0.113.9")},
	)
	p.Nodes[0].Addresses = addrs("192.0.2.1")
	p.Nodes[1].Addresses = addrs("192.0.2.2", "203.0.113.2")
	got := compileFellows(p, "here", i, ways{gateways: addrs("192.0.2.254", "198.51.100.254")}, nil, nil)
	want := heartbeat.State{
		Cluster: "c", Node: "here", Fellows: p.Nodes,
		Links: []heartbeat.Link{{
			Index: 1, Name: "eth0", Prefixes: i.links[0].Prefixes, Witnesses: addrs("192.0.2.254", "192.0.2.2"),
		}},
		Groups: []heartbeat.Group{
			{Addresses: addrs("192.0.2.10", "192.0.2.11"), Candidates: []string{"here", "there"}, Epoch: 3, Links: []int{1}},
			{Addresses: addrs("198.51.100.10"), Candidates: []string{"here", "there"}, Epoch: 3, Links: []int{}},
			{Addresses: addrs("2001:db8::10"), Candidates: []string{"here", "there"}, Epoch: 3, Links: []int{1}},
			{Addresses: addrs("192.0.2.20"), Candidates: []string{"there", "here"}, Links: []int{1}},
		},
	}
	if diff := cmp.Diff(want, got, sameAddr, samePrefix); diff != "" {
		t.Error(diff)
	}

	huge := compileFellows(lanProgram(1, shared(0, []string{"here", "there"}, "2001:db8::-2001:db8::ffff:ffff")), "here", i, ways{}, nil, nil)
	if n := len(huge.Groups[0].Addresses); n != maxPrefixes {
		t.Errorf("of a huge range, %d addresses are agreed on", n)
	}
}

// TestCompileFellowsUnfit: the candidates are told which addresses the node has no
// endpoint for.
func TestCompileFellowsUnfit(t *testing.T) {
	t.Parallel()
	candidates := []string{"here", "there"}
	p := lanProgram(1,
		shared(0, candidates, "192.0.2.10"),
		local(30001, shared(0, candidates, "192.0.2.11-192.0.2.12")),
		local(30002, shared(0, candidates, "192.0.2.13")),
		local(30001, shared(0, candidates, "2001:db8::1")),
	)
	unfit, unsure := [2]bool{true, true}, [2]bool{false, true}
	want := map[string][2]bool{"192.0.2.10": {}, "192.0.2.11": unfit, "192.0.2.12": unfit, "192.0.2.13": unsure, "2001:db8::1": unfit}
	got := make(map[string][2]bool)
	for _, g := range compileFellows(p, "here", inventory{}, ways{}, map[uint16]bool{30001: true}, map[uint16]bool{30001: true, 30002: true}).Groups {
		for _, addr := range g.Addresses {
			got[addr.String()] = [2]bool{g.Unfit, g.Unsure}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestDecisionsOnLAN: what the candidates agreed on decides who answers, and how sure
// he may be.
func TestDecisionsOnLAN(t *testing.T) {
	t.Parallel()
	macs := map[string]map[string]announce.MAC{"there": {"eth0": {2, 0, 0x5e, 0, 0x53, 2}}}
	fresh := shared(0, []string{"here", "there"}, "192.0.2.10")
	fresh.Layer2.Probe = true
	mine, others := shared(0, []string{"here", "there"}, "192.0.2.10"), shared(0, []string{"there", "here"}, "192.0.2.10")
	for name, test := range map[string]struct {
		group    announce.Group
		decision heartbeat.Decision
		doubtful bool
		want     layer2.Group
	}{
		"own":                  {mine, heartbeat.Decision{Role: heartbeat.Own}, false, layer2.Group{}},
		"own, round":           {mine, heartbeat.Decision{Role: heartbeat.Own, Round: 7}, false, layer2.Group{Round: 7}},
		"own, fresh":           {fresh, heartbeat.Decision{Role: heartbeat.Own}, false, layer2.Group{Caution: layer2.Fresh}},
		"own, doubtful":        {mine, heartbeat.Decision{Role: heartbeat.Own}, true, layer2.Group{Caution: layer2.Doubtful}},
		"own, deaf":            {mine, heartbeat.Decision{Role: heartbeat.Own, Deaf: true}, false, layer2.Group{Quiet: true}},
		"claimed, deaf":        {others, heartbeat.Decision{Role: heartbeat.Own, Deaf: true, Claimed: true}, false, layer2.Group{Quiet: true}},
		"own, agreed":          {mine, heartbeat.Decision{Role: heartbeat.Own, Agreed: true}, true, layer2.Group{}},
		"fresh, agreed":        {fresh, heartbeat.Decision{Role: heartbeat.Own, Agreed: true}, true, layer2.Group{Caution: layer2.Doubtful}},
		"claimed":              {others, heartbeat.Decision{Role: heartbeat.Own, Claimed: true}, false, layer2.Group{}},
		"claimed without API":  {others, heartbeat.Decision{Role: heartbeat.Own, Claimed: true}, true, layer2.Group{}},
		"covered":              {others, heartbeat.Decision{Role: heartbeat.Cover, Owner: "there"}, true, layer2.Group{Role: layer2.Cover, Owner: macs["there"]}},
		"standby":              {others, heartbeat.Decision{Role: heartbeat.Standby, Owner: "there"}, false, layer2.Group{Role: layer2.Standby}},
		"taken by another":     {mine, heartbeat.Decision{Role: heartbeat.Standby, Owner: "there"}, false, layer2.Group{Role: layer2.Standby}},
		"undecided":            {mine, heartbeat.Decision{Owner: "here"}, false, layer2.Group{Role: layer2.Standby}},
		"undecided, fresh":     {fresh, heartbeat.Decision{Owner: "here"}, false, layer2.Group{Caution: layer2.Fresh}},
		"undecided, doubtful":  {mine, heartbeat.Decision{Owner: "here"}, true, layer2.Group{Caution: layer2.Doubtful}},
		"undecided, another's": {mine, heartbeat.Decision{Owner: "there"}, true, layer2.Group{Role: layer2.Standby}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			state, err := compileLAN(lanProgram(1, test.group), standing{node: "here", doubtful: test.doubtful, accord: accord{
				decisions: map[netip.Addr]heartbeat.Decision{netip.MustParseAddr("192.0.2.10"): test.decision}, macs: macs,
			}}, inventory{}, ways{})
			if err != nil {
				t.Fatal(err)
			}
			test.want.Addresses = addrs("192.0.2.10")
			if diff := cmp.Diff([]layer2.Group{test.want}, state.Groups, sameAddr); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestTakeoversAndHears(t *testing.T) {
	t.Parallel()
	own := func(epoch, term uint32, claimed bool) heartbeat.Decision {
		return heartbeat.Decision{Role: heartbeat.Own, Epoch: epoch, Term: term, Claimed: claimed}
	}
	a := accord{decisions: map[netip.Addr]heartbeat.Decision{}}
	for text, d := range map[string]heartbeat.Decision{
		"192.0.2.1": own(0, 1, true), "192.0.2.2": own(0, 1, true), "2001:db8::1": own(0, 1, true),
		"192.0.2.3": own(0, 2, true), "192.0.2.4": own(1, 1, true),
		"192.0.2.5": own(1, 0, false), "192.0.2.6": {Role: heartbeat.Standby, Term: 1, Claimed: true},
	} {
		a.decisions[netip.MustParseAddr(text)] = d
	}
	want := []announce.Takeover{
		{Term: 1, Addresses: ranges("192.0.2.1-192.0.2.2", "2001:db8::1")},
		{Term: 2, Addresses: ranges("192.0.2.3")},
		{Epoch: 1, Term: 1, Addresses: ranges("192.0.2.4")},
	}
	if got := a.takeovers(); !slices.EqualFunc(got, want, equalTakeovers) {
		t.Errorf("takeovers %v, want %v", got, want)
	}
	names := hears([]heartbeat.Adjacency{
		{Node: "c", Minded: true}, {Node: "b"}, {Node: "a", Link: 1}, {Node: "a", Link: 2, Minded: true}, {Node: "c", Link: 2, Minded: true},
	})
	if !slices.Equal(names, []string{"a", "c"}) {
		t.Errorf("hears %v", names)
	}
}

// council is an exchange that decides what it is told to.
type council struct {
	alone
	mu        sync.Mutex
	state     heartbeat.State
	decisions map[netip.Addr]heartbeat.Decision
	fellows   []heartbeat.Adjacency
	farewells int
}

func (c *council) Adjacencies() []heartbeat.Adjacency {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.fellows
}

func (c *council) Set(s heartbeat.State) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state = s
}

func (c *council) Decisions() map[netip.Addr]heartbeat.Decision {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.decisions
}

func (c *council) Farewell(context.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.farewells++
}

func (c *council) shown() heartbeat.State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

// decide has the council decide about one address.
func (h *harness) decide(c *council, addr string, d heartbeat.Decision) {
	c.mu.Lock()
	c.decisions = map[netip.Addr]heartbeat.Decision{netip.MustParseAddr(addr): d}
	c.mu.Unlock()
	h.fellowship.put(struct{}{})
	synctest.Wait()
}

func TestLoopFollowsTheCandidates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		c := &council{}
		h.fellows = c
		h.see(encode(t, lanProgram(1, shared(0, []string{"there", "here"}, "192.0.2.10"))))
		if got := c.shown().Groups; len(got) != 1 || got[0].Candidates[0] != "there" {
			t.Fatalf("the candidates are asked about %v", got)
		}
		h.decide(c, "192.0.2.10", heartbeat.Decision{Role: heartbeat.Own, Term: 1, Claimed: true, Owner: "here"})
		h.onLAN(t, "claimed", "192.0.2.10 certain")
		r := h.report(t)
		if len(r.Takeovers) != 1 || r.Takeovers[0].Term != 1 {
			t.Errorf("takeovers %v are reported", r.Takeovers)
		}
		h.decide(c, "192.0.2.10", heartbeat.Decision{Role: heartbeat.Standby, Term: 1, Owner: "there"})
		h.onLAN(t, "given back", "192.0.2.10 standby")
		if r := h.report(t); len(r.Takeovers) > 0 {
			t.Errorf("takeovers %v are reported", r.Takeovers)
		}
		c.mu.Lock()
		c.fellows = []heartbeat.Adjacency{{Node: "there", Minded: true}}
		c.mu.Unlock()
		h.fellowship.put(struct{}{})
		synctest.Wait()
		if r := h.report(t); !slices.Equal(r.Hears, []string{"there"}) || h.reporter.hurried() < reportSoon {
			t.Errorf("hears %v is reported with urgency %d", r.Hears, h.reporter.hurried())
		}
		h.heartbeatKeys.put(heartbeatKeys{HeartbeatKeys: announce.HeartbeatKeys{Current: []byte("key")}})
		synctest.Wait()
		if got := c.shown().Keys.Current; string(got) != "key" {
			t.Errorf("the exchange has the key %q", got)
		}
	})
}

func TestRestartSaysFarewell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		c := &council{}
		h.fellows = c
		h.see(encode(t, lanProgram(1, shared(0, []string{"here", "there"}, "192.0.2.10"))))
		h.onLAN(t, "running", "192.0.2.10 certain")
		h.stop()
		<-h.ended
		if c.farewells != 1 || c.shown().Releasing {
			t.Errorf("%d farewells, releasing %t", c.farewells, c.shown().Releasing)
		}
		h.onLAN(t, "at the end", "192.0.2.10 certain") // until the process ends
	})
}

// TestLeavingNodeWaitsForCandidates: also without the API server, a node that leaves
// answers until another candidate does.
func TestLeavingNodeWaitsForCandidates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		c := &council{}
		h.fellows = c
		n := node{read: true, uid: "u", announced: true, cordoned: true, program: encode(t, lanProgram(1, shared(0, []string{"here", "there"}, "192.0.2.10")))}
		h.nodes.put(n)
		synctest.Wait()
		h.decide(c, "192.0.2.10", heartbeat.Decision{Role: heartbeat.Own, Owner: "here", Agreed: true})
		n.offline = true
		h.nodes.put(n)
		synctest.Wait()
		h.stop()
		h.onLAN(t, "leaving", "192.0.2.10 certain")
		if !c.shown().Releasing {
			t.Error("the candidates are not told that the node leaves")
		}
		stopped := time.Now()
		h.decide(c, "192.0.2.10", heartbeat.Decision{Role: heartbeat.Standby, Term: 1, Owner: "there"})
		<-h.ended
		if took := time.Since(stopped); took != 0 || c.farewells > 0 {
			t.Errorf("it ended %v after the address was taken, with %d farewells", took, c.farewells)
		}
		h.onLAN(t, "at the end", "")
		if groups := c.shown().Groups; len(groups) > 0 {
			t.Errorf("the candidates are still asked about %v", groups)
		}
	})
}

// TestNodeThatDoesNotForwardReleases: kube-proxy's 503 gives the addresses away, and
// no answer at all does not.
func TestNodeThatDoesNotForwardReleases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(DefaultKubeProxyHealthz, func() {})
		h := newHarnessAfter(t, memory{}, g)
		c := &council{}
		h.fellows = c
		h.see(encode(t, lanProgram(1, shared(0, []string{"here", "there"}, "192.0.2.10"))))
		for _, answer := range []struct {
			status    int
			releasing bool
		}{{200, false}, {503, true}, {404, true}, {200, false}} {
			if g.take(answer.status) {
				h.gates.put(struct{}{})
			}
			synctest.Wait()
			if got := c.shown().Releasing; got != answer.releasing {
				t.Errorf("after %d: releasing %t", answer.status, got)
			}
		}
	})
}

// TestRestartedHesitates: as long as a speaker that has begun asks the LAN about addresses
// that it owns, others are to cover; but not for ever.
func TestRestartedHesitates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		group := shared(0, []string{"here", "there"}, "192.0.2.10")
		group.Layer2.Probe = true
		old := lanProgram(5, group)
		starts := func(what string, h *harness, want bool) {
			t.Helper()
			synctest.Wait()
			if got := h.council.shown().Starting; got != want {
				t.Errorf("%s: starting %t, want %t", what, got, want)
			}
		}
		h := newHarnessAfter(t, memory{program: old, nodeUID: "u"}, nil)
		synctest.Wait()
		h.decide(h.council, "192.0.2.10", heartbeat.Decision{Role: heartbeat.Own, Owner: "here", Agreed: true})
		h.onLAN(t, "before the API server answers", "192.0.2.10 doubtful")
		starts("before the API server answers", h, true)
		h.show("u", encode(t, old))
		h.onLAN(t, "confirmed", "192.0.2.10 certain")
		starts("confirmed", h, false)

		h = newHarnessAfter(t, memory{program: old, nodeUID: "u"}, nil)
		synctest.Wait()
		h.decide(h.council, "192.0.2.10", heartbeat.Decision{Role: heartbeat.Own, Owner: "here", Agreed: true})
		h.nodes.put(node{offline: true})
		starts("while the API server is away", h, true)
		time.Sleep(hesitationTime)
		starts("after a while", h, false)

		h = newHarness(t)
		h.see(encode(t, old))
		h.onLAN(t, "new", "192.0.2.10 fresh")
		starts("a new address", h, false)
	})
}
