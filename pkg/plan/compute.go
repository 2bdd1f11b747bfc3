package plan

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
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
		index:      ipam.Compile(s.Pools),
		pools:      make(map[string]*pool),
		former:     make(map[string]*pool),
		texts:      make(map[*announce.BGP]string),
		standings:  make(map[standingKey]*standing),
		lanBuckets: make(map[lanKey]*lanBucket),
	}
	c.settleReadiness()
	c.massNotForwarding = massNotForwarding(c.nodes)
	for i, n := range c.nodes {
		c.indexes[n.object.Name] = i
		for _, mac := range n.lan.macs {
			c.macs[mac] = i
		}
	}
	for _, n := range c.nodes {
		n.hears = c.indexesOf(n.report.Hears)
	}
	c.load = make([]int, len(c.nodes))
	c.segments = newSegments(c.nodes)
	c.services, c.addresses = readServices(s, c.index)
	c.addresses.remember(c.nodes)
	result := &Plan{Peers: resolvePeers(s, c.nodes), addresses: c.addresses.sorted}
	c.resolvePools(result)
	result.Services, result.Moves = c.planServices()
	result.Programs = c.programs()
	result.Next = c.next
	c.countAddresses(result)
	slices.SortFunc(result.Services, func(a, b Service) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return result
}

// computation is the state of one Compute. It tells nodes by their indexes.
type computation struct {
	state     *State
	nodes     []*node
	indexes   map[string]int       // of nodes, by name
	macs      map[announce.MAC]int // indexes of nodes
	index     *ipam.Pools
	pools     map[string]*pool // by name
	former    map[string]*pool // pools of addresses outside all pools
	texts     map[*announce.BGP]string
	services  []*service
	addresses *addressBook
	refusals  *refusals // nil before somebody needs them
	load      []int     // capped addresses on each node; see take
	taken     int       // the sum of them
	company   company
	next      time.Time // when patience with a speaker ends

	room struct {
		addresses slab[Address]
		nextHops  slab[nextHops]
	}

	segments   *segments
	standings  map[standingKey]*standing
	owned      []int          // addresses that each node owns on the LAN
	ownedIn    []int          // the same, by zone
	coverage   map[[2]int]int // addresses of an owner that a node is the first standby of
	lanBuckets map[lanKey]*lanBucket
	// massNotForwarding: so many nodes do not forward that it is no reason to move.
	massNotForwarding bool
}

// lanBucket holds the addresses that the same candidates announce alike.
type lanBucket struct {
	candidates []string
	addresses  []announce.Range
	lans       []*standing // that the addresses are on
}

// planServices plans all Services that want a load balancer from us, in the order
// of their right to an address.
func (c *computation) planServices() ([]Service, []Move) {
	ours := slices.Clone(c.services)
	slices.SortFunc(ours, func(a, b *service) int { return a.seniority.Compare(&b.seniority) })
	ours = slices.DeleteFunc(ours, foreign)
	c.settleHolders(ours)
	c.findEndpoints(ours)

	planned := make([]Service, len(ours))
	for i, s := range ours {
		planned[i] = Service{
			Namespace: s.key.namespace, Name: s.key.name,
			Addresses: c.planAddresses(s),
			Refusal:   c.explain(s),
		}
	}
	return planned, c.assignOwners(planned)
}

// foreign reports whether another load balancer serves the Service: its
// addresses lie outside all pools, and never were announced by us. Such a Service gets
// no condition, for that would make it ours.
func foreign(s *service) bool {
	if s.marked || len(s.Status.LoadBalancer.Ingress) == 0 {
		return false
	}
	return !slices.ContainsFunc(s.addresses, func(a *address) bool { return a.pool != "" || a.announced() })
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

// planAddresses plans the addresses of a Service. Those that it shares were
// planned with the Service that has the first right to them.
func (c *computation) planAddresses(s *service) []Address {
	if len(s.addresses) == 0 {
		return nil
	}
	planned := c.room.addresses.slice(len(s.addresses))
	for i, a := range s.addresses {
		switch {
		case a.planned != nil && (a.holder == s || slices.Contains(a.partners, s) || slices.Contains(a.leaving, s)):
			planned[i] = *a.planned
			planned[i].service, planned[i].shared = s, true
		case a.holder == s:
			planned[i] = c.planAddress(s, a)
			a.planned = &planned[i]
		default:
			planned[i] = Address{Range: announce.Single(a.Addr), Problem: &Problem{string(ipam.AddressConflict),
				fmt.Sprintf("Service %s/%s has it by older right, and the two may not share it; delete one of them", a.holder.Namespace, a.holder.Name)}}
		}
	}
	return planned
}

// planAddress plans an address of the Service that has the first right to it.
func (c *computation) planAddress(s *service, a *address) Address {
	result := Address{Range: announce.Single(a.Addr), Pool: a.pool, service: s, address: a}
	p := c.pools[a.pool]
	if p == nil {
		p = c.formerPool(a)
	}
	if p == nil {
		result.Problem = &Problem{"NotInAnyPool", "no AddressPool holds the address; add it to one"}
		return result
	}
	if len(p.advertisements) == 0 && p.layer2 == nil {
		result.Problem = &Problem{"NoProtocol", "AddressPool " + p.name + " has no protocol or advertisement that works; see its Ready condition"}
		return result
	}
	result.pool = p
	if len(p.advertisements) > 0 {
		result.bgp, result.foldable = c.nextHops(s, a, p)
	}
	if p.layer2 != nil {
		result.Layer2 = &Ownership{standing: c.standing(s, a, p), owner: -1}
	}
	return result
}
