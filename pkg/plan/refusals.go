package plan

import (
	"errors"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/ipam"
)

// refusals explain why Services lack an address that they ask for. They ask an
// allocator that is made from the same objects as the plan, not the one that gives
// out addresses: so the answer can be had from a dump.
type refusals struct {
	allocator  *ipam.Allocator
	namespaces map[string]map[string]string // labels by name
}

// explain says why the Service lacks an address, or is nil where it lacks none,
// or only has to wait a moment for it.
func (c *computation) explain(s *service) *Problem {
	if !s.lacking {
		return nil
	}
	if c.refusals == nil {
		c.refusals = c.newRefusals()
	}
	claim, err := ipam.NewClaim(s.Service, c.refusals.namespaces[s.Namespace])
	if err == nil {
		if refusal := c.refusals.allocator.Explain(&claim); refusal != nil {
			err = refusal
		}
	}
	var refusal *ipam.Refusal
	if !errors.As(err, &refusal) {
		return nil
	}
	return &Problem{string(refusal.Reason), refusal.Message}
}

// lacks reports whether the Service may lack something that it asks for. Most do
// not, and need no claim to tell.
func lacks(svc *corev1.Service) bool {
	shown := ipam.Recorded(svc)
	if len(shown) == 0 || len(shown) < len(svc.Spec.IPFamilies) {
		return true
	}
	if ipam.Plain(svc) {
		return false
	}
	claim, err := ipam.NewClaim(svc, nil)
	if err != nil {
		return true
	}
	return slices.ContainsFunc(slices.Concat(claim.Requested, claim.External), func(addr netip.Addr) bool {
		return !slices.Contains(shown, addr)
	})
}

func (c *computation) newRefusals() *refusals {
	r := &refusals{allocator: ipam.NewAllocator(), namespaces: make(map[string]map[string]string)}
	r.allocator.SetNodes(ipam.NodeAddresses(c.state.Nodes))
	r.allocator.SetReported(ipam.ReportedAddresses(c.state.Nodes...))
	r.allocator.SetPools(c.index, ipam.Records(c.state.Services))
	for _, namespace := range c.state.Namespaces {
		r.namespaces[namespace.Name] = namespace.Labels
	}
	return r
}
