package speaker

import (
	"cmp"
	"fmt"
	"iter"
	"math/big"
	"net/netip"
	"slices"
	"time"

	"go4.org/netipx"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/bgp"
)

// maxPrefixes bounds what a program may expand to: a range of IPv6 addresses is
// easily written and never announced one by one.
const maxPrefixes = 1 << 16

// surroundings are what a program does not say: it is the same on all nodes but
// for these.
type surroundings struct {
	// passwords are those that are known.
	passwords map[announce.SecretKey]string
	// problems are why a Secret could not be read lately, in words.
	problems map[announce.SecretKey]string
	// nextHop6 is the node's IPv6 address on the link towards an IPv4 router,
	// the zero Addr if there is none.
	nextHop6 func(router netip.Addr) netip.Addr
	// stranded names the interface without a carrier that has a session's source
	// address, and so its next hop, while the router is reached through another one;
	// empty if it is not so.
	stranded func(source, router netip.Addr) string
	// held are the peers that were set last, by name. A peer that cannot be had
	// as the program wants it stays as it is here: no mistake in a BGPPeer or a
	// Secret ends a session that works.
	held map[string]bgp.Peer
	// demoted: the node does not forward, so routers are to prefer others.
	demoted bool
	// unfit are the health check ports of Services without an endpoint on the node.
	unfit map[uint16]bool
	// silenced are the peers that are sent nothing; compile finds out.
	silenced map[string]bool
}

// demotes reports whether routers are to prefer other nodes for a group's addresses.
// They are not withdrawn where the node has no endpoint: endpoints that only terminate
// still serve, and kube-proxy's health check does not count them. Where there is no
// other path, nothing is lost.
func (s *surroundings) demotes(g *announce.Group) bool {
	return s.demoted || s.unfit[g.HealthCheckNodePort]
}

// compile turns a program into the state of the BGP announcer. It is pure.
// problems are, by peer, why a session is not held or not as it should be.
func compile(p *announce.Program, s surroundings) (state bgp.State, problems map[string]string, err error) {
	state.RouterID = p.RouterID
	state.Peers, problems = compilePeers(p.Peers, s)
	s.silenced = make(map[string]bool)
	for _, peer := range state.Peers {
		if peer.Source.IsValid() {
			if name := s.stranded(peer.Source, peer.Address); name != "" {
				s.silenced[peer.Name] = true
				problems[peer.Name] = fmt.Sprintf("interface %s, which has the source address, and so the next hop, %v, has no carrier: nothing is announced", name, peer.Source)
			}
		}
		if problems[peer.Name] == "" && needsNextHop6(peer) && !peer.NextHop6.IsValid() && sent6(p.Groups, peer.Name) {
			problems[peer.Name] = fmt.Sprintf("no IPv6 next hop on the interface towards %v: IPv6 addresses are not announced", peer.Address)
		}
	}
	state.Groups, err = compileGroups(p.Groups, s)
	return state, problems, err
}

func needsNextHop6(p bgp.Peer) bool { return p.IPv6 && p.Address.Is4() }

// sent6 reports whether the peer is to be sent an IPv6 prefix.
func sent6(groups []announce.Group, peer string) bool {
	return slices.ContainsFunc(groups, func(g announce.Group) bool {
		return g.BGP != nil && slices.Contains(g.BGP.Peers, peer) &&
			slices.ContainsFunc(g.Addresses, func(r announce.Range) bool { return r.From().Is6() })
	})
}

func compilePeers(peers []announce.Peer, s surroundings) ([]bgp.Peer, map[string]string) {
	var wanted []bgp.Peer
	problems := make(map[string]string)
	for _, p := range peers {
		compiled, problem, usable := compilePeer(p, s)
		if problem != "" {
			problems[p.Name] = problem
		}
		if !usable {
			held, known := s.held[p.Name]
			if !known {
				continue
			}
			compiled = held
		}
		wanted = append(wanted, compiled)
	}
	// One session per address: those that are held at theirs come first.
	slices.SortStableFunc(wanted, func(a, b bgp.Peer) int {
		switch x, y := s.holds(a), s.holds(b); {
		case x && !y:
			return -1
		case y && !x:
			return 1
		}
		return 0
	})
	var out []bgp.Peer
	taken := make(map[netip.Addr]string)
	for _, p := range wanted {
		if other, known := taken[p.Address]; known {
			problems[p.Name] = fmt.Sprintf("peer %q has the same address", other)
			held, known := s.held[p.Name]
			if !known || taken[held.Address] != "" {
				continue
			}
			p = held
		}
		if needsNextHop6(p) {
			p.NextHop6 = s.nextHop6(p.Address)
		}
		taken[p.Address] = p.Name
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b bgp.Peer) int { return cmp.Compare(a.Name, b.Name) })
	return out, problems
}

