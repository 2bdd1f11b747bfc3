package plan

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/ipam"
)

// settleHolders decides whose the addresses are that Services show: the senior
// one has an address, and others share it with that one if they may. The Services
// come in the order of seniority.
func (c *computation) settleHolders(services []*corev1.Service) {
	for _, svc := range services {
		for _, ingress := range svc.Status.LoadBalancer.Ingress {
			addr, err := parseAddr(ingress.IP)
			if err != nil {
				continue
			}
			switch first := c.holders[addr]; {
			case first == nil:
				c.holders[addr] = svc
			case first != svc && c.mayShare(svc, addr):
				c.partners[addr] = append(c.partners[addr], svc)
			}
		}
	}
}

// mayShare reports whether the Service may share the address with all that have
// it. The allocator applies the same rule when it adopts.
func (c *computation) mayShare(svc *corev1.Service, addr netip.Addr) bool {
	name, _ := c.index.Of(addr)
	pool := c.index.Get(name)
	terms, settled := ipam.TermsOf(svc), ipam.Settled(svc)
	for _, other := range c.sharers(addr) {
		if !ipam.MayKeepSharing(pool, ipam.TermsOf(other), terms, settled && ipam.Settled(other)) {
			return false
		}
	}
	return true
}

// sharers are the Services that have the address, the senior one first.
func (c *computation) sharers(addr netip.Addr) []*corev1.Service {
	return append([]*corev1.Service{c.holders[addr]}, c.partners[addr]...)
}

// endpointsOf are the nodes with endpoints of the Services that have the address:
// those of the Service, where it shares it with none.
func (c *computation) endpointsOf(svc *corev1.Service, addr netip.Addr) map[string]bool {
	own := c.endpoints[serviceKey{svc.Namespace, svc.Name}]
	if len(c.partners[addr]) == 0 {
		return own
	}
	union := make(map[string]bool, len(own))
	for _, sharer := range c.sharers(addr) {
		for node := range c.endpoints[serviceKey{sharer.Namespace, sharer.Name}] {
			union[node] = true
		}
	}
	return union
}
