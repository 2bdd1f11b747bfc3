package speaker

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/bgp"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/layer2"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/statefile"
)

// board is an announcer that shows what it was asked to announce.
type board struct {
	mu    sync.Mutex
	state bgp.State
	sets  int
	err   error
}

func (b *board) fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = err
}

// shown is the state, and how often one was set.
func (b *board) shown() (bgp.State, int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state, b.sets
}

func (b *board) Set(_ context.Context, s bgp.State) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sets++
	if b.err != nil {
		return b.err
	}
	b.state = s
	return nil
}

func (b *board) Sessions() []announce.Session {
	var out []announce.Session
	state, _ := b.shown()
	for _, p := range state.Peers {
		out = append(out, announce.Session{Peer: p.Name, State: announce.StateEstablished})
	}
	return out
}

func (b *board) Received(context.Context) map[string]uint64 { return nil }

// wall is an announcer on the LAN, and a keeper, that shows what it was asked for.
type wall struct {
	mu     sync.Mutex
	state  layer2.State
	status layer2.Status
	kept   *statefile.State
	forgot bool
}

func (w *wall) Set(s layer2.State) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state = s
}

func (w *wall) Status() layer2.Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.status
}

func (w *wall) Put(s statefile.State) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kept, w.forgot = &s, false
}

func (w *wall) Forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kept, w.forgot = nil, true
}

// keeps is what is kept, nil if nothing is.
func (w *wall) keeps() *statefile.State {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.kept
}

func (w *wall) Err() error { return nil }

