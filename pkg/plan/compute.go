package plan

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

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
		state:      s,
		nodes:      judgeNodes(s),
		indexes:    make(map[string]int),
		macs:       make(map[announce.MAC]int),
		pools:      make(map[string]*pool),
		former:     make(map[string]*pool),
		holders:    make(map[netip.Addr]*corev1.Service),
		partners:   make(map[netip.Addr][]*corev1.Service),
		planned:    make(map[netip.Addr]Address),
		buckets:    make(map[bucketKey]*bucket),
		standings:  make(map[standingKey]*standing),
		lanBuckets: make(map[lanKey]*lanBucket),
	}
	c.settleReadiness()
	for i, n := range c.nodes {
		c.indexes[n.object.Name] = i
		for _, mac := range n.lan.macs {
			c.macs[mac] = i
		}
	}
	c.segments = newSegments(c.nodes)
	c.past = remember(c.nodes, s.addresses())
	result := &Plan{Peers: resolvePeers(s, c.nodes)}
	c.resolvePools(result)
	result.Services = c.services()
	result.Programs = c.programs()
	result.Next = c.next
	c.countAddresses(result)
	slices.SortFunc(result.Services, func(a, b Service) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return result
}

// addresses are those that Services have.
func (s *State) addresses() []netip.Addr {
	var all []netip.Addr
	for _, svc := range s.Services {
		for _, ingress := range svc.Status.LoadBalancer.Ingress {
			if addr, err := parseAddr(ingress.IP); err == nil {
				all = append(all, addr)
			}
		}
	}
	return all
}

// computation is the state of one Compute.
type computation struct {
	state     *State
	nodes     []*node
	indexes   map[string]int       // of nodes, by name
	macs      map[announce.MAC]int // indexes of nodes
	index     *ipam.Pools
	pools     map[string]*pool // by name
	former    map[string]*pool // pools of addresses outside all pools
	endpoints map[serviceKey]map[string]bool
	holders   map[netip.Addr]*corev1.Service   // the Service that an address is of
	partners  map[netip.Addr][]*corev1.Service // those that share it
	planned   map[netip.Addr]Address           // the addresses that are shared, of their holders
	refusals  *refusals                        // nil before somebody needs them
	buckets   map[bucketKey]*bucket
	had       []*netipx.IPSet // what each node announces now; see hadBy
	load      []int           // capped addresses on each node; see limit
	next      time.Time       // when patience with a speaker ends

	segments   *segments
	past       map[netip.Addr]past
	standings  map[standingKey]*standing
	owned      []int          // addresses that each node owns on the LAN
	ownedIn    map[string]int // the same, by zone
	coverage   map[[2]int]int // addresses of an owner that a node is the first standby of
	lanBuckets map[lanKey]*lanBucket
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

// lanBucket holds the addresses that the same candidates announce alike.
type lanBucket struct {
	candidates []string
	fellows    map[int]bool // nodes that the candidates have to know besides
	addresses  netipx.IPSetBuilder
}

// services plans all Services that want a load balancer from us, in the order of
// their right to an address.
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
	ipam.SortBySeniority(ours)
	ours = slices.DeleteFunc(ours, c.foreign)
	c.settleHolders(ours)
	c.endpoints = endpointNodes(c.state.EndpointSlices, wanted)

	planned := make([]Service, 0, len(ours))
	for _, svc := range ours {
		s := Service{Namespace: svc.Namespace, Name: svc.Name, Refusal: c.explain(svc)}
		for _, ingress := range svc.Status.LoadBalancer.Ingress {
			if addr, err := parseAddr(ingress.IP); err == nil {
				s.Addresses = append(s.Addresses, c.plan(svc, addr))
			}
		}
		planned = append(planned, s)
	}
	c.assignOwners(planned)
	for i := range planned {
		for j := range planned[i].Addresses {
			if a := &planned[i].Addresses[j]; !a.shared {
				c.put(a)
				c.putOnLAN(a)
			}
		}
	}
	return planned
}

