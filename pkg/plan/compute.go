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
	load      []int           // capped addresses on each node; see limit
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
	result.Nodes, result.foldable = c.nextHops(svc, addr, p)
	c.put(addr, p, &result, svc)
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

// put enters the address into the programs of those that announce it.
func (c *computation) put(addr netip.Addr, p *pool, by *Address, svc *corev1.Service) {
	members := make([]bool, len(c.nodes))
	bits := make([]byte, (len(c.nodes)+7)/8)
	none := true
	for i, v := range by.Nodes {
		if v.Verdict.inProgram() {
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
