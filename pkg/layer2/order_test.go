package layer2

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

// TestTaken: the node's own addresses and its gateways are never announced.
func TestTaken(t *testing.T) {
	gateway := netip.MustParseAddr("192.0.2.254")
	state := one(Certain, vip, vip6, self, gateway, netip.MustParseAddr("198.51.100.7"))
	state.Interfaces = append(state.Interfaces, Interface{Index: 1, Name: "lo", Carrier: true, Prefixes: prefixes("198.51.100.7/32", "::ffff:192.0.2.10/128")})
	state.Groups[0].Interfaces = []string{"eth0"}
	state.Gateways = []netip.Addr{gateway}
	state.Bound = []netip.Addr{vip}
	o := compile(&state)
	var got []netip.Addr
	for _, w := range o.wants {
		got = append(got, w.addr)
	}
	if len(got) != 2 || got[0] != vip || got[1] != vip6 {
		t.Errorf("announced: %v", got)
	}
	text := strings.Join(o.problems, "\n")
	for _, want := range []string{"192.0.2.1: an address of the node itself, on its interface eth0", "198.51.100.7: an address of the node itself, on its interface lo", "192.0.2.254: a router's address"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing from\n%s", want, text)
		}
	}
	if strings.Count(text, "take it out of the pool") != 3 {
		t.Errorf("problems:\n%s", text)
	}

	// An address that becomes one is announced no longer.
	s := newSim(t)
	s.set(one(Certain, gateway))
	s.is(gateway, announced)
	later := one(Certain, gateway)
	later.Gateways = []netip.Addr{gateway}
	if later.equal(&State{Interfaces: later.Interfaces, Groups: later.Groups, Fellows: later.Fellows}) {
		t.Error("a state with another gateway is taken for the same")
	}
	s.set(later)
	s.log = nil
	s.run(time.Minute)
	s.silent()
}

// TestOwnVirtualRouter: the node may be a virtual router on one LAN and have a
// neighbour with the same virtual address on another.
func TestOwnVirtualRouter(t *testing.T) {
	state := one(Certain, vip)
	state.Interfaces = append(state.Interfaces, Interface{Index: 9, Name: "vrrp.7", MAC: vrrpMAC, Carrier: true})
	b := newBook()
	b.apply(compile(&state), time.Now())
	for mac, want := range map[announce.MAC]int{vrrpMAC: 1, nodeMAC: 0} {
		sent := 0
		b.links[2].station.receive(arpRequest(mac, client, vip, broadcastMAC), func([]byte) error { sent++; return nil })
		if sent != want {
			t.Errorf("%d answers to %v", sent, mac)
		}
	}
}
