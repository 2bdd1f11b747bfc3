package ipam

import (
	"cmp"
	"net/netip"
	"slices"

	"go4.org/netipx"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

// Pools is a compiled set of AddressPools in which each address belongs to one
// pool at most. It is immutable, and safe for concurrent use.
type Pools struct {
	byName map[string]*Pool
	// names in the order of automatic assignment.
	names []string
	parts []part
}

// part is a range that belongs to one pool.
type part struct {
	netipx.IPRange
	pool *Pool
}

// Compile compiles AddressPools. The result depends on the objects, not on their
// order. A malformed pool is kept out (see Pool.Err) and disturbs no other.
func Compile(objects []*v1alpha1.AddressPool) *Pools {
	p := &Pools{byName: make(map[string]*Pool, len(objects))}
	compiled := make([]*Pool, 0, len(objects))
	for _, object := range objects {
		pool := compile(object)
		p.byName[pool.Name()] = pool
		compiled = append(compiled, pool)
	}
	slices.SortFunc(compiled, standing)
	for _, pool := range compiled {
		p.settle(pool)
	}
	slices.SortFunc(compiled, func(a, b *Pool) int {
		return cmp.Or(
			cmp.Compare(b.object.Spec.Priority, a.object.Spec.Priority),
			cmp.Compare(a.Name(), b.Name()),
		)
	})
	for _, pool := range compiled {
		p.names = append(p.names, pool.Name())
	}
	return p
}

// settle gives the pool what it declares and no pool before it has.
func (p *Pools) settle(pool *Pool) {
	for _, r := range pool.declared {
		from, free := r.From(), true
		for i := p.search(from); free && i < len(p.parts) && p.parts[i].From().Compare(r.To()) <= 0; i++ {
			taken := p.parts[i]
			if from.Less(taken.From()) {
				pool.owned = append(pool.owned, netipx.IPRangeFrom(from, taken.From().Prev()))
			}
			common := netipx.IPRangeFrom(later(from, taken.From()), earlier(r.To(), taken.To()))
			pool.conflicts = append(pool.conflicts, Conflict{Winner: taken.pool.Name(), Range: common})
			from, free = taken.To().Next(), taken.To().Less(r.To())
		}
		if free {
			pool.owned = append(pool.owned, netipx.IPRangeFrom(from, r.To()))
		}
	}
	for _, r := range pool.owned {
		p.parts = append(p.parts, part{IPRange: r, pool: pool})
	}
	slices.SortFunc(p.parts, func(a, b part) int { return a.From().Compare(b.From()) })
}

// search returns the index of the first part that does not end before addr.
func (p *Pools) search(addr netip.Addr) int {
	i, _ := slices.BinarySearchFunc(p.parts, addr, func(t part, addr netip.Addr) int {
		return t.To().Compare(addr)
	})
	return i
}

// Of returns the name of the pool that addr belongs to; ok is false when it lies
// in none.
func (p *Pools) Of(addr netip.Addr) (name string, ok bool) {
	pool := p.of(addr)
	if pool == nil {
		return "", false
	}
	return pool.Name(), true
}

func (p *Pools) of(addr netip.Addr) *Pool {
	if i := p.search(addr); i < len(p.parts) && p.parts[i].Contains(addr) {
		return p.parts[i].pool
	}
	return nil
}

// Get returns the pool of that name, malformed or not; nil when there is none.
func (p *Pools) Get(name string) *Pool {
	return p.byName[name]
}

// Names are the names of all pools, malformed ones too, in the order in which
// automatic assignment tries them: priority, then name. It is read-only.
func (p *Pools) Names() []string {
	return p.names
}

func later(a, b netip.Addr) netip.Addr {
	if a.Less(b) {
		return b
	}
	return a
}

func earlier(a, b netip.Addr) netip.Addr {
	if b.Less(a) {
		return b
	}
	return a
}
