package bgp_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/bgp"
)

var routerID = netip.MustParseAddr("192.0.2.1")

// peer is a plain session with the router.
func (r *router) peer() bgp.Peer {
	p := bgp.Peer{
		Name: r.name, LocalASN: r.config.nodeASN, PeerASN: r.config.asn,
		Address: r.local, Port: 179, Source: r.remote,
		HoldTime: 9 * time.Second, ConnectRetry: 2 * time.Second,
		IPv4: true, IPv6: true, NextHop6: r.remote6,
	}
	if r.config.over6 {
		p.Address, p.Source = r.local6, r.remote6
	}
	return p
}

func group(peers []string, a bgp.Attributes, texts ...string) bgp.Group {
	g := bgp.Group{Exports: []bgp.Export{{Peers: peers, Attributes: a}}}
	for _, text := range texts {
		g.Prefixes = append(g.Prefixes, netip.MustParsePrefix(text))
	}
	return g
}

func has(t *testing.T, r *router, prefix string, wants ...string) {
	t.Helper()
	eventually(t, 5*time.Second, r.name+" has "+prefix, func() bool { return r.route(prefix) != "" })
	text := r.route(prefix)
	for _, want := range wants {
		if !strings.Contains(text, want) {
			t.Errorf("%s: %s lacks %q:\n%s", r.name, prefix, want, text)
		}
	}
}

func lacks(t *testing.T, r *router, prefix string) {
	t.Helper()
	if text := r.route(prefix); text != "" {
		t.Errorf("%s has %s:\n%s", r.name, prefix, text)
	}
}

func TestEachPeerGetsItsOwn(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	r1, r2, r3 := l.router(birdConfig{}), l.router(birdConfig{asn: nodeASN}), l.router(birdConfig{over6: true, nodeASN: 64513})
	s := l.speaker(bgp.Config{ListenPort: -1})
	rich := bgp.Attributes{
		LocalPref:        200,
		Communities:      []uint32{64500<<16 | 100, 0xffffff01},
		LargeCommunities: []announce.LargeCommunity{{64500, 1, 2}, {64500, 1, 3}},
	}
	plain := bgp.Attributes{LocalPref: 100}
	state := bgp.State{
		RouterID: routerID,
		Peers:    []bgp.Peer{r1.peer(), r2.peer(), r3.peer()},
		Groups: []bgp.Group{
			group([]string{"r1", "r2"}, rich, "203.0.113.1/32", "2001:db8:100::1/128"),
			group([]string{"r2", "r3"}, plain, "203.0.113.2/32", "198.51.100.0/24", "2001:db8:100::2/128"),
			{
				Exports: []bgp.Export{
					{Peers: []string{"r1"}, Attributes: plain},
					{Peers: []string{"r3"}, Attributes: rich},
				},
				Prefixes: []netip.Prefix{netip.MustParsePrefix("203.0.113.3/32")},
			},
		},
	}
	s.set(state)
	s.established("r1", "r2", "r3")

	has(t, r1, "203.0.113.1/32", "BGP.as_path: 64512\n", "BGP.next_hop: "+r1.remote.String()+"\n",
		"BGP.community: (64500,100) (65535,65281)\n", "BGP.large_community: (64500, 1, 2) (64500, 1, 3)")
	has(t, r1, "203.0.113.3/32", "BGP.as_path: 64512\n")
	has(t, r1, "2001:db8:100::1/128", "BGP.next_hop: "+r1.remote6.String(), "(64500,100)")
	for _, absent := range []string{"203.0.113.2/32", "198.51.100.0/24", "2001:db8:100::2/128"} {
		lacks(t, r1, absent)
	}
	if text := r1.route("203.0.113.3/32"); strings.Contains(text, "community") {
		t.Errorf("r1: communities that nobody asked for:\n%s", text)
	}

	// iBGP: local preference, empty AS path, next hop self.
	has(t, r2, "203.0.113.1/32", "BGP.local_pref: 200\n", "BGP.as_path: \n", "BGP.next_hop: "+r2.remote.String())
	has(t, r2, "198.51.100.0/24", "BGP.local_pref: 100\n")
	lacks(t, r2, "203.0.113.3/32")

	// Over IPv6, with a local AS number of its own: once in the path.
	has(t, r3, "203.0.113.2/32", "BGP.as_path: 64513\n")
	has(t, r3, "2001:db8:100::2/128", "BGP.next_hop: "+r3.remote6.String())
	has(t, r3, "203.0.113.3/32", "(64500,100)", "(64500, 1, 2)")
	lacks(t, r3, "203.0.113.1/32")

	// One address moves to other peers, another goes.
	state.Groups[0].Prefixes = state.Groups[0].Prefixes[:0:0]
	state.Groups[0].Prefixes = append(state.Groups[0].Prefixes, netip.MustParsePrefix("203.0.113.2/32"))
	state.Groups[1].Prefixes = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}
	s.set(state)
	has(t, r1, "203.0.113.2/32", "(64500,100)")
	eventually(t, 5*time.Second, "r3 loses 203.0.113.2", func() bool { return r3.route("203.0.113.2/32") == "" })
	eventually(t, 5*time.Second, "r1 and r2 lose 203.0.113.1", func() bool {
		return r1.route("203.0.113.1/32") == "" && r2.route("203.0.113.1/32") == ""
	})

	// Nothing at all: Cease.
	s.set(bgp.State{})
	eventually(t, 5*time.Second, "all routers lose everything", func() bool {
		return r1.count()+r2.count()+r3.count() == 0
	})
}