// holds reports whether the peer of the name is held at that address.
func (s *surroundings) holds(p bgp.Peer) bool {
	held, known := s.held[p.Name]
	return known && held.Address == p.Address
}

// compilePeer is the peer as the program wants it. Without its password, or with
// a setting that is refused, it is not usable.
func compilePeer(p announce.Peer, s surroundings) (out bgp.Peer, problem string, usable bool) {
	out = bgp.Peer{
		Name:         p.Name,
		LocalASN:     p.LocalASN,
		PeerASN:      p.PeerASN,
		Address:      p.Address,
		Port:         p.Port,
		Source:       p.Source,
		HoldTime:     time.Duration(p.HoldTime),
		ConnectRetry: time.Duration(p.ConnectRetry),
		Passive:      p.Passive,
		Multihop:     p.Multihop,
		TTLSecurity:  p.TTLSecurity,
		RestartTime:  time.Duration(p.RestartTime),
		IPv4:         p.IPv4,
		IPv6:         p.IPv6,
	}
	if p.Password != nil {
		problem = s.problems[*p.Password]
		password, known := s.passwords[*p.Password]
		if !known {
			return out, cmp.Or(problem, fmt.Sprintf("Secret %q has not been read yet", p.Password.Name)), false
		}
		out.Password = password
	}
	if err := out.Validate(); err != nil {
		return out, err.Error(), false
	}
	return out, problem, true
}

// compileGroups expands the program's groups into prefixes.
func compileGroups(groups []announce.Group, s surroundings) ([]bgp.Group, error) {
	spans, err := spansOf(groups)
	if err != nil {
		return nil, err
	}
	if overlap(spans) {
		return compileOverlapping(groups, spans, s), nil
	}
	// Each prefix is in one group of the program: the usual case, and the one
	// that has to be cheap, for it is done again for each new address.
	counts := make([]int, len(groups))
	for _, s := range spans {
		counts[s.group] += s.count
	}
	var out []bgp.Group
	at := make([]int, len(groups))    // the program's groups -> index in out
	byKey := make(map[string]int)     // exports -> index in out
	sizes := make([]int, len(groups)) // of out
	for i := range groups {
		if counts[i] == 0 {
			continue
		}
		exports := merge(groups, []int{i}, s)
		key := fmt.Sprint(exports)
		index, known := byKey[key]
		if !known {
			index = len(out)
			out, byKey[key] = append(out, bgp.Group{Exports: exports}), index
		}
		at[i] = index
		sizes[index] += counts[i]
	}
	for i := range out {
		out[i].Prefixes = make([]netip.Prefix, 0, sizes[i])
	}
	for _, s := range spans {
		g := &out[at[s.group]]
		g.Prefixes = slices.AppendSeq(g.Prefixes, s.prefixes())
	}
	return out, nil
}

// span is a row of prefixes of one length, in a group of the program.
type span struct {
	first netip.Prefix
	last  netip.Addr // of the last prefix
	count int
	group int
}

// spansOf are the spans of all groups, ascending. Neighbouring ranges that fold
// into the same prefix make it appear once.
func spansOf(groups []announce.Group) ([]span, error) {
	var out []span
	total := 0
	for i, g := range groups {
		if g.BGP == nil || len(g.BGP.Peers) == 0 {
			continue
		}
		out = slices.Grow(out, len(g.Addresses))
		var before netip.Addr // the last address that is covered
		for _, r := range g.Addresses {
			from := r.From()
			if before.IsValid() && !before.Less(from) {
				if !before.Less(r.To()) {
					continue
				}
				from = before.Next()
			}
			s, err := spanOf(from, r.To(), int(g.BGP.AggregationLength))
			if err != nil {
				return nil, fmt.Errorf("group %d: %w", i, err)
			}
			if total += s.count; total > maxPrefixes {
				return nil, fmt.Errorf("more than %d prefixes", maxPrefixes)
			}
			s.group = i
			out = append(out, s)
			before = s.last
		}
	}
	slices.SortFunc(out, func(a, b span) int {
		return cmp.Or(a.first.Compare(b.first), cmp.Compare(a.group, b.group))
	})
	return out, nil
}

