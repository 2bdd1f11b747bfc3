package speaker

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

func TestAnnouncing(t *testing.T) {
	t.Parallel()
	prefix := netip.MustParsePrefix
	links := []link{
		{index: 1, name: "lo", up: true, loopback: true},
		{index: 2, name: "eth0", mac: "02:00:00:00:00:01", up: true},
		{index: 3, name: "eth1", up: false},
		{index: 4, name: "veth1234", up: true},
		{index: 5, name: "flannel.1", up: true},
		{index: 6, name: "br0", up: true},
	}
	addresses := []address{
		{1, prefix("127.0.0.1/8")}, {1, prefix("203.0.113.1/32")},
		{2, prefix("2001:db8::10/64")}, {2, prefix("192.0.2.10/24")}, {2, prefix("fe80::1/64")}, {2, prefix("203.0.113.1/32")},
		{3, prefix("198.51.100.1/24")},
		{4, prefix("fe80::2/64")},
		{5, prefix("10.244.0.0/32")},
		{6, prefix("198.51.100.2/25")},
	}
	want := []announce.Interface{
		{Name: "br0", Prefixes: []netip.Prefix{prefix("198.51.100.2/25")}},
		{Name: "eth0", MAC: "02:00:00:00:00:01", Prefixes: []netip.Prefix{prefix("192.0.2.10/24"), prefix("2001:db8::10/64")}},
	}
	got := announcing(links, addresses)
	if diff := cmp.Diff(want, got, equalAddresses); diff != "" {
		t.Error(diff)
	}
	if hop := nextHop6(got, netip.MustParseAddr("192.0.2.1")); hop != netip.MustParseAddr("2001:db8::10") {
		t.Errorf("next hop on eth0: %v", hop)
	}
	if hop := nextHop6(got, netip.MustParseAddr("198.51.100.1")); hop.IsValid() {
		t.Errorf("next hop on br0: %v", hop)
	}
}