// shown is what is on the LAN, as text: addresses, each with its caution.
func (w *wall) shown() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for _, g := range w.state.Groups {
		for _, a := range g.Addresses {
			text := [...]string{"certain", "fresh", "doubtful"}[g.Caution]
			if g.Role != layer2.Own {
				text = [...]string{layer2.Cover: "cover", layer2.Standby: "standby"}[g.Role]
			}
			out = append(out, fmt.Sprintf("%s %s", a, text))
		}
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// program is the annotation with a program that announces addresses to tor.
func program(t *testing.T, epoch int64, password *announce.SecretKey, addresses ...string) string {
	t.Helper()
	p := announce.Program{
		Epoch:    epoch,
		RouterID: netip.MustParseAddr("192.0.2.10"),
		Peers: []announce.Peer{{
			Name: "tor", LocalASN: 64512, PeerASN: 64500, Address: netip.MustParseAddr("192.0.2.1"), Port: 179, Password: password,
			HoldTime: announce.Duration(9 * time.Second), ConnectRetry: announce.Duration(5 * time.Second), IPv4: true,
		}},
		Groups: []announce.Group{{Pool: "p", BGP: &announce.BGP{Peers: []string{"tor"}}, Addresses: ranges(addresses...)}},
	}
	p.Normalize()
	value, err := announce.Encode(p)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// harness runs the loop over a board.
type harness struct {
	*speaker
	board   *board
	wall    *wall
	shown   node
	secrets sync.Map // name -> data
	council *council
	stop    context.CancelFunc
	ended   chan struct{}
}

func newHarness(t *testing.T) *harness {
	t.Helper()
	return newHarnessAfter(t, memory{}, nil)
}

// newHarnessAfter starts a speaker that remembers something. A gate may be given.
func newHarnessAfter(t *testing.T, before memory, g *gate) *harness {
	t.Helper()
	h := &harness{speaker: newSpeaker("v0", "here"), board: &board{}, wall: &wall{}, ended: make(chan struct{})}
	h.announcer = h.board
	h.lan = h.wall
	h.council = &council{}
	h.fellows = h.council
	h.gate = newGate("", func() {})
	h.gateways = func() []netip.Addr { return nil }
	h.reach = func(targets []netip.Addr) []announce.Reach {
		var out []announce.Reach
		for _, target := range targets {
			out = append(out, announce.Reach{Target: target, Interface: "eth0"})
		}
		return out
	}
	h.linkTo = func(netip.Addr) int { return 0 }
	if g != nil {
		h.gate = g
	}
	h.keeper = h.wall
	h.reporter = newReporter(nil)
	h.vault = newVault(
		func(_ context.Context, name string) (map[string][]byte, error) {
			data, _ := h.secrets.Load(name)
			secret, _ := data.(map[string][]byte)
			return secret, nil
		},
		func() { h.speaker.secrets.put(struct{}{}) })
	ctx, cancel := context.WithCancel(t.Context())
	h.stop = cancel
	t.Cleanup(cancel)
	go func() {
		defer close(h.ended)
		if err := h.loop(ctx, inventory{}, before); err != nil {
			t.Error(err)
		}
	}()
	go func() { _ = h.vault.run(ctx) }()
	return h
}

// see shows the loop a Node with the annotation.
func (h *harness) see(program string) {
	h.nodes.put(node{read: true, announced: true, program: program})
	synctest.Wait()
}

func (h *harness) report(t *testing.T) announce.Report {
	t.Helper()
	report, _ := h.reporter.due()
	r, err := announce.DecodeReport(report.text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (h *harness) announces(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	state, _ := h.board.shown()
	var got []string
	for _, g := range state.Groups {
		for _, p := range g.Prefixes {
			got = append(got, p.Addr().String())
		}
	}
	if len(got) != len(want) {
		t.Fatalf("announces %v, want %v", got, want)
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("announces %v, want %v", got, want)
		}
	}
}

func TestLoopKeepsTheLastState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		if h.ready(t.Context()) == nil {
			t.Error("ready before the Node was read")
		}
		h.nodes.put(node{read: true})
		h.announces(t)
		if err := h.ready(t.Context()); err != nil {
			t.Errorf("not ready without a program: %v", err)
		}
		h.see(program(t, 5, nil, "203.0.113.1"))
		h.announces(t, "203.0.113.1")
		_, sets := h.board.shown()

		for name, n := range map[string]node{
			"no annotation":   {},
			"gone":            {gone: true},
			"unknown version": {announced: true, program: `{"version":2}`},
			"malformed":       {announced: true, program: `{"version":1`},
			"empty value":     {announced: true},
		} {
			n.read = true
			h.nodes.put(n)
			h.announces(t, "203.0.113.1")
			if _, n := h.board.shown(); n != sets {
				t.Errorf("%s: the announcer was bothered", name)
			}
			if r := h.report(t); r.Epoch != 5 || (r.Error == "") == n.announced {
				t.Errorf("%s: report %+v", name, r)
			}
		}

		// Same content under another epoch.
		h.see(program(t, 6, nil, "203.0.113.1"))
		_, n := h.board.shown()
		if r := h.report(t); r.Epoch != 6 || r.Error != "" || n != sets {
			t.Errorf("report %+v after %d sets", r, n-sets)
		}
		// An older one counts only when it stays.
		h.see(program(t, 4, nil, "203.0.113.4"))
		h.announces(t, "203.0.113.1")
		if r := h.report(t); r.Epoch != 6 || r.Error == "" {
			t.Errorf("report %+v", r)
		}
		time.Sleep(rollbackHold)
		h.announces(t, "203.0.113.4")
		if r := h.report(t); r.Epoch != 4 || r.Error != "" {
			t.Errorf("report %+v", r)
		}
		// An older one that is replaced in time never counts.
		h.see(program(t, 3, nil, "203.0.113.3"))
		h.see(program(t, 7, nil, "203.0.113.7"))
		time.Sleep(2 * rollbackHold)
		h.announces(t, "203.0.113.7")

		// An empty program means: nothing.
		h.see(text(t, 8))
		h.announces(t)
		if err := h.alive(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestLoopNeverWithoutPassword(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		key := &announce.SecretKey{Name: "tor", Key: "password"}
		h.see(program(t, 1, key, "203.0.113.1"))
		if state, _ := h.board.shown(); len(state.Peers) != 0 {
			t.Fatalf("peers %+v without a password", state.Peers)
		}
		if r := h.report(t); len(r.Sessions) != 1 || r.Sessions[0].Error == "" || r.Epoch != 1 {
			t.Errorf("report %+v", r)
		}
		h.secrets.Store("tor", map[string][]byte{"password": []byte("s")})
		time.Sleep(rereadMissing)
		synctest.Wait()
		if state, _ := h.board.shown(); len(state.Peers) != 1 || state.Peers[0].Password != "s" {
			t.Errorf("peers %+v", state.Peers)
		}
		if r := h.report(t); len(r.Sessions) != 1 || r.Sessions[0].Error != "" {
			t.Errorf("report %+v", r)
		}
	})
}

// TestLoopKeepsSession changes where the password of a live session is.
func TestLoopKeepsSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.secrets.Store("old", map[string][]byte{"password": []byte("o")})
		h.see(program(t, 1, &announce.SecretKey{Name: "old", Key: "password"}, "203.0.113.1"))
		expect := func(what, password string, healthy bool) {
			t.Helper()
			synctest.Wait()
			if state, _ := h.board.shown(); len(state.Peers) != 1 || state.Peers[0].Password != password {
				t.Fatalf("%s: peers %+v", what, state.Peers)
			}
			if r := h.report(t); len(r.Sessions) != 1 || (r.Sessions[0].Error == "") != healthy {
				t.Errorf("%s: report %+v", what, r)
			}
		}
		expect("at the start", "o", true)
		h.see(program(t, 2, &announce.SecretKey{Name: "new", Key: "password"}, "203.0.113.1", "203.0.113.2"))
		expect("no such Secret", "o", false)
		h.announces(t, "203.0.113.1", "203.0.113.2") // goes on as the program says
		h.see(program(t, 3, &announce.SecretKey{Name: "new", Key: "password"}, "203.0.113.2"))
		expect("still none", "o", false)
		h.announces(t, "203.0.113.2")
		h.secrets.Store("new", map[string][]byte{"password": []byte("n")})
		time.Sleep(rereadMissing)
		expect("there it is", "n", true)
	})
}

