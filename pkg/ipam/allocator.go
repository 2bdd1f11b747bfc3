package ipam

import (
	"maps"
	"net/netip"
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/types"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

// Allocator holds who has which address and decides who gets one. It is safe
// for concurrent use; each method is one step that nothing comes in between.
//
// Its state is rebuilt by Adopt from what Services have recorded, so it needs no
// storage of its own: adopt everything before the first Assign.
type Allocator struct {
	mu    sync.Mutex
	pools *Pools
	// nodes are the addresses that nodes publish, and reported those of their
	// interfaces, with the nodes' names.
	nodes    map[netip.Addr]string
	reported map[netip.Addr]string
	// book has the tenants of addresses, and what search steps over.
	book     *book
	holdings map[types.UID]*holding
	// keyed are the holdings with a share-key, by it.
	keyed map[string][]*holding
	// cursors are the last addresses given by search. The next one is looked for
	// behind them, so that a released address rests.
	cursors map[cursor]netip.Addr
	// freed are the addresses freed last. They rest even where a cursor stands
	// before them.
	freed map[cursor]netip.Addr

	// crowded are the claims for which no shared address had room, until something
	// changes: a thousand that wait for the same must not look a thousand times.
	crowded map[crowd]bool

	// chosen and spare are reused, so that the common claim makes no garbage.
	chosen []choice
	spare  []*holding
}

type cursor struct {
	pool string
	is4  bool
}

// crowd is a pool, and the terms (as text) on which no address of it is shared.
type crowd struct {
	pool  string
	is4   bool
	terms string
}

// maxSpare bounds the holdings that are kept for reuse.
const maxSpare = 64

// NewAllocator returns an Allocator without pools, nodes and holders.
func NewAllocator() *Allocator {
	return &Allocator{
		pools:    Compile(nil),
		book:     newBook(),
		holdings: map[types.UID]*holding{},
		keyed:    map[string][]*holding{},
		cursors:  map[cursor]netip.Addr{},
		freed:    map[cursor]netip.Addr{},
		crowded:  map[crowd]bool{},
	}
}

// SetPools replaces the pools and, in the same step, adopts what Services have
// recorded: an address of a new pool may be in use already. No address that a
// Service has is touched.
func (a *Allocator) SetPools(pools *Pools, records []Record) []Conflicting {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pools = pools
	clear(a.crowded)
	gone := func(c cursor, _ netip.Addr) bool { return pools.Get(c.pool) == nil }
	maps.DeleteFunc(a.cursors, gone)
	maps.DeleteFunc(a.freed, gone)
	return a.adopt(records)
}

// SetNodes replaces the nodes' own addresses, which are never given out; the
// values are the nodes' names. The map is kept: the caller changes it no more.
func (a *Allocator) SetNodes(nodes map[netip.Addr]string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.reserve(&a.nodes, nodes)
}

// SetReported replaces the addresses that speakers report of their interfaces.
// They are not given out either, but a Service may have recorded one: other load
// balancers put addresses of Services on interfaces.
func (a *Allocator) SetReported(reported map[netip.Addr]string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.reserve(&a.reported, reported)
}

func (a *Allocator) reserve(what *map[netip.Addr]string, now map[netip.Addr]string) {
	before := *what
	*what = now
	clear(a.crowded)
	for addr := range before {
		a.settle(addr)
	}
	for addr := range now {
		a.settle(addr)
	}
}

// nodeWith is the name of the node that has the address, if one has.
func (a *Allocator) nodeWith(addr netip.Addr) (name string, ok bool) {
	if name, ok = a.nodes[addr]; !ok {
		name, ok = a.reported[addr]
	}
	return name, ok
}

// settle brings the book's mark of addr up to date.
func (a *Allocator) settle(addr netip.Addr) {
	_, node := a.nodeWith(addr)
	a.book.settle(addr, node)
}

// Adopt takes over the addresses that Services have recorded in their status:
// those inside a pool, and those of Services that are marked as ours. The others
// are someone else's (a node's address that another controller wrote). A Service
// that was served since is left as it is: the record is older. Where two Services
// record one address that they may not share the first has it, so records come in
// the order of Seniority.
func (a *Allocator) Adopt(records []Record) []Conflicting {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.adopt(records)
}

func (a *Allocator) adopt(records []Record) (conflicts []Conflicting) {
	for i := range records {
		record := &records[i]
		if h := a.holdings[record.UID]; h != nil && h.known {
			if h.terms == nil {
				a.agree(h, record.Terms) // pools may share by ports that did not before
			}
			continue
		}
		conflicts = a.adoptOne(record, conflicts)
	}
	for i := range records {
		if h := a.holdings[records[i].UID]; h != nil && h.terms != nil {
			a.agree(h, h.terms)
		}
	}
	return conflicts
}

// adoptOne remembers the terms of the Service, for those that record the same
// address, whether they matter afterwards or not.
func (a *Allocator) adoptOne(record *Record, conflicts []Conflicting) []Conflicting {
	for _, addr := range record.Addresses {
		if !a.adoptable(addr, record.Marked) {
			continue
		}
		if other := a.disputes(record, addr); other != nil {
			conflicts = append(conflicts, Conflicting{Address: addr, First: other.owner, Second: record.Owner})
			continue
		}
		h := a.holding(record.Owner)
		h.settled, h.foreign = record.Settled, record.Foreign
		a.take(h, addr)
		a.remember(h, record.Terms)
	}
	return conflicts
}

// disputes is another Service that has the address and may not share it with the
// recording one.
func (a *Allocator) disputes(record *Record, addr netip.Addr) *holding {
	for _, t := range a.book.tenants(addr) {
		if t.owner.UID == record.UID {
			continue
		}
		if t.terms == nil || !MayKeepSharing(a.pools.of(addr), t.terms, record.Terms, t.settled && record.Settled) {
			return t.holding
		}
	}
	return nil
}

// Follow makes the record, and nothing else, what the Service has. It is for
// Services that another controller serves: an address of ours that it wrote is
// not given out meanwhile. It reports whether an address became free.
func (a *Allocator) Follow(record Record) (freed bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if h := a.holdings[record.UID]; h != nil {
		for _, addr := range slices.Clone(h.all) {
			if slices.Contains(record.Addresses, addr) {
				h.take(addr)
			} else {
				a.free(h, addr)
				freed = true
			}
		}
		h.known, h.settled = false, h.settled && record.Settled
		a.sweep(h)
	}
	record.Foreign = true
	a.adopt([]Record{record})
	if h := a.holdings[record.UID]; h != nil {
		h.foreign = true
		a.agree(h, record.Terms) // others may dispute what it keeps
	}
	return freed
}

// adoptable reports whether a recorded address is one that this project gave out.
// A node's address never is, but that of a marked Service in a pool: there the
// node came later.
func (a *Allocator) adoptable(addr netip.Addr, marked bool) bool {
	_, node := a.nodes[addr]
	pooled := a.pools.of(addr) != nil
	if node {
		return marked && pooled
	}
	return marked || pooled
}

// take makes addr one of the addresses that the Service has.
func (a *Allocator) take(h *holding, addr netip.Addr) {
	h.take(addr)
	a.book.enter(addr, h)
}

// agree makes these the terms of the Service, where they can matter: most
// Services share nothing, and a copy for each would cost as much as all the rest.
//
// It reports whether the terms are new.
func (a *Allocator) agree(h *holding, terms *Terms) (newTerms bool) {
	if terms.Key == "" && !slices.ContainsFunc(h.all, a.shared) {
		terms = nil
	}
	if h.terms.Equal(terms) {
		return false
	}
	a.remember(h, terms)
	return true
}

// remember makes these the terms of the Service, and has it found by its key. It
// keeps its place among those with the key: the first is joined first.
func (a *Allocator) remember(h *holding, terms *Terms) {
	clear(a.crowded)
	before := h.key()
	h.terms = terms
	if h.key() == before {
		return
	}
	a.unkey(h, before)
	if h.key() != "" {
		a.keyed[h.key()] = append(a.keyed[h.key()], h)
	}
}

// shared reports whether the address has several tenants, or may have.
func (a *Allocator) shared(addr netip.Addr) bool {
	if pool := a.pools.of(addr); pool != nil && pool.sharing() == v1alpha1.SharingPorts {
		return true
	}
	return len(a.book.tenants(addr)) > 1
}

func (a *Allocator) unkey(h *holding, key string) {
	if key == "" {
		return
	}
	a.keyed[key] = slices.DeleteFunc(a.keyed[key], func(other *holding) bool { return other == h })
	if len(a.keyed[key]) == 0 {
		delete(a.keyed, key)
	}
}

func (a *Allocator) holding(owner Owner) *holding {
	h, ok := a.holdings[owner.UID]
	if !ok {
		if n := len(a.spare); n > 0 {
			h, a.spare = a.spare[n-1], a.spare[:n-1]
		} else {
			h = &holding{}
		}
		a.holdings[owner.UID] = h
	}
	h.owner = owner
	return h
}

// Addresses are those that the Service has, without retiring ones.
func (a *Allocator) Addresses(uid types.UID) []netip.Addr {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.holdings[uid].has())
}

