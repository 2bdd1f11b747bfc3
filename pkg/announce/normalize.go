package announce

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/netip"
	"slices"

	"go4.org/netipx"
)

// Normalize brings the program into its canonical form: peers by name, groups
// that are announced alike merged, neighbouring addresses joined into ranges,
// everything sorted, and the hash set. Programs of the same meaning become
// deeply equal but for their epochs.
func (p *Program) Normalize() {
	p.Groups = slices.Clone(p.Groups)
	p.sort()
	p.Hash = p.contentHash()
}

// NormalizeAfter is Normalize for a program that probably says the same as a
// previous one, which is normalized: to compare them is much less work than to
// compute the hash. It changes the order of p.Groups in place.
func (p *Program) NormalizeAfter(previous *Program) {
	p.sort()
	if previous.Hash != "" && p.equal(previous) {
		p.Hash = previous.Hash
		return
	}
	p.Hash = p.contentHash()
}

func (p *Program) sort() {
	p.Version = FormatVersion
	slices.SortFunc(p.Peers, func(a, b Peer) int { return cmp.Compare(a.Name, b.Name) })
	p.Reach = sortedSet(p.Reach, netip.Addr.Compare)
	p.Nodes = slices.Clone(p.Nodes)
	slices.SortFunc(p.Nodes, func(a, b Node) int { return cmp.Compare(a.Name, b.Name) })
	for i := range p.Nodes {
		p.Nodes[i].Addresses = sortedSet(p.Nodes[i].Addresses, netip.Addr.Compare)
		p.Nodes[i].MACs = sortedSet(p.Nodes[i].MACs, MAC.Compare)
		p.Nodes[i].Links = sortedLinks(p.Nodes[i].Links)
	}
	p.Groups = merged(p.Groups)
	slices.SortFunc(p.Groups, func(a, b Group) int {
		if c := a.Addresses[0].From().Compare(b.Addresses[0].From()); c != 0 {
			return c
		}
		return cmp.Compare(a.attributes(), b.attributes())
	})
	if len(p.Peers) == 0 {
		p.Peers = nil
	}
	if len(p.Nodes) == 0 {
		p.Nodes = nil
	}
	if len(p.Groups) == 0 {
		p.Groups = nil
	}
}

// merged joins the groups that are announced alike, in any order and in place; those
// without addresses are left out.
func merged(groups []Group) []Group {
	for i := range groups {
		if groups[i].BGP != nil {
			groups[i].BGP = groups[i].BGP.normalized()
		}
	}
	slices.SortFunc(groups, compareAttributes) // the order of equal ones does not show
	merged := groups[:0]
	for i := 0; i < len(groups); {
		g := groups[i]
		for i++; i < len(groups) && compareAttributes(g, groups[i]) == 0; i++ {
			g.Addresses = slices.Concat(g.Addresses, groups[i].Addresses)
		}
		if g.Addresses = joined(g.Addresses); len(g.Addresses) > 0 {
			merged = append(merged, g)
		}
	}
	return merged
}

// joined are the ranges as a set: ascending, with a gap between any two. Ranges
// that are so already are returned as they are.
func joined(ranges []Range) []Range {
	apart := func(a, b Range) bool { return a.To().Less(b.From()) && a.To().Next() != b.From() }
	done := true
	for i, r := range ranges {
		done = done && netipx.IPRange(r).IsValid() && (i == 0 || apart(ranges[i-1], r))
	}
	if done {
		return ranges
	}
	sorted := slices.DeleteFunc(slices.Clone(ranges), func(r Range) bool { return !netipx.IPRange(r).IsValid() })
	slices.SortFunc(sorted, func(a, b Range) int { return a.From().Compare(b.From()) })
	set := sorted[:0]
	for _, r := range sorted {
		if last := len(set) - 1; last >= 0 && !apart(set[last], r) {
			if set[last].To().Less(r.To()) {
				set[last] = Range(netipx.IPRangeFrom(set[last].From(), r.To()))
			}
			continue
		}
		set = append(set, r)
	}
	return set
}

// attributes is the text of everything but the addresses.
func (g Group) attributes() string {
	g.Addresses = nil
	text, _ := json.Marshal(g) // plain values always marshal
	return string(text)
}

// compareAttributes orders groups by everything but their addresses: those that
// are announced alike compare as 0.
func compareAttributes(a, b Group) int {
	if c := cmp.Or(cmp.Compare(a.Pool, b.Pool), cmp.Compare(a.HealthCheckNodePort, b.HealthCheckNodePort)); c != 0 {
		return c
	}
	return cmp.Or(compareBGP(a.BGP, b.BGP), compareLayer2(a.Layer2, b.Layer2))
}

