package plan

import (
	"cmp"
	"fmt"
	"math/big"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/ipam"
)

// resolvePools compiles the AddressPools, and starts their part of the result.
func (c *computation) resolvePools(result *Plan) {
	peers := make(map[string]bool, len(result.Peers))
	for _, p := range result.Peers {
		peers[p.Name] = true
	}
	for _, name := range c.index.Names() {
		compiled := c.index.Get(name)
		p, problems := newPool(compiled, peers)
		c.pools[name] = p
		if err := compiled.Err(); err != nil {
			problems = append([]Problem{{"Malformed", err.Error()}}, problems...)
		}
		if conflicts := compiled.Conflicts(); len(conflicts) > 0 {
			problems = append(problems, Problem{"Overlap", overlap(conflicts)})
		}
		result.Pools = append(result.Pools, Pool{Name: name, Problems: problems})
	}
	slices.SortFunc(result.Pools, func(a, b Pool) int { return cmp.Compare(a.Name, b.Name) })
}

func overlap(conflicts []ipam.Conflict) string {
	texts := make([]string, len(conflicts))
	for i, conflict := range conflicts {
		texts[i] = conflict.String()
	}
	return fmt.Sprintf("overlaps with other pools: %s; remove these addresses from one of them", list(texts))
}

// countAddresses fills in the numbers of the pools. An address counts in the
// pool it lies in, also where the Service is on its way out: it is not free
// before its Service lets go of it.
func (c *computation) countAddresses(result *Plan) {
	allocated := make(map[string]int64)
	for _, a := range c.addresses.sorted {
		allocated[a.pool]++
	}
	for i := range result.Pools {
		p := &result.Pools[i]
		compiled := c.index.Get(p.Name)
		capacity := compiled.Capacity()
		used := big.NewInt(allocated[p.Name])
		available := new(big.Int).Sub(capacity, used)
		if available.Sign() < 0 { // addresses of an avoidBuggyIPs pool that were given before
			available.SetInt64(0)
		}
		p.Capacity, p.Allocated, p.Available = capacity.String(), used.String(), available.String()
		p.InUse = used.Sign() > 0
		if compiled.Object().DeletionTimestamp != nil {
			problem := Problem{"Deleting", deleting(p.Allocated, holders(c.index, c.state.Services, p.Name))}
			p.Problems = append([]Problem{problem}, p.Problems...)
		}
	}
}

// InUse reports whether one of the Services, also one on its way out, shows an
// address of the pool of that name. It is Pool.InUse for those who have newer
// objects than the plan was made of.
func InUse(pools []*v1alpha1.AddressPool, services []*corev1.Service, name string) bool {
	return len(holders(ipam.Compile(pools), services, name)) > 0
}

// holders are the Services that show an address of the pool, as NAMESPACE/NAME,
// sorted.
func holders(index *ipam.Pools, services []*corev1.Service, pool string) []string {
	var holders []string
	for _, svc := range services {
		if slices.ContainsFunc(svc.Status.LoadBalancer.Ingress, func(ingress corev1.LoadBalancerIngress) bool {
			addr, err := parseAddr(ingress.IP)
			if err != nil {
				return false
			}
			name, ok := index.Of(addr)
			return ok && name == pool
		}) {
			holders = append(holders, svc.Namespace+"/"+svc.Name)
		}
	}
	slices.Sort(holders)
	return holders
}

// deleting says what the deletion of a pool waits for, and what to do.
func deleting(allocated string, holders []string) string {
	const most = 5
	if len(holders) == 0 {
		return "is being deleted, and no Service has an address of it any more; if it stays, see its metadata.finalizers"
	}
	names := strings.Join(holders[:min(most, len(holders))], ", ")
	if more := len(holders) - most; more > 0 {
		names += fmt.Sprintf(" and %d more", more)
	}
	return fmt.Sprintf("is being deleted, which waits until its addresses are released (%s in use, by Services %s); nothing new is assigned from it, and what is in use stays announced. Delete these Services, or let them name another pool (annotation %s)",
		allocated, names, v1alpha1.ServicePool)
}

// Summary is the reason and the message of a Ready condition: the first
// problem's reason, and all messages.
func Summary(problems []Problem) (ready bool, reason, message string) {
	if len(problems) == 0 {
		return true, "Ready", ""
	}
	messages := make([]string, len(problems))
	for i, p := range problems {
		messages[i] = p.Message
	}
	return false, problems[0].Reason, strings.Join(messages, "; ")
}
