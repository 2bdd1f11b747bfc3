package speaker

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/bgp"
)

var equalAddresses = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmpopts.EquateEmpty(),
}

func ranges(texts ...string) []announce.Range {
	var out []announce.Range
	for _, text := range texts {
		var r announce.Range
		if err := r.UnmarshalText([]byte(text)); err != nil {
			panic(err)
		}
		out = append(out, r)
	}
	return out
}

// dump writes the groups as text: prefixes -> peers, attributes.
func dump(groups []bgp.Group) string {
	var out strings.Builder
	for _, g := range groups {
		fmt.Fprintln(&out, g.Prefixes)
		for _, e := range g.Exports {
			fmt.Fprintf(&out, "  %v pref %d %v %v\n", e.Peers, e.LocalPref, e.Communities, e.LargeCommunities)
		}
	}
	return out.String()
}

func TestCompileGroups(t *testing.T) {
	t.Parallel()
	to := func(pref uint32, peers ...string) *announce.BGP {
		return &announce.BGP{Peers: peers, LocalPref: pref}
	}
	for name, test := range map[string]struct {
		groups []announce.Group
		want   string
	}{
		"nothing":        {},
		"only Layer 2":   {groups: []announce.Group{{Layer2: &announce.Layer2{}, Addresses: ranges("203.0.113.1")}}},
		"nobody to tell": {groups: []announce.Group{{BGP: to(100), Addresses: ranges("203.0.113.1")}}},
		"range and alone": {
			groups: []announce.Group{{BGP: to(100, "a", "b"), Addresses: ranges("203.0.113.1-203.0.113.3", "203.0.113.9")}},
			want: `[203.0.113.1/32 203.0.113.2/32 203.0.113.3/32 203.0.113.9/32]
  [a b] pref 100 [] []
`,
		},
		"end of the address space": {
			groups: []announce.Group{{BGP: to(100, "a"), Addresses: ranges("255.255.255.254-255.255.255.255")}},
			want:   "[255.255.255.254/32 255.255.255.255/32]\n  [a] pref 100 [] []\n",
		},
		"IPv6": {
			groups: []announce.Group{{BGP: to(100, "a"), Addresses: ranges("2001:db8::fffe-2001:db8::1:0")}},
			want:   "[2001:db8::fffe/128 2001:db8::ffff/128 2001:db8::1:0/128]\n  [a] pref 100 [] []\n",
		},
		"folded": {
			groups: []announce.Group{{
				BGP:       &announce.BGP{Peers: []string{"a"}, AggregationLength: 24},
				Addresses: ranges("198.51.100.1", "198.51.100.7-198.51.101.1", "198.51.101.9", "203.0.113.250"),
			}},
			want: "[198.51.100.0/24 198.51.101.0/24 203.0.113.0/24]\n  [a] pref 0 [] []\n",
		},
		"alike but for the pool": {
			groups: []announce.Group{
				{Pool: "x", BGP: to(100, "a"), Addresses: ranges("203.0.113.1")},
				{Pool: "y", BGP: to(100, "a"), Addresses: ranges("203.0.113.2")},
			},
			want: "[203.0.113.1/32 203.0.113.2/32]\n  [a] pref 100 [] []\n",
		},
		"one address for two peers": {
			groups: []announce.Group{
				{BGP: to(100, "a"), Addresses: ranges("203.0.113.1-203.0.113.2")},
				{BGP: to(200, "b"), Addresses: ranges("203.0.113.2-203.0.113.3")},
			},
			want: `[203.0.113.1/32]
  [a] pref 100 [] []
[203.0.113.2/32]
  [a] pref 100 [] []
  [b] pref 200 [] []
[203.0.113.3/32]
  [b] pref 200 [] []
`,
		},
		"one peer twice": {
			groups: []announce.Group{
				{BGP: &announce.BGP{Peers: []string{"a"}, LocalPref: 100, Communities: []uint32{1, 3}, LargeCommunities: []announce.LargeCommunity{{1, 2, 3}}}, Addresses: ranges("203.0.113.1")},
				{BGP: &announce.BGP{Peers: []string{"a", "b"}, LocalPref: 200, Communities: []uint32{2, 3}}, Addresses: ranges("203.0.113.1")},
			},
			want: `[203.0.113.1/32]
  [a] pref 200 [1 2 3] [[1 2 3]]
  [b] pref 200 [2 3] []
`,
		},
		"an aggregate and an address in it": {
			groups: []announce.Group{
				{BGP: &announce.BGP{Peers: []string{"a"}, AggregationLength: 24}, Addresses: ranges("203.0.113.1-203.0.113.9")},
				{BGP: &announce.BGP{Peers: []string{"a"}, LocalPref: 1}, Addresses: ranges("203.0.113.5")},
			},
			want: "[203.0.113.0/24]\n  [a] pref 0 [] []\n[203.0.113.5/32]\n  [a] pref 1 [] []\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := compileGroups(test.groups, surroundings{})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, dump(got)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestCompileGroupsRefuses(t *testing.T) {
	t.Parallel()
	for name, g := range map[string]announce.Group{
		"too many":          {BGP: &announce.BGP{Peers: []string{"a"}}, Addresses: ranges("2001:db8::-2001:db8::ffff:ffff:ffff:ffff")},
		"just too many":     {BGP: &announce.BGP{Peers: []string{"a"}}, Addresses: ranges("10.0.0.0-10.1.0.0")},
		"half of the space": {BGP: &announce.BGP{Peers: []string{"a"}}, Addresses: ranges("::1-ffff::")},
		"too long":          {BGP: &announce.BGP{Peers: []string{"a"}, AggregationLength: 33}, Addresses: ranges("203.0.113.1")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got, err := compileGroups([]announce.Group{g}, surroundings{}); err == nil {
				t.Errorf("%d groups, want an error", len(got))
			}
		})
	}
}

// TestCompileGroupsNaive compares with the obvious way: address by address.
func TestCompileGroupsNaive(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		var p announce.Program
		for i := range 1 + random.IntN(3) {
			g := announce.Group{BGP: &announce.BGP{
				Peers:             []string{"a", "b", "c"}[random.IntN(3):],
				AggregationLength: []uint8{0, 0, 32, 30, 28}[random.IntN(5)],
				LocalPref:         uint32(i),
			}}
			for range 1 + random.IntN(3) {
				from := random.IntN(250)
				to := from + random.IntN(256-from)
				g.Addresses = append(g.Addresses, ranges(fmt.Sprintf("203.0.113.%d-203.0.113.%d", from, to))...)
			}
			p.Groups = append(p.Groups, g)
		}
		p.Normalize()
		got, err := compileGroups(p.Groups, surroundings{})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(naive(p.Groups), byPrefix(t, got), equalAddresses); diff != "" {
			t.Fatalf("%+v:\n%s", p.Groups, diff)
		}
	}
}