func compareBGP(a, b *BGP) int {
	if a == b || a == nil || b == nil {
		return compareBool(a != b && a != nil, a != b && b != nil)
	}
	return cmp.Or(
		cmp.Compare(a.AggregationLength, b.AggregationLength),
		cmp.Compare(a.LocalPref, b.LocalPref),
		slices.Compare(a.Peers, b.Peers),
		slices.Compare(a.Communities, b.Communities),
		slices.CompareFunc(a.LargeCommunities, b.LargeCommunities, LargeCommunity.compare),
	)
}

func compareLayer2(a, b *Layer2) int {
	if a == b || a == nil || b == nil {
		return compareBool(a != b && a != nil, a != b && b != nil)
	}
	return cmp.Or(
		compareBool(a.Probe, b.Probe),
		cmp.Compare(a.Epoch, b.Epoch),
		slices.Compare(a.Candidates, b.Candidates),
		slices.Compare(a.Interfaces, b.Interfaces),
	)
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

func (c LargeCommunity) compare(other LargeCommunity) int { return slices.Compare(c[:], other[:]) }

// normalized is b itself if it is canonical already.
func (b *BGP) normalized() *BGP {
	if isSet(b.Peers, cmp.Compare) && isSet(b.Communities, cmp.Compare) && isSet(b.LargeCommunities, LargeCommunity.compare) {
		return b
	}
	n := *b
	n.Peers = sortedSet(b.Peers, cmp.Compare)
	n.Communities = sortedSet(b.Communities, cmp.Compare)
	n.LargeCommunities = sortedSet(b.LargeCommunities, LargeCommunity.compare)
	return &n
}

// sortedSet are the values, ascending and each of them once; nil if there are
// none. What is so already is returned as it is.
func sortedSet[T comparable](values []T, compare func(a, b T) int) []T {
	if isSet(values, compare) {
		return values
	}
	if len(values) == 0 {
		return nil
	}
	out := slices.Clone(values)
	slices.SortFunc(out, compare)
	return slices.Compact(out)
}

func isSet[T any](values []T, compare func(a, b T) int) bool {
	for i := 1; i < len(values); i++ {
		if compare(values[i-1], values[i]) >= 0 {
			return false
		}
	}
	return len(values) > 0 || values == nil
}

// equal reports whether two normalized programs say the same: whether their
// hashes would be equal.
func (p *Program) equal(other *Program) bool {
	return p.Version == other.Version && p.Cluster == other.Cluster && p.RouterID == other.RouterID &&
		slices.EqualFunc(p.Peers, other.Peers, Peer.equal) &&
		slices.Equal(p.Reach, other.Reach) &&
		slices.EqualFunc(p.Nodes, other.Nodes, Node.equal) &&
		slices.EqualFunc(p.Groups, other.Groups, Group.equal)
}

func (p Peer) equal(other Peer) bool {
	password, others := p.Password, other.Password
	p.Password, other.Password = nil, nil
	return p == other && (password == others || password != nil && others != nil && *password == *others)
}

func (n Node) equal(other Node) bool {
	return n.Name == other.Name && slices.Equal(n.Addresses, other.Addresses) && slices.Equal(n.MACs, other.MACs) &&
		slices.EqualFunc(n.Links, other.Links, Link.equal)
}

func (l Link) equal(other Link) bool { return l.compare(other) == 0 }

func (l Link) compare(other Link) int {
	return cmp.Or(cmp.Compare(l.Name, other.Name), l.MAC.Compare(other.MAC), slices.CompareFunc(l.Prefixes, other.Prefixes, netip.Prefix.Compare))
}

// sortedLinks are the links in order, each with its prefixes in order; nil if
// there are none.
func sortedLinks(links []Link) []Link {
	if len(links) == 0 {
		return nil
	}
	out := slices.Clone(links)
	for i := range out {
		out[i].Prefixes = sortedSet(out[i].Prefixes, netip.Prefix.Compare)
	}
	slices.SortFunc(out, Link.compare)
	return slices.CompactFunc(out, Link.equal)
}

func (g Group) equal(other Group) bool {
	return compareAttributes(g, other) == 0 && slices.Equal(g.Addresses, other.Addresses)
}

func (p Program) contentHash() string {
	p.Epoch, p.Hash = 0, ""
	text, _ := json.Marshal(p) // plain values always marshal
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}
