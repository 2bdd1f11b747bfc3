package heartbeat

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

// set makes s the state.
func (c *core) set(s State, now time.Time) {
	if len(s.Keys.Current) == 0 {
		s.Fellows = nil // nobody to exchange anything with
	}
	c.state = s
	c.self = idOf(s.Cluster, s.Node)
	c.dirty, c.untold, c.changed, c.news = true, true, true, true

	used, present := make(map[int]bool), make(map[int]bool) // links
	shared := make(map[id]bool)                             // peers
	groups := make([]*group, len(s.Groups))
	for i, g := range s.Groups {
		groups[i] = &group{epoch: g.Epoch, links: g.Links, unfit: g.Unfit, unsure: g.Unsure}
		for _, name := range g.Candidates {
			candidate := idOf(s.Cluster, name)
			groups[i].candidates = append(groups[i].candidates, candidate)
			shared[candidate] = true
		}
		for _, index := range g.Links {
			used[index] = true
		}
	}
	for _, l := range s.Links {
		present[l.Index] = true
		if _, known := c.up[l.Index]; !known {
			c.up[l.Index] = now
		}
		if !used[l.Index] {
			continue
		}
		if c.links[l.Index] == nil {
			c.links[l.Index] = &link{}
		}
		c.links[l.Index].Link = l
	}
	maps.DeleteFunc(c.links, func(index int, _ *link) bool { return !used[index] || !present[index] })
	maps.DeleteFunc(c.up, func(index int, _ time.Time) bool { return !present[index] })
	c.setPeers(shared, now)
	c.setEntries(groups)
}

// setPeers makes an adjacency of each fellow and link on which both have an
// address of the same subnet.
func (c *core) setPeers(shared map[id]bool, now time.Time) {
	peers := make(map[id]*peer)
	byKey := make(map[adjacencyKey]*adjacency)
	for _, f := range c.state.Fellows {
		node := idOf(c.state.Cluster, f.Name)
		if node == c.self || !shared[node] || peers[node] != nil {
			continue
		}
		p := c.peers[node]
		if p == nil {
			p = &peer{id: node, chunks: [][]claimed{nil}}
			if c.tables > 0 {
				p.version = c.newTable() // it may know one of before
			}
		}
		p.name, p.adjacencies = f.Name, nil
		for _, l := range c.links {
			from, to, ok := meet(l, f.Links)
			if !ok {
				continue
			}
			key := adjacencyKey{node, l.Index}
			a := c.byKey[key]
			if a == nil || a.to != to.addr || a.segment != segmentOf(from) {
				a = &adjacency{peer: p, link: l.Index, since: now, seq: p.seq}
			}
			a.segment, a.from, a.to, a.mac = segmentOf(from), from.Addr(), to.addr, to.mac
			byKey[key] = a
			p.adjacencies = append(p.adjacencies, a)
		}
		if len(p.adjacencies) > 0 {
			slices.SortFunc(p.adjacencies, func(a, b *adjacency) int { return cmp.Compare(a.link, b.link) })
			peers[node] = p
		}
	}
	c.peers, c.byKey, c.adjacencies = peers, byKey, nil
	maps.DeleteFunc(c.viewed, func(key viewKey, _ time.Time) bool { return peers[key.of] == nil })
	for _, a := range byKey {
		c.adjacencies = append(c.adjacencies, a)
	}
	slices.SortFunc(c.adjacencies, func(a, b *adjacency) int {
		return cmp.Or(cmp.Compare(a.peer.name, b.peer.name), cmp.Compare(a.link, b.link))
	})
}

type station struct {
	addr netip.Addr
	mac  announce.MAC
}

// meet finds a subnet that both have an address in: of IPv4 if there is one, for
// it needs no duplicate address detection before it works, and on the fellow's
// interface of the same name if that is in it. On an interface without a global
// address it is the link itself, to the fellow's interface of that name.
func meet(own *link, links []announce.Link) (from netip.Prefix, to station, ok bool) {
	global4 := func(p netip.Prefix) bool { return p.Addr().Is4() && !p.Addr().IsLinkLocalUnicast() }
	global6 := func(p netip.Prefix) bool { return p.Addr().Is6() && !p.Addr().IsLinkLocalUnicast() }
	local6 := func(p netip.Prefix) bool { return p.Addr().Is6() }
	for _, pass := range []struct {
		suits    func(netip.Prefix) bool
		anyNames bool
	}{{global4, false}, {global4, true}, {global6, false}, {global6, true}, {local6, false}} {
		for _, mine := range own.Prefixes {
			if !pass.suits(mine) || mine.IsSingleIP() {
				continue
			}
			for _, l := range links {
				if l.Name != own.Name && !pass.anyNames {
					continue
				}
				for _, theirs := range l.Prefixes {
					if theirs.Masked() == mine.Masked() && theirs.Addr() != mine.Addr() {
						return mine, station{theirs.Addr(), l.MAC}, true
					}
				}
			}
		}
	}
	return netip.Prefix{}, station{}, false
}

// segmentOf identifies the LAN by its subnet.
func segmentOf(p netip.Prefix) linkID {
	sum := sha256.Sum256([]byte(p.Masked().String()))
	return linkID(binary.BigEndian.Uint32(sum[:]))
}

// setEntries makes the groups' addresses the entries. What is known of an address
// that stays is kept.
func (c *core) setEntries(groups []*group) {
	entries := make(map[netip.Addr]*entry, len(c.entries))
	c.sorted = c.sorted[:0]
	for i, g := range c.state.Groups {
		if len(groups[i].candidates) == 0 {
			continue
		}
		for _, addr := range g.Addresses {
			if entries[addr] != nil {
				continue
			}
			e := c.entries[addr]
			if e == nil {
				e = &entry{addr: addr}
			}
			e.group = groups[i]
			entries[addr] = e
			if !slices.Contains(e.group.candidates, e.best.owner) {
				e.best = e.group.program()
			}
			c.raise(e, e.group.program())
			c.sorted = append(c.sorted, e)
		}
	}
	c.entries = entries
	slices.SortFunc(c.sorted, func(a, b *entry) int { return a.addr.Compare(b.addr) })
	for _, p := range c.peers {
		c.merge(p, p.claims)
	}
}