func TestDemoted(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	external, internal, other := l.router(birdConfig{}), l.router(birdConfig{asn: nodeASN}), l.router(birdConfig{over6: true, nodeASN: 64513})
	s := l.speaker(bgp.Config{ListenPort: -1})
	rich := bgp.Attributes{LocalPref: 200, Communities: []uint32{64500<<16 | 100}}
	names, prefixes := []string{"r1", "r2", "r3"}, []string{"203.0.113.1/32", "2001:db8:100::1/128"}
	state := func(demoted bool) bgp.State {
		rich, last := rich, bgp.Attributes{}
		rich.Demoted, last.Demoted = demoted, demoted
		return bgp.State{
			RouterID: routerID,
			Peers:    []bgp.Peer{external.peer(), internal.peer(), other.peer()},
			Groups:   []bgp.Group{group(names, rich, prefixes...), group(names, last, "203.0.113.2/32")},
		}
	}
	see := func(what string, r *router, prefix string, wants ...string) {
		t.Helper()
		for _, want := range wants {
			eventually(t, 5*time.Second, fmt.Sprintf("%s: %s has %s with %q", what, r.name, prefix, want), func() bool {
				return strings.Contains(r.route(prefix), want)
			})
		}
	}
	const communities = "BGP.community: (64500,100)\n"
	usual := func(what string) {
		t.Helper()
		for _, p := range prefixes {
			see(what, external, p, "BGP.as_path: 64512\n", communities)
			see(what, internal, p, "BGP.as_path: \n", "BGP.local_pref: 200\n", communities)
			see(what, other, p, "BGP.as_path: 64513\n", communities)
		}
		see(what, internal, "203.0.113.2/32", "BGP.local_pref: 0\n")
	}
	s.set(state(false))
	s.established(names...)
	usual("at first")
	s.set(state(true))
	for _, p := range prefixes {
		see("demoted", external, p, "BGP.as_path: 64512 64512 64512 64512\n", communities)
		see("demoted", internal, p, "BGP.as_path: \n", "BGP.local_pref: 0\n", communities)
		see("demoted", other, p, "BGP.as_path: 64513 64513 64513 64513\n", communities)
	}
	s.set(state(false))
	usual("again")
	for _, r := range []*router{external, internal, other} {
		if n := r.withdrawn(); n != 0 {
			t.Errorf("%s: %d withdrawals", r.name, n)
		}
	}
	less := state(true) // along with which others stay
	less.Groups = less.Groups[:1]
	s.set(less)
	eventually(t, 5*time.Second, "one withdrawal each", func() bool {
		return external.withdrawn() == 1 && internal.withdrawn() == 1 && other.withdrawn() == 1
	})
}

