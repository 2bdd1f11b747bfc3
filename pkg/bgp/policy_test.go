package bgp

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/osrg/gobgp/v4/api"
)

func prefix(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), 32)
}

func prefixRange(from, to int) []netip.Prefix {
	var out []netip.Prefix
	for i := from; i < to; i++ {
		out = append(out, prefix(i))
	}
	return out
}

func export(pref uint32, peers ...string) Export {
	return Export{Peers: peers, Attributes: Attributes{LocalPref: pref}}
}

func demoted(pref uint32, peers ...string) Export {
	out := export(pref, peers...)
	out.Demoted = true
	return out
}

func TestAssign(t *testing.T) {
	t.Parallel()
	known := classes{
		1: {export(100, "a", "b")},
		2: {export(200, "a", "b")},
	}
	rib, err := newRoutes([]Group{{Prefixes: prefixRange(0, 4)}, {Prefixes: prefixRange(4, 8)}}, []marker{1, 2})
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		groups []Group
		want   []marker
		// concerned are the peers that have to be told everything again.
		concerned []string
	}{
		"the same": {
			groups: []Group{{Exports: known[2], Prefixes: prefixRange(4, 8)}, {Exports: known[1], Prefixes: prefixRange(0, 4)}},
			want:   []marker{2, 1},
		},
		"prefixes move": {
			groups: []Group{{Exports: known[1], Prefixes: prefixRange(4, 8)}, {Exports: known[2], Prefixes: prefixRange(0, 4)}},
			want:   []marker{1, 2},
		},
		"a peer more": {
			groups:    []Group{{Exports: []Export{export(100, "a", "b", "c")}, Prefixes: prefixRange(0, 4)}, {Exports: known[2], Prefixes: prefixRange(4, 8)}},
			want:      []marker{1, 2},
			concerned: []string{"c"},
		},
		"a peer less": {
			groups:    []Group{{Exports: []Export{export(100, "a")}, Prefixes: prefixRange(0, 4)}},
			want:      []marker{1},
			concerned: []string{"b"},
		},
		"another attribute for one": {
			groups:    []Group{{Exports: []Export{export(100, "a"), export(150, "b")}, Prefixes: prefixRange(0, 4)}},
			want:      []marker{1},
			concerned: []string{"b"},
		},
		"another attribute for all": {
			groups: []Group{{Exports: []Export{export(150, "a", "b")}, Prefixes: prefixRange(0, 4)}},
			want:   []marker{3},
		},
		"demoted": {
			groups: []Group{{Exports: []Export{demoted(100, "a", "b")}, Prefixes: prefixRange(0, 4)}, {Exports: []Export{demoted(200, "a", "b")}, Prefixes: prefixRange(4, 8)}},
			want:   []marker{3, 4},
		},
		"split": {
			groups: []Group{
				{Exports: []Export{export(100, "a")}, Prefixes: prefixRange(0, 2)},
				{Exports: []Export{export(100, "a", "b", "c")}, Prefixes: prefixRange(2, 4)},
			},
			want:      []marker{1, 3},
			concerned: []string{"b"},
		},
		"new": {
			groups: []Group{{Exports: []Export{export(1, "a")}, Prefixes: prefixRange(100, 101)}},
			want:   []marker{3},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := known.assign(test.groups, rib.class)
			if !slices.Equal(got, test.want) {
				t.Errorf("markers %v, want %v", got, test.want)
			}
			during := known.with(test.groups, got)
			if concerned := known.concerned(during); !slices.Equal(concerned, test.concerned) {
				t.Errorf("concerned %q, want %q", concerned, test.concerned)
			}
		})
	}
}

// TestPolicyDemotes compares the statements of groups that differ in that only.
func TestPolicyDemotes(t *testing.T) {
	t.Parallel()
	peers := map[string]Peer{
		"a": {Address: netip.MustParseAddr("192.0.2.1")},
		"b": {Address: netip.MustParseAddr("192.0.2.2"), NextHop6: netip.MustParseAddr("2001:db8::9")},
		"c": {Address: netip.MustParseAddr("2001:db8::1")},
	}
	statements := func(e Export) []*api.Statement {
		e.Communities = []uint32{64500<<16 | 100}
		request := classes{1: {e}}.policies(peers)
		i := slices.IndexFunc(request.Policies, func(p *api.Policy) bool { return p.Name == exportPolicy })
		return request.Policies[i].Statements
	}
	usual, got := statements(export(100, "a", "b", "c")), statements(demoted(100, "a", "b", "c"))
	if len(usual) != 3 || len(got) != 3 {
		t.Fatalf("%d and %d statements, want 3: IPv4 only, IPv6 with a next hop, and both families", len(usual), len(got))
	}
	for i := range got {
		if pref := usual[i].Actions.LocalPref.GetValue(); pref != 100 || usual[i].Actions.AsPrepend != nil {
			t.Errorf("%s: local preference %d, prepends %v", usual[i].Name, pref, usual[i].Actions.AsPrepend)
		}
		usual[i].Actions.LocalPref = nil
		usual[i].Actions.AsPrepend = &api.AsPrependAction{UseLeftMost: true, Repeat: 3}
		if diff := cmp.Diff(usual[i].String(), got[i].String()); diff != "" {
			t.Error(diff)
		}
	}
}

