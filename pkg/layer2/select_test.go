package layer2

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

func prefixes(texts ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, text := range texts {
		out = append(out, netip.MustParsePrefix(text))
	}
	return out
}

// host is a node with about every kind of interface there is.
func host() []Interface {
	mac := func(n byte) announce.MAC { return announce.MAC{2, 0, 0x5e, 0, 0x53, n} }
	return []Interface{
		{Index: 1, Name: "lo", Carrier: true, Prefixes: prefixes("127.0.0.1/8", "198.51.100.7/32")},
		{Index: 2, Name: "eth0", MAC: mac(2), Carrier: true, Master: "bond0"},
		{Index: 3, Name: "eth1", MAC: mac(3), Carrier: true, Master: "bond0", Prefixes: prefixes("192.0.2.9/24")},
		{Index: 4, Name: "bond0", MAC: mac(2), Carrier: true, Prefixes: prefixes("192.0.2.1/24", "fe80::2/64", "2001:db8::1/64")},
		{Index: 5, Name: "bond0.7", MAC: mac(2), Carrier: true, Prefixes: prefixes("198.51.100.1/25", "fe80::2/64")},
		{Index: 6, Name: "ens5", MAC: mac(6), Carrier: true, Prefixes: prefixes("203.0.113.1/24", "203.0.113.2/24")},
		{Index: 7, Name: "ens6", MAC: mac(7), Carrier: true, Prefixes: prefixes("203.0.113.3/24", "203.0.113.65/26")},
		{Index: 8, Name: "ens7", MAC: mac(8), Prefixes: prefixes("10.1.0.1/16", "203.0.113.130/25")},
		{Index: 9, Name: "tun0", Carrier: true, NoARP: true, Prefixes: prefixes("10.2.0.1/16")},
		{Index: 10, Name: "dummy0", MAC: mac(10), Carrier: true, NoARP: true, Prefixes: prefixes("10.3.0.1/16")},
		{Index: 11, Name: "wg0", Carrier: true, Prefixes: prefixes("10.4.0.1/16", "0.0.0.0/0")},
		{Index: 12, Name: "ens8", MAC: mac(12), Carrier: true, Prefixes: prefixes("0.0.0.0/0", "10.9.0.1/32")},
	}
}

func TestSelect(t *testing.T) {
	reach := map[netip.Addr]string{
		netip.MustParseAddr("10.200.0.1"): "bond0",
		netip.MustParseAddr("10.200.0.2"): "gone0",
	}
	for _, test := range []struct {
		addr      string
		selectors []string
		want      string // names
		problem   string // part of it
	}{
		{"192.0.2.10", nil, "bond0", ""},
		{"2001:db8::10", nil, "bond0", ""},
		{"fe80::10", nil, "bond0", ""}, // two of equal length: by name
		{"198.51.100.100", nil, "bond0.7", ""},
		{"198.51.100.200", nil, "", "no interface of the node has a subnet"},
		{"198.51.100.7", nil, "bond0.7", ""}, // not lo, whose /32 is no subnet
		{"203.0.113.10", nil, "ens5", ""},    // two NICs in one subnet
		{"203.0.113.70", nil, "ens6", ""},    // the longer prefix
		{"203.0.113.200", nil, "ens5", ""},   // the longer one has no carrier
		{"10.1.0.5", nil, "", "ens7, whose subnet holds it, cannot announce: it has no carrier"},
		{"10.2.0.5", nil, "", "tun0, whose subnet holds it, cannot announce: its flag NOARP"},
		{"10.3.0.5", nil, "", "NOARP"},
		{"10.4.0.5", nil, "", "wg0, whose subnet holds it, cannot announce: it has no Ethernet address"},
		{"10.9.0.1", nil, "", "no interface of the node"},
		{"2001:db8:1::1", nil, "", "no interface of the node"},

		{"10.77.0.1", []string{"bond0"}, "bond0", ""},
		{"10.77.0.1", []string{"ens6", "bond0", "ens6"}, "bond0 ens6", ""},
		{"10.77.0.1", []string{"ens*"}, "ens5 ens6 ens8", ""},
		{"10.77.0.1", []string{"ens[56]", "bond0"}, "bond0 ens5 ens6", ""},
		{"10.77.0.1", []string{"*"}, "bond0 bond0.7 ens5 ens6 ens8", ""},
		{"10.77.0.1", []string{"eth0"}, "", "eth0 cannot announce: it is a member of bond0"},
		{"10.77.0.1", []string{"eth?"}, "", "eth0 cannot announce: it is a member of bond0"},
		{"10.77.0.1", []string{"eth?", "ens7"}, "", "ens7 cannot announce: it has no carrier"},
		{"10.77.0.1", []string{"eth9"}, "", "eth9 does not exist"},
		{"10.77.0.1", []string{"eth9", "ens5"}, "ens5", ""},
		{"10.77.0.1", []string{"x*"}, "", "no interface matches x*"},
		{"10.77.0.1", []string{"[x"}, "", "syntax error"},
		{"10.77.0.1", []string{"203.0.113.2"}, "ens5", ""},
		{"10.77.0.1", []string{"2001:db8::1"}, "bond0", ""},
		{"10.77.0.1", []string{"fe80::2"}, "bond0 bond0.7", ""},
		{"10.77.0.1", []string{"203.0.113.99"}, "", "no interface has the address 203.0.113.99"},
		{"10.77.0.1", []string{"192.0.2.9"}, "", "eth1 cannot announce: it is a member of bond0"},
		{"10.77.0.1", []string{"can-reach:10.200.0.1"}, "bond0", ""},
		{"10.77.0.1", []string{"can-reach:10.200.0.2"}, "", "interface gone0, through which 10.200.0.2 is reached, does not exist"},
		{"10.77.0.1", []string{"can-reach:10.200.0.3"}, "", "10.200.0.3 is not reached"},
		{"10.77.0.1", []string{"can-reach:x"}, "", "no address follows"},
	} {
		t.Run(fmt.Sprint(test.addr, test.selectors), func(t *testing.T) {
			interfaces := host()
			chosen, problem := NewSelection(interfaces, reach, test.selectors).Of(netip.MustParseAddr(test.addr))
			var names []string
			for _, i := range chosen {
				names = append(names, interfaces[i].Name)
			}
			if got := strings.Join(names, " "); got != test.want {
				t.Errorf("chose %q, want %q (%s)", got, test.want, problem)
			}
			if (test.problem == "") != (problem == "") || !strings.Contains(problem, test.problem) {
				t.Errorf("problem %q, want %q", problem, test.problem)
			}
		})
	}
}

