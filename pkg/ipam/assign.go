package ipam

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// Assignment is the answer to a claim.
type Assignment struct {
	// Addresses of the Service, in the order of the claim's families.
	Addresses []netip.Addr
	// Missing says why a partial claim (PreferDualStack) lacks a family, or is nil.
	Missing *Refusal
}

// Assign gives the Service what it claims: all of it, or what can be had where
// the claim is Partial. What it already has stays, whatever became of the pool,
// unless the claim asks for another address: it requests one, it names another
// pool or protocol than the claim served before, or the Service lost the family.
// The address that it leaves retires.
//
// The error is a *Refusal. A refused claim changes nothing: the Service keeps
// what it has.
func (a *Allocator) Assign(claim Claim) (Assignment, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var assignment Assignment
	var chosen []choice
	for _, family := range claim.Families {
		c, refusal := a.choose(&claim, family)
		switch {
		case refusal == nil:
			chosen = append(chosen, c)
			assignment.Addresses = append(assignment.Addresses, c.addr)
		case !claim.Partial || claim.requested(family).IsValid():
			return Assignment{}, refusal
		case assignment.Missing == nil:
			assignment.Missing = refusal
		}
	}
	if len(chosen) == 0 {
		return Assignment{}, assignment.Missing
	}
	a.commit(&claim, chosen)
	return assignment, nil
}

// choice is an address for one family of a claim.
type choice struct {
	addr netip.Addr
	// searched is the name of the pool whose cursor moves, if it came by search.
	searched string
}

// choose finds the address of one family: what is requested, what the Service
// has, what it has recorded, or the next free one.
func (a *Allocator) choose(claim *Claim, family corev1.IPFamily) (choice, *Refusal) {
	var has netip.Addr
	h := a.holdings[claim.UID]
	if h != nil {
		has = first(h.addresses, family)
	}
	if want := claim.requested(family); want.IsValid() {
		if want == has {
			return choice{addr: has}, nil
		}
		return choice{addr: want}, a.mayHave(claim, want)
	}
	if has.IsValid() && !a.asksForAnother(claim, h, has) {
		return choice{addr: has}, nil
	}
	if addr := first(claim.Recorded, family); !has.IsValid() && addr.IsValid() && a.adoptable(addr, claim.Marked) && a.ownOrFree(claim, addr) {
		return choice{addr: addr}, nil
	}
	return a.search(claim, family)
}

// asksForAnother reports whether the user has changed the pool or protocol of
// the claim such that addr no longer answers it. Pools that changed are no
// reason: then the address stays.
func (a *Allocator) asksForAnother(claim *Claim, h *holding, addr netip.Addr) bool {
	if !h.known || h.request == (request{claim.Pool, claim.Protocol}) {
		return false
	}
	pool := a.pools.of(addr)
	elsewhere := claim.Pool != h.request.pool && claim.Pool != "" &&
		(pool == nil || pool.Name() != claim.Pool)
	otherwise := claim.Protocol != h.request.protocol && claim.Protocol != "" &&
		(pool == nil || !pool.Speaks(claim.Protocol))
	return elsewhere || otherwise
}

// ownOrFree reports whether addr is free, or retiring from the claim's Service.
func (a *Allocator) ownOrFree(claim *Claim, addr netip.Addr) bool {
	uid, held := a.holders[addr]
	return !held || uid == claim.UID
}

// commit makes the chosen addresses those of the Service. Others that it had
// retire.
func (a *Allocator) commit(claim *Claim, chosen []choice) {
	h := a.holding(claim.Owner)
	had := h.addresses
	h.addresses = nil
	for _, c := range chosen {
		a.take(claim.Owner, c.addr)
		if c.searched != "" {
			a.cursors[cursor{c.searched, familyOf(c.addr)}] = c.addr
		}
	}
	for _, addr := range had {
		if !slices.Contains(h.addresses, addr) {
			h.retiring = append(h.retiring, addr)
		}
	}
	h.request, h.known = request{claim.Pool, claim.Protocol}, true
}
