package ipam

import (
	"fmt"
	"strings"
)

// Disallowed says which of the claim's external addresses lie in a pool that does
// not make them claims, or is nil. Nodes take traffic to them nevertheless, so two
// Services may end up with one address.
func (a *Allocator) Disallowed(claim *Claim) *Refusal {
	if len(claim.External) == 0 {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	var lies []string
	for _, addr := range claim.External {
		if pool := a.pools.of(addr); pool != nil && !pool.object.Spec.AllowExternalIPs {
			lies = append(lies, fmt.Sprintf("%s lies in AddressPool %q", addr, pool.Name()))
		}
	}
	if len(lies) == 0 {
		return nil
	}
	const most = 5
	if more := len(lies) - most; more > 0 {
		lies = append(lies[:most], fmt.Sprintf("and %d more in such pools", more))
	}
	return refuse(PoolForbidden, "spec.externalIPs: %s, which does not allow that (spec.allowExternalIPs): it is neither reserved nor announced; allow it, or request the address by annotation lb.baremetal.dev/addresses", strings.Join(lies, ", "))
}
