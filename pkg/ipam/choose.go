package ipam

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

// mayHave says why the claim may not have the address it requests, or nil.
func (a *Allocator) mayHave(claim *Claim, addr netip.Addr) *Refusal {
	if node, ok := a.nodeWith(addr); ok {
		return refuse(NodeAddress, "%s is the address of node %q: request another one", addr, node)
	}
	pool := a.pools.of(addr)
	switch {
	case pool == nil:
		return refuse(NotInAnyPool, "%s lies in no AddressPool: add it to one, or request an address of %s", addr, a.poolList())
	case claim.Pool != "" && claim.Pool != pool.Name():
		return refuse(MalformedRequest, "%s lies in AddressPool %q, but annotation %s names %q: remove one of the two", addr, pool.Name(), v1alpha1.ServicePool, claim.Pool)
	}
	if refusal := pool.admits(claim); refusal != nil {
		return refusal
	}
	if pool.avoids(addr) {
		return refuse(PoolForbidden, "AddressPool %q does not give out %s (spec.avoidBuggyIPs): request another address", pool.Name(), addr)
	}
	for _, t := range a.book.tenants(addr) {
		if t.owner.UID != claim.UID && !shareable(pool, claim, t) {
			return inUse(addr, pool, claim, t.holding)
		}
	}
	return nil
}

// shareable reports whether the claim may share the tenant's address.
func shareable(pool *Pool, claim *Claim, t tenant) bool {
	return t.terms != nil && !t.foreign && MayShare(pool, claim.Terms, t.terms)
}

// poolList names some pools, for a message.
func (a *Allocator) poolList() string {
	const most = 5
	names := a.pools.Names()
	switch {
	case len(names) == 0:
		return "one (there is none)"
	case len(names) > most:
		return strings.Join(names[:most], ", ") + ", ..."
	}
	return strings.Join(names, ", ")
}

// admits says why the pool is not for the claim, or nil.
func (p *Pool) admits(claim *Claim) *Refusal {
	spec := &p.object.Spec
	if p.err != nil {
		return refuse(PoolMalformed, "%v", p.err)
	}
	if why, remedy := p.closed(); why != "" {
		return refuse(PoolDisabled, "AddressPool %q %s: use another pool, or %s", p.Name(), why, remedy)
	}
	if len(spec.Namespaces) > 0 && !slices.Contains(spec.Namespaces, claim.Namespace) {
		return refuse(PoolForbidden, "AddressPool %q is not for namespace %q (spec.namespaces): use another pool, or add the namespace", p.Name(), claim.Namespace)
	}
	if p.namespaceSelector != nil && !p.namespaceSelector.Matches(labels.Set(claim.NamespaceLabels)) {
		return refuse(PoolForbidden, "AddressPool %q is not for namespace %q (spec.namespaceSelector): use another pool, or label the namespace", p.Name(), claim.Namespace)
	}
	if p.serviceSelector != nil && !p.serviceSelector.Matches(labels.Set(claim.Labels)) {
		return refuse(PoolForbidden, "AddressPool %q is not for Service %s (spec.serviceSelector): use another pool, or label the Service", p.Name(), claim.Owner)
	}
	if claim.Protocol != "" && !p.Speaks(claim.Protocol) {
		return refuse(PoolForbidden, "AddressPool %q does not speak %s (spec.protocols), which annotation %s asks for: use another pool, or add the protocol", p.Name(), claim.Protocol, v1alpha1.ServiceProtocol)
	}
	return nil
}

// search finds the next free address of the family in the first pool that will
// do. When none has one, the refusal tells of each pool that was looked at.
func (a *Allocator) search(claim *Claim, family corev1.IPFamily) (choice, *Refusal) {
	if claim.Pool != "" {
		pool := a.pools.Get(claim.Pool)
		if pool == nil {
			return choice{}, refuse(NoPool, "there is no AddressPool %q, which annotation %s names: create it, or name another (there is %s)", claim.Pool, v1alpha1.ServicePool, a.poolList())
		}
		return a.searchPool(pool, claim, family)
	}
	if c, ok := a.joinAny(claim, family); ok {
		return c, nil
	}
	var refusals []*Refusal
	for _, name := range a.pools.names {
		pool := a.pools.byName[name]
		if !pool.autoAssign() {
			continue
		}
		c, refusal := a.searchPool(pool, claim, family)
		if refusal == nil {
			return c, nil
		}
		refusals = append(refusals, refusal)
	}
	return choice{}, noPool(family, refusals)
}

// searchPool looks for an address of the pool: that of a Service with the claim's
// share-key, else a free one, else, in a pool that shares by ports, one where the
// claim's ports are free.
func (a *Allocator) searchPool(pool *Pool, claim *Claim, family corev1.IPFamily) (choice, *Refusal) {
	is4 := family == corev1.IPv4Protocol
	if pool.err == nil && !pool.hasFamily(is4) {
		return choice{}, refuse(FamilyUnavailable, "AddressPool %q has no %s addresses of its own: add some, or use another pool", pool.Name(), family)
	}
	if refusal := pool.admits(claim); refusal != nil {
		return choice{}, refusal
	}
	if addr := a.join(pool, claim, is4); addr.IsValid() {
		return choice{addr: addr}, nil
	}
	if addr := a.nextFree(pool, is4); addr.IsValid() {
		return choice{addr: addr, searched: pool.Name()}, nil
	}
	if addr := a.squeezeIn(pool, claim, is4); addr.IsValid() {
		return choice{addr: addr}, nil
	}
	return choice{}, refuse(PoolExhausted, "AddressPool %q has no free %s address: add addresses to it, use another pool, or delete a Service", pool.Name(), family)
}

