package plan

import (
	"cmp"
	"net/netip"
	"slices"

	"go4.org/netipx"
	corev1 "k8s.io/api/core/v1"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/ipam"
)

// Compute decides who announces what. Equal states give equal plans, whatever
// the order of their objects.
func Compute(s *State) *Plan {
	c := &computation{
		state:   s,
		nodes:   judgeNodes(s),
		pools:   make(map[string]*pool),
		former:  make(map[string]*pool),
		holders: make(map[netip.Addr]string),
		buckets: make(map[bucketKey]*bucket),
	}
	result := &Plan{Peers: resolvePeers(s, c.nodes)}
	c.resolvePools(result)
	result.Services = c.services()
	result.Programs = c.programs()
	c.countAddresses(result)
	slices.SortFunc(result.Services, func(a, b Service) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return result
}

// computation is the state of one Compute.
type computation struct {
	state     *State
	nodes     []*node
	index     *ipam.Pools
	pools     map[string]*pool // by name
	former    map[string]*pool // pools of addresses outside all pools
	endpoints map[serviceKey]map[string]bool
	holders   map[netip.Addr]string // the Service that an address is of
	buckets   map[bucketKey]*bucket
	had       []*netipx.IPSet // what each node announces now; see hadBy
	load      []int           // capped addresses on each node; see cap
}

// bucketKey tells apart the addresses that are announced differently.
type bucketKey struct {
	pool                *pool
	is4, foldable       bool
	healthCheckNodePort uint16
	members             string // bit set over the nodes
}

// bucket holds the addresses that the same nodes announce alike.
type bucket struct {
	members   []bool
	addresses netipx.IPSetBuilder
}

// services plans all Services that want a load balancer from us. Older ones
// come first, for they have the older right to an address.
func (c *computation) services() []Service {
	var ours []*corev1.Service
	wanted := make(map[serviceKey]bool)
	for _, svc := range c.state.Services {
		if !c.state.Serves(svc) {
			continue
		}
		ours = append(ours, svc)
		if c.needsEndpoints(svc) {
			wanted[serviceKey{svc.Namespace, svc.Name}] = true
		}
	}
	slices.SortFunc(ours, func(a, b *corev1.Service) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time),
			cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	c.endpoints = endpointNodes(c.state.EndpointSlices, wanted)

	planned := make([]Service, 0, len(ours))
	for _, svc := range ours {
		if c.foreign(svc) {
			continue
		}
		s := Service{Namespace: svc.Namespace, Name: svc.Name}
		for _, ingress := range svc.Status.LoadBalancer.Ingress {
			if addr, err := parseAddr(ingress.IP); err == nil {
				s.Addresses = append(s.Addresses, c.plan(svc, addr))
			}
		}
		planned = append(planned, s)
	}
	return planned
}

// foreign reports whether another load balancer serves the Service: its
// addresses lie outside all pools, and it never was ours. Such a Service gets
// no condition, for that would make it ours.
func (c *computation) foreign(svc *corev1.Service) bool {
	if len(svc.Status.LoadBalancer.Ingress) == 0 || carriesOurCondition(svc) {
		return false
	}
	for _, ingress := range svc.Status.LoadBalancer.Ingress {
		if addr, err := parseAddr(ingress.IP); err == nil {
			if _, ours := c.index.Of(addr); ours {
				return false
			}
		}
	}
	return true
}

// Serves reports whether a Service wants a load balancer from us and is not on
// its way out.
func (s *State) Serves(svc *corev1.Service) bool {
	if svc.Spec.Type != corev1.ServiceTypeLoadBalancer || svc.DeletionTimestamp != nil {
		return false
	}
	if svc.Spec.LoadBalancerClass == nil {
		return !s.RequireClass
	}
	return *svc.Spec.LoadBalancerClass == s.LoadBalancerClass
}

// needsEndpoints reports whether the endpoints of the Service may matter.
func (c *computation) needsEndpoints(svc *corev1.Service) bool {
	if localTraffic(svc) {
		return true
	}
	for _, p := range c.pools {
		if p.withEndpoints {
			return true
		}
	}
	return false
}

func localTraffic(svc *corev1.Service) bool {
	return svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
}

// plan plans one address of a Service.
func (c *computation) plan(svc *corev1.Service, addr netip.Addr) Address {
	result := Address{Range: announce.Single(addr)}
	id := svc.Namespace + "/" + svc.Name
	if holder, taken := c.holders[addr]; taken {
		result.Problem = &Problem{"AddressConflict", "Service " + holder + " has the address, too, and is older; delete one of the two"}
		return result
	}
	name, _ := c.index.Of(addr)
	p := c.pools[name]
	if p != nil {
		result.Pool = p.name
	} else if p = c.formerPool(addr); p == nil {
		result.Problem = &Problem{"NotInAnyPool", "no AddressPool holds the address; add it to one"}
		return result
	}
	c.holders[addr] = id

	if len(p.advertisements) == 0 {
		result.Problem = &Problem{"NoProtocol", "AddressPool " + p.name + " has no protocol or advertisement that works; see its Ready condition"}
		return result
	}
	choice := c.choose(svc, addr, p)
	result.Nodes = choice.verdicts
	c.put(addr, p, choice, svc)
	return result
}

// carriesOurCondition reports whether we announced the Service before: an
// address outside all pools is ours only then.
func carriesOurCondition(svc *corev1.Service) bool {
	for i := range svc.Status.Conditions {
		if svc.Status.Conditions[i].Type == v1alpha1.ConditionAnnounced {
			return true
		}
	}
	return false
}

// choice is who announces an address.
type choice struct {
	verdicts []NodeVerdict // of all nodes
	kept     []bool        // nodes whose speaker is away and that keep the address; nil if none
	foldable bool
}

// choose judges the nodes for one address.
func (c *computation) choose(svc *corev1.Service, addr netip.Addr, p *pool) choice {
	f := p.family(addr.Is4(), c.nodes)
	local := localTraffic(svc) || p.withEndpoints
	capped := p.maxNextHops > 0 && f.eligible > p.maxNextHops
	if !local && !capped && !f.away && f.eligible > 0 {
		return choice{verdicts: f.verdicts, foldable: true} // shared by all such addresses
	}

	result := choice{verdicts: slices.Clone(f.verdicts), kept: make([]bool, len(c.nodes)), foldable: !local && !capped}
	if local {
		here := c.endpoints[serviceKey{svc.Namespace, svc.Name}]
		for i := range result.verdicts {
			if v := &result.verdicts[i]; (v.Verdict == Announces || v.Verdict == SpeakerAway) && !here[v.Node] {
				v.Verdict = NoEndpoint
			}
		}
	}
	c.cap(result.verdicts, p.maxNextHops, addr)
	for i, v := range result.verdicts {
		result.kept[i] = v.Verdict == SpeakerAway && c.hadBy(i, addr)
	}
	c.keepLast(&result, addr)
	return result
}

// keepLast lets the nodes that announced an address go on when an edit of
// labels or selectors would leave it without any node.
func (c *computation) keepLast(result *choice, addr netip.Addr) {
	for i, v := range result.verdicts {
		// A node without endpoints passed all the rest: there is no mistake.
		if v.Verdict == Announces || v.Verdict == NoEndpoint || result.kept[i] {
			return
		}
	}
	for i := range result.verdicts {
		v := &result.verdicts[i]
		if (v.Verdict == NotSelected || v.Verdict == Excluded) && c.hadBy(i, addr) {
			v.Verdict = Kept
		}
	}
}

// cap turns the eligible nodes beyond the pool's maxNextHops into Surplus ones.
// Nodes that announce the address already stay; the others are those that
// have the fewest capped addresses.
func (c *computation) cap(verdicts []NodeVerdict, most int, addr netip.Addr) {
	var eligible []int
	for i, v := range verdicts {
		if v.Verdict == Announces {
			eligible = append(eligible, i)
		}
	}
	if most == 0 || len(eligible) <= most {
		return
	}
	if c.load == nil {
		c.load = make([]int, len(c.nodes))
	}
	rank := func(i int) int {
		if c.hadBy(i, addr) {
			return -1
		}
		return c.load[i]
	}
	slices.SortStableFunc(eligible, func(a, b int) int { return cmp.Compare(rank(a), rank(b)) })
	for _, i := range eligible[:most] {
		c.load[i]++
	}
	for _, i := range eligible[most:] {
		verdicts[i].Verdict = Surplus
	}
}

// hadBy reports whether the previous program of the i-th node announces addr.
func (c *computation) hadBy(i int, addr netip.Addr) bool {
	if c.had == nil {
		c.had = make([]*netipx.IPSet, len(c.nodes))
	}
	if c.had[i] == nil {
		var all netipx.IPSetBuilder
		for _, g := range c.nodes[i].previous.Groups {
			for _, r := range g.Addresses {
				all.AddRange(netipx.IPRange(r))
			}
		}
		set, err := all.IPSet()
		if err != nil {
			set = &netipx.IPSet{} // an invalid range holds nothing
		}
		c.had[i] = set
	}
	return c.had[i].Contains(addr)
}

// put enters the address into the programs of those that announce it.
func (c *computation) put(addr netip.Addr, p *pool, by choice, svc *corev1.Service) {
	members := make([]bool, len(c.nodes))
	bits := make([]byte, (len(c.nodes)+7)/8)
	none := true
	for i, v := range by.verdicts {
		if v.Verdict.announces() || (by.kept != nil && by.kept[i]) {
			members[i] = true
			bits[i/8] |= 1 << (i % 8)
			none = false
		}
	}
	if none {
		return
	}
	key := bucketKey{pool: p, is4: addr.Is4(), foldable: by.foldable, members: string(bits)}
	if localTraffic(svc) {
		key.healthCheckNodePort = uint16(svc.Spec.HealthCheckNodePort)
	}
	b := c.buckets[key]
	if b == nil {
		b = &bucket{members: members}
		c.buckets[key] = b
	}
	b.addresses.Add(addr)
}

// programs assembles the nodes' programs from the buckets.
func (c *computation) programs() map[string]announce.Program {
	groups := make([][]announce.Group, len(c.nodes))
	for key, b := range c.buckets {
		set, err := b.addresses.IPSet()
		if err != nil {
			continue // single valid addresses make a valid set
		}
		var ranges []announce.Range
		for _, r := range set.Ranges() {
			ranges = append(ranges, announce.Range(r))
		}
		for i, n := range c.nodes {
			if b.members[i] {
				groups[i] = append(groups[i], key.pool.groups(n, key.is4, key.foldable, key.healthCheckNodePort, ranges)...)
			}
		}
	}
	programs := make(map[string]announce.Program, len(c.nodes))
	for i, n := range c.nodes {
		p := announce.Program{Cluster: c.state.Cluster, Groups: groups[i]}
		for _, peer := range n.peers {
			p.Peers = append(p.Peers, peer)
		}
		if len(p.Peers) > 0 {
			p.RouterID = n.routerID.addr
		}
		p.Normalize()
		programs[n.object.Name] = p
	}
	return programs
}
