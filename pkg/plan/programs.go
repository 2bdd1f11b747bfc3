package plan

import (
	"cmp"
	"runtime"
	"slices"
	"sync"

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

// groups are those of the i-th node, in the scratch. Some may be announced alike: to
// join them is for Normalize.
func (b *bgpPrograms) groups(i int, n *node, scratch *scratch) []announce.Group {
	g := groups{node: n, all: scratch.groups[:0], attributes: make(map[manner][]*announce.BGP)}
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
	room := slices.Grow(scratch.ranges[:0], len(some))
	for len(some) > 0 {
		k, ranges := some[0].manner, room[len(room):]
		for len(some) > 0 && some[0].manner == k {
			ranges = extend(ranges, announce.Single(some[0].address.Addr))
			some = some[1:]
		}
		room = room[:len(room)+len(ranges)]
		g.add(b.manners[k], slices.Clip(ranges))
	}
	scratch.groups, scratch.ranges = g.all, room
	return g.all
}

// scratch is memory that programs are made in. Most say what the nodes' previous ones
// say, and then the next one is made in the same place.
type scratch struct {
	groups []announce.Group
	ranges []announce.Range
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
	onLAN := make([][]announce.Group, len(c.nodes))
	known := make([]circle, len(c.nodes))
	for i := range known {
		known[i] = make(circle)
	}
	c.lanGroups(onLAN, known)
	all := make([]announce.Program, len(c.nodes))
	for i, n := range c.nodes {
		for other, fellow := range known[i] {
			entry := c.nodes[other].nodeEntry()
			if fellow {
				entry.Links = c.nodes[other].lan.links
			}
			all[i].Nodes = append(all[i].Nodes, entry)
		}
		all[i].Reach = c.reachTargets(n)
	}
	// The rest is the most work, and nodes do not depend on each other in it.
	inParts(len(c.nodes), func(from, to int) {
		var scratch scratch
		for i := from; i < to; i++ {
			groups := append(bgp.groups(i, c.nodes[i], &scratch), onLAN[i]...)
			if c.program(&all[i], c.nodes[i], groups) {
				scratch.groups, scratch.ranges = nil, nil // they are the program's
			}
		}
	})
	programs := make(map[string]announce.Program, len(c.nodes))
	for i, n := range c.nodes {
		programs[n.object.Name] = all[i]
	}
	return programs
}

// program completes the program of the node. It reports whether it keeps the groups,
// for they differ from those of the previous program.
func (c *computation) program(p *announce.Program, n *node, groups []announce.Group) (keeps bool) {
	p.Cluster, p.Groups, p.Peers = c.state.Cluster, groups, n.peers
	if len(p.Peers) > 0 {
		p.RouterID = n.routerID.addr
	}
	p.NormalizeAfter(&n.previous)
	if p.Hash != n.previous.Hash {
		return true
	}
	*p = n.previous
	p.Epoch = 0
	return false
}

// inParts has work done for 0 to n-1, by as many parts as there are processors.
func inParts(n int, work func(from, to int)) {
	parts := max(1, min(runtime.GOMAXPROCS(0), n/smallPart))
	var group sync.WaitGroup
	for k := range parts {
		group.Go(func() { work(n*k/parts, n*(k+1)/parts) })
	}
	group.Wait()
}

// smallPart is how many nodes are not worth another goroutine.
const smallPart = 50