// naive is prefix and peer -> local preference.
func naive(groups []announce.Group) map[string]uint32 {
	out := make(map[string]uint32)
	for _, g := range groups {
		for _, r := range g.Addresses {
			for a := r.From(); ; a = a.Next() {
				length := int(g.BGP.AggregationLength)
				if length == 0 {
					length = a.BitLen()
				}
				for _, peer := range g.BGP.Peers {
					prefix, _ := a.Prefix(length)
					key := prefix.String() + " " + peer
					out[key] = max(out[key], g.BGP.LocalPref)
				}
				if a == r.To() {
					break
				}
			}
		}
	}
	return out
}

func byPrefix(t *testing.T, groups []bgp.Group) map[string]uint32 {
	t.Helper()
	out := make(map[string]uint32)
	seen := make(map[netip.Prefix]bool)
	for _, g := range groups {
		if !slices.IsSortedFunc(g.Prefixes, netip.Prefix.Compare) {
			t.Errorf("not sorted: %v", g.Prefixes)
		}
		for _, p := range g.Prefixes {
			if seen[p] {
				t.Errorf("%v is in two groups", p)
			}
			seen[p] = true
			for _, e := range g.Exports {
				for _, peer := range e.Peers {
					out[p.String()+" "+peer] = e.LocalPref
				}
			}
		}
	}
	return out
}

