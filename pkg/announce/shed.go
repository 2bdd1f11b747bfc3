package announce

import (
	"slices"

	"go4.org/netipx"
)

// Shed are the addresses that the program has and next has not, if next differs in
// nothing else; only is false if it does. Both are normalized.
func (p *Program) Shed(next *Program) (lost *netipx.IPSet, only bool) {
	if p.Version != next.Version || p.Cluster != next.Cluster || p.RouterID != next.RouterID ||
		!slices.EqualFunc(p.Peers, next.Peers, Peer.equal) || !slices.Equal(p.Reach, next.Reach) {
		return nil, false
	}
	for _, n := range next.Nodes {
		if !slices.ContainsFunc(p.Nodes, n.equal) {
			return nil, false
		}
	}
	before, after := slices.Clone(p.Groups), slices.Clone(next.Groups)
	slices.SortFunc(before, compareAttributes)
	slices.SortFunc(after, compareAttributes)
	for _, g := range after {
		for len(before) > 0 && compareAttributes(before[0], g) < 0 {
			before = before[1:]
		}
		if len(before) == 0 || compareAttributes(before[0], g) != 0 || !holds(before[0].Addresses, g.Addresses) {
			return nil, false
		}
	}
	any := func(*Group) bool { return true }
	var b netipx.IPSetBuilder
	b.AddSet(p.Addresses(any))
	b.RemoveSet(next.Addresses(any))
	lost, err := b.IPSet()
	return lost, err == nil // sets are valid
}

// holds reports whether all addresses of part are among those of whole. Both are
// disjoint, ascending ranges.
func holds(whole, part []Range) bool {
	for _, r := range part {
		for len(whole) > 0 && whole[0].To().Less(r.From()) {
			whole = whole[1:]
		}
		if len(whole) == 0 || r.From().Less(whole[0].From()) || whole[0].To().Less(r.To()) {
			return false
		}
	}
	return true
}