func TestLoopAbandons(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.see(program(t, 5, nil, "203.0.113.1"))
		h.nodes.put(node{read: true, gone: true})
		h.announces(t, "203.0.113.1")
		if err := h.ready(t.Context()); err != nil {
			t.Errorf("not ready while the Node may come back: %v", err)
		}
		h.nodes.put(node{read: true, gone: true, abandoned: true})
		h.announces(t)
		if state, _ := h.board.shown(); len(state.Peers) != 0 {
			t.Errorf("peers %+v", state.Peers)
		}
		if h.ready(t.Context()) == nil {
			t.Error("ready")
		}
		_, sets := h.board.shown()
		h.nodes.put(node{read: true, gone: true, abandoned: true})
		h.speaker.secrets.put(struct{}{})
		h.announces(t)
		if _, n := h.board.shown(); n != sets {
			t.Error("the announcer was bothered again")
		}

		// The API server was away, and has to be asked for a while again.
		h.nodes.put(node{read: true, gone: true})
		h.announces(t)
		if h.ready(t.Context()) == nil {
			t.Error("ready after an outage")
		}

		// A new Node of the name: its program counts whatever its epoch.
		h.nodes.put(node{read: true})
		h.announces(t)
		if err := h.ready(t.Context()); err != nil {
			t.Error(err)
		}
		h.see(program(t, 2, nil, "203.0.113.2"))
		h.announces(t, "203.0.113.2")
		if r := h.report(t); r.Epoch != 2 || r.Error != "" {
			t.Errorf("report %+v", r)
		}
	})
}

func TestLoopDemotes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(DefaultKubeProxyHealthz, func() {})
		h := newHarnessAfter(t, memory{}, g)
		// answers is what kube-proxy says from now on.
		answers := func(status int) {
			if g.take(status) {
				h.gates.put(struct{}{})
			}
		}
		expect := func(what string, demoted bool, addresses ...string) {
			t.Helper()
			h.announces(t, addresses...)
			state, _ := h.board.shown()
			for _, group := range state.Groups {
				for _, e := range group.Exports {
					if e.Demoted != demoted {
						t.Errorf("%s: %v demoted: %v", what, group.Prefixes, e.Demoted)
					}
				}
			}
			if r := h.report(t); (r.NotForwarding != "") != demoted || r.Error != "" {
				t.Errorf("%s: report %+v", what, r)
			}
		}
		h.see(program(t, 1, nil, "203.0.113.1"))
		expect("no answer yet", false, "203.0.113.1")
		answers(200)
		expect("healthy", false, "203.0.113.1")
		answers(503)
		expect("unhealthy", true, "203.0.113.1")
		h.see(program(t, 2, nil, "203.0.113.1", "203.0.113.2"))
		expect("a new program", true, "203.0.113.1", "203.0.113.2")
		answers(404)
		expect("another program's answer", true, "203.0.113.1", "203.0.113.2")
		answers(200)
		expect("healthy again", false, "203.0.113.1", "203.0.113.2")
	})
}

// TestLoopDemotesFromTheStart has the bad answer come before the program.
func TestLoopDemotesFromTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(DefaultKubeProxyHealthz, func() {})
		g.take(503)
		h := newHarnessAfter(t, memory{}, g)
		h.see(program(t, 1, nil, "203.0.113.1"))
		h.announces(t, "203.0.113.1")
		if state, sets := h.board.shown(); sets != 1 || !state.Groups[0].Exports[0].Demoted {
			t.Errorf("after %d sets: %+v", sets, state.Groups)
		}
	})
}