func TestCompilePeers(t *testing.T) {
	t.Parallel()
	key := announce.SecretKey{Name: "tor", Key: "password"}
	base := announce.Peer{
		Name: "tor", LocalASN: 64512, PeerASN: 64500, Address: netip.MustParseAddr("192.0.2.1"), Port: 179,
		HoldTime: announce.Duration(9 * time.Second), ConnectRetry: announce.Duration(5 * time.Second), IPv4: true, IPv6: true,
	}
	with := func(change func(*announce.Peer)) announce.Peer {
		p := base
		change(&p)
		return p
	}
	secret := with(func(p *announce.Peer) { p.Password = &key })
	hop := netip.MustParseAddr("2001:db8::10")
	held := func(name, address, password string) map[string]bgp.Peer {
		return map[string]bgp.Peer{name: {Name: name, Address: netip.MustParseAddr(address), Password: password, IPv6: true}}
	}
	for name, test := range map[string]struct {
		peers    []announce.Peer
		s        surroundings
		want     []string // name password next hop
		problems map[string]string
	}{
		"plain":    {peers: []announce.Peer{base}, want: []string{"tor  2001:db8::10"}},
		"password": {peers: []announce.Peer{secret}, s: surroundings{passwords: map[announce.SecretKey]string{key: "s"}}, want: []string{"tor s 2001:db8::10"}},
		"no password yet": {
			peers: []announce.Peer{secret}, problems: map[string]string{"tor": `Secret "tor" has not been read yet`},
		},
		"no password": {
			peers: []announce.Peer{secret, with(func(p *announce.Peer) { p.Name, p.Address = "b", netip.MustParseAddr("192.0.2.2") })},
			s:     surroundings{problems: map[announce.SecretKey]string{key: "there is no Secret"}},
			want:  []string{"b  2001:db8::10"}, problems: map[string]string{"tor": "there is no Secret"},
		},
		"old password": {
			peers: []announce.Peer{secret},
			s:     surroundings{passwords: map[announce.SecretKey]string{key: "old"}, problems: map[announce.SecretKey]string{key: "there is no Secret"}},
			want:  []string{"tor old 2001:db8::10"}, problems: map[string]string{"tor": "there is no Secret"},
		},
		"same address": {
			peers: []announce.Peer{base, with(func(p *announce.Peer) { p.Name, p.Port = "zweiter", 1790 })},
			want:  []string{"tor  2001:db8::10"}, problems: map[string]string{"zweiter": `peer "tor" has the same address`},
		},
		"new Secret not read yet": {
			peers: []announce.Peer{secret}, s: surroundings{held: held("tor", "192.0.2.1", "old")},
			want: []string{"tor old 2001:db8::10"}, problems: map[string]string{"tor": `Secret "tor" has not been read yet`},
		},
		"new Secret missing": {
			peers: []announce.Peer{secret},
			s:     surroundings{held: held("tor", "192.0.2.1", ""), problems: map[announce.SecretKey]string{key: "there is no Secret"}},
			want:  []string{"tor  2001:db8::10"}, problems: map[string]string{"tor": "there is no Secret"},
		},
		"impossible now": {
			peers: []announce.Peer{with(func(p *announce.Peer) { p.HoldTime = announce.Duration(time.Second) })},
			s:     surroundings{held: held("tor", "192.0.2.9", "old")},
			want:  []string{"tor old 2001:db8::10"}, problems: map[string]string{"tor": "hold time 1s is below 3s"},
		},
		"address of one that is held": {
			peers: []announce.Peer{with(func(p *announce.Peer) { p.Name = "a" }), base}, s: surroundings{held: held("tor", "192.0.2.1", "")},
			want: []string{"tor  2001:db8::10"}, problems: map[string]string{"a": `peer "tor" has the same address`},
		},
		"moved to the address of one that is held": {
			peers: []announce.Peer{with(func(p *announce.Peer) { p.Name = "a" }), base},
			s: surroundings{held: map[string]bgp.Peer{
				"a":   held("a", "192.0.2.9", "kept")["a"],
				"tor": held("tor", "192.0.2.1", "")["tor"],
			}},
			want: []string{"a kept 2001:db8::10", "tor  2001:db8::10"}, problems: map[string]string{"a": `peer "tor" has the same address`},
		},
		"not in the program any more": {s: surroundings{held: held("tor", "192.0.2.1", "")}},
		"impossible": {
			peers:    []announce.Peer{with(func(p *announce.Peer) { p.HoldTime = announce.Duration(time.Second) })},
			problems: map[string]string{"tor": "hold time 1s is below 3s"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test.s.nextHop6 = func(netip.Addr) netip.Addr { return hop }
			peers, problems := compilePeers(test.peers, test.s)
			var got []string
			for _, p := range peers {
				got = append(got, p.Name+" "+p.Password+" "+p.NextHop6.String())
			}
			if diff := cmp.Diff(test.want, got, equalAddresses); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(test.problems, problems, equalAddresses); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestCompileSaysWhenIPv6IsNotSent(t *testing.T) {
	t.Parallel()
	const problem = "no IPv6 next hop on the interface towards 192.0.2.1: IPv6 addresses are not announced"
	for name, test := range map[string]struct {
		address string
		router  string
		hop     string
		want    string
	}{
		"no next hop":         {"2001:db8::1", "192.0.2.1", "", problem},
		"next hop":            {"2001:db8::1", "192.0.2.1", "2001:db8::10", ""},
		"nothing to send":     {"203.0.113.1", "192.0.2.1", "", ""},
		"session over IPv6":   {"2001:db8::1", "2001:db8::2", "", ""},
		"for another router":  {"2001:db8::1", "192.0.2.3", "", ""},
		"from another family": {"203.0.113.1", "2001:db8::2", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			to := "tor"
			if name == "for another router" {
				to = "other"
			}
			p := announce.Program{
				RouterID: netip.MustParseAddr("192.0.2.10"),
				Peers: []announce.Peer{{
					Name: "tor", LocalASN: 64512, PeerASN: 64500, Address: netip.MustParseAddr(test.router),
					HoldTime: announce.Duration(9 * time.Second), IPv4: true, IPv6: true,
				}},
				Groups: []announce.Group{{BGP: &announce.BGP{Peers: []string{to}}, Addresses: ranges("203.0.113.9", test.address)}},
			}
			_, problems, err := compile(&p, surroundings{nextHop6: func(netip.Addr) netip.Addr {
				hop, _ := netip.ParseAddr(test.hop)
				return hop
			}})
			if err != nil || problems["tor"] != test.want {
				t.Errorf("problem %q, %v; want %q", problems["tor"], err, test.want)
			}
		})
	}
}

func TestCompileDemotes(t *testing.T) {
	t.Parallel()
	p := announce.Program{Groups: []announce.Group{
		{BGP: &announce.BGP{Peers: []string{"a", "b"}, LocalPref: 100, Communities: []uint32{7}}, Addresses: ranges("203.0.113.1-203.0.113.2")},
		{BGP: &announce.BGP{Peers: []string{"b"}, LocalPref: 200}, Addresses: ranges("203.0.113.2")},
		{BGP: &announce.BGP{Peers: []string{"c"}}, Addresses: ranges("2001:db8::1")},
	}}
	usual, _, err := compile(&p, surroundings{})
	if err != nil {
		t.Fatal(err)
	}
	demoted, _, err := compile(&p, surroundings{demoted: true})
	if err != nil {
		t.Fatal(err)
	}
	exports := 0
	for _, g := range usual.Groups {
		for i := range g.Exports {
			if g.Exports[i].Demoted {
				t.Errorf("%v: demoted for nothing", g.Prefixes)
			}
			g.Exports[i].Demoted = true
			exports++
		}
	}
	if exports != 4 {
		t.Errorf("%d exports, want 4:\n%s", exports, dump(usual.Groups))
	}
	if diff := cmp.Diff(usual, demoted, equalAddresses); diff != "" {
		t.Error(diff)
	}
}

// TestCompileStranded: a session whose next hop has lost its carrier, and that lives by
// another way, announces nothing; others are not concerned.
func TestCompileStranded(t *testing.T) {
	t.Parallel()
	peer := func(name, address, source string) announce.Peer {
		p := announce.Peer{
			Name: name, LocalASN: 64512, PeerASN: 64512, Address: netip.MustParseAddr(address),
			HoldTime: announce.Duration(9 * time.Second), IPv4: true, Multihop: 4,
		}
		p.Source, _ = netip.ParseAddr(source)
		return p
	}
	p := announce.Program{
		RouterID: netip.MustParseAddr("192.0.2.10"),
		Peers:    []announce.Peer{peer("a", "198.51.100.1", "192.0.2.10"), peer("b", "198.51.100.2", "198.51.100.10"), peer("c", "198.51.100.3", "")},
		Groups: []announce.Group{
			{BGP: &announce.BGP{Peers: []string{"a"}}, Addresses: ranges("203.0.113.1")},
			{BGP: &announce.BGP{Peers: []string{"a", "b", "c"}}, Addresses: ranges("203.0.113.2")},
		},
	}
	state, problems, err := compile(&p, surroundings{stranded: func(source, _ netip.Addr) string {
		if source == netip.MustParseAddr("192.0.2.10") {
			return "eth1"
		}
		return ""
	}})
	if err != nil {
		t.Fatal(err)
	}
	sent := make(map[string][]string)
	for _, g := range state.Groups {
		for _, e := range g.Exports {
			for _, name := range e.Peers {
				for _, prefix := range g.Prefixes {
					sent[name] = append(sent[name], prefix.String())
				}
			}
		}
	}
	if diff := cmp.Diff(map[string][]string{"b": {"203.0.113.2/32"}, "c": {"203.0.113.2/32"}}, sent); diff != "" {
		t.Error(diff)
	}
	if len(problems) != 1 || !strings.Contains(problems["a"], "interface eth1") || len(state.Peers) != 3 {
		t.Errorf("problems %v, peers %v", problems, state.Peers)
	}
}

// TestCompileDemotesUnfit: addresses without an endpoint on the node are demoted for
// themselves, but not what is announced for others as well.
func TestCompileDemotesUnfit(t *testing.T) {
	t.Parallel()
	to := func(port uint16, length uint8, peers []string, addresses ...string) announce.Group {
		return local(port, announce.Group{BGP: &announce.BGP{Peers: peers, AggregationLength: length}, Addresses: ranges(addresses...)})
	}
	a, ab := []string{"a"}, []string{"a", "b"}
	for name, test := range map[string]struct {
		groups []announce.Group
		unfit  []uint16
		want   map[string]bool // prefix and peer -> demoted
	}{
		"all fit": {
			groups: []announce.Group{to(0, 0, a, "203.0.113.1"), to(1, 0, a, "203.0.113.2")},
			want:   map[string]bool{"203.0.113.1/32 a": false, "203.0.113.2/32 a": false},
		},
		"one of three": {
			groups: []announce.Group{to(0, 0, ab, "203.0.113.1"), to(1, 0, ab, "203.0.113.2", "2001:db8::2"), to(2, 0, ab, "203.0.113.3")},
			unfit:  []uint16{1, 9},
			want: map[string]bool{
				"203.0.113.1/32 a": false, "203.0.113.1/32 b": false, "203.0.113.2/32 a": true, "203.0.113.2/32 b": true,
				"2001:db8::2/128 a": true, "2001:db8::2/128 b": true, "203.0.113.3/32 a": false, "203.0.113.3/32 b": false,
			},
		},
		"one address, two Services": {
			groups: []announce.Group{to(1, 0, ab, "203.0.113.1"), to(2, 0, a, "203.0.113.1")},
			unfit:  []uint16{1},
			want:   map[string]bool{"203.0.113.1/32 a": false, "203.0.113.1/32 b": true},
		},
		"the same, the other one": {
			groups: []announce.Group{to(1, 0, ab, "203.0.113.1"), to(2, 0, a, "203.0.113.1")},
			unfit:  []uint16{2},
			want:   map[string]bool{"203.0.113.1/32 a": false, "203.0.113.1/32 b": false},
		},
		"the same, both": {
			groups: []announce.Group{to(1, 0, ab, "203.0.113.1"), to(2, 0, a, "203.0.113.1")},
			unfit:  []uint16{1, 2},
			want:   map[string]bool{"203.0.113.1/32 a": true, "203.0.113.1/32 b": true},
		},
		"aggregate": {
			groups: []announce.Group{to(1, 24, a, "203.0.113.1"), to(2, 24, a, "203.0.113.2"), to(0, 0, a, "198.51.100.1")},
			unfit:  []uint16{1},
			want:   map[string]bool{"203.0.113.0/24 a": false, "198.51.100.1/32 a": false},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			unfit := make(map[uint16]bool)
			for _, port := range test.unfit {
				unfit[port] = true
			}
			state, _, err := compile(&announce.Program{Groups: test.groups}, surroundings{unfit: unfit})
			if err != nil {
				t.Fatal(err)
			}
			got := make(map[string]bool)
			for _, g := range state.Groups {
				for _, e := range g.Exports {
					for _, peer := range e.Peers {
						for _, p := range g.Prefixes {
							got[p.String()+" "+peer] = e.Demoted
						}
					}
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
			// A node that does not forward demotes the rest as well.
			state, _, err = compile(&announce.Program{Groups: test.groups}, surroundings{unfit: unfit, demoted: true})
			if err != nil {
				t.Fatal(err)
			}
			for _, g := range state.Groups {
				if slices.ContainsFunc(g.Exports, func(e bgp.Export) bool { return !e.Demoted }) {
					t.Errorf("%v: not demoted", g.Prefixes)
				}
			}
		})
	}
}

func BenchmarkCompile2000(b *testing.B) {
	groups := []announce.Group{{BGP: &announce.BGP{Peers: []string{"a"}}, Addresses: ranges("198.18.0.0-198.18.7.207")}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := compileGroups(groups, surroundings{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCompile2000Apart(b *testing.B) {
	var texts []string
	for i := range 2000 {
		texts = append(texts, netip.AddrFrom4([4]byte{198, 18, byte(i >> 7), byte(i << 1)}).String())
	}
	groups := []announce.Group{{BGP: &announce.BGP{Peers: []string{"a"}}, Addresses: ranges(texts...)}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := compileGroups(groups, surroundings{}); err != nil {
			b.Fatal(err)
		}
	}
}
