package plan

import (
	"cmp"
	"fmt"
	"math/big"
	"net/netip"
	"slices"
	"strings"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/ipam"
)

// resolvePools compiles the AddressPools, and starts their part of the result.
func (c *computation) resolvePools(result *Plan) {
	peers := make(map[string]bool, len(result.Peers))
	for _, p := range result.Peers {
		peers[p.Name] = true
	}
	c.index = ipam.Compile(c.state.Pools)
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
	counted := make(map[netip.Addr]bool)
	for _, svc := range c.state.Services {
		for _, ingress := range svc.Status.LoadBalancer.Ingress {
			addr, err := parseAddr(ingress.IP)
			if err != nil || counted[addr] {
				continue
			}
			counted[addr] = true
			if name, ok := c.index.Of(addr); ok {
				allocated[name]++
			}
		}
	}
	for i := range result.Pools {
		p := &result.Pools[i]
		capacity := c.index.Get(p.Name).Capacity()
		used := big.NewInt(allocated[p.Name])
		available := new(big.Int).Sub(capacity, used)
		if available.Sign() < 0 { // addresses of an avoidBuggyIPs pool that were given before
			available.SetInt64(0)
		}
		p.Capacity, p.Allocated, p.Available = capacity.String(), used.String(), available.String()
	}
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
