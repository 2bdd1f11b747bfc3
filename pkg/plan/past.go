package plan

import (
	"cmp"
	"math"
	"net/netip"
	"slices"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

// past is who announced an address on the LAN before; layer2 is nil if nobody
// did.
type past struct {
	layer2 *announce.Layer2
	pool   string
	// epoch of the program that says so. Where owners are of the same epoch, newer
	// programs win: after an interruption some nodes have the next plan already.
	epoch int64
	// owns means that it is the program of the owner.
	owns bool
}

func (p past) owner() string {
	if p.layer2 == nil {
		return ""
	}
	return p.layer2.Candidates[0]
}

// supersedes reports whether p is better informed than other: a node that was not
// written since the address moved still has an owner of a lower epoch.
func (p past) supersedes(other past) bool {
	if other.layer2 == nil {
		return true
	}
	if c := cmp.Or(cmp.Compare(p.layer2.Epoch, other.layer2.Epoch), cmp.Compare(p.epoch, other.epoch)); c != 0 {
		return c > 0
	}
	return p.owns
}

// nextEpoch is that of the address if it is the named node's from now on: another
// owner begins another one, and so does one that has claimed it in a greater one. At
// the greatest there is it stays, as on the wire an epoch that begins anew would lose
// against all others.
func (p past) nextEpoch(owner string, claimed uint32) uint32 {
	if p.layer2 == nil {
		return 0
	}
	epoch := max(p.layer2.Epoch, claimed)
	if owner == p.owner() && epoch == p.layer2.Epoch || epoch == math.MaxUint32 {
		return epoch
	}
	return epoch + 1
}

// remember reads from the nodes' previous programs who announces the addresses
// now. It goes by the addresses, not by the ranges: an annotation may be
// malformed, and a range in it span half of the Internet.
func (b *addressBook) remember(nodes []*node) {
	byBGP := make([]mention, 0, countRanges(nodes, announcedByBGP))
	onLAN := make([]mention, 0, countRanges(nodes, announcedOnLAN))
	for i, n := range nodes {
		for j := range n.previous.Groups {
			g := &n.previous.Groups[j]
			switch {
			case announcedByBGP(g):
				byBGP = b.mentions(byBGP, i, g)
			case announcedOnLAN(g):
				first := len(onLAN)
				onLAN = b.mentions(onLAN, i, g)
				entry := past{layer2: g.Layer2, pool: g.Pool, epoch: n.previous.Epoch, owns: g.Layer2.OwnedBy(n.object.Name)}
				for _, m := range onLAN[first:] {
					b.recall(m, entry)
				}
			}
		}
	}
	for k, nodes := range b.nodesOf(byBGP) {
		b.sorted[k].announcers = nodes
	}
	for k, nodes := range b.nodesOf(onLAN) {
		b.sorted[k].candidates = nodes
	}
}

func announcedByBGP(g *announce.Group) bool { return g.BGP != nil }

func announcedOnLAN(g *announce.Group) bool { return g.Layer2 != nil && len(g.Layer2.Candidates) > 0 }

// countRanges counts those of the previous programs' groups that match.
func countRanges(nodes []*node, match func(*announce.Group) bool) (count int) {
	for _, n := range nodes {
		for j := range n.previous.Groups {
			if g := &n.previous.Groups[j]; match(g) {
				count += len(g.Addresses)
			}
		}
	}
	return count
}

// recall notes who announces the mentioned addresses on the LAN.
func (b *addressBook) recall(m mention, entry past) {
	for _, a := range b.sorted[m.from:m.to] {
		if entry.supersedes(a.before) {
			a.before = entry
		}
	}
}

// mention is a range of a node's previous program, as indexes of addresses in the
// book: from is the first one, and to the one after the last.
type mention struct{ node, from, to int32 }

func newMention(node, from, to int) mention { return mention{int32(node), int32(from), int32(to)} }

// mentions appends those ranges of a node's group that hold addresses of the book.
func (b *addressBook) mentions(all []mention, node int, g *announce.Group) []mention {
	for _, r := range g.Addresses {
		if r.From() == r.To() { // most are, and need no search
			if a := b.entries[r.From()]; a != nil {
				all = append(all, newMention(node, a.at, a.at+1))
			}
			continue
		}
		from, _ := slices.BinarySearchFunc(b.sorted, r.From(), func(a *address, addr netip.Addr) int {
			return a.Compare(addr)
		})
		to, _ := slices.BinarySearchFunc(b.sorted, r.To(), func(a *address, addr netip.Addr) int {
			return cmp.Or(a.Compare(addr), -1) // the first one after it
		})
		if from < to {
			all = append(all, newMention(node, from, to))
		}
	}
	return all
}

// nodesOf are the nodes that mention each address of the book, ascending. It goes
// through the addresses once; those that the same ranges hold share a slice.
func (b *addressBook) nodesOf(mentions []mention) [][]int {
	if len(mentions) == 0 {
		return make([][]int, len(b.sorted))
	}
	// Lists of the mentions that begin at each address, by index plus one.
	first, next := make([]int32, len(b.sorted)), make([]int32, len(mentions)+1)
	ending := make([]bool, len(b.sorted)+1)
	for k, m := range mentions {
		first[m.from], next[k+1] = int32(k+1), first[m.from]
		ending[m.to] = true
	}
	nodes := make([][]int, len(b.sorted))
	var here []mention
	for at := range b.sorted {
		if first[at] == 0 && !ending[at] {
			if at > 0 {
				nodes[at] = nodes[at-1]
			}
			continue
		}
		here = slices.DeleteFunc(here, func(m mention) bool { return int(m.to) == at })
		for k := first[at]; k > 0; k = next[k] {
			here = append(here, mentions[k-1])
		}
		nodes[at] = make([]int, len(here))
		for k, m := range here {
			nodes[at][k] = int(m.node)
		}
		slices.Sort(nodes[at])
		nodes[at] = slices.Compact(nodes[at]) // two groups of a node may hold it
	}
	return nodes
}
