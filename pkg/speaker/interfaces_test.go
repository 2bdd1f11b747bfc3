package speaker

import (
	"net"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/layer2"
)

func TestAnnouncing(t *testing.T) {
	t.Parallel()
	prefix := netip.MustParsePrefix
	links := []link{
		{index: 1, name: "lo", up: true, loopback: true},
		{index: 2, name: "eth0", mac: "02:00:00:00:00:01", up: true, carrier: true},
		{index: 3, name: "eth1", up: false},
		{index: 4, name: "veth1234", up: true, carrier: true},
		{index: 5, name: "flannel.1", up: true, carrier: true},
		{index: 6, name: "br0", up: true, carrier: true},
	}
	var addresses []address
	add := func(link int, passing bool, texts ...string) {
		for _, text := range texts {
			addresses = append(addresses, address{link, prefix(text), passing})
		}
	}
	add(1, false, "127.0.0.1/8", "203.0.113.1/32")
	add(2, false, "2001:db8::10/64", "192.0.2.10/24", "fe80::1/64", "203.0.113.1/32")
	add(2, true, "2001:db8::9/64")
	add(3, false, "198.51.100.1/24")
	add(4, false, "fe80::2/64")
	add(5, false, "10.244.0.0/32")
	add(6, false, "198.51.100.2/25")
	want := []announce.Interface{
		{Name: "br0", Prefixes: []netip.Prefix{prefix("198.51.100.2/25")}},
		{Name: "eth0", MAC: "02:00:00:00:00:01", Prefixes: []netip.Prefix{prefix("192.0.2.10/24"), prefix("2001:db8::9/64"), prefix("2001:db8::10/64")}},
	}
	got := takeStock(links, addresses).nics
	if diff := cmp.Diff(want, reported(got), equalAddresses); diff != "" {
		t.Error(diff)
	}
	for name, test := range map[string]struct {
		router  string
		through int
		want    string
	}{
		"on link, stable address":    {"192.0.2.1", 0, "2001:db8::10"},
		"behind a gateway":           {"198.18.0.1", 2, "2001:db8::10"},
		"on link, no IPv6 address":   {"198.51.100.1", 0, "invalid IP"},
		"behind, no IPv6 address":    {"198.18.0.1", 6, "invalid IP"},
		"behind, not that interface": {"198.18.0.1", 7, "invalid IP"},
	} {
		if hop := nextHop6(got, netip.MustParseAddr(test.router), test.through); hop.String() != test.want {
			t.Errorf("%s: next hop %v, want %v", name, hop, test.want)
		}
	}
}

func TestLinkTo(t *testing.T) {
	t.Parallel()
	loopback, err := net.InterfaceByName("lo")
	if err != nil {
		t.Skip(err)
	}
	if got := linkTo(netip.MustParseAddr("127.0.0.1")); got != loopback.Index {
		t.Errorf("interface %d, want %d", got, loopback.Index)
	}
}

func TestStrandedOn(t *testing.T) {
	on := func(index int, name string, carrier bool, prefix string) layer2.Interface {
		return layer2.Interface{Index: index, Name: name, Carrier: carrier, Prefixes: []netip.Prefix{netip.MustParsePrefix(prefix)}}
	}
	for name, test := range map[string]struct {
		links   []layer2.Interface
		through int
		want    string
	}{
		"carrier":               {[]layer2.Interface{on(2, "eth0", true, "192.0.2.10/24")}, 3, ""},
		"none":                  {[]layer2.Interface{on(2, "eth0", false, "192.0.2.10/24")}, 3, "eth0"},
		"none, and no way":      {[]layer2.Interface{on(2, "eth0", false, "192.0.2.10/24")}, 2, ""},
		"another address":       {[]layer2.Interface{on(2, "eth0", false, "192.0.2.11/24")}, 3, ""},
		"on one of two":         {[]layer2.Interface{on(2, "eth0", false, "192.0.2.10/24"), on(4, "eth1", true, "192.0.2.10/32")}, 3, ""},
		"on an unknown, as lo0": {nil, 3, ""},
	} {
		if got := strandedOn(test.links, netip.MustParseAddr("192.0.2.10"), test.through); got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}
