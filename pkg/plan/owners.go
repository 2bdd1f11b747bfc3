package plan

import (
	"cmp"
	"iter"
	"net/netip"
	"slices"
	"strings"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

const (
	// maxStandbys is how many nodes stand by for an address.
	maxStandbys = 2
	// maxPartners bounds the nodes that stand by for any address of one owner,
	// so that the adjacencies of a node do not grow with the cluster.
	maxPartners = 3
	// smallLAN is the number of nodes up to which each knows all the others.
	smallLAN = 32
	// maxKnown bounds the nodes that a program speaks of for the sake of the past.
	maxKnown = 64
)

// Ownership is who announces an address on the LAN.
type Ownership struct {
	// Candidates are the names of the owner and, in order, of those that stand
	// by; none if nobody can own the address.
	Candidates []string
	// Conflict is the owner's report that somebody else claims the address.
	Conflict *announce.Conflict
	// Claimant is the node of the cluster that the Conflict's MAC is of; empty
	// if it is of none.
	Claimant string

	// standing of the nodes, shared between addresses: read only. Spare means
	// that the node could own the address.
	standing *standing
	owner    int // index of the node, -1 if there is none
	verdict  Verdict
	taken    bool   // the owner took the address over by itself
	claimed  uint32 // the epoch in which it did
}

// Owner is the name of the owner; empty if there is none.
func (o *Ownership) Owner() string {
	if o == nil || len(o.Candidates) == 0 {
		return ""
	}
	return o.Candidates[0]
}

// Nodes holds a verdict for each node that has or had a speaker, by node name.
func (o *Ownership) Nodes() []NodeVerdict {
	if o == nil {
		return nil
	}
	return slices.Collect(o.verdicts())
}

func (o *Ownership) verdicts() iter.Seq[NodeVerdict] {
	return func(yield func(NodeVerdict) bool) {
		for i, n := range o.standing.verdicts {
			switch {
			case i == o.owner:
				n.Verdict = o.verdict
			case slices.Contains(o.Candidates, n.Node):
				n.Verdict = Standby
			default:
				n.Verdict = o.standing.verdict(i)
			}
			if !yield(n) {
				return
			}
		}
	}
}

// standing is which nodes could own an address.
type standing struct {
	// verdicts are parallel to the nodes, and shared between addresses: read only.
	verdicts []NodeVerdict
	limits   []limit
	spare    []int         // indexes of the nodes that could own it
	lan      *standing     // without limits; it is itself where there are none
	onLink   []int         // spare nodes of the lan, and those that could be but for their state
	partners map[int][]int // of an owner, nil before somebody asks; see partnersOf
}

// limit rules out the nodes that are not among those it is to: few, ascending.
type limit struct {
	to      []int
	verdict Verdict
}

// verdict on the i-th node.
func (s *standing) verdict(i int) Verdict {
	v := s.verdicts[i].Verdict
	if v == Spare || v == SpeakerAway || v == NoReport || v == NotForwarding {
		for _, l := range s.limits {
			if !contains(l.to, i) {
				return l.verdict
			}
		}
	}
	return v
}

// permits reports whether the i-th node has what the Service asks for: there is no
// mistake where its endpoints have gone.
func (s *standing) permits(i int) bool {
	for _, l := range s.limits {
		if l.verdict == NoEndpoint && !contains(l.to, i) {
			return false
		}
	}
	return true
}

// standingKey tells apart the addresses that different nodes could own.
type standingKey struct {
	pool    *pool
	segment string
}

// standing judges the nodes for one address of a Service on the LAN.
func (c *computation) standing(s *service, a *address, p *pool) *standing {
	key := standingKey{p, c.segments.of(a.Addr)}
	all := c.standings[key]
	if all == nil {
		all = c.newStanding(a, p)
		c.standings[key] = all
	}
	var limits []limit
	if a.local() || p.withEndpoints {
		limits = append(limits, limit{a.endpoints(), NoEndpoint})
	}
	if p.former() {
		// Where the pool is gone, nobody knows which other nodes were meant.
		limits = append(limits, limit{c.indexesOf(a.before.layer2.Candidates), NotSelected})
	}
	if len(limits) == 0 {
		return all
	}
	limited := &standing{verdicts: all.verdicts, limits: limits, lan: all}
	for _, i := range limits[0].to {
		if limited.verdict(i) == Spare {
			limited.spare = append(limited.spare, i)
		}
	}
	return limited
}

// newStanding judges the nodes for all addresses of the pool on the same links.
func (c *computation) newStanding(a *address, p *pool) *standing {
	s := &standing{verdicts: make([]NodeVerdict, len(c.nodes))}
	s.lan = s
	for i, n := range c.nodes {
		v, onLink := c.judgeOnLAN(p, n, a.Addr)
		s.verdicts[i] = NodeVerdict{Node: n.object.Name, Verdict: v}
		if v == Spare {
			s.spare = append(s.spare, i)
		}
		if onLink {
			s.onLink = append(s.onLink, i)
		}
	}
	return s
}

// indexesOf are those of the named nodes, ascending.
func (c *computation) indexesOf(names []string) []int {
	var indexes []int
	for _, name := range names {
		if i, known := c.indexes[name]; known {
			indexes = append(indexes, i)
		}
	}
	slices.Sort(indexes)
	return slices.Compact(indexes)
}

// judgeOnLAN is the verdict on a node as a possible owner. onLink says whether it
// has an interface for the address, whatever else there is against it.
func (c *computation) judgeOnLAN(p *pool, n *node, addr netip.Addr) (v Verdict, onLink bool) {
	if p.object != nil && !selects(p.object.Spec.NodeSelector, n.object.Labels) {
		return NotSelected, false
	}
	onLink = n.lan.has(p.selectors(n), addr)
	switch {
	case n.verdict != "":
		return n.verdict, onLink
	case n.report.Leaving:
		return Leaving, onLink
	case c.state.Unwritable[n.object.Name]:
		return Unwritable, onLink
	case n.lan.unknown && n.speaker == speakerAlive:
		return NoReport, false
	case !onLink:
		return NoInterface, false
	case n.notForwarding() && !c.massNotForwarding:
		return NotForwarding, true
	case n.speaker == speakerAway && !n.forgiven:
		return SpeakerAway, true
	}
	return Spare, true
}

// assignOwners decides who owns the addresses: first those that stay with their
// owners or go to those that take over, then, evenly, the others.
func (c *computation) assignOwners(services []Service) (moves []Move) {
	c.owned = make([]int, len(c.nodes))
	c.ownedIn = make([]int, len(c.nodes))
	c.coverage = make(map[[2]int]int)
	var all, open []*Address
	for i := range services {
		for j := range services[i].Addresses {
			a := &services[i].Addresses[j]
			if a.Layer2 == nil || a.shared {
				continue
			}
			all = append(all, a)
			if !c.settleOwner(a) {
				open = append(open, a)
			}
		}
	}
	for _, a := range open {
		c.chooseOwner(a)
	}
	open = open[:0]
	for _, a := range all {
		if a.Layer2.owner >= 0 && !c.keepStandbys(a) {
			open = append(open, a)
		}
	}
	for _, a := range open {
		c.chooseStandbys(a)
	}
	for _, a := range all {
		c.noteConflict(a)
	}
	return c.movesOf(all)
}

// settleOwner decides by what was before. What a node has taken over, the plan
// makes official and never fights.
func (c *computation) settleOwner(a *Address) bool {
	if a.address.before.layer2 == nil {
		return false
	}
	if i, by := c.taker(a); i >= 0 {
		c.give(a, i, Announces)
		a.Layer2.taken = a.Layer2.Owner() != a.address.before.owner()
		a.Layer2.claimed = by.epoch
		return true
	}
	return c.keepOwner(a) || c.inherit(a)
}

// keepOwner leaves the address with its owner, if that can go on.
func (c *computation) keepOwner(a *Address) bool {
	o := a.Layer2
	i, known := c.indexes[a.address.before.owner()]
	if !known {
		return false
	}
	others := len(o.standing.spare) > 0
	switch o.standing.verdict(i) {
	case Spare, NoReport: // the speaker runs; it is about to report
		c.give(a, i, Announces)
	case SpeakerAway:
		// A restart is not noticed; a speaker that stays away is.
		switch {
		case c.heard(a, i):
			c.give(a, i, Heard)
		case others && !c.patientWith(i):
			return false
		default:
			c.give(a, i, Retains)
		}
	case NotReady:
		// Nobody is better, and the control plane may be wrong.
		switch {
		case c.heard(a, i):
			c.give(a, i, Heard)
		case others || !o.standing.permits(i):
			return false
		default:
			c.give(a, i, NotReady)
		}
	case NotForwarding:
		if others {
			return false
		}
		c.give(a, i, Kept)
	case NotSelected, Excluded, NoInterface:
		if others || !c.nodes[i].sound() || !o.standing.permits(i) {
			return false
		}
		c.give(a, i, Kept)
	default:
		return false
	}
	return true
}

// give makes the i-th node the owner.
func (c *computation) give(a *Address, i int, v Verdict) {
	if v == Announces && c.nodes[i].notForwarding() {
		v = Kept // many nodes are like that
	}
	o := a.Layer2
	o.owner, o.verdict = i, v
	o.Candidates = append(make([]string, 0, 1+maxStandbys), c.nodes[i].object.Name)
	c.owned[i]++
	c.ownedIn[c.nodes[i].zone]++
}

// chooseOwner gives the address to the node with the fewest addresses, of those
// that forward if there are any; among equals to one in the zone with the fewest,
// then to one that stood by.
func (c *computation) chooseOwner(a *Address) {
	o := a.Layer2
	if len(o.standing.spare) == 0 {
		return
	}
	var before []string
	if told := a.address.before.layer2; told != nil {
		before = told.Candidates
	}
	rank := func(i int) int {
		if at := slices.Index(before, c.nodes[i].object.Name); at >= 0 {
			return at
		}
		return len(before)
	}
	c.give(a, slices.MinFunc(o.standing.spare, func(x, y int) int {
		return cmp.Or(
			compareBool(c.nodes[x].notForwarding(), c.nodes[y].notForwarding()),
			cmp.Compare(c.owned[x], c.owned[y]),
			cmp.Compare(c.ownedIn[c.nodes[x].zone], c.ownedIn[c.nodes[y].zone]),
			cmp.Compare(rank(x), rank(y)),
			cmp.Compare(x, y))
	}), Announces)
}

// compareBool puts false first.
func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// keepStandbys leaves the standbys of an address as they are, if its owner is
// still the same and all of them, as many as there can be, can go on.
func (c *computation) keepStandbys(a *Address) bool {
	o, before := a.Layer2, a.address.before.layer2
	if before == nil || before.Candidates[0] != o.Owner() {
		return false
	}
	standbys := before.Candidates[1:]
	possible := len(o.standing.spare)
	if contains(o.standing.spare, o.owner) {
		possible--
	}
	if len(standbys) != min(maxStandbys, possible) {
		return false
	}
	partners := o.standing.partnersOf(o.owner, c.nodes)
	for _, name := range standbys {
		if i, known := c.indexes[name]; !known || !slices.Contains(partners, i) {
			return false
		}
	}
	for _, name := range standbys {
		c.standBy(a, c.indexes[name])
	}
	return true
}

// chooseStandbys chooses among the owner's partners, so that each of them is
// the first one equally often: that evens out the load after a failure.
func (c *computation) chooseStandbys(a *Address) {
	o := a.Layer2
	partners := slices.Clone(o.standing.partnersOf(o.owner, c.nodes))
	for range min(maxStandbys, len(partners)) {
		next := slices.MinFunc(partners, func(x, y int) int {
			return cmp.Compare(c.coverage[[2]int{o.owner, x}], c.coverage[[2]int{o.owner, y}])
		})
		c.standBy(a, next)
		partners = slices.DeleteFunc(partners, func(i int) bool { return i == next })
	}
}

func (c *computation) standBy(a *Address, i int) {
	o := a.Layer2
	if len(o.Candidates) == 1 {
		c.coverage[[2]int{o.owner, i}]++
	}
	o.Candidates = append(o.Candidates, c.nodes[i].object.Name)
}

// partnersOf are the nodes that stand by for an owner: the next ones in the
// ring of all that could, those of other zones first.
func (s *standing) partnersOf(owner int, nodes []*node) []int {
	if known, ok := s.partners[owner]; ok {
		return known
	}
	at, _ := slices.BinarySearch(s.spare, owner)
	var near, far []int
	for k := 0; k < len(s.spare) && len(far) < maxPartners; k++ {
		switch i := s.spare[(at+k)%len(s.spare)]; {
		case i == owner:
		case nodes[i].zone != nodes[owner].zone:
			far = append(far, i)
		case len(near) < maxPartners:
			near = append(near, i)
		}
	}
	partners := append(far, near...)
	partners = partners[:min(maxPartners, len(partners))]
	if s.partners == nil {
		s.partners = make(map[int][]int)
	}
	s.partners[owner] = partners
	return partners
}

// noteConflict takes over what the owner reports.
func (c *computation) noteConflict(a *Address) {
	o := a.Layer2
	if o.owner < 0 {
		return
	}
	o.Conflict = c.conflictOn(o.Owner(), a.From()).Conflict
	if o.Conflict == nil {
		return
	}
	if i, ours := c.macs[o.Conflict.MAC]; ours {
		o.Claimant = c.nodes[i].object.Name
	}
}

// reported is the conflict that a node reports, if it does.
type reported struct{ *announce.Conflict }

func (r reported) held() bool { return r.Conflict != nil && r.Held }

// conflictOn is what the named node reports of the address.
func (c *computation) conflictOn(node string, addr netip.Addr) reported {
	i, known := c.indexes[node]
	if !known {
		return reported{}
	}
	conflicts := c.nodes[i].report.Conflicts
	at := slices.IndexFunc(conflicts, func(x announce.Conflict) bool { return x.Address == addr })
	if at < 0 {
		return reported{}
	}
	return reported{&conflicts[at]}
}

// lanKey tells apart the addresses that are announced differently on the LAN.
type lanKey struct {
	pool                *pool
	candidates          string
	probe               bool
	epoch               uint32
	healthCheckNodePort uint16
}

// putOnLAN enters the address into the programs of its candidates.
func (c *computation) putOnLAN(a *Address) {
	o := a.Layer2
	if o == nil || len(o.Candidates) == 0 {
		return
	}
	key := lanKey{
		pool:                a.pool,
		candidates:          strings.Join(o.Candidates, "\n"),
		epoch:               a.address.before.nextEpoch(o.Owner(), o.claimed),
		healthCheckNodePort: a.service.healthCheckNodePort,
	}
	// The first owner asks whether the address is in use; one that takes it
	// over must not wait for that, unless nobody could announce it yet.
	if before := a.address.before.layer2; before == nil {
		key.probe = true
	} else if !o.taken {
		former := before.Candidates[0]
		key.probe = before.Probe && (former == o.Owner() || c.conflictOn(former, a.From()).held())
	}
	b := c.lanBuckets[key]
	if b == nil {
		b = &lanBucket{candidates: o.Candidates}
		c.lanBuckets[key] = b
	}
	b.addresses = extend(b.addresses, a.Range)
	if !slices.Contains(b.lans, o.standing.lan) {
		b.lans = append(b.lans, o.standing.lan)
	}
}

// circle are the nodes that a program speaks of, by index. True are its fellows: those
// that share addresses with its own.
type circle map[int]bool

func (c circle) add(i int, fellow bool) { c[i] = c[i] || fellow }

// lanGroups enters the buckets of the LAN into the nodes' groups, and into known the
// nodes that each program has to speak of.
func (c *computation) lanGroups(groups [][]announce.Group, known []circle) {
	type fellowship struct {
		node int
		lan  *standing
	}
	met := make(map[fellowship]bool)
	for key, b := range c.lanBuckets {
		for _, member := range b.candidates {
			i := c.indexes[member]
			groups[i] = append(groups[i], announce.Group{
				Pool: key.pool.name,
				Layer2: &announce.Layer2{
					Candidates: b.candidates,
					Interfaces: key.pool.selectors(c.nodes[i]),
					Probe:      key.probe,
					Epoch:      key.epoch,
				},
				HealthCheckNodePort: key.healthCheckNodePort,
				Addresses:           b.addresses,
			})
			for _, other := range b.candidates {
				known[i].add(c.indexes[other], other != member)
			}
			for _, lan := range b.lans {
				met[fellowship{i, lan}] = true
			}
		}
	}
	for f := range met {
		// On a small LAN each node knows all others, so that one that is cut off
		// from the API server knows its successor, whoever that is. On a large one it
		// knows those that share its addresses: programs must not change with every
		// node that comes.
		if len(f.lan.onLink) <= smallLAN {
			for _, other := range f.lan.onLink {
				known[f.node].add(other, false)
			}
		}
	}
	for i, n := range c.nodes {
		for _, conflict := range n.report.Conflicts {
			if other, ours := c.macs[conflict.MAC]; ours {
				known[i].add(other, false)
			}
		}
		if len(known[i]) == 0 {
			continue
		}
		// Whom it was told about it goes on to know: it reports their claims no
		// longer, and to forget them would begin that anew.
		for _, other := range n.previous.Nodes {
			if at, exists := c.indexes[other.Name]; exists && len(known[i]) < maxKnown {
				known[i].add(at, false)
			}
		}
	}
}