func TestGracefulRestart(t *testing.T) {
	t.Parallel()
	for name, signal := range map[string]syscall.Signal{"SIGKILL": syscall.SIGKILL, "SIGTERM": syscall.SIGTERM} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			r := l.router(birdConfig{extra: "graceful restart on;"})
			p := r.peer()
			p.RestartTime = 20 * time.Second
			state := bgp.State{RouterID: routerID, Peers: []bgp.Peer{p}, Groups: []bgp.Group{
				group([]string{"r1"}, bgp.Attributes{LocalPref: 100}, "203.0.113.1/32", "2001:db8:100::1/128"),
			}}
			s := l.speaker(bgp.Config{})
			s.set(state)
			s.established("r1")
			has(t, r, "203.0.113.1/32")
			has(t, r, "2001:db8:100::1/128")
			eventually(t, 5*time.Second, "kernel routes", func() bool {
				return r.kernel("203.0.113.1/32") && r.kernel("2001:db8:100::1/128")
			})

			lost := r.watchLosses()
			s.end(signal)
			start := time.Now()
			s = l.speaker(bgp.Config{})
			s.set(state)
			s.established("r1")
			t.Logf("session back after %v", time.Since(start).Round(time.Millisecond))
			// Past the End-of-RIB, and the second look at the session.
			eventually(t, 5*time.Second, "BIRD ends the restart", func() bool {
				return r.logged("Neighbor graceful restart done") > 0
			})
			time.Sleep(2 * time.Second)
			if n := lost(); n != "" {
				t.Errorf("kernel routes were deleted:\n%s", n)
			}
		})
	}
}

// oneUpdate is what BIRD logs for each UPDATE.
const oneUpdate = "node: Got UPDATE"

func TestOneAddressIsOneUpdate(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	r := l.router(birdConfig{})
	other := l.router(birdConfig{})
	s := l.speaker(bgp.Config{ListenPort: -1})
	state := bgp.State{RouterID: routerID, Peers: []bgp.Peer{r.peer()}, Groups: []bgp.Group{
		group([]string{"r1", "r2"}, bgp.Attributes{LocalPref: 100}, "203.0.113.1/32"),
	}}
	s.set(state)
	s.established("r1")
	has(t, r, "203.0.113.1/32")
	before := r.logged(oneUpdate)
	step := func(what string, updates int, change func()) {
		t.Helper()
		change()
		s.set(state)
		// What is late would come within this time; a sentinel would be an
		// UPDATE itself.
		time.Sleep(300 * time.Millisecond)
		if n := r.logged(oneUpdate) - before; n != updates {
			t.Errorf("%s: %d UPDATEs, want %d", what, n, updates)
		}
		before = r.logged(oneUpdate)
	}
	prefix := func(text string) netip.Prefix { return netip.MustParsePrefix(text) }
	g := &state.Groups[0]
	step("the same", 0, func() {})
	step("one more", 1, func() { g.Prefixes = append(g.Prefixes, prefix("203.0.113.2/32")) })
	step("a group more", 1, func() {
		state.Groups = append(state.Groups, group([]string{"r1"}, bgp.Attributes{Communities: []uint32{64500<<16 | 7}}, "203.0.113.9/32"))
		g = &state.Groups[0]
	})
	step("a group with another attribute", 1, func() { state.Groups[1].Exports[0].Communities = []uint32{64500<<16 | 8} })
	step("one less", 1, func() { g.Prefixes = g.Prefixes[:1] })
	step("timers", 0, func() {
		state.Peers[0].ConnectRetry = 5 * time.Second
		state.Peers[0].HoldTime = 30 * time.Second
	})
	state.Groups = append(state.Groups, group([]string{"r1"}, bgp.Attributes{}, "2001:db8:100::1/128"))
	g = &state.Groups[0]
	step("an IPv6 prefix", 1, func() {})
	has(t, r, "2001:db8:100::1/128", "BGP.next_hop: "+r.remote6.String())
	state.Peers[0].NextHop6 = netip.Addr{}
	s.set(state)
	eventually(t, 5*time.Second, "no IPv6 prefix without a next hop", func() bool { return r.route("2001:db8:100::1/128") == "" })
	has(t, r, "203.0.113.1/32")
	state.Peers[0].NextHop6 = netip.MustParseAddr("2001:db8:0:1::99")
	s.set(state)
	has(t, r, "2001:db8:100::1/128", "BGP.next_hop: 2001:db8:0:1::99")
	before = r.logged(oneUpdate)
	step("another peer", 0, func() { state.Peers = append(state.Peers, other.peer()) })
	step("an export to the other peer only", 0, func() {
		state.Groups[1].Exports = append(state.Groups[1].Exports, bgp.Export{Peers: []string{"r2"}})
	})
	s.established("r2")
	has(t, other, "203.0.113.9/32")
	step("the peer gone", 0, func() { state.Peers = state.Peers[:1] })
	if !s.session("r1").Established() {
		t.Error("the session was lost")
	}
	if n := r.logged("BGP session established"); n != 1 {
		t.Errorf("%d sessions, want 1", n)
	}
}

