package baremetal

import (
	"errors"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/ipam"
)

// run adopts what Services have recorded, and then keeps pools and nodes up to
// date and serves the line, until stop closes.
func (b *balancer) run(stop <-chan struct{}) {
	ctx := wait.ContextForChannel(stop)
	if !cache.WaitFor(ctx, "Services, Nodes, Namespaces and AddressPools", b.synced...) {
		return
	}
	b.readNodes()
	b.readPools()
	b.adopted.Store(true)
	for {
		select {
		case <-stop:
			return
		case <-b.nodesChanged:
			b.readNodes()
			b.hope()
		case <-b.poolsChanged:
			b.readPools()
			b.hope()
		case <-b.wakeUp:
			b.serveLine()
		}
	}
}

// readNodes tells the allocator which addresses are nodes' own. Listing from a
// cache cannot fail.
func (b *balancer) readNodes() {
	nodes, _ := b.nodes.List(labels.Everything())
	b.allocator.SetNodes(nodeAddresses(nodes))
}

// readPools compiles the pools and adopts what was recorded in them before they
// were pools.
func (b *balancer) readPools() {
	objects := make([]*v1alpha1.AddressPool, 0, len(b.pools.ListKeys()))
	for _, object := range b.pools.List() {
		objects = append(objects, object.(*v1alpha1.AddressPool))
	}
	pools := ipam.Compile(objects)
	for _, name := range pools.Names() {
		pool := pools.Get(name)
		if err := pool.Err(); err != nil {
			klog.ErrorS(err, "AddressPool is malformed and gives out nothing", "addressPool", name)
		}
		for _, conflict := range pool.Conflicts() {
			klog.InfoS("AddressPool overlaps another one", "addressPool", name, "conflict", conflict)
		}
	}
	services, _ := b.services.List(labels.Everything())
	for _, conflict := range b.allocator.SetPools(pools, ipam.Records(services)) {
		klog.InfoS("Two Services record one address", "conflict", conflict)
	}
}

// serveLine gives addresses to waiting Services, first come first served, and
// hands those that got one to upstream, which writes their status. The others
// hear nothing: a thousand that wait for one address cost no write.
func (b *balancer) serveLine() {
	for _, owner := range b.waiting.line() {
		service, err := b.services.Services(owner.Namespace).Get(owner.Name)
		if err != nil || service.UID != owner.UID {
			b.waiting.drop(owner.UID)
			continue
		}
		if service.DeletionTimestamp != nil || !b.classes.ours(service) {
			continue
		}
		_, err = b.assign(service)
		if errors.Is(err, errGone) {
			continue
		}
		if err == nil && !b.isAsAssigned(service) {
			b.view.Requeue(service)
		}
	}
}
