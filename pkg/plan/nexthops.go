package plan

import (
	"cmp"
	"iter"
	"math"
	"slices"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

// nextHops says which nodes announce an address by BGP, and why each of the
// others does not. It holds only what is special about the address: what all
// addresses of a pool and family have in common is in the family. Nodes are told
// by their indexes, ascending.
type nextHops struct {
	family *family
	// had are the nodes that announce the address now.
	had []int
	// former means that the AddressPool is gone, so that only they may go on.
	former bool
	// local means that only the nodes in here, those with endpoints, may announce.
	local bool
	here  []int
	// all means that all eligible nodes of the family announce the address, and
	// own are the others that have it in their programs; without all, own are all
	// of these.
	all bool
	own []int
	// kept means that labels rule out the nodes in own, but no others are left.
	kept bool
	// noRoom are nodes whose programs turned out to be full.
	noRoom []int
}

// nextHops decides who announces an address of a Service. It reports whether the
// address may be folded into a shorter prefix.
func (c *computation) nextHops(s *service, a *address, p *pool) (h *nextHops, foldable bool) {
	f := p.family(a.Is4(), c.nodes)
	h = c.room.nextHops.next()
	*h = nextHops{family: f, had: a.announcers, former: p.former(), local: a.local() || p.withEndpoints}
	if h.local {
		h.here = a.endpoints()
	}
	retained := h.retained()
	most := math.MaxInt
	if p.maxNextHops > 0 {
		// A node whose speaker is away announces nothing new: one that does is
		// needed in any case.
		most = max(p.maxNextHops-len(retained), 1)
	}
	switch {
	case h.local:
		h.own = c.limit(h, h.announcing(h.here), most)
	case h.former:
		h.own = c.limit(h, h.announcing(h.had), most)
	case len(f.eligible) > most:
		h.own = c.choose(s, h, most)
	default:
		h.all = true // the usual case
	}
	if len(retained) > 0 {
		h.own = append(h.own, retained...)
		slices.Sort(h.own)
	}
	h.keepLast()
	capped := p.maxNextHops > 0 && len(f.eligible)+len(f.away) > p.maxNextHops
	return h, !h.local && !capped && p.foldable(a.Addr)
}

// Judged is an address on which the verdicts are given, by node name: a part of a
// plan that Compute did not make, for those who test what becomes of plans.
func Judged(r announce.Range, verdicts ...NodeVerdict) Address {
	f := &family{verdicts: verdicts}
	for i, n := range verdicts {
		if n.Verdict.announces() {
			f.eligible = append(f.eligible, i)
		}
	}
	return Address{Range: r, bgp: &nextHops{family: f, all: true}}
}

// fit judges the i-th node as far as its fellows do not matter.
func (h *nextHops) fit(i int) Verdict {
	v := h.family.verdicts[i].Verdict
	switch {
	case v != Announces && v != SpeakerAway:
		return v
	case h.local && !contains(h.here, i):
		return NoEndpoint
	case v == SpeakerAway && contains(h.had, i):
		return Retains
	case v == Announces && h.former && !contains(h.had, i):
		return NotSelected // nobody knows which other nodes were meant
	}
	return v
}

// verdict judges the i-th node.
func (h *nextHops) verdict(i int) Verdict {
	v := h.fit(i)
	switch {
	case v == Announces && !h.all && !contains(h.own, i):
		return Surplus
	case h.kept && contains(h.own, i):
		v = Kept
	}
	if v.announces() && contains(h.noRoom, i) {
		return NoRoom
	}
	return v
}

// verdicts are those on all nodes.
func (h *nextHops) verdicts() iter.Seq[NodeVerdict] {
	return func(yield func(NodeVerdict) bool) {
		for i, n := range h.family.verdicts {
			if n.Verdict = h.verdict(i); !yield(n) {
				return
			}
		}
	}
}

// announcers are the nodes that announce the address.
func (h *nextHops) announcers() iter.Seq[int] {
	members := h.own
	if h.all {
		members = h.family.eligible
		if len(h.own) > 0 {
			members = slices.Concat(members, h.own)
			slices.Sort(members)
		}
	}
	// Members may be Retains or NoRoom as well, but rarely are.
	doubtful := len(h.family.away) > 0 || len(h.noRoom) > 0
	return func(yield func(int) bool) {
		for _, i := range members {
			if (!doubtful || h.verdict(i).announces()) && !yield(i) {
				return
			}
		}
	}
}

// reaches reports whether somebody hears of the address.
func (h *nextHops) reaches() bool {
	for i := range h.announcers() {
		if !h.family.verdicts[i].CutOff {
			return true
		}
	}
	return false
}

// has reports whether some node has the verdict, Kept or NoRoom.
func (h *nextHops) has(v Verdict) bool {
	is := func(i int) bool { return h.verdict(i) == v }
	return h.kept && slices.ContainsFunc(h.own, is) || slices.ContainsFunc(h.noRoom, is)
}

// announcing are those of the nodes that fit.
func (h *nextHops) announcing(nodes []int) []int {
	var out []int
	for _, i := range nodes {
		if h.fit(i) == Announces {
			out = append(out, i)
		}
	}
	return out
}

// retained are the nodes whose speaker is away, and which had the address: they
// keep it.
func (h *nextHops) retained() []int {
	var out []int
	for _, i := range shorter(h.family.away, h.had) {
		if h.fit(i) == Retains {
			out = append(out, i)
		}
	}
	return out
}

// limit leaves out what exceeds most, the number of nodes that may announce.
func (c *computation) limit(h *nextHops, eligible []int, most int) []int {
	if len(eligible) <= most {
		return eligible
	}
	return c.pick(h, eligible, most)
}

// shortlist are eligible nodes that are enough to take from: those that announce
// the address already, and those with the least load.
func (c *computation) shortlist(h *nextHops, most int) []int {
	list := h.announcing(h.had)
	sound := 0
	for _, i := range list {
		if !h.family.verdicts[i].CutOff {
			sound++
		}
	}
	if sound >= most {
		return list
	}
	return h.family.ranked(c.load).least(list, most-sound, func(i int) bool { return contains(h.had, i) })
}

// pick chooses the nodes that announce the address. Those that do already stay,
// also those whose speaker is away, so that its restart moves nothing; others come
// by their load. Nodes whose sessions are down come last.
func (c *computation) pick(h *nextHops, eligible []int, most int) []int {
	rank := func(i int) int {
		if contains(h.had, i) {
			return h.family.rank(i, -1)
		}
		return h.family.rank(i, c.load[i])
	}
	slices.SortFunc(eligible, func(a, b int) int { return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a, b)) })
	chosen := eligible[:most]
	for _, i := range chosen {
		c.take(i)
	}
	slices.Sort(chosen)
	return chosen
}

