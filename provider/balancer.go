package baremetal

import (
	"errors"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/ipam"
)

// errGone answers for a Service that was deleted while it was looked at. Upstream
// tries again and finds it gone.
var errGone = errors.New("the Service is gone")

// balancer joins the caches, the allocator and the line of waiting Services.
// What it does when is a table in the package's comment.
//
// The allocator is the lock: each of its methods is one step. Upstream's workers
// call Assign and Release, and never work on one Service twice at the same time;
// all other steps are run's.
type balancer struct {
	classes   *classes
	allocator *ipam.Allocator
	waiting   *waiting
	changes   *changes
	writes    *writes
	notices   *notices

	services   corelisters.ServiceLister
	nodes      corelisters.NodeLister
	namespaces corelisters.NamespaceLister
	pools      cache.Store
	view       *View
	synced     []cache.DoneChecker

	// adopted is set when recorded addresses are in the allocator. Nothing is
	// assigned before.
	adopted atomic.Bool
}

func newBalancer(classes *classes) *balancer {
	changes := newChanges()
	return &balancer{
		classes:   classes,
		allocator: ipam.NewAllocator(),
		waiting:   newWaiting(),
		changes:   changes,
		writes:    newWrites(changes.wake),
		notices:   newNotices(),
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

// wants reports whether the Service, as the cache has it, is to have addresses
// from us.
func (b *balancer) wants(cached *corev1.Service) bool {
	return cached.Spec.Type == corev1.ServiceTypeLoadBalancer && cached.DeletionTimestamp == nil && b.classes.ours(cached)
}

// assign serves the Service's claim, or puts it into the line. The error is a
// *ipam.Refusal, or errGone.
func (b *balancer) assign(service *corev1.Service) (ipam.Assignment, error) {
	assignment, err := b.tryAssign(service)
	if err != nil || assignment.Missing != nil || assignment.Unclaimed {
		b.waiting.add(ipam.OwnerOf(service))
	} else {
		b.waiting.drop(service.UID)
	}
	if !b.exists(service) {
		// That may have been noticed before it was given an address.
		b.noteService(service, false)
		return ipam.Assignment{}, errGone
	}
	return assignment, err
}

func (b *balancer) tryAssign(service *corev1.Service) (ipam.Assignment, error) {
	claim, err := ipam.NewClaim(service, b.namespaceLabels(service.Namespace))
	if err != nil {
		// What cannot be read of it is no excuse for a port that it took over.
		if b.allocator.Renegotiate(service.UID, ipam.TermsOf(service)) {
			b.noteHope()
		}
		return ipam.Assignment{}, err
	}
	assignment, err := b.allocator.Assign(&claim, nil)
	if assignment.NewTerms {
		b.noteHope()
	}
	b.notices.about(service, b.allocator.Disallowed(&claim), assignment.Missing)
	return assignment, err
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

// release ends the Service's hold. What it had is free when its status no longer
// shows it.
func (b *balancer) release(service *corev1.Service) {
	b.waiting.drop(service.UID)
	b.allocator.Release(service.UID)
	b.noteService(service, false)
}

// forget frees all that a Service had which is gone.
func (b *balancer) forget(owner ipam.Owner) (freed bool) {
	b.waiting.drop(owner.UID)
	b.notices.forget(owner.UID)
	return b.allocator.Forget(owner.UID)
}

// noteService has run examine the Service; status is true when the addresses in
// its status changed.
func (b *balancer) noteService(service *corev1.Service, status bool) {
	b.changes.note(func(batch *batch) {
		batch.service(change{owner: ipam.OwnerOf(service), status: status})
	})
}

// noteHope has run serve those who wait: something changed that may be what they
// wait for.
func (b *balancer) noteHope() {
	b.changes.note(func(batch *batch) { batch.hope = true })
}