// TestLoopFollowsCarrier: what a next hop without a carrier was announced for is
// withdrawn, where the session goes another way, and announced again.
func TestLoopFollowsCarrier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		p, err := announce.Decode(program(t, 1, nil, "203.0.113.1"))
		if err != nil {
			t.Fatal(err)
		}
		p.Peers[0].Source = netip.MustParseAddr("192.0.2.10")
		p.Normalize()
		value, err := announce.Encode(p)
		if err != nil {
			t.Fatal(err)
		}
		h.see(value)
		for _, carrier := range []bool{true, false, true} {
			h.interfaces.put(inventory{links: []layer2.Interface{{
				Index: 7, Name: "eth1", Carrier: carrier, Prefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.10/24")},
			}}})
			synctest.Wait()
			state, _ := h.board.shown()
			if exported := len(state.Groups) == 1 && len(state.Groups[0].Exports) == 1; exported != carrier {
				t.Errorf("carrier %v: groups %+v", carrier, state.Groups)
			}
			if r := h.report(t); len(r.Sessions) != 1 || (r.Sessions[0].Error == "") != carrier {
				t.Errorf("carrier %v: report %+v", carrier, r)
			}
		}
	})
}

func TestLoopFollowsNextHop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		nics := func(hop string) []nic {
			n := nic{Interface: announce.Interface{Name: "eth0", Prefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.10/24")}}, index: 2}
			n.hop6, _ = netip.ParseAddr(hop)
			return []nic{n}
		}
		p, err := announce.Decode(program(t, 1, nil, "2001:db8:100::1"))
		if err != nil {
			t.Fatal(err)
		}
		p.Peers[0].IPv6 = true
		p.Normalize()
		value, err := announce.Encode(p)
		if err != nil {
			t.Fatal(err)
		}
		h.see(value)
		if r := h.report(t); len(r.Sessions) != 1 || r.Sessions[0].Error == "" {
			t.Errorf("without a next hop: report %+v", r)
		}
		h.interfaces.put(inventory{nics: nics("2001:db8::10")})
		synctest.Wait()
		if state, _ := h.board.shown(); state.Peers[0].NextHop6 != netip.MustParseAddr("2001:db8::10") {
			t.Errorf("peers %+v", state.Peers)
		}
		if r := h.report(t); r.Sessions[0].Error != "" {
			t.Errorf("with a next hop: report %+v", r)
		}
	})
}

func TestSessionsTellBothCauses(t *testing.T) {
	t.Parallel()
	got := sessions([]announce.Session{{Peer: "a", Error: "b"}}, map[string]string{"a": "c"})
	if len(got) != 1 || got[0].Error != "c; b" {
		t.Errorf("%+v", got)
	}
}

func TestLoopReportsFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.board.fail(errors.New("port in use"))
		h.see(program(t, 1, nil, "203.0.113.1"))
		if r := h.report(t); r.Epoch != 0 || r.Error != "port in use" {
			t.Errorf("report %+v", r)
		}
		if h.ready(t.Context()) == nil {
			t.Error("ready")
		}
		h.board.fail(nil)
		h.sessions.put(struct{}{}) // the announcer's own retry
		h.announces(t, "203.0.113.1")
		if r := h.report(t); r.Epoch != 1 || r.Error != "" {
			t.Errorf("report %+v", r)
		}
		if err := h.ready(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestStop(t *testing.T) {
	for name, test := range map[string]struct {
		node     node
		withdraw bool
	}{
		"restart":  {},
		"cordoned": {node{cordoned: true}, true},
		"draining": {node{draining: true}, true},
		"gone":     {node{gone: true}, true},
		"shutdown": {node{shuttingDown: true}, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHarness(t)
				h.see(program(t, 1, nil, "203.0.113.1"))
				test.node.program, test.node.announced = program(t, 1, nil, "203.0.113.1"), !test.node.gone
				test.node.read = true
				h.nodes.put(test.node)
				synctest.Wait()
				h.stop()
				<-h.ended
				if test.withdraw {
					h.announces(t)
				} else {
					h.announces(t, "203.0.113.1")
				}
				if h.ready(t.Context()) == nil {
					t.Error("ready while stopping")
				}
			})
		})
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	good := Config{NodeName: "n", Namespace: "s", BGPListenPort: 179, RestartGrace: DefaultRestartGrace}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*Config){
		"no node":       func(c *Config) { c.NodeName = "" },
		"no namespace":  func(c *Config) { c.Namespace = "" },
		"port":          func(c *Config) { c.BGPListenPort = 0 },
		"restart grace": func(c *Config) { c.RestartGrace = -time.Second },
		"data path":     func(c *Config) { c.Datapath = []string{"forward"} },
		"table":         func(c *Config) { c.DatapathTable = 1 },
		"mark":          func(c *Config) { c.DatapathMark = 1 },
		"cleanup":       func(c *Config) { c.Cleanup = true },
	} {
		c := good
		change(&c)
		if c.Validate() == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
