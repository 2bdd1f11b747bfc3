package plan

import (
	"slices"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/ipam"
)

// settleHolders decides whose the addresses are that Services show: the senior
// one has an address, and others share it with that one if they may. The Services
// come in the order of seniority.
func (c *computation) settleHolders(services []*service) {
	for _, s := range services {
		for _, a := range s.addresses {
			switch {
			case a.holder == nil:
				a.holder = s
			case a.holder == s:
			case c.mayShare(s, a):
				a.partners = append(a.partners, s)
			case s.settled && a.holder.settled:
				a.leaving = append(a.leaving, s)
			}
		}
	}
}

// mayShare reports whether the Service may share the address with all that have
// it. The allocator applies the same rule when it adopts.
func (c *computation) mayShare(s *service, a *address) bool {
	pool := c.index.Get(a.pool)
	terms := ipam.TermsOf(s.Service)
	for _, other := range a.sharers() {
		if !ipam.MayKeepSharing(pool, ipam.TermsOf(other.Service), terms, s.settled && other.settled) {
			return false
		}
	}
	return true
}

// local reports whether all Services of the address send traffic to endpoints of
// the same node only. While one of them has just been edited such that it has to
// leave, it is announced for the others as it was for all.
func (a *address) local() bool {
	if len(a.partners) == 0 && len(a.leaving) == 0 {
		return a.holder.local
	}
	notLocal := func(s *service) bool { return !s.local }
	return !slices.ContainsFunc(a.sharers(), notLocal) && !slices.ContainsFunc(a.leaving, notLocal)
}

// sharers are the Services that have the address, the senior one first.
func (a *address) sharers() []*service {
	return append([]*service{a.holder}, a.partners...)
}

// endpoints are the nodes with endpoints of the Services that have the address.
func (a *address) endpoints() []int {
	if len(a.partners) == 0 && len(a.leaving) == 0 {
		return a.holder.endpoints.nodes
	}
	var union []int
	for _, s := range slices.Concat(a.sharers(), a.leaving) {
		union = append(union, s.endpoints.nodes...)
	}
	slices.Sort(union)
	return slices.Compact(union)
}
