package plan

import (
	"cmp"
	"slices"

	"go4.org/netipx"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

// manner is how an address is announced by BGP, whoever does it.
type manner struct {
	pool                *pool
	is4, foldable       bool
	healthCheckNodePort uint16
}

// bgpPrograms collects who announces which addresses by BGP. Addresses come in
// ascending order.
type bgpPrograms struct {
	indexes map[manner]int
	manners []manner
	// everyone holds what all eligible nodes announce, by manner, and some what only
	// some of them do, by node: in large clusters, few nodes announce an address.
	everyone map[int][]announce.Range
	some     [][]entry
}

// entry is an address in the program of one node.
type entry struct {
	manner  int
	address *address
}

// newBGPPrograms collects what the plan says of the addresses.
func newBGPPrograms(addresses []*address, nodes int) *bgpPrograms {
	b := &bgpPrograms{
		indexes:  make(map[manner]int),
		everyone: make(map[int][]announce.Range),
		some:     make([][]entry, nodes),
	}
	count := make([]int, nodes)
	for _, a := range addresses {
		if a.planned != nil && a.planned.bgp != nil {
			for _, i := range a.planned.bgp.own {
				count[i]++
			}
		}
	}
	for i, n := range count {
		b.some[i] = make([]entry, 0, n)
	}
	for _, a := range addresses {
		if a.planned != nil {
			b.put(a.planned)
		}
	}
	return b
}

// put enters the address into the programs of those that announce it by BGP.
func (b *bgpPrograms) put(a *Address) {
	if a.bgp == nil || !a.bgp.all && len(a.bgp.own) == 0 {
		return
	}
	k := b.index(manner{a.pool, a.address.Is4(), a.foldable, a.service.healthCheckNodePort})
	if a.bgp.all {
		b.everyone[k] = extend(b.everyone[k], a.Range)
	}
	for _, i := range a.bgp.own {
		b.some[i] = append(b.some[i], entry{k, a.address})
	}
}

func (b *bgpPrograms) index(m manner) int {
	k, known := b.indexes[m]
	if !known {
		k = len(b.manners)
		b.indexes[m] = k
		b.manners = append(b.manners, m)
	}
	return k
}

// groups are those of the i-th node. Some may be announced alike: to join them is
// for Normalize.
func (b *bgpPrograms) groups(i int, n *node) []announce.Group {
	g := groups{
		node:       n,
		all:        make([]announce.Group, 0, len(n.previous.Groups)), // most likely as many
		attributes: make(map[manner][]*announce.BGP),
	}
	for k, ranges := range b.everyone {
		m := b.manners[k]
		if contains(m.pool.families[m.is4].eligible, i) {
			g.add(m, ranges)
		}
	}
	some := b.some[i]
	slices.SortFunc(some, func(x, y entry) int {
		return cmp.Or(cmp.Compare(x.manner, y.manner), cmp.Compare(x.address.at, y.address.at))
	})
	room := make([]announce.Range, 0, len(some))
	for len(some) > 0 {
		k, ranges := some[0].manner, room[len(room):]
		for len(some) > 0 && some[0].manner == k {
			ranges = extend(ranges, announce.Single(some[0].address.Addr))
			some = some[1:]
		}
		room = room[:len(room)+len(ranges)]
		g.add(b.manners[k], slices.Clip(ranges))
	}
	return g.all
}

// groups are collected for the program of a node.
type groups struct {
	node *node
	all  []announce.Group
	// attributes by manner without its port: most groups differ in that alone.
	attributes map[manner][]*announce.BGP
}

func (g *groups) add(m manner, addresses []announce.Range) {
	port := m.healthCheckNodePort
	m.healthCheckNodePort = 0
	attributes, known := g.attributes[m]
	if !known {
		attributes = m.pool.attributes(g.node, m.is4, m.foldable)
		g.attributes[m] = attributes
	}
	for _, bgp := range attributes {
		g.all = append(g.all, announce.Group{Pool: m.pool.name, BGP: bgp, HealthCheckNodePort: port, Addresses: addresses})
	}
}

// extend appends a range that lies behind all others.
func extend(ranges []announce.Range, r announce.Range) []announce.Range {
	if last := len(ranges) - 1; last >= 0 && ranges[last].To().Next() == r.From() {
		ranges[last] = announce.Range(netipx.IPRangeFrom(ranges[last].From(), r.To()))
		return ranges
	}
	return append(ranges, r)
}

// programs assembles the nodes' programs, from the addresses that are planned.
func (c *computation) programs() map[string]announce.Program {
	bgp := newBGPPrograms(c.addresses.sorted, len(c.nodes))
	for _, a := range c.addresses.sorted {
		if a.planned != nil {
			c.putOnLAN(a.planned)
		}
	}
	groups := make([][]announce.Group, len(c.nodes))
	for i, n := range c.nodes {
		groups[i] = bgp.groups(i, n)
	}
	known := make([]map[int]bool, len(c.nodes)) // nodes that each program speaks of
	for i := range known {
		known[i] = make(map[int]bool)
	}
	c.lanGroups(groups, known)
	programs := make(map[string]announce.Program, len(c.nodes))
	for i, n := range c.nodes {
		programs[n.object.Name] = c.program(n, groups[i], known[i])
	}
	return programs
}

// program of the node, which speaks of the known nodes.
func (c *computation) program(n *node, groups []announce.Group, known map[int]bool) announce.Program {
	p := announce.Program{Cluster: c.state.Cluster, Reach: c.reachTargets(n), Groups: groups, Peers: n.peers}
	for other := range known {
		p.Nodes = append(p.Nodes, c.nodes[other].nodeEntry())
	}
	if len(p.Peers) > 0 {
		p.RouterID = n.routerID.addr
	}
	p.NormalizeAfter(&n.previous)
	return p
}
