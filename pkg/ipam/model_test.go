package ipam

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

// model is the allocator as one would explain it: a list of addresses, and who
// has them. It does not predict which address is given, only what must hold.
type model struct {
	has      map[types.UID][]netip.Addr
	retiring map[netip.Addr]types.UID
	recorded map[types.UID][]netip.Addr
}

// busy is who has the address or had it.
func (m *model) busy(addr netip.Addr) bool {
	for _, addresses := range m.has {
		if slices.Contains(addresses, addr) {
			return true
		}
	}
	_, retiring := m.retiring[addr]
	return retiring
}

// TestRandomLives lets Services come, move, go and crash in any order. No address
// is given twice, none leaks, and none moves by itself.
func TestRandomLives(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { randomLife(t, rand.New(rand.NewPCG(seed, seed))) })
	}
}

func randomLife(t *testing.T, random *rand.Rand) {
	variants := [][]*v1alpha1.AddressPool{
		{pool("a", "203.0.113.0/28"), pool("b", "203.0.113.8-203.0.113.23")},
		{pool("a", "203.0.113.4-203.0.113.11"), pool("six", "2001:db8::/125")},
		{pool("b", "203.0.113.0/27", spec(func(s *v1alpha1.AddressPoolSpec) { s.AvoidBuggyIPs = true }))},
		{pool("a", "203.0.113.0/28", spec(func(s *v1alpha1.AddressPoolSpec) { s.Disabled = true })), pool("c", "203.0.113.16/29")},
		nil,
	}
	nodes := map[netip.Addr]string{netip.MustParseAddr("203.0.113.5"): "n"}
	pools := Compile(variants[0])
	a := NewAllocator()
	a.SetPools(pools, nil)
	m := &model{has: map[types.UID][]netip.Addr{}, retiring: map[netip.Addr]types.UID{}, recorded: map[types.UID][]netip.Addr{}}
	drop := func(uid types.UID) {
		for addr, owner := range m.retiring {
			if owner == uid && !slices.Contains(m.recorded[uid], addr) {
				delete(m.retiring, addr)
			}
		}
	}
	retire := func(uid types.UID, keep []netip.Addr) {
		for _, addr := range m.has[uid] {
			if !slices.Contains(keep, addr) {
				m.retiring[addr] = uid
			}
		}
	}
	for step := range 3000 {
		c := claim(fmt.Sprintf("s%d", random.IntN(30)))
		c.Recorded, c.Marked = m.recorded[c.UID], true
		switch random.IntN(14) {
		case 0:
			pools = Compile(variants[random.IntN(len(variants))])
			a.SetPools(pools, nil)
		case 1:
			if random.IntN(2) == 0 {
				a.SetNodes(nodes)
			} else {
				a.SetNodes(nil)
			}
		case 2, 3:
			a.Release(c.UID)
			retire(c.UID, nil)
			delete(m.has, c.UID)
		case 4, 5:
			// The API shows the status that was written last.
			m.recorded[c.UID] = m.has[c.UID]
			a.Observe(c.UID, m.recorded[c.UID])
			drop(c.UID)
		case 6:
			a.Forget(c.UID)
			delete(m.has, c.UID)
			delete(m.recorded, c.UID)
			drop(c.UID)
		case 7:
			if random.IntN(10) > 0 {
				break
			}
			// A crash: what was not written is lost, what was is adopted.
			a = NewAllocator()
			var records []Record
			for uid, recorded := range m.recorded {
				records = append(records, Record{Owner: Owner{UID: uid}, Addresses: recorded, Marked: true, Terms: &Terms{}})
			}
			if conflicts := a.SetPools(pools, records); len(conflicts) > 0 {
				t.Fatalf("step %d: two Services were recorded with one address: %v", step, conflicts)
			}
			clear(m.has)
			clear(m.retiring)
			for uid, recorded := range m.recorded {
				if len(recorded) > 0 {
					m.has[uid] = recorded
				}
			}
		default:
			if random.IntN(4) == 0 {
				dual(&c)
				c.Partial = random.IntN(2) == 0
			}
			if random.IntN(3) == 0 {
				want(fmt.Sprintf("203.0.113.%d", random.IntN(32)))(&c)
			}
			before := m.has[c.UID]
			assignment, err := a.Assign(&c, nil)
			if err != nil {
				if got := a.Addresses(c.UID); !sameAddresses(got, before) {
					t.Fatalf("step %d: refused claim changed %v to %v", step, before, got)
				}
				break
			}
			for _, addr := range assignment.Addresses {
				if slices.Contains(before, addr) {
					continue
				}
				delete(m.has, c.UID)
				if owner, ok := m.retiring[addr]; ok && owner == c.UID {
					delete(m.retiring, addr)
				}
				if m.busy(addr) {
					t.Fatalf("step %d: %s was given %s, which is taken", step, c.Owner, addr)
				}
			}
			for _, addr := range before {
				family := familyOf(addr)
				if slices.Contains(c.Families, family) && !hasFamily(c.Requested, family) && !slices.Contains(assignment.Addresses, addr) {
					t.Fatalf("step %d: %s moved from %s to %v by itself", step, c.Owner, addr, assignment.Addresses)
				}
			}
			m.has[c.UID] = before
			retire(c.UID, assignment.Addresses)
			m.has[c.UID] = assignment.Addresses
		}
		agree(t, step, a, m)
	}
	for i := range 30 {
		a.Forget(types.UID(fmt.Sprintf("s%d", i)))
	}
	a.SetNodes(nil)
	if len(a.book.blocks) > 0 || len(a.holdings) > 0 {
		t.Errorf("leaked: blocks %v, holdings %v", a.book.blocks, a.holdings)
	}
}

// agree compares the allocator's books with the model's.
func agree(t *testing.T, step int, a *Allocator, m *model) {
	t.Helper()
	for uid, addresses := range m.has {
		if got := a.Addresses(uid); !sameAddresses(got, addresses) {
			t.Fatalf("step %d: %s has %v; want %v", step, uid, got, addresses)
		}
	}
}

func sameAddresses(a, b []netip.Addr) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.SortFunc(a, netip.Addr.Compare)
	slices.SortFunc(b, netip.Addr.Compare)
	return slices.Equal(a, b)
}