// TestSelectOrder: the order of the interfaces decides nothing.
func TestSelectOrder(t *testing.T) {
	interfaces := host()
	random := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		random.Shuffle(len(interfaces), func(i, j int) { interfaces[i], interfaces[j] = interfaces[j], interfaces[i] })
		chosen, _ := NewSelection(interfaces, nil, nil).Of(netip.MustParseAddr("203.0.113.10"))
		if len(chosen) != 1 || interfaces[chosen[0]].Name != "ens5" {
			t.Fatalf("chose %v", chosen)
		}
		if chosen, _ = NewSelection(interfaces, nil, []string{"ens*", "bond0"}).Of(vip); !slices.IsSorted(chosen) || len(chosen) != 4 {
			t.Fatalf("chose %v", chosen)
		}
	}
}

func TestProblems(t *testing.T) {
	state := State{Interfaces: host(), Groups: []Group{
		{Addresses: many(10)},
		{Addresses: []netip.Addr{netip.MustParseAddr("10.1.0.5"), netip.MustParseAddr("10.1.0.6"), netip.MustParseAddr("10.1.0.9"), vip}},
		{Addresses: []netip.Addr{vip6}, Interfaces: []string{"eth9"}},
	}}
	want := []string{
		"10.0.0.1-10.0.0.10: no interface of the node has a subnet that holds it: name interfaces in the pool's layer2.interfaces",
		"10.1.0.5-10.1.0.6, 10.1.0.9: interface ens7, whose subnet holds it, cannot announce: it has no carrier: check its link",
		"2001:db8::10: interface eth9 does not exist: check the name, or exclude the node by the pool's nodeSelector",
	}
	if got := compile(&state).problems; !slices.Equal(got, want) {
		t.Errorf("problems:\n%s", strings.Join(got, "\n"))
	}
	a := New(Config{})
	for i := range 100 {
		state.Groups = append(state.Groups, Group{Addresses: []netip.Addr{vip}, Interfaces: []string{fmt.Sprintf("no%d", i)}})
	}
	a.Set(state)
	if got := len(a.Status().Problems); got != maxProblems {
		t.Errorf("%d problems", got)
	}
}

func TestTraps(t *testing.T) {
	other := netip.MustParseAddr("192.0.2.11")
	for _, test := range []struct {
		name     string
		all, one int
		bound    []netip.Addr
		want     string
	}{
		{"not bound", 0, 0, nil, ""},
		{"other bound", 0, 0, []netip.Addr{other}, ""},
		{"IPv6 bound", 0, 0, []netip.Addr{vip6}, ""},
		{"bound", 0, 0, []netip.Addr{vip, other}, "192.0.2.10: bound to kube-ipvs0 while arp_ignore of eth0 is 0"},
		{"ignored on all", 1, 0, []netip.Addr{vip}, ""},
		{"ignored there", 0, 2, []netip.Addr{vip}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			changes := 0
			all := test.all
			a := New(Config{Changed: func() { changes++ }, ARPIgnore: func(name string) (int, error) {
				return map[string]int{"all": all, "eth0": test.one}[name], nil
			}})
			state := one(Certain, vip, vip6)
			state.Bound = test.bound
			a.Set(state)
			got := strings.Join(a.Status().Problems, "\n")
			if (test.want == "") != (got == "") || !strings.HasPrefix(got, test.want) {
				t.Errorf("problems %q, want %q", got, test.want)
			}
			if test.want != "" && !strings.Contains(got, "strictARP") {
				t.Errorf("%q has no remedy", got)
			}
			// Repaired: the same state finds out.
			all, changes = 1, 0
			a.Set(state)
			if got := a.Status().Problems; got != nil {
				t.Errorf("problems %q after the repair", got)
			}
			if (changes > 0) != (test.want != "") {
				t.Errorf("%d changes after the repair", changes)
			}
		})
	}
	// What cannot be read is no problem.
	a := New(Config{ARPIgnore: func(string) (int, error) { return 0, fmt.Errorf("no such file") }})
	state := one(Certain, vip)
	state.Bound = []netip.Addr{vip}
	a.Set(state)
	if got := a.Status().Problems; got != nil {
		t.Errorf("problems %q", got)
	}
	if _, err := readARPIgnore("all"); err != nil {
		t.Error(err)
	}
}
