package plan

import (
	"cmp"
	"iter"
	"net/netip"
	"slices"

	"go4.org/netipx"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

// claim is a range of addresses that a node took over without the planner.
type claim struct {
	announce.Range
	epoch, term uint32
}

// claims are what a node took over, ascending and apart.
type claims []claim

// newClaims reads the takeovers of a report. It goes by ranges, never by addresses:
// a range may span half of the Internet. A speaker that contradicts itself claims
// nothing.
func newClaims(takeovers []announce.Takeover) claims {
	var all claims
	for _, t := range takeovers {
		for _, r := range t.Addresses {
			if !netipx.IPRange(r).IsValid() {
				return nil
			}
			all = append(all, claim{r, t.Epoch, t.Term})
		}
	}
	slices.SortFunc(all, func(a, b claim) int { return a.From().Compare(b.From()) })
	for i := 1; i < len(all); i++ {
		if all[i].From().Compare(all[i-1].To()) <= 0 {
			return nil
		}
	}
	return all
}

// on is the claim on an address that goes beyond the epoch; it is zero if there is
// none. One of a greater epoch is that of a node that remembers what no program says
// any more: all candidates go by it.
func (c claims) on(addr netip.Addr, epoch uint32) claim {
	at, found := slices.BinarySearchFunc(c, addr, func(x claim, a netip.Addr) int {
		switch {
		case x.To().Less(a):
			return -1
		case a.Less(x.From()):
			return 1
		}
		return 0
	})
	if !found || c[at].epoch < epoch || c[at].epoch == epoch && c[at].term == 0 {
		return claim{}
	}
	return c[at]
}

// able are those of the address's previous candidates, in order, that could own it
// now.
func (c *computation) able(a *Address) iter.Seq[int] {
	return func(yield func(int) bool) {
		for _, name := range a.address.before.layer2.Candidates {
			i, known := c.indexes[name]
			if known && a.Layer2.standing.verdict(i) == Spare && !yield(i) {
				return
			}
		}
	}
}

// taker is the candidate that took the address over from its owner, by its own
// account: the one of the greatest claim, of equals the first; -1 if there is none.
func (c *computation) taker(a *Address) (taker int, by claim) {
	taker = -1
	for i := range c.able(a) {
		on := c.nodes[i].claims.on(a.From(), a.address.before.layer2.Epoch)
		if cmp.Or(cmp.Compare(on.epoch, by.epoch), cmp.Compare(on.term, by.term)) > 0 {
			taker, by = i, on
		}
	}
	return taker, by
}

// heard reports whether a node that stands by for the address, and could own it,
// hears the owner of which the control plane does not. Then the owner answers, or
// that node does in its place; should the owner die, the address is claimed.
func (c *computation) heard(a *Address, owner int) bool {
	n, s := c.nodes[owner], a.Layer2.standing
	switch {
	case n.report.Leaving, n.report.NotForwarding != "" && !c.massNotForwarding, !s.permits(owner):
		return false
	case !n.lan.unknown && !contains(s.lan.onLink, owner):
		return false
	}
	for i := range c.able(a) {
		if contains(c.nodes[i].hears, owner) {
			return true
		}
	}
	return false
}

// inherit gives the address of an owner that failed, or leaves by itself, to the
// first that stood by and can own it: the same one claims it by heartbeats, and so
// the address moves once and not twice.
func (c *computation) inherit(a *Address) bool {
	i, known := c.indexes[a.address.before.owner()]
	if !known || !a.Layer2.standing.verdict(i).fails() {
		return false
	}
	for heir := range c.able(a) {
		c.give(a, heir, Announces)
		return true
	}
	return false
}

// fails reports whether the node is no place for an address without anybody's wish.
func (v Verdict) fails() bool {
	return v == NotReady || v == SpeakerAway || v == Leaving || v == NotForwarding || v == NoInterface
}

// Move counts the addresses on the LAN that went from one node to another because
// the former failed or is about to stop.
type Move struct {
	From, To string
	// Verdict on From.
	Verdict Verdict
	// TakenOver means that To took the addresses over before any plan said so.
	TakenOver bool
	Addresses int
}

// Why says why the addresses moved, for a message about From.
func (m *Move) Why() string {
	if m.TakenOver {
		return "nodes that stood by did not hear it any more, and took them over"
	}
	return explanations[m.Verdict]
}

// movesOf counts what moves between the same nodes for the same reason.
func (c *computation) movesOf(addresses []*Address) []Move {
	count := make(map[Move]int)
	for _, a := range addresses {
		o, from := a.Layer2, a.address.before.owner()
		i, known := c.indexes[from]
		if !known || o.owner < 0 || o.owner == i {
			continue
		}
		if m := (Move{From: from, To: o.Owner(), Verdict: o.standing.verdict(i), TakenOver: o.taken}); m.TakenOver || m.Verdict.fails() {
			count[m]++
		}
	}
	var moves []Move
	for m, n := range count {
		m.Addresses = n
		moves = append(moves, m)
	}
	slices.SortFunc(moves, func(x, y Move) int {
		return cmp.Or(cmp.Compare(x.From, y.From), compareBool(x.TakenOver, y.TakenOver), cmp.Compare(x.Verdict, y.Verdict), cmp.Compare(x.To, y.To))
	})
	return moves
}