// foreign reports whether another load balancer serves the Service: its
// addresses lie outside all pools, and never were announced by us. Such a Service gets
// no condition, for that would make it ours.
func (c *computation) foreign(svc *corev1.Service) bool {
	if len(svc.Status.LoadBalancer.Ingress) == 0 || carriesOurCondition(svc) {
		return false
	}
	for _, ingress := range svc.Status.LoadBalancer.Ingress {
		if addr, err := parseAddr(ingress.IP); err == nil {
			if _, ours := c.index.Of(addr); ours || c.hadByAny(addr) {
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
	if first := c.holders[addr]; first != svc {
		if !slices.Contains(c.partners[addr], svc) {
			return Address{Range: announce.Single(addr), Problem: &Problem{string(ipam.AddressConflict),
				fmt.Sprintf("Service %s/%s has it by older right, and the two may not share it; delete one of them", first.Namespace, first.Name)}}
		}
		result := c.planned[addr]
		result.service, result.shared = svc, true
		return result
	}
	result := c.planAlone(svc, addr)
	if len(c.partners[addr]) > 0 {
		c.planned[addr] = result
	}
	return result
}

// planAlone plans an address of the Service that has the first right to it.
func (c *computation) planAlone(svc *corev1.Service, addr netip.Addr) Address {
	result := Address{Range: announce.Single(addr), service: svc}
	name, _ := c.index.Of(addr)
	p := c.pools[name]
	if p != nil {
		result.Pool = p.name
	} else if p = c.formerPool(addr); p == nil {
		result.Problem = &Problem{"NotInAnyPool", "no AddressPool holds the address; add it to one"}
		return result
	}
	if len(p.advertisements) == 0 && p.layer2 == nil {
		result.Problem = &Problem{"NoProtocol", "AddressPool " + p.name + " has no protocol or advertisement that works; see its Ready condition"}
		return result
	}
	result.pool = p
	if len(p.advertisements) > 0 {
		result.BGP, result.foldable = c.nextHops(svc, addr, p)
	}
	if p.layer2 != nil {
		result.Layer2 = &Ownership{standing: c.standing(svc, addr, p), owner: -1}
	}
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

// put enters the address into the programs of those that announce it by BGP.
func (c *computation) put(a *Address) {
	if a.BGP == nil {
		return
	}
	members := make([]bool, len(c.nodes))
	bits := make([]byte, (len(c.nodes)+7)/8)
	none := true
	for i, v := range a.BGP {
		if v.Verdict.inProgram() {
			members[i] = true
			bits[i/8] |= 1 << (i % 8)
			none = false
		}
	}
	if none {
		return
	}
	key := bucketKey{pool: a.pool, is4: a.From().Is4(), foldable: a.foldable, members: string(bits)}
	if localTraffic(a.service) {
		key.healthCheckNodePort = uint16(a.service.Spec.HealthCheckNodePort)
	}
	b := c.buckets[key]
	if b == nil {
		b = &bucket{members: members}
		c.buckets[key] = b
	}
	b.addresses.Add(a.From())
}

func rangesOf(b *netipx.IPSetBuilder) []announce.Range {
	set, err := b.IPSet()
	if err != nil {
		return nil // single valid addresses make a valid set
	}
	var ranges []announce.Range
	for _, r := range set.Ranges() {
		ranges = append(ranges, announce.Range(r))
	}
	return ranges
}

// programs assembles the nodes' programs from the buckets.
func (c *computation) programs() map[string]announce.Program {
	groups := make([][]announce.Group, len(c.nodes))
	for key, b := range c.buckets {
		ranges := rangesOf(&b.addresses)
		for i, n := range c.nodes {
			if b.members[i] {
				groups[i] = append(groups[i], key.pool.groups(n, key.is4, key.foldable, key.healthCheckNodePort, ranges)...)
			}
		}
	}
	known := make([]map[int]bool, len(c.nodes)) // nodes that each program speaks of
	for i := range known {
		known[i] = make(map[int]bool)
	}
	c.lanGroups(groups, known)
	programs := make(map[string]announce.Program, len(c.nodes))
	for i, n := range c.nodes {
		p := announce.Program{Cluster: c.state.Cluster, Reach: c.reachTargets(n), Groups: groups[i]}
		for other := range known[i] {
			p.Nodes = append(p.Nodes, c.nodes[other].nodeEntry())
		}
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