func TestLatency(t *testing.T) {
	l := newLab(t)
	r := l.router(birdConfig{})
	s := l.speaker(bgp.Config{ListenPort: -1})
	state := bgp.State{RouterID: routerID, Peers: []bgp.Peer{r.peer()}, Groups: []bgp.Group{
		group([]string{"r1"}, bgp.Attributes{LocalPref: 100}, "203.0.113.1/32"),
	}}
	s.set(state)
	s.established("r1")
	has(t, r, "203.0.113.1/32")
	route := r.watchRoute()
	for i := range 5 {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(10 + i)}), 32)
		state.Groups[0].Prefixes = append(state.Groups[0].Prefixes, p)
		start := time.Now()
		s.set(state)
		took := time.Since(start)
		t.Logf("Set returned after %v, kernel route after %v", took, route(p.Addr().String()).Sub(start))
	}
}

func TestPassword(t *testing.T) {
	t.Parallel()
	for _, passive := range []bool{false, true} {
		t.Run(map[bool]string{false: "active", true: "passive"}[passive], func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			extra := `password "secret";`
			if !passive {
				extra += " passive on;"
			}
			r := l.router(birdConfig{extra: extra})
			s := l.speaker(bgp.Config{})
			p := r.peer()
			p.Passive = passive
			p.Password = "wrong"
			state := bgp.State{RouterID: routerID, Peers: []bgp.Peer{p}}
			s.set(state)
			time.Sleep(3 * time.Second)
			if s.session("r1").Established() {
				t.Fatal("established with a wrong password")
			}
			p.Password = "secret"
			state.Peers = []bgp.Peer{p}
			s.set(state)
			s.established("r1")

			// Removed, and back without a password: the listener must not
			// remember the old one.
			s.set(bgp.State{RouterID: routerID, Peers: []bgp.Peer{{
				Name: "other", LocalASN: 1, PeerASN: 2, Address: netip.MustParseAddr("192.0.2.250"),
				HoldTime: 9 * time.Second, ConnectRetry: 2 * time.Second, IPv4: true,
			}}})
			r.stop(syscall.SIGKILL)
			r.config.extra = ""
			if !passive {
				r.config.extra = "passive on;"
			}
			r.start()
			p.Password = ""
			state.Peers = []bgp.Peer{p}
			s.set(state)
			s.established("r1")
		})
	}
}

// statics are n routes that BIRD sends to the node.
func statics(n int) string {
	var out strings.Builder
	for i := range n {
		fmt.Fprintf(&out, "route %v/32 blackhole;\n", netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}))
	}
	return out.String()
}