// TestDiff applies the difference of two random RIBs.
func TestDiff(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(3, 4))
	rib := func() routes {
		var out routes
		for i := range 50 {
			if random.IntN(2) == 0 {
				out = append(out, route{prefix(i), marker(1 + random.IntN(2))})
			}
		}
		return out
	}
	table := func(r routes) map[string]marker {
		out := make(map[string]marker)
		for _, e := range r {
			out[e.prefix.String()] = e.class
		}
		return out
	}
	for range 1000 {
		before, after := rib(), rib()
		add, remove := before.diff(after)
		got := table(before)
		for _, e := range add {
			if got[e.prefix.String()] == e.class {
				t.Fatalf("%v is added for nothing", e)
			}
			got[e.prefix.String()] = e.class
		}
		for _, p := range remove {
			if _, present := got[p.String()]; !present {
				t.Fatalf("%v is removed for nothing", p)
			}
			delete(got, p.String())
		}
		if diff := cmp.Diff(table(after), got); diff != "" {
			t.Fatal(diff)
		}
	}
}

func TestNewRoutesRefuses(t *testing.T) {
	t.Parallel()
	for name, groups := range map[string][]Group{
		"twice":      {{Prefixes: prefixRange(0, 2)}, {Prefixes: prefixRange(1, 3)}},
		"not masked": {{Prefixes: []netip.Prefix{netip.MustParsePrefix("203.0.113.1/24")}}},
		"invalid":    {{Prefixes: []netip.Prefix{{}}}},
		"mapped":     {{Prefixes: []netip.Prefix{netip.MustParsePrefix("::ffff:203.0.113.0/120")}}},
	} {
		if _, err := newRoutes(groups, []marker{1, 2}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestCompare(t *testing.T) {
	t.Parallel()
	base := Peer{Name: "a", Address: netip.MustParseAddr("192.0.2.1"), HoldTime: 9 * time.Second, RestartTime: 30 * time.Second}
	for want, edits := range map[change][]func(*Peer){
		none: {func(*Peer) {}},
		inPlace: {
			func(p *Peer) { p.HoldTime++ },
			func(p *Peer) { p.ConnectRetry++ },
			func(p *Peer) { p.RestartTime++ },
			func(p *Peer) { p.NextHop6 = netip.MustParseAddr("2001:db8::1") },
		},
		reset: {
			func(p *Peer) { p.Password = "x" },
			func(p *Peer) { p.RestartTime = 0 },
			func(p *Peer) { p.PeerASN++ },
			func(p *Peer) { p.Passive = true },
			func(p *Peer) { p.IPv6 = true },
		},
	} {
		for i, edit := range edits {
			after := base
			edit(&after)
			if got := compare(base, after); got != want {
				t.Errorf("edit %d: %v, want %v", i, got, want)
			}
		}
	}
}

func TestStateValidate(t *testing.T) {
	t.Parallel()
	good := Peer{
		Name: "a", LocalASN: 1, PeerASN: 2, Address: netip.MustParseAddr("192.0.2.1"),
		HoldTime: 9 * time.Second, IPv4: true,
	}
	id := netip.MustParseAddr("192.0.2.9")
	if err := (&State{RouterID: id, Peers: []Peer{good}}).validate(); err != nil {
		t.Error(err)
	}
	with := func(edit func(*Peer)) []Peer {
		p := good
		edit(&p)
		return []Peer{p}
	}
	for name, s := range map[string]State{
		"no router ID":       {Peers: []Peer{good}},
		"IPv6 router ID":     {RouterID: netip.MustParseAddr("2001:db8::1"), Peers: []Peer{good}},
		"twice":              {RouterID: id, Peers: []Peer{good, good}},
		"no name":            {RouterID: id, Peers: with(func(p *Peer) { p.Name = "" })},
		"no address":         {RouterID: id, Peers: with(func(p *Peer) { p.Address = netip.Addr{} })},
		"other family":       {RouterID: id, Peers: with(func(p *Peer) { p.Source = netip.MustParseAddr("2001:db8::1") })},
		"no AS number":       {RouterID: id, Peers: with(func(p *Peer) { p.PeerASN = 0 })},
		"short hold time":    {RouterID: id, Peers: with(func(p *Peer) { p.HoldTime = time.Second })},
		"long restart":       {RouterID: id, Peers: with(func(p *Peer) { p.RestartTime = 2 * time.Hour })},
		"no family":          {RouterID: id, Peers: with(func(p *Peer) { p.IPv4 = false })},
		"IPv4 as next hop 6": {RouterID: id, Peers: with(func(p *Peer) { p.NextHop6 = id })},
	} {
		if s.validate() == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func BenchmarkDiff2000(b *testing.B) {
	group := []Group{{Prefixes: prefixRange(0, 2000)}}
	before, err := newRoutes(group, []marker{1})
	if err != nil {
		b.Fatal(err)
	}
	group[0].Prefixes = append(group[0].Prefixes, prefix(2000))
	b.ReportAllocs()
	for b.Loop() {
		after, err := newRoutes(group, []marker{1})
		if err != nil {
			b.Fatal(err)
		}
		if add, _ := before.diff(after); len(add) != 1 {
			b.Fatal(fmt.Sprint(add))
		}
	}
}