// joinAny looks for an address to share in all pools, before a free one is taken
// from the first.
func (a *Allocator) joinAny(claim *Claim, family corev1.IPFamily) (choice, bool) {
	if len(a.keyed[claim.Terms.Key]) == 0 {
		return choice{}, false
	}
	for _, name := range a.pools.names {
		pool := a.pools.byName[name]
		if !pool.autoAssign() || pool.admits(claim) != nil {
			continue
		}
		if addr := a.join(pool, claim, family == corev1.IPv4Protocol); addr.IsValid() {
			return choice{addr: addr}, true
		}
	}
	return choice{}, false
}

// join is an address that a Service with the claim's share-key has and shares; of
// several that of the Service that has had one longest.
func (a *Allocator) join(pool *Pool, claim *Claim, is4 bool) netip.Addr {
	if claim.Terms.Key == "" {
		return netip.Addr{}
	}
	for _, h := range a.keyed[claim.Terms.Key] {
		for _, addr := range h.has() {
			if h.owner.UID != claim.UID && addr.Is4() == is4 && a.pools.of(addr) == pool && a.roomFor(pool, claim, addr) {
				return addr
			}
		}
	}
	return netip.Addr{}
}

// roomFor reports whether the claim may share the address with all that have it.
func (a *Allocator) roomFor(pool *Pool, claim *Claim, addr netip.Addr) bool {
	if _, node := a.nodeWith(addr); node || pool.avoids(addr) {
		return false
	}
	for _, t := range a.book.tenants(addr) {
		if t.owner.UID != claim.UID && !shareable(pool, claim, t) {
			return false
		}
	}
	return true
}

// squeezeIn is the first address of a full pool that shares by ports where the
// claim's are free.
func (a *Allocator) squeezeIn(pool *Pool, claim *Claim, is4 bool) (found netip.Addr) {
	if pool.sharing() != v1alpha1.SharingPorts {
		return netip.Addr{}
	}
	this := crowd{pool.Name(), is4, fmt.Sprint(*claim.Terms)}
	newcomer := a.holdings[claim.UID] == nil // others have room where they were
	if newcomer && a.crowded[this] {
		return netip.Addr{}
	}
	for _, r := range familyRanges(pool.owned, is4) {
		a.book.occupied(r.From(), r.To(), func(addr netip.Addr, tenants []tenant) bool {
			if a.roomFor(pool, claim, addr) {
				found = addr
			}
			return !found.IsValid()
		})
		if found.IsValid() {
			return found
		}
	}
	if newcomer {
		a.crowded[this] = true
	}
	return found
}

// urgency orders reasons by how near the claim came to an address: the first is
// what the user would mend.
var urgency = []Reason{PoolExhausted, PoolDisabled, PoolForbidden, PoolMalformed, FamilyUnavailable}

// noPool makes one refusal of those of all pools.
func noPool(family corev1.IPFamily, refusals []*Refusal) *Refusal {
	const most = 3
	if len(refusals) == 0 {
		return refuse(NoPool, "there is no AddressPool with autoAssign: create one with %s addresses, or name a pool in annotation %s", family, v1alpha1.ServicePool)
	}
	slices.SortStableFunc(refusals, func(a, b *Refusal) int {
		return slices.Index(urgency, a.Reason) - slices.Index(urgency, b.Reason)
	})
	var messages []string
	for _, refusal := range refusals[:min(most, len(refusals))] {
		messages = append(messages, refusal.Message)
	}
	if more := len(refusals) - len(messages); more > 0 {
		messages = append(messages, fmt.Sprintf("and %d more AddressPools will not do", more))
	}
	return refuse(refusals[0].Reason, "%s", strings.Join(messages, "; "))
}

// nextFree is the first free address behind the pool's cursor, or before it when
// there is none; the zero Addr when all are taken. The one that was freed last is
// given if there is no other.
func (a *Allocator) nextFree(pool *Pool, is4 bool) netip.Addr {
	addr := a.freeFrom(a.cursor(pool, is4), pool, is4)
	if addr.IsValid() && addr == a.freed[cursor{pool.Name(), is4}] {
		return a.freeFrom(addr.Next(), pool, is4)
	}
	return addr
}

// freeFrom is the first free address that is not before start, or else the first
// one. It looks at blocks, not at addresses.
func (a *Allocator) freeFrom(start netip.Addr, pool *Pool, is4 bool) netip.Addr {
	ranges := familyRanges(pool.owned, is4)
	avoid := pool.object.Spec.AvoidBuggyIPs
	split := 0
	if start.IsValid() {
		split = searchRanges(ranges, start)
	}
	for i := split; i < len(ranges); i++ {
		if addr := a.book.free(later(start, ranges[i].From()), ranges[i].To(), avoid); addr.IsValid() {
			return addr
		}
	}
	for i := 0; i <= split && i < len(ranges); i++ {
		if addr := a.book.free(ranges[i].From(), ranges[i].To(), avoid); addr.IsValid() {
			return addr
		}
	}
	return netip.Addr{}
}

// cursor is where the search in the pool begins: behind the address given last.
// After a restart that is not known, and the highest one held stands in for it. It
// is the zero Addr for the pool's beginning.
func (a *Allocator) cursor(pool *Pool, is4 bool) netip.Addr {
	key := cursor{pool.Name(), is4}
	last, ok := a.cursors[key]
	if !ok {
		for _, r := range familyRanges(pool.owned, is4) {
			a.book.occupied(r.From(), r.To(), func(addr netip.Addr, _ []tenant) bool {
				last = addr
				return true
			})
		}
		a.cursors[key] = last
	}
	if !last.IsValid() {
		return last
	}
	return last.Next()
}
