package ipam

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Assignment is the answer to a claim.
type Assignment struct {
	// Addresses of the Service, in the order of the claim's families.
	Addresses []netip.Addr
	// Missing says why a partial claim (PreferDualStack) lacks a family, or is nil.
	Missing *Refusal
	// Unclaimed is true where the claim has external addresses that it did not get:
	// a pool may allow them later.
	Unclaimed bool
	// NewTerms is true where the Service shares on other terms than before, also
	// if it is refused: others may have been waiting for that.
	NewTerms bool
}

// choice is an address for a claim.
type choice struct {
	addr netip.Addr
	// searched is the name of the pool whose cursor moves, if it came by search.
	searched string
}

// Assign gives the Service what it claims: all of it, or what can be had where
// the claim is Partial. What it already has stays, whatever became of the pool,
// unless the user asks for something else: another address, pool or protocol,
// fewer families, or terms on which it cannot be shared any more. The address that
// it leaves retires.
//
// The error is a *Refusal. A refused claim changes nothing: the Service keeps what
// it has, but what it can no longer share. Addresses are appended to into.
func (a *Allocator) Assign(claim *Claim, into []netip.Addr) (Assignment, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	h := a.holdings[claim.UID]
	newTerms := h != nil && a.renegotiate(h, claim.Terms)
	missing, refusal := a.chooseAll(claim, h)
	if refusal != nil {
		return Assignment{NewTerms: newTerms}, refusal
	}
	a.commit(claim)
	for _, c := range a.chosen {
		into = append(into, c.addr)
	}
	unclaimed := slices.ContainsFunc(claim.External, func(addr netip.Addr) bool { return !slices.Contains(into, addr) })
	return Assignment{Addresses: into, Missing: missing, Unclaimed: unclaimed, NewTerms: newTerms}, nil
}

// Renegotiate tells the terms of a Service whose claim cannot be read. It reports
// whether they are new.
func (a *Allocator) Renegotiate(uid types.UID, terms *Terms) (newTerms bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	h := a.holdings[uid]
	return h != nil && a.renegotiate(h, terms)
}

// Retell tells the terms of the Service as the API shows them. Where it has to leave
// an address for them, that is for Assign to do; otherwise they count from now on.
func (a *Allocator) Retell(record Record) (leaves, newTerms bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	h := a.holdings[record.UID]
	if h == nil {
		return false, false
	}
	if slices.ContainsFunc(h.has(), func(addr netip.Addr) bool { return a.breaks(h, addr, record.Terms) }) {
		return true, false
	}
	return false, a.agree(h, record.Terms)
}

// Explain says why the claim is refused, or why it gets less than it asks for; it
// is nil where all would be given. It changes nothing.
func (a *Allocator) Explain(claim *Claim) *Refusal {
	a.mu.Lock()
	defer a.mu.Unlock()
	missing, refusal := a.chooseAll(claim, a.holdings[claim.UID])
	if refusal != nil {
		return refusal
	}
	return missing
}

// renegotiate has the Service leave the addresses that it cannot share on its new
// terms, and makes them its terms.
// It reports whether they are new.
func (a *Allocator) renegotiate(h *holding, terms *Terms) (newTerms bool) {
	for i := h.current - 1; i >= 0; i-- {
		if addr := h.all[i]; a.breaks(h, addr, terms) {
			h.retire(addr)
		}
	}
	return a.agree(h, terms)
}

// breaks reports whether the Service cannot share the address on its new terms
// with the others there. It does not leave where it could not before: then the
// other one changed, and leaves. Whether the pool allows it matters only where the
// user changed the key: an edit of the pool moves nobody.
func (a *Allocator) breaks(h *holding, addr netip.Addr, terms *Terms) bool {
	if h.terms.Equal(terms) {
		return false
	}
	newKey := h.terms == nil || h.terms.Key != terms.Key
	for _, t := range a.book.tenants(addr) {
		if t.holding == h || t.terms == nil || h.terms != nil && h.terms.Clash(t.terms) != "" {
			continue
		}
		if !MayKeepSharing(a.pools.of(addr), terms, t.terms, !newKey) {
			return true
		}
	}
	return false
}

// chooseAll leaves in chosen the addresses of all families.
func (a *Allocator) chooseAll(claim *Claim, h *holding) (missing, refusal *Refusal) {
	a.chosen = a.chosen[:0]
	if refusal := a.choosePicked(claim, h); refusal != nil {
		return nil, refusal
	}
	picked := len(a.chosen)
	for _, family := range claim.Families {
		if slices.ContainsFunc(a.chosen[:picked], func(c choice) bool { return familyOf(c.addr) == family }) {
			continue
		}
		refusal := a.choose(claim, h, family)
		switch {
		case refusal == nil:
		case !claim.Partial:
			return nil, refusal
		case missing == nil:
			missing = refusal
		}
	}
	if len(a.chosen) == 0 {
		return nil, missing
	}
	if len(claim.Families) > 1 {
		slices.SortStableFunc(a.chosen, func(x, y choice) int {
			return slices.Index(claim.Families, familyOf(x.addr)) - slices.Index(claim.Families, familyOf(y.addr))
		})
	}
	return missing, nil
}

