package ipam

import (
	"maps"
	"net/netip"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
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
	nodes map[netip.Addr]string
	// busy are the addresses of holders and of nodes: what search steps over.
	busy     spans
	holders  map[netip.Addr]types.UID
	holdings map[types.UID]*holding
	// cursors are the last addresses given by search. The next one is looked for
	// behind them, so that a released address rests.
	cursors map[cursor]netip.Addr
}

type cursor struct {
	pool   string
	family corev1.IPFamily
}

// holding is what a Service has.
type holding struct {
	owner Owner
	// addresses it has now, and retiring ones that it had.
	addresses []netip.Addr
	retiring  []netip.Addr
	// request is the claim that was served last; known is false between Adopt and
	// the first Assign or Release, when only the record says what the Service has.
	request request
	known   bool
}

// request is the part of a claim that, when the user changes it, asks for
// another address.
type request struct {
	pool     string
	protocol v1alpha1.Protocol
}

// NewAllocator returns an Allocator without pools, nodes and holders.
func NewAllocator() *Allocator {
	return &Allocator{
		pools:    Compile(nil),
		holders:  map[netip.Addr]types.UID{},
		holdings: map[types.UID]*holding{},
		cursors:  map[cursor]netip.Addr{},
	}
}

// SetPools replaces the pools and, in the same step, adopts what Services have
// recorded: an address of a new pool may be in use already. No address that a
// Service has is touched.
func (a *Allocator) SetPools(pools *Pools, records []Record) []Conflicting {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pools = pools
	maps.DeleteFunc(a.cursors, func(c cursor, _ netip.Addr) bool { return pools.Get(c.pool) == nil })
	return a.adopt(records)
}

// SetNodes replaces the nodes' own addresses, which are never given out; the
// values are the nodes' names. The map is kept: the caller changes it no more.
func (a *Allocator) SetNodes(nodes map[netip.Addr]string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	old := a.nodes
	a.nodes = nodes
	for addr := range old {
		a.settle(addr)
	}
	for addr := range nodes {
		a.settle(addr)
	}
}

// settle brings the mark of addr in busy up to date.
func (a *Allocator) settle(addr netip.Addr) {
	_, held := a.holders[addr]
	_, node := a.nodes[addr]
	if held || node {
		a.busy.add(addr)
	} else {
		a.busy.remove(addr)
	}
}

// Adopt takes over the addresses that Services have recorded in their status:
// those inside a pool, and those of Services that are marked as ours. The others
// are someone else's (a node's address that another controller wrote). A Service
// that was served since is left as it is: the record is older. Where two Services
// record one address the first has it, so records come in a stable order.
func (a *Allocator) Adopt(records []Record) []Conflicting {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.adopt(records)
}

func (a *Allocator) adopt(records []Record) (conflicts []Conflicting) {
	for _, record := range records {
		if h, ok := a.holdings[record.UID]; ok && h.known {
			continue
		}
		for _, addr := range record.Addresses {
			if !a.adoptable(addr, record.Marked) {
				continue
			}
			if uid, held := a.holders[addr]; held && uid != record.UID {
				conflicts = append(conflicts, Conflicting{Address: addr, First: a.holdings[uid].owner, Second: record.Owner})
				continue
			}
			a.take(record.Owner, addr)
		}
	}
	return conflicts
}

// Follow makes the record, and nothing else, what the Service has. It is for
// Services that another controller serves: an address of ours that it wrote is
// not given out meanwhile. It reports whether an address became free.
func (a *Allocator) Follow(record Record) (freed bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if h, ok := a.holdings[record.UID]; ok {
		for _, addr := range slices.Concat(h.addresses, h.retiring) {
			if !slices.Contains(record.Addresses, addr) {
				a.free(addr)
				freed = true
			}
		}
		delete(a.holdings, record.UID)
		for _, addr := range record.Addresses {
			if a.holders[addr] == record.UID {
				a.take(record.Owner, addr)
			}
		}
	}
	a.adopt([]Record{record})
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

// take makes addr one of the owner's addresses. Nobody else has it.
func (a *Allocator) take(owner Owner, addr netip.Addr) {
	h := a.holding(owner)
	h.retiring = without(h.retiring, addr)
	if !slices.Contains(h.addresses, addr) {
		h.addresses = append(h.addresses, addr)
	}
	a.holders[addr] = owner.UID
	a.busy.add(addr)
}

func (a *Allocator) holding(owner Owner) *holding {
	h, ok := a.holdings[owner.UID]
	if !ok {
		h = &holding{}
		a.holdings[owner.UID] = h
	}
	h.owner = owner
	return h
}

// Addresses are those that the Service has, without retiring ones.
func (a *Allocator) Addresses(uid types.UID) []netip.Addr {
	a.mu.Lock()
	defer a.mu.Unlock()
	if h, ok := a.holdings[uid]; ok {
		return slices.Clone(h.addresses)
	}
	return nil
}

// Mistaken reports whether the Service records other addresses than it has. One
// that has none may record what another controller gave it: that is not ours to
// judge.
func (a *Allocator) Mistaken(record Record) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if h, ok := a.holdings[record.UID]; ok && len(h.addresses) > 0 {
		return !slices.Equal(h.addresses, record.Addresses)
	}
	return slices.ContainsFunc(record.Addresses, func(addr netip.Addr) bool { return a.adoptable(addr, record.Marked) })
}

// Release ends the Service's hold. Its addresses retire: they are free when
// Observe no longer sees them recorded, or after Forget. It may be repeated.
func (a *Allocator) Release(uid types.UID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if h, ok := a.holdings[uid]; ok {
		h.retiring = append(h.retiring, h.addresses...)
		h.addresses = nil
		h.known = true
	}
}

// Observe frees the Service's retiring addresses that it no longer records. It
// reports whether an address became free. The record must not be older than the
// last write of the Service's status: the API may show more than it does.
func (a *Allocator) Observe(uid types.UID, recorded []netip.Addr) (freed bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	h, ok := a.holdings[uid]
	if !ok {
		return false
	}
	still := h.retiring[:0]
	for _, addr := range h.retiring {
		if slices.Contains(recorded, addr) {
			still = append(still, addr)
			continue
		}
		a.free(addr)
		freed = true
	}
	h.retiring = still
	a.sweep(uid, h)
	return freed
}

// Forget frees all that the Service had: it is gone from the API. It reports
// whether an address became free.
func (a *Allocator) Forget(uid types.UID) (freed bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	h, ok := a.holdings[uid]
	if !ok {
		return false
	}
	for _, addr := range slices.Concat(h.addresses, h.retiring) {
		a.free(addr)
		freed = true
	}
	delete(a.holdings, uid)
	return freed
}

func (a *Allocator) free(addr netip.Addr) {
	delete(a.holders, addr)
	a.settle(addr)
}

// sweep drops a holding that holds nothing.
func (a *Allocator) sweep(uid types.UID, h *holding) {
	if len(h.addresses) == 0 && len(h.retiring) == 0 {
		delete(a.holdings, uid)
	}
}

func without(addrs []netip.Addr, addr netip.Addr) []netip.Addr {
	return slices.DeleteFunc(addrs, func(other netip.Addr) bool { return other == addr })
}
