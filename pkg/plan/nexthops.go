package plan

import (
	"cmp"
	"net/netip"
	"slices"

	"go4.org/netipx"
	corev1 "k8s.io/api/core/v1"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

// nextHops judges the nodes for one address of a Service, step by step; each
// step leaves fewer nodes that announce. It reports whether the address may be
// folded into a shorter prefix. The verdicts may be shared: they are read only.
func (c *computation) nextHops(svc *corev1.Service, addr netip.Addr, p *pool) (verdicts []NodeVerdict, foldable bool) {
	f := p.family(addr.Is4(), c.nodes)
	local := localTraffic(svc) || p.withEndpoints
	capped := p.maxNextHops > 0 && f.eligible+f.away > p.maxNextHops
	foldable = !local && !capped && p.foldable(addr)
	if !local && !capped && f.away == 0 && f.eligible > 0 && !p.former() {
		return f.verdicts, foldable // nothing depends on the address: the usual case
	}
	verdicts = slices.Clone(f.verdicts)
	if local {
		c.requireEndpoints(verdicts, c.endpointsOf(svc, addr))
	}
	c.retain(verdicts, addr)
	if p.former() {
		c.requireHistory(verdicts, addr)
	}
	c.limit(verdicts, p, addr)
	c.keepLast(verdicts, addr)
	return verdicts, foldable
}

// requireEndpoints rules out the nodes without an endpoint.
func (c *computation) requireEndpoints(verdicts []NodeVerdict, here map[string]bool) {
	for i := range verdicts {
		if v := &verdicts[i]; (v.Verdict == Announces || v.Verdict == Spare || v.Verdict == SpeakerAway) && !here[v.Node] {
			v.Verdict = NoEndpoint
		}
	}
}

// retain lets the nodes whose speaker is away keep the address if they had it.
func (c *computation) retain(verdicts []NodeVerdict, addr netip.Addr) {
	for i := range verdicts {
		if v := &verdicts[i]; v.Verdict == SpeakerAway && c.hadBy(i, addr) {
			v.Verdict = Retains
		}
	}
}

// requireHistory rules out the nodes that did not announce the address before.
// Where the pool is gone, nobody knows which other nodes were meant.
func (c *computation) requireHistory(verdicts []NodeVerdict, addr netip.Addr) {
	for i := range verdicts {
		if v := &verdicts[i]; v.Verdict == Announces && !c.hadBy(i, addr) {
			v.Verdict = NotSelected
		}
	}
}

// limit turns the eligible nodes beyond the pool's maxNextHops into Surplus
// ones. Nodes that announce the address already stay, also those whose speaker
// is away, so that its restart moves nothing; others come by their load. Nodes
// whose sessions are down come last.
func (c *computation) limit(verdicts []NodeVerdict, p *pool, addr netip.Addr) {
	var eligible []int
	retained := 0
	for i, v := range verdicts {
		switch v.Verdict {
		case Announces:
			eligible = append(eligible, i)
		case Retains:
			retained++
		}
	}
	// A node whose speaker is away announces nothing new: one that does is
	// needed in any case.
	most := max(p.maxNextHops-retained, 1)
	if p.maxNextHops == 0 || len(eligible) <= most {
		return
	}
	if c.load == nil {
		c.load = make([]int, len(c.nodes))
	}
	const last = 1 << 30
	rank := func(i int) int {
		r := c.load[i]
		if c.hadBy(i, addr) {
			r = -1
		}
		if p.cutOff(c.nodes[i], addr.Is4()) {
			r += last
		}
		return r
	}
	slices.SortStableFunc(eligible, func(a, b int) int { return cmp.Compare(rank(a), rank(b)) })
	for _, i := range eligible[:most] {
		c.load[i]++
	}
	for _, i := range eligible[most:] {
		verdicts[i].Verdict = Surplus
	}
}

// keepLast lets the nodes that announced an address go on when an edit of
// labels or selectors would leave it without any node.
func (c *computation) keepLast(verdicts []NodeVerdict, addr netip.Addr) {
	for _, v := range verdicts {
		// A node without endpoints passed all the rest: there is no mistake.
		if v.Verdict.inProgram() || v.Verdict == NoEndpoint {
			return
		}
	}
	for i := range verdicts {
		v := &verdicts[i]
		if (v.Verdict == NotSelected || v.Verdict == Excluded) && c.hadBy(i, addr) {
			v.Verdict = Kept
		}
	}
}

// hadBy reports whether the previous program of the i-th node announces addr by
// BGP.
func (c *computation) hadBy(i int, addr netip.Addr) bool {
	if c.had == nil {
		c.had = make([]*netipx.IPSet, len(c.nodes))
	}
	if c.had[i] == nil {
		c.had[i] = c.nodes[i].previous.Addresses(func(g *announce.Group) bool { return g.BGP != nil })
	}
	return c.had[i].Contains(addr)
}

// hadByAny reports whether any node's previous program announces addr.
func (c *computation) hadByAny(addr netip.Addr) bool {
	if _, known := c.past[addr]; known {
		return true
	}
	for i := range c.nodes {
		if c.hadBy(i, addr) {
			return true
		}
	}
	return false
}