// choosePicked chooses what the user has picked: requested addresses, and
// external ones in pools that allow it.
func (a *Allocator) choosePicked(claim *Claim, h *holding) *Refusal {
	for _, addr := range claim.Requested {
		if refusal := a.pick(claim, h, addr); refusal != nil {
			return refusal
		}
	}
	for _, addr := range claim.External {
		pool := a.pools.of(addr)
		if pool == nil || !pool.object.Spec.AllowExternalIPs {
			continue
		}
		if family := familyOf(addr); !slices.Contains(claim.Families, family) {
			return refuse(FamilyUnavailable, "%s of spec.externalIPs lies in AddressPool %q, but the Service has no %s: add it to spec.ipFamilies, or remove the address", addr, pool.Name(), family)
		}
		if refusal := a.pick(claim, h, addr); refusal != nil {
			return refusal
		}
	}
	if len(a.chosen) > maxRequested {
		return refuse(MalformedRequest, "spec.externalIPs: %d addresses are requested: request %d at most", len(a.chosen), maxRequested)
	}
	if len(claim.External) > 0 {
		a.keepBeside(claim, h)
	}
	return nil
}

// keepBeside chooses what the Service has beside external addresses that it had
// when it was served last. Then it was a pool that changed, which displaces nothing.
func (a *Allocator) keepBeside(claim *Claim, h *holding) {
	if h == nil || h.known && h.request().external != askedBy(claim).external {
		return
	}
	external := len(a.chosen)
	for _, addr := range h.has() {
		family := familyOf(addr)
		beside := slices.ContainsFunc(a.chosen[:external], func(c choice) bool { return familyOf(c.addr) == family })
		chosen := slices.ContainsFunc(a.chosen, func(c choice) bool { return c.addr == addr })
		if beside && !chosen && !hasFamily(claim.Requested, family) && !a.asksForAnother(claim, h, addr) {
			a.chosen = append(a.chosen, choice{addr: addr})
		}
	}
}

func (a *Allocator) pick(claim *Claim, h *holding, addr netip.Addr) *Refusal {
	if slices.ContainsFunc(a.chosen, func(c choice) bool { return c.addr == addr }) {
		return nil
	}
	if !slices.Contains(h.has(), addr) {
		if refusal := a.mayHave(claim, addr); refusal != nil {
			return refusal
		}
	}
	a.chosen = append(a.chosen, choice{addr: addr})
	return nil
}

// choose finds the addresses of one family of which none is picked: what the
// Service has, what it has recorded, one of a Service with its share-key, or the
// next free one.
func (a *Allocator) choose(claim *Claim, h *holding, family corev1.IPFamily) *Refusal {
	before := len(a.chosen)
	for _, addr := range h.has() {
		if familyOf(addr) == family && !a.asksForAnother(claim, h, addr) {
			a.chosen = append(a.chosen, choice{addr: addr})
		}
	}
	if len(a.chosen) > before {
		return nil
	}
	if !hasFamily(h.has(), family) {
		for _, addr := range claim.Recorded {
			if familyOf(addr) == family && a.adoptable(addr, claim.Marked) && a.ownOrFree(claim, addr) && !a.asksForAnother(claim, h, addr) {
				a.chosen = append(a.chosen, choice{addr: addr})
				return nil
			}
		}
	}
	c, refusal := a.search(claim, family)
	if refusal == nil {
		a.chosen = append(a.chosen, c)
	}
	return refusal
}

// asksForAnother reports whether the user has changed the pool or protocol of
// the claim such that addr no longer answers it. Pools that changed are no
// reason: then the address stays.
func (a *Allocator) asksForAnother(claim *Claim, h *holding, addr netip.Addr) bool {
	if h == nil || !h.known {
		return false
	}
	before := h.request()
	pool := a.pools.of(addr)
	elsewhere := claim.Pool != before.pool && claim.Pool != "" &&
		(pool == nil || pool.Name() != claim.Pool)
	otherwise := claim.Protocol != before.protocol && claim.Protocol != "" &&
		(pool == nil || !pool.Speaks(claim.Protocol))
	return elsewhere || otherwise
}

// ownOrFree reports whether addr is free, or retiring from the claim's Service.
func (a *Allocator) ownOrFree(claim *Claim, addr netip.Addr) bool {
	return !slices.ContainsFunc(a.book.tenants(addr), func(t tenant) bool { return t.owner.UID != claim.UID })
}

// commit makes the chosen addresses those of the Service. Others that it had
// retire.
func (a *Allocator) commit(claim *Claim) {
	h := a.holding(claim.Owner)
	h.current = 0
	for _, c := range a.chosen {
		a.take(h, c.addr)
		if c.searched != "" {
			a.cursors[cursor{c.searched, c.addr.Is4()}] = c.addr
		}
	}
	h.ask(askedBy(claim))
	if h.foreign {
		h.foreign = false
		clear(a.crowded)
	}
	h.known = true
	a.agree(h, claim.Terms)
}