// spanOf is the span of prefixes of a length (0: that of an address) that cover
// the addresses. Its count is that of the prefixes, or some number above
// maxPrefixes.
func spanOf(from, to netip.Addr, length int) (span, error) {
	if length == 0 {
		length = from.BitLen()
	}
	first, err := from.Prefix(length)
	if err != nil {
		return span{}, fmt.Errorf("aggregation length %d of %v: %w", length, from, err)
	}
	end, err := to.Prefix(length)
	if err != nil {
		return span{}, err
	}
	count := 1
	if first != end {
		count += distance(first.Addr(), end.Addr(), length)
	}
	return span{first: first, last: netipx.PrefixLastIP(end), count: count}, nil
}

// distance is how many prefixes of the length b is after a, at most
// maxPrefixes.
func distance(a, b netip.Addr, length int) int {
	x, y := a.As16(), b.As16()
	if a.Is4() {
		length += 96
	}
	diff := new(big.Int).Sub(new(big.Int).SetBytes(y[:]), new(big.Int).SetBytes(x[:]))
	diff.Rsh(diff, uint(128-length))
	if !diff.IsInt64() {
		return maxPrefixes
	}
	return int(min(diff.Int64(), maxPrefixes))
}

// prefixes are those of the span, ascending.
func (s span) prefixes() iter.Seq[netip.Prefix] {
	return func(yield func(netip.Prefix) bool) {
		for p, n := s.first, 1; yield(p) && n < s.count; n++ {
			p = netip.PrefixFrom(netipx.PrefixLastIP(p).Next(), p.Bits())
		}
	}
}

// overlap reports whether spans, which are sorted, share addresses.
func overlap(spans []span) bool {
	for i := 1; i < len(spans); i++ {
		if !spans[i-1].last.Less(spans[i].first.Addr()) {
			return true
		}
	}
	return false
}

// member is a prefix of a group of the program.
type member struct {
	prefix netip.Prefix
	group  int
}

// compileOverlapping groups prefixes anew, where a prefix may be in several
// groups of the program, for some peers each.
func compileOverlapping(groups []announce.Group, spans []span, s surroundings) []bgp.Group {
	var members []member
	for _, row := range spans {
		for p := range row.prefixes() {
			members = append(members, member{p, row.group})
		}
	}
	slices.SortFunc(members, func(a, b member) int {
		return cmp.Or(a.prefix.Compare(b.prefix), cmp.Compare(a.group, b.group))
	})
	var out []bgp.Group
	byKey := make(map[string]int) // exports -> index in out
	for len(members) > 0 {
		n := 1
		for n < len(members) && members[n].prefix == members[0].prefix {
			n++
		}
		var sources []int
		for _, m := range members[:n] {
			sources = append(sources, m.group)
		}
		exports := merge(groups, sources, s)
		key := fmt.Sprint(exports)
		at, known := byKey[key]
		if !known {
			at = len(out)
			out, byKey[key] = append(out, bgp.Group{Exports: exports}), at
		}
		out[at].Prefixes = append(out[at].Prefixes, members[0].prefix)
		members = members[n:]
	}
	return out
}

// merge is how a prefix is announced that is in several groups: a peer that is
// in more than one of them gets the communities of all and the highest local
// preference, and prefers other nodes only if that is right for all.
func merge(groups []announce.Group, sources []int, s surroundings) []bgp.Export {
	byPeer := make(map[string]bgp.Attributes)
	for _, source := range sources {
		b := groups[source].BGP
		for _, peer := range b.Peers {
			if s.silenced[peer] {
				continue
			}
			a, more := byPeer[peer]
			a.Demoted = s.demotes(&groups[source]) && (a.Demoted || !more)
			a.LocalPref = max(a.LocalPref, b.LocalPref)
			a.Communities = append(slices.Clip(a.Communities), b.Communities...)
			a.LargeCommunities = append(slices.Clip(a.LargeCommunities), b.LargeCommunities...)
			byPeer[peer] = a
		}
	}
	byAttributes := make(map[string]*bgp.Export)
	for peer, a := range byPeer {
		slices.Sort(a.Communities)
		a.Communities = slices.Compact(a.Communities)
		slices.SortFunc(a.LargeCommunities, func(x, y announce.LargeCommunity) int { return slices.Compare(x[:], y[:]) })
		a.LargeCommunities = slices.Compact(a.LargeCommunities)
		key := fmt.Sprint(a)
		if byAttributes[key] == nil {
			byAttributes[key] = &bgp.Export{Attributes: a}
		}
		byAttributes[key].Peers = append(byAttributes[key].Peers, peer)
	}
	out := make([]bgp.Export, 0, len(byAttributes))
	for _, e := range byAttributes {
		slices.Sort(e.Peers)
		out = append(out, *e)
	}
	slices.SortFunc(out, func(a, b bgp.Export) int { return cmp.Compare(a.Peers[0], b.Peers[0]) })
	return out
}