// rank of the i-th node, with so many capped addresses: the least is the best.
func (f *family) rank(i, load int) int {
	const last = 1 << 30
	if f.verdicts[i].CutOff {
		return load + last
	}
	return load
}

// keepLast lets the nodes that announced an address go on when an edit of labels
// or selectors would leave it without any node.
func (h *nextHops) keepLast() {
	if h.all && len(h.family.eligible) > 0 || len(h.own) > 0 || h.lacksEndpoints() {
		return
	}
	for _, i := range h.had {
		if v := h.fit(i); v == NotSelected || v == Excluded {
			h.own = append(h.own, i)
			h.kept = true
		}
	}
}

// lacksEndpoints reports whether the lack of endpoints rules out a node that
// passed all the rest: then there is no mistake.
func (h *nextHops) lacksEndpoints() bool {
	elsewhere := func(i int) bool { return !contains(h.here, i) }
	return h.local && (slices.ContainsFunc(h.family.eligible, elsewhere) || slices.ContainsFunc(h.family.away, elsewhere))
}

// leaveOut records that the program of the named node has no room for the
// address. It reports whether the node would announce it.
func (h *nextHops) leaveOut(node string) bool {
	i, known := slices.BinarySearchFunc(h.family.verdicts, node, func(n NodeVerdict, name string) int { return cmp.Compare(n.Node, name) })
	if !known || !h.verdict(i).announces() {
		return known && contains(h.noRoom, i)
	}
	h.noRoom = append(h.noRoom, i)
	slices.Sort(h.noRoom)
	return true
}

// contains reports whether i is one of the nodes, which are ascending.
func contains(nodes []int, i int) bool {
	_, found := slices.BinarySearch(nodes, i)
	return found
}

func shorter[T any](a, b []T) []T {
	if len(a) < len(b) {
		return a
	}
	return b
}
