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
	if node, ok := a.nodes[addr]; ok {
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
	if pool.object.Spec.AvoidBuggyIPs && buggy(addr) {
		return refuse(PoolForbidden, "AddressPool %q does not give out %s (spec.avoidBuggyIPs): request another address", pool.Name(), addr)
	}
	if !a.ownOrFree(claim, addr) {
		owner := a.holdings[a.holders[addr]].owner
		if claim.ShareKey != "" {
			return refuse(AddressInUse, "%s of AddressPool %q is in use by Service %s: sharing an address (annotation %s) is not implemented yet; request another one", addr, pool.Name(), owner, v1alpha1.ServiceShareKey)
		}
		return refuse(AddressInUse, "%s of AddressPool %q is in use by Service %s: request another one, or delete that Service", addr, pool.Name(), owner)
	}
	return nil
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
	if why := p.Closed(); why != "" {
		return refuse(PoolDisabled, "AddressPool %q %s: use another pool, or enable it", p.Name(), why)
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
		addr, refusal := a.searchPool(pool, claim, family)
		return choice{addr: addr, searched: pool.Name()}, refusal
	}
	var refusals []*Refusal
	for _, name := range a.pools.names {
		pool := a.pools.byName[name]
		if !pool.autoAssign() {
			continue
		}
		addr, refusal := a.searchPool(pool, claim, family)
		if refusal == nil {
			return choice{addr: addr, searched: name}, nil
		}
		refusals = append(refusals, refusal)
	}
	return choice{}, noPool(family, refusals)
}

func (a *Allocator) searchPool(pool *Pool, claim *Claim, family corev1.IPFamily) (netip.Addr, *Refusal) {
	if refusal := pool.admits(claim); refusal != nil {
		return netip.Addr{}, refusal
	}
	if !pool.hasFamily(family == corev1.IPv4Protocol) {
		return netip.Addr{}, refuse(FamilyUnavailable, "AddressPool %q has no %s addresses of its own: add some, or use another pool", pool.Name(), family)
	}
	if addr := a.nextFree(pool, family); addr.IsValid() {
		return addr, nil
	}
	return netip.Addr{}, refuse(PoolExhausted, "AddressPool %q has no free %s address: add addresses to it, use another pool, or delete a Service", pool.Name(), family)
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
// there is none; the zero Addr when all are taken. It looks at ranges, not at
// addresses.
func (a *Allocator) nextFree(pool *Pool, family corev1.IPFamily) netip.Addr {
	ranges := familyRanges(pool.owned, family == corev1.IPv4Protocol)
	start := a.cursor(pool, family)
	split := 0
	if start.IsValid() {
		split = searchRanges(ranges, start)
	}
	for i := split; i < len(ranges); i++ {
		if addr := a.freeIn(pool, later(start, ranges[i].From()), ranges[i].To()); addr.IsValid() {
			return addr
		}
	}
	for i := 0; i <= split && i < len(ranges); i++ {
		if addr := a.freeIn(pool, ranges[i].From(), ranges[i].To()); addr.IsValid() {
			return addr
		}
	}
	return netip.Addr{}
}

// cursor is where the search in the pool begins: behind the address given last.
// After a restart that is not known, and the highest one held stands in for it. It is the zero
// Addr for the pool's beginning.
func (a *Allocator) cursor(pool *Pool, family corev1.IPFamily) netip.Addr {
	key := cursor{pool.Name(), family}
	last, ok := a.cursors[key]
	if !ok {
		for addr := range a.holders {
			if familyOf(addr) == family && last.Less(addr) && a.pools.of(addr) == pool {
				last = addr
			}
		}
		a.cursors[key] = last
	}
	if !last.IsValid() {
		return last
	}
	return last.Next()
}

// freeIn is the first free address from from to to that the pool gives out.
func (a *Allocator) freeIn(pool *Pool, from, to netip.Addr) netip.Addr {
	for addr := from; addr.IsValid() && addr.Compare(to) <= 0; {
		free := a.busy.next(addr)
		if !free.IsValid() || to.Less(free) {
			return netip.Addr{}
		}
		if !pool.object.Spec.AvoidBuggyIPs || !buggy(free) {
			return free
		}
		addr = free.Next()
	}
	return netip.Addr{}
}
