package heartbeat

import (
	"net/netip"
	"testing"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

func TestMeet(t *testing.T) {
	prefixes := func(texts ...string) (all []netip.Prefix) {
		for _, text := range texts {
			all = append(all, netip.MustParsePrefix(text))
		}
		return all
	}
	links := []announce.Link{
		{Name: "eth0", MAC: announce.MAC{2, 0}, Prefixes: prefixes("192.0.2.2/24", "2001:db8::2/64")},
		{Name: "eth1", MAC: announce.MAC{2, 1}, Prefixes: prefixes("fe80::2/64")},
		{Name: "eth2", MAC: announce.MAC{2, 2}, Prefixes: prefixes("fe80::3/64")},
		{Name: "docker0", MAC: announce.MAC{2, 3}, Prefixes: prefixes("198.51.100.1/24")},
	}
	for name, test := range map[string]struct {
		own      []netip.Prefix
		from, to string
	}{
		"eth0":    {prefixes("192.0.2.1/24", "2001:db8::1/64", "fe80::1/64"), "192.0.2.1", "192.0.2.2"},
		"eth9":    {prefixes("2001:db8::1/64", "fe80::1/64"), "2001:db8::1", "2001:db8::2"},
		"eth2":    {prefixes("fe80::1/64"), "fe80::1", "fe80::3"},
		"eth8":    {prefixes("fe80::1/64"), "", ""},       // which of the two?
		"docker0": {prefixes("198.51.100.1/24"), "", ""},  // the same on all nodes
		"point":   {prefixes("192.0.2.1/32"), "", ""},     // no subnet
		"eth1":    {prefixes("192.0.2.129/25"), "", ""},   // another subnet
		"none":    {nil, "", ""},                          // no address
		"apipa":   {prefixes("169.254.1.1/16"), "", ""},   // not unique
		"mapped":  {prefixes("203.0.113.1/24"), "", ""},   // nobody else is there
		"eth0 v6": {prefixes("2001:db8::2/64"), "", ""},   // a duplicate
		"eth2 v6": {prefixes("2001:db8:2::1/64"), "", ""}, // another subnet
		"wlan0":   {prefixes("fe80::1/64", "fe80::9/64"), "", ""},
	} {
		from, to, ok := meet(&link{Link: Link{Name: name, Prefixes: test.own}}, links)
		if ok != (test.to != "") || ok && (from.Addr().String() != test.from || to.addr.String() != test.to) {
			t.Errorf("%s: %v meets %v, %t; want %q and %q", name, from, to.addr, ok, test.from, test.to)
		}
	}
}