func TestPrefixLimit(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	few := l.router(birdConfig{statics: statics(1)})
	many := l.router(birdConfig{statics: statics(bgp.PrefixLimit + 1)})
	flood := l.router(birdConfig{statics: statics(bgp.PrefixMaximum + 1), extra: "graceful restart on;"})
	s := l.speaker(bgp.Config{ListenPort: -1})
	peers := []bgp.Peer{few.peer(), many.peer(), flood.peer()}
	peers[2].RestartTime = 30 * time.Second
	s.set(bgp.State{RouterID: routerID, Peers: peers, Groups: []bgp.Group{
		group([]string{"r1", "r2", "r3"}, bgp.Attributes{}, "203.0.113.1/32"),
	}})
	// Too many are reported, and the session stays.
	eventually(t, 10*time.Second, "the limit is reported", func() bool {
		return strings.Contains(s.session("r2").Error, "more than 100 prefixes")
	})
	if !s.session("r2").Established() {
		t.Error("the session with r2 was lost")
	}
	has(t, many, "203.0.113.1/32")
	// Far too many end the session, and it stays down.
	ended := func() bool {
		session := s.session("r3")
		return session.State == "idle" && strings.Contains(session.Error, "more than 10000 prefixes")
	}
	eventually(t, 10*time.Second, "the maximum is reported", ended)
	time.Sleep(3 * time.Second)
	if !ended() {
		t.Errorf("session %+v", s.session("r3"))
	}
	s.established("r1")
	has(t, few, "203.0.113.1/32")
	received := s.ask(command{Received: true}).Received
	if received["r1"] != 1 || received["r2"] != bgp.PrefixLimit+1 || received["r3"] != 0 {
		t.Errorf("received %v", received)
	}
	// Nothing is learnt: what one router sends does not go to the others.
	if n := few.count(); n != 1 {
		t.Errorf("r1 has %d routes from the node, want 1", n)
	}
}

// TestEchoes has routers that send our own routes back, which FRR does, and
// routes of ours whose AS_PATH does not say so.
func TestEchoes(t *testing.T) {
	t.Parallel()
	const n = bgp.PrefixLimit + 20
	l := newLab(t)
	looped := l.router(birdConfig{
		statics: statics(2 * n),
		export:  fmt.Sprintf("filter { if source != RTS_STATIC then reject; bgp_path.prepend(%d); accept; }", nodeASN),
	})
	same := l.router(birdConfig{statics: statics(n)})
	mixed := l.router(birdConfig{statics: statics(n + bgp.PrefixLimit + 1)})
	s := l.speaker(bgp.Config{ListenPort: -1})
	var ours []string
	for i := range n {
		ours = append(ours, fmt.Sprintf("198.18.0.%d/32", i))
	}
	s.set(bgp.State{RouterID: routerID, Peers: []bgp.Peer{looped.peer(), same.peer(), mixed.peer()}, Groups: []bgp.Group{
		group([]string{"r1", "r2", "r3"}, bgp.Attributes{}, ours...),
	}})
	eventually(t, 15*time.Second, "the limit is reported", func() bool {
		return strings.Contains(s.session("r3").Error, "more than 100 prefixes")
	})
	eventually(t, 10*time.Second, "everything is received", func() bool {
		received := s.ask(command{Received: true}).Received
		return received["r1"] == 2*n && received["r2"] == n && received["r3"] == n+bgp.PrefixLimit+1
	})
	s.established("r1", "r2")
	time.Sleep(2500 * time.Millisecond) // past the count
	for _, peer := range []string{"r1", "r2"} {
		if session := s.session(peer); !session.Established() || session.Error != "" {
			t.Errorf("session %+v", session)
		}
	}
}

