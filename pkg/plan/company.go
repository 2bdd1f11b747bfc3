package plan

// company are the nodes that the last new address was given, where the pool caps its
// next hops, and the Service that it is of.
//
// New addresses that follow each other keep the same company as long as the load
// stays even. Where twenty Services come in a second, a plan then writes to 16 nodes
// instead of 320; addresses that are neighbours become ranges of the same programs;
// and routers, which have room for some hundred or thousand sets of next hops, need
// few of them.
type company struct {
	nodes []int
	of    *service
}

// evenness is the part of the average load by which a node in company may have more
// than the least loaded one: where nodes have few addresses, none at all.
const evenness = 8

// choose takes from all eligible nodes of the family, of which there are more than
// most.
func (c *computation) choose(s *service, h *nextHops, most int) []int {
	fresh := len(h.had) == 0
	if fresh && c.keepsCompany(s, h.family, most) {
		for _, i := range c.company.nodes {
			c.take(i)
		}
		c.company.of = s
		return c.company.nodes
	}
	own := c.pick(h, c.shortlist(h, most), most)
	if fresh {
		c.company = company{nodes: own, of: s}
	}
	return own
}

// keepsCompany reports whether a new address of the Service goes to the nodes of the
// one before. The addresses of one Service do wherever they can: it changes as a
// whole.
func (c *computation) keepsCompany(s *service, f *family, most int) bool {
	if len(c.company.nodes) != most {
		return false
	}
	limit := c.load[f.leastLoaded(c.load)] + c.taken/len(f.eligible)/evenness
	for _, i := range c.company.nodes {
		if !contains(f.eligible, i) || f.verdicts[i].CutOff || c.company.of != s && c.load[i] > limit {
			return false
		}
	}
	return true
}

// take notes that the i-th node announces another capped address.
func (c *computation) take(i int) {
	c.load[i]++
	c.taken++
}

// leastLoaded is the eligible node of the least rank; see family.rank.
func (f *family) leastLoaded(load []int) int {
	return f.ranked(load).top().node
}

// ranked are the eligible nodes by their rank.
func (f *family) ranked(load []int) *queue {
	if f.queue == nil {
		f.queue = newQueue(f.eligible, func(i int) int { return f.rank(i, load[i]) })
	}
	return f.queue
}
