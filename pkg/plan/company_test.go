package plan

import (
	"maps"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// capped is a cluster whose Services are all announced by 16 of its nodes.
func capped(nodes, services int, dualStack bool) (scale, *State) {
	size := scale{nodes: nodes, services: services, dualStack: dualStack}
	s := size.state()
	for _, svc := range s.Services {
		svc.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyCluster
	}
	return size, s
}

// loads are the numbers of addresses that each node announces.
func (p *Plan) loads() map[string]int {
	loads := make(map[string]int)
	for name := range p.Programs {
		loads[name] = 0
	}
	for i := range p.Services {
		for j := range p.Services[i].Addresses {
			for _, name := range p.Services[i].Addresses[j].NextHops() {
				loads[name]++
			}
		}
	}
	return loads
}

// TestNewAddressesKeepCompany: many new Services are written to few nodes, and the
// load stays even.
func TestNewAddressesKeepCompany(t *testing.T) {
	size, s := capped(400, 2000, false)
	first := s.advance()
	loads := slices.Sorted(maps.Values(first.loads()))
	least, greatest := loads[0], loads[len(loads)-1]
	if average := 2000 * 16 / 400; greatest-least > 1+average/evenness {
		t.Errorf("nodes have %d to %d addresses", least, greatest)
	}
	sets := make(map[string]int)
	for i := range first.Services {
		sets[strings.Join(first.Services[i].Addresses[0].NextHops(), " ")]++
	}
	// Routers have room for some hundred.
	if len(sets) > 400 {
		t.Errorf("2,000 addresses have %d sets of next hops", len(sets))
	}
	for i := range 20 {
		size.addService(s, 2000+i)
		s.Services[len(s.Services)-1].Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyCluster
	}
	before := first.Programs
	second := s.advance()
	changed := 0
	for name, program := range second.Programs {
		if program.Hash != before[name].Hash {
			changed++
		}
	}
	if changed > 4*16 {
		t.Errorf("20 new Services change the programs of %d nodes", changed)
	}
}

// TestAddressesOfAServiceHaveTheSameNextHops of both families, where they may.
func TestAddressesOfAServiceHaveTheSameNextHops(t *testing.T) {
	_, s := capped(50, 500, true)
	for _, svc := range s.advance().Services {
		if len(svc.Addresses) != 2 {
			t.Fatalf("%d addresses", len(svc.Addresses))
		}
		if a, b := svc.Addresses[0].NextHops(), svc.Addresses[1].NextHops(); len(a) != 16 || !slices.Equal(a, b) {
			t.Errorf("%s: %v and %v", svc.Name, a, b)
		}
	}
}