func TestWhyNoSession(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		config birdConfig
		edit   func(*bgp.Peer)
		want   string
	}{
		"router refuses our AS number": {
			birdConfig{extra: "passive on;"}, func(p *bgp.Peer) { p.LocalASN = 64999 },
			"the router refuses our OPEN message: what it is configured to expect differs, most often an AS number",
		},
		"router refuses our AS number, it connects": {
			birdConfig{}, func(p *bgp.Peer) { p.LocalASN, p.Passive = 64999, true },
			"the router refuses our OPEN message: what it is configured to expect differs, most often an AS number",
		},
		"we refuse its AS number": {
			birdConfig{extra: "passive on;"}, func(p *bgp.Peer) { p.PeerASN = 64999 },
			"NOTIFICATION sent: code 2(open) subcode 2(bad peer as)",
		},
		"we refuse its AS number, it connects": {
			birdConfig{}, func(p *bgp.Peer) { p.PeerASN, p.Passive = 64999, true },
			"NOTIFICATION sent: code 2(open) subcode 2(bad peer as)",
		},
		"nobody listens":      {birdConfig{}, func(p *bgp.Peer) { p.Port = 1 }, "connecting: connection refused"},
		"not our own address": {birdConfig{}, func(p *bgp.Peer) { p.Source = netip.MustParseAddr("192.0.2.200") }, "connecting: cannot assign requested address"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			r := l.router(test.config)
			p := r.peer()
			test.edit(&p)
			port := -1
			if p.Passive {
				port = 179
			}
			s := l.speaker(bgp.Config{ListenPort: port})
			s.set(bgp.State{RouterID: routerID, Peers: []bgp.Peer{p}})
			eventually(t, 10*time.Second, test.want, func() bool { return s.session("r1").Error == test.want })
			time.Sleep(5 * time.Second) // more attempts
			if got := s.session("r1").Error; got != test.want {
				t.Errorf("then %q", got)
			}
		})
	}
}

func TestReasonIsForgotten(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	r := l.router(birdConfig{})
	r.stop(syscall.SIGKILL)
	s := l.speaker(bgp.Config{ListenPort: -1})
	s.set(bgp.State{RouterID: routerID, Peers: []bgp.Peer{r.peer()}})
	eventually(t, 10*time.Second, "a reason", func() bool { return s.session("r1").Error != "" })
	r.start()
	s.established("r1")
	if got := s.session("r1").Error; got != "" {
		t.Errorf("established, with error %q", got)
	}
}

func TestLostSessionKeepsRoutes(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	r := l.router(birdConfig{extra: "graceful restart on;"})
	s := l.speaker(bgp.Config{})
	p := r.peer()
	p.RestartTime = 20 * time.Second
	state := bgp.State{RouterID: routerID, Peers: []bgp.Peer{p}, Groups: []bgp.Group{
		group([]string{"r1"}, bgp.Attributes{}, "203.0.113.1/32"),
	}}
	s.set(state)
	s.established("r1")
	eventually(t, 5*time.Second, "kernel route", func() bool { return r.kernel("203.0.113.1/32") })
	lost := r.watchLosses()
	time.Sleep(2 * time.Second) // past the End-of-RIB and settle

	// The TCP connection breaks while both processes live on: the router's
	// kernel resets it.
	run(t, "ip", "netns", "exec", l.node, "ss", "-K", "dst", r.local.String())
	eventually(t, 5*time.Second, "session lost", func() bool { return r.logged("Neighbor graceful restart detected") == 1 })
	start := time.Now()
	eventually(t, 15*time.Second, "session back", func() bool { return r.logged("BGP session established") == 2 })
	t.Logf("session back after %v", time.Since(start).Round(time.Millisecond))
	time.Sleep(2 * time.Second)
	if text := lost(); text != "" {
		t.Errorf("kernel routes were deleted:\n%s", text)
	}
	if text := r.route("203.0.113.1/32"); text == "" || strings.Contains(text, "stale") {
		t.Errorf("route after the restart: %q", text)
	}
}

func TestRouterIDChangeKeepsRoutes(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	r := l.router(birdConfig{extra: "graceful restart on;"})
	s := l.speaker(bgp.Config{})
	p := r.peer()
	p.RestartTime = 20 * time.Second
	state := bgp.State{RouterID: routerID, Peers: []bgp.Peer{p}, Groups: []bgp.Group{
		group([]string{"r1"}, bgp.Attributes{}, "203.0.113.1/32"),
	}}
	s.set(state)
	s.established("r1")
	eventually(t, 5*time.Second, "kernel route", func() bool { return r.kernel("203.0.113.1/32") })
	lost := r.watchLosses()
	state.RouterID = netip.MustParseAddr("192.0.2.99")
	s.set(state)
	eventually(t, 15*time.Second, "session with the new router ID", func() bool { return r.logged("id=192.0.2.99") > 0 })
	s.established("r1")
	time.Sleep(2 * time.Second)
	if text := lost(); text != "" {
		t.Errorf("kernel routes were deleted:\n%s", text)
	}
}

