package baremetal

import (
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/ipam"
)

// watchPools takes AddressPools from the informer, and starts it.
func (b *balancer) watchPools(pools cache.SharedIndexInformer, stop <-chan struct{}) error {
	_, err := pools.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { notify(b.poolsChanged) },
		UpdateFunc: func(before, now any) {
			if !ipam.Alike(before.(*v1alpha1.AddressPool), now.(*v1alpha1.AddressPool)) {
				notify(b.poolsChanged)
			}
		},
		DeleteFunc: func(any) { notify(b.poolsChanged) },
	})
	if err != nil {
		return fmt.Errorf("AddressPools: %w", err)
	}
	b.pools = pools.GetStore()
	b.synced = append(b.synced, pools.HasSyncedChecker())
	go pools.Run(stop)
	return nil
}

// watchCore takes Services, Nodes and Namespaces from the informers. Whoever
// owns the factory starts it.
func (b *balancer) watchCore(core coreinformers.Interface, view *View) error {
	b.view = view
	b.services = core.Services().Lister()
	b.nodes = core.Nodes().Lister()
	b.namespaces = core.Namespaces().Lister()
	for _, watch := range []struct {
		informer cache.SharedIndexInformer
		handler  cache.ResourceEventHandler
	}{
		{core.Services().Informer(), serviceEvents{b}},
		{core.Nodes().Informer(), cache.ResourceEventHandlerFuncs{
			AddFunc: func(any) { notify(b.nodesChanged) },
			UpdateFunc: func(before, now any) {
				if !equality.Semantic.DeepEqual(before.(*corev1.Node).Status.Addresses, now.(*corev1.Node).Status.Addresses) {
					notify(b.nodesChanged)
				}
			},
			DeleteFunc: func(any) { notify(b.nodesChanged) },
		}},
		{core.Namespaces().Informer(), cache.ResourceEventHandlerFuncs{
			AddFunc: func(any) { b.hope() },
			UpdateFunc: func(before, now any) {
				if !maps.Equal(before.(*corev1.Namespace).Labels, now.(*corev1.Namespace).Labels) {
					b.hope()
				}
			},
		}},
	} {
		if _, err := watch.informer.AddEventHandler(watch.handler); err != nil {
			return err
		}
		b.synced = append(b.synced, watch.informer.HasSyncedChecker())
	}
	return nil
}

// serviceEvents watches Services for what upstream does not: that they are gone,
// that their status shows what it should, and that a waiting one changed in a
// way that may help it.
type serviceEvents struct {
	balancer *balancer
}

// OnAdd implements cache.ResourceEventHandler.
func (e serviceEvents) OnAdd(object any, isInInitialList bool) {
	service, ok := object.(*corev1.Service)
	if !ok || isInInitialList || !e.balancer.ready() || e.balancer.classes.ours(service) {
		return
	}
	e.follow(service)
}

// OnUpdate implements cache.ResourceEventHandler.
func (e serviceEvents) OnUpdate(oldObject, newObject any) {
	b := e.balancer
	before, ok := oldObject.(*corev1.Service)
	if !ok {
		return
	}
	now, ok := newObject.(*corev1.Service)
	if !ok || !b.ready() || before.ResourceVersion == now.ResourceVersion {
		return
	}
	if before.UID != now.UID {
		b.forget(before)
	}
	if !b.classes.ours(now) {
		e.follow(now)
		return
	}
	b.observe(now)
	switch {
	case b.waiting.has(now.UID):
		if !maps.Equal(before.Labels, now.Labels) || ptr.Deref(before.Spec.IPFamilyPolicy, "") != ptr.Deref(now.Spec.IPFamilyPolicy, "") {
			notify(b.wakeUp)
		}
	case now.Spec.Type == corev1.ServiceTypeLoadBalancer &&
		!slices.Equal(ipam.Recorded(before), ipam.Recorded(now)) && !b.isAsAssigned(now):
		// Someone else wrote the status: a deposed leader, or a user.
		b.view.Requeue(now)
	}
}

// OnDelete implements cache.ResourceEventHandler.
func (e serviceEvents) OnDelete(object any) {
	if service, ok := deleted(object); ok {
		e.balancer.forget(service)
	}
}

// follow keeps the books of a Service that is not ours.
func (e serviceEvents) follow(service *corev1.Service) {
	e.balancer.waiting.drop(service.UID)
	if e.balancer.allocator.Follow(ipam.RecordOf(service)) {
		e.balancer.hope()
	}
}
