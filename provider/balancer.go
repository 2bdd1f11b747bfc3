package baremetal

import (
	"errors"
	"net/netip"
	"slices"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/ipam"
)

// errGone answers for a Service that was deleted while it was looked at. Upstream
// tries again and finds it gone.
var errGone = errors.New("the Service is gone")

// balancer joins the caches, the allocator and the line of waiting Services. Its
// methods may be called concurrently.
//
// The allocator is the lock: each of its methods is one step, and the order of
// steps for one Service is upstream's, which never works on one Service twice at
// the same time. What comes from elsewhere (events, the line) is checked against
// the caches after it was done.
type balancer struct {
	classes   *classes
	allocator *ipam.Allocator
	waiting   *waiting

	services   corelisters.ServiceLister
	nodes      corelisters.NodeLister
	namespaces corelisters.NamespaceLister
	pools      cache.Store
	view       *View
	synced     []cache.DoneChecker

	// adopted is set when recorded addresses are in the allocator. Nothing is
	// assigned before.
	adopted atomic.Bool
	// prospects counts what may help waiting Services.
	prospects atomic.Uint64
	// Notes to run. Each channel holds one: several changes at once are one.
	poolsChanged chan struct{}
	nodesChanged chan struct{}
	wakeUp       chan struct{}
}

func newBalancer(classes *classes) *balancer {
	return &balancer{
		classes:      classes,
		allocator:    ipam.NewAllocator(),
		waiting:      newWaiting(),
		poolsChanged: make(chan struct{}, 1),
		nodesChanged: make(chan struct{}, 1),
		wakeUp:       make(chan struct{}, 1),
	}
}

// ready reports whether recorded addresses are adopted.
func (b *balancer) ready() bool { return b.adopted.Load() }

// serves reports whether the Service is ours. Upstream shows Services as the View
// presents them, without a class, so the cache is asked about those.
func (b *balancer) serves(service *corev1.Service) bool {
	if cached, err := b.services.Services(service.Namespace).Get(service.Name); err == nil && cached.UID == service.UID {
		service = cached
	}
	return b.classes.ours(service)
}

// assign serves the Service's claim, or puts it into the line. The error is a
// *ipam.Refusal, or errGone.
func (b *balancer) assign(service *corev1.Service) (ipam.Assignment, error) {
	prospects := b.prospects.Load()
	assignment, err := b.tryAssign(service)
	if err != nil || assignment.Missing != nil {
		b.waiting.add(ipam.OwnerOf(service))
		if b.prospects.Load() != prospects {
			// The line may have been served before the Service stood in it.
			notify(b.wakeUp)
		}
	} else {
		b.waiting.drop(service.UID)
	}
	// Whoever noticed that the Service is gone may have done so before it was
	// given an address, and could not take it back.
	if !b.exists(service) {
		b.forget(service)
		return ipam.Assignment{}, errGone
	}
	return assignment, err
}

func (b *balancer) tryAssign(service *corev1.Service) (ipam.Assignment, error) {
	claim, err := ipam.NewClaim(service, b.namespaceLabels(service.Namespace))
	if err != nil {
		return ipam.Assignment{}, err
	}
	return b.allocator.Assign(claim)
}

func (b *balancer) namespaceLabels(name string) map[string]string {
	namespace, err := b.namespaces.Get(name)
	if err != nil {
		return nil
	}
	return namespace.Labels
}

func (b *balancer) exists(service *corev1.Service) bool {
	cached, err := b.services.Services(service.Namespace).Get(service.Name)
	return err == nil && cached.UID == service.UID
}

// release ends the Service's hold and frees what its status no longer shows.
func (b *balancer) release(service *corev1.Service) {
	b.waiting.drop(service.UID)
	b.allocator.Release(service.UID)
	b.observe(service)
}

// observe frees addresses that the Service has left, when its status, as cached
// now, no longer shows them. An event's own copy may be older than what the last
// assignment was based on.
func (b *balancer) observe(service *corev1.Service) {
	cached, err := b.services.Services(service.Namespace).Get(service.Name)
	if err != nil || cached.UID != service.UID {
		b.forget(service)
		return
	}
	if b.allocator.Observe(cached.UID, ipam.Recorded(cached)) {
		b.hope()
	}
}

// forget frees all that a Service had which is gone.
func (b *balancer) forget(service *corev1.Service) {
	b.waiting.drop(service.UID)
	if b.allocator.Forget(service.UID) {
		b.hope()
	}
}

// hope has the line served again: something changed that may help.
func (b *balancer) hope() {
	b.prospects.Add(1)
	notify(b.wakeUp)
}

// isAsAssigned reports whether the status shows what the Service has.
func (b *balancer) isAsAssigned(service *corev1.Service) bool {
	return slices.Equal(ipam.Recorded(service), b.allocator.Addresses(service.UID))
}

// nodeAddresses are the addresses of all nodes, with the nodes' names.
func nodeAddresses(nodes []*corev1.Node) map[netip.Addr]string {
	addresses := map[netip.Addr]string{}
	for _, node := range nodes {
		for _, address := range node.Status.Addresses {
			if addr, err := netip.ParseAddr(address.Address); err == nil {
				addresses[addr.Unmap().WithZone("")] = node.Name
			}
		}
	}
	return addresses
}

// notify leaves a note in a channel of one element.
func notify(channel chan<- struct{}) {
	select {
	case channel <- struct{}{}:
	default:
	}
}