// Mistaken reports whether the Service records other addresses than it has. One
// that has none may record what another controller gave it: that is not ours to
// judge.
func (a *Allocator) Mistaken(record Record) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if has := a.holdings[record.UID].has(); len(has) > 0 {
		return !slices.Equal(has, record.Addresses)
	}
	return slices.ContainsFunc(record.Addresses, func(addr netip.Addr) bool { return a.adoptable(addr, record.Marked) })
}

// Release ends the Service's hold. Its addresses retire: they are free when
// Observe no longer sees them recorded, or after Forget. It may be repeated.
func (a *Allocator) Release(uid types.UID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if h := a.holdings[uid]; h != nil {
		h.current = 0
		h.known = true
	}
}

// Observe frees the Service's retiring addresses that it no longer records. It
// reports whether an address became free. The record must not be older than the
// last write of the Service's status: the API may show more than it does.
func (a *Allocator) Observe(uid types.UID, recorded []netip.Addr) (freed bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	h := a.holdings[uid]
	if h == nil {
		return false
	}
	for i := len(h.all) - 1; i >= h.current; i-- {
		if addr := h.all[i]; !slices.Contains(recorded, addr) {
			a.free(h, addr)
			freed = true
		}
	}
	a.sweep(h)
	return freed
}

// Forget frees all that the Service had: it is gone from the API. It reports
// whether an address became free.
func (a *Allocator) Forget(uid types.UID) (freed bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	h := a.holdings[uid]
	if h == nil {
		return false
	}
	for i := len(h.all) - 1; i >= 0; i-- {
		a.free(h, h.all[i])
		freed = true
	}
	a.sweep(h)
	return freed
}

func (a *Allocator) free(h *holding, addr netip.Addr) {
	clear(a.crowded)
	h.drop(addr)
	a.book.strike(addr, h)
	a.settle(addr)
	if pool := a.pools.of(addr); pool != nil {
		a.freed[cursor{pool.Name(), addr.Is4()}] = addr
	}
}

// sweep drops a holding that holds nothing.
func (a *Allocator) sweep(h *holding) {
	if len(h.all) > 0 {
		return
	}
	delete(a.holdings, h.owner.UID)
	a.unkey(h, h.key())
	if len(a.spare) < maxSpare {
		*h = holding{all: h.all[:0]}
		a.spare = append(a.spare, h)
	}
}