func TestSecurityAndDistance(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		extra string
		edit  func(*bgp.Peer)
		up    bool
	}{
		"TTL security":               {"ttl security on;", func(p *bgp.Peer) { p.TTLSecurity = true }, true},
		"TTL security, speaker only": {"", func(p *bgp.Peer) { p.TTLSecurity = true }, false},
		"multihop":                   {"multihop 5;", func(p *bgp.Peer) { p.Multihop = 5 }, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			r := l.router(birdConfig{extra: test.extra})
			s := l.speaker(bgp.Config{})
			p := r.peer()
			test.edit(&p)
			s.set(bgp.State{RouterID: routerID, Peers: []bgp.Peer{p}})
			if test.up {
				s.established("r1")
				return
			}
			time.Sleep(4 * time.Second)
			if s.session("r1").Established() {
				t.Error("established")
			}
		})
	}
}

func TestHoldTime(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	r := l.router(birdConfig{})
	s := l.speaker(bgp.Config{ListenPort: -1})
	p := r.peer()
	p.HoldTime = 3 * time.Second
	s.set(bgp.State{RouterID: routerID, Peers: []bgp.Peer{p}, Groups: []bgp.Group{
		group([]string{"r1"}, bgp.Attributes{}, "203.0.113.1/32"),
	}})
	s.established("r1")
	has(t, r, "203.0.113.1/32")
	run(t, "ip", "-n", r.ns, "link", "set", "eth0", "down")
	start := time.Now()
	eventually(t, 6*time.Second, "hold timer of the speaker", func() bool { return !s.session("r1").Established() })
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("the session was lost after %v", took)
	}
	run(t, "ip", "-n", r.ns, "link", "set", "eth0", "up")
	run(t, "ip", "-n", r.ns, "addr", "add", r.local6.String()+"/64", "dev", "eth0", "nodad")
	s.established("r1")
	has(t, r, "203.0.113.1/32")
}

func TestSetRefuses(t *testing.T) {
	t.Parallel()
	a := bgp.New(bgp.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	if err := a.Set(ctx, bgp.State{Peers: []bgp.Peer{{Name: "a"}}}); err == nil {
		t.Error("no error")
	}
	ended := make(chan error)
	go func() { ended <- a.Run(ctx) }()
	if err := a.Set(ctx, bgp.State{}); err != nil {
		t.Error(err)
	}
	if got := a.Sessions(); len(got) != 0 {
		t.Errorf("sessions %v", got)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := a.Set(t.Context(), bgp.State{}); err == nil {
		t.Error("Set after the end: no error")
	}
}

func TestPortInUse(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	r := l.router(birdConfig{})
	nobody := bgp.Peer{
		Name: "nobody", LocalASN: 1, PeerASN: 2, Address: netip.MustParseAddr("192.0.2.250"),
		HoldTime: 9 * time.Second, ConnectRetry: 2 * time.Second, IPv4: true,
	}
	holder := l.speaker(bgp.Config{})
	holder.set(bgp.State{RouterID: routerID, Peers: []bgp.Peer{nobody}})

	s := l.speaker(bgp.Config{})
	state := bgp.State{RouterID: routerID, Peers: []bgp.Peer{r.peer()}, Groups: []bgp.Group{
		group([]string{"r1"}, bgp.Attributes{}, "203.0.113.1/32"),
	}}
	if a := s.ask(command{Set: &state}); !strings.Contains(a.Error, "address already in use") {
		t.Errorf("Set: %q", a.Error)
	}
	if text := s.session("r1").Error; !strings.Contains(text, "address already in use") {
		t.Errorf("session error %q", text)
	}
	holder.end(syscall.SIGTERM)
	s.established("r1") // the announcer tries again by itself
	has(t, r, "203.0.113.1/32")
}
