package baremetal

import (
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/ipam"
)

// watchPools takes AddressPools from the informer, and starts it.
func (b *balancer) watchPools(pools cache.SharedIndexInformer, stop <-chan struct{}) error {
	noteChanged := func() { b.changes.note(func(batch *batch) { batch.pools = true }) }
	_, err := pools.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { noteChanged() },
		UpdateFunc: func(before, now any) {
			if !ipam.Alike(before.(*v1alpha1.AddressPool), now.(*v1alpha1.AddressPool)) {
				noteChanged()
			}
		},
		DeleteFunc: func(any) { noteChanged() },
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
		handler  cache.ResourceEventHandlerFuncs
	}{
		{core.Services().Informer(), b.serviceEvents()},
		{core.Nodes().Informer(), b.nodeEvents()},
		{core.Namespaces().Informer(), b.namespaceEvents()},
	} {
		if _, err := watch.informer.AddEventHandler(watch.handler); err != nil {
			return err
		}
		b.synced = append(b.synced, watch.informer.HasSyncedChecker())
	}
	return nil
}

func (b *balancer) serviceEvents() cache.ResourceEventHandlerFuncs {
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(object any) { b.noteService(object.(*corev1.Service), false) },
		UpdateFunc: func(oldObject, newObject any) {
			before, now := oldObject.(*corev1.Service), newObject.(*corev1.Service)
			if before.ResourceVersion == now.ResourceVersion {
				return
			}
			if before.UID != now.UID {
				b.noteService(before, false)
			}
			b.noteService(now, !slices.Equal(ipam.Recorded(before), ipam.Recorded(now)))
		},
		DeleteFunc: func(object any) {
			if service, ok := deleted(object); ok {
				b.noteService(service, false)
			}
		},
	}
}

func (b *balancer) nodeEvents() cache.ResourceEventHandlerFuncs {
	noteChanged := func() { b.changes.note(func(batch *batch) { batch.nodes = true }) }
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { noteChanged() },
		UpdateFunc: func(before, now any) {
			if !sameAddresses(before.(*corev1.Node), now.(*corev1.Node)) {
				noteChanged()
			}
		},
		DeleteFunc: func(any) { noteChanged() },
	}
}

// sameAddresses reports whether the node has the same addresses still. Reports
// change often, and their interfaces hardly ever.
func sameAddresses(before, now *corev1.Node) bool {
	if !equality.Semantic.DeepEqual(before.Status.Addresses, now.Status.Addresses) {
		return false
	}
	return before.Annotations[v1alpha1.NodeSpeaker] == now.Annotations[v1alpha1.NodeSpeaker] ||
		maps.Equal(ipam.ReportedAddresses(before), ipam.ReportedAddresses(now))
}

func (b *balancer) namespaceEvents() cache.ResourceEventHandlerFuncs {
	noteChanged := func() { b.changes.note(func(batch *batch) { batch.namespaces = true }) }
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { noteChanged() },
		UpdateFunc: func(before, now any) {
			if !maps.Equal(before.(*corev1.Namespace).Labels, now.(*corev1.Namespace).Labels) {
				noteChanged()
			}
		},
	}
}
