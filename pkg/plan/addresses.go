package plan

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/ipam"
)

// service is a Service that wants a load balancer from us, with what a plan reads
// of it. It is read once: to go through ten thousand objects takes its time.
type service struct {
	*corev1.Service
	key       serviceKey
	seniority ipam.Seniority
	// addresses that its status shows, in its order.
	addresses []*address
	// marked means that it was announced by us before, and lacking that it may lack
	// something that it asks for.
	marked, lacking bool
	// settled means that nobody disputed what it shows.
	settled bool
	// local means that it sends traffic to endpoints of the same node only, and
	// healthCheckNodePort is the port that tells of these; else it is 0.
	local               bool
	healthCheckNodePort uint16
	// endpoints are read only where they may matter.
	endpoints endpoints
}

// serviceKey is the namespace and name of a Service.
type serviceKey struct{ namespace, name string }

func newService(object *corev1.Service) service {
	s := service{
		Service:   object,
		key:       serviceKey{object.Namespace, object.Name},
		seniority: ipam.SeniorityOf(object),
		marked:    ipam.Marked(object),
		settled:   ipam.Settled(object),
		lacking:   lacks(object),
	}
	if object.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal {
		s.local, s.healthCheckNodePort = true, uint16(object.Spec.HealthCheckNodePort)
	}
	return s
}

// address is an address that some Service shows: whose it is, and who announces
// it now. Nodes are told by their indexes, ascending.
type address struct {
	netip.Addr
	// at is its index in the book.
	at int
	// pool is the name of the AddressPool that it lies in; empty outside all.
	pool string
	// announcers are the nodes that announce it by BGP now, and candidates those
	// that were told of it for the LAN.
	announcers, candidates []int
	// before is who answers for it on the LAN now.
	before past
	// holder is the Service that it is of, and partners are those that share it
	// with that one, the senior one first.
	holder   *service
	partners []*service
	// leaving are those that shared it until an edit of theirs or of the holder: one
	// of them is about to get another address.
	leaving []*service
	// planned is what the plan says of it, for the holder.
	planned *Address
}

// announced reports whether any node's previous program announces the address.
func (a *address) announced() bool {
	return len(a.announcers) > 0 || a.before.layer2 != nil
}

// addressBook holds the addresses that Services show, each of them once.
type addressBook struct {
	entries map[netip.Addr]*address
	sorted  []*address
	room    slab[address]
}

// readServices reads the Services, and tells which pool their addresses are in.
// The book has also the addresses of Services that are not ours, or on their way
// out.
func readServices(state *State, pools *ipam.Pools) ([]*service, *addressBook) {
	book := &addressBook{
		entries: make(map[netip.Addr]*address, len(state.Services)),
		sorted:  make([]*address, 0, len(state.Services)),
	}
	services := make([]*service, 0, len(state.Services))
	var room slab[service]
	var lists slab[*address]
	for _, object := range state.Services {
		addresses := lists.slice(len(object.Status.LoadBalancer.Ingress))[:0]
		for _, ingress := range object.Status.LoadBalancer.Ingress {
			if addr, err := parseAddr(ingress.IP); err == nil {
				addresses = append(addresses, book.enter(addr))
			}
		}
		if state.Serves(object) {
			s := room.next()
			*s = newService(object)
			s.addresses = addresses
			services = append(services, s)
		}
	}
	slices.SortFunc(book.sorted, func(a, b *address) int { return a.Compare(b.Addr) })
	for k, a := range book.sorted {
		a.at = k
		a.pool, _ = pools.Of(a.Addr)
	}
	return services, book
}

func (b *addressBook) enter(addr netip.Addr) *address {
	a := b.entries[addr]
	if a == nil {
		a = b.room.next()
		a.Addr = addr
		b.entries[addr] = a
		b.sorted = append(b.sorted, a)
	}
	return a
}
