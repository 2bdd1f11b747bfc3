package baremetal

import (
	"errors"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/ipam"
)

// run adopts what Services have recorded, and then does what changes call for,
// until stop closes.
func (b *balancer) run(stop <-chan struct{}) {
	ctx := wait.ContextForChannel(stop)
	if !cache.WaitFor(ctx, "Services, Nodes, Namespaces and AddressPools", b.synced...) {
		return
	}
	b.step(batch{nodes: true, pools: true})
	b.adopted.Store(true)
	for {
		select {
		case <-stop:
			return
		case <-b.changes.noted:
			b.step(b.changes.take())
		}
	}
}

// step does what a batch of changes calls for. Nothing is lost in between: what
// changes after the caches are read here is in a later batch.
func (b *balancer) step(batch batch) {
	if batch.nodes {
		b.readNodes()
	}
	if batch.pools {
		b.readPools()
	}
	hope := batch.nodes || batch.pools || batch.namespaces || batch.hope
	for _, change := range batch.services {
		if b.examine(change) {
			hope = true
		}
	}
	b.serve(b.waiting.line(func(uid types.UID) bool {
		_, changed := batch.services[uid]
		return hope || changed
	}))
}

// examine brings the books in line with what the cache shows of a Service, and
// its status with the books. It reports whether an address became free.
func (b *balancer) examine(change change) (freed bool) {
	name := cache.NewObjectName(change.owner.Namespace, change.owner.Name)
	service, err := b.services.Services(name.Namespace).Get(name.Name)
	switch {
	case err != nil:
		b.writes.forget(name)
		return b.forget(change.owner)
	case service.UID != change.owner.UID:
		return b.forget(change.owner)
	case !b.writes.shownBy(service):
		b.changes.postpone(change)
		return false
	case !b.classes.ours(service):
		b.waiting.drop(service.UID)
		return b.allocator.Follow(ipam.RecordOf(service))
	}
	record := ipam.RecordOf(service)
	hope := false
	if b.wants(service) {
		// Upstream does not look at all that sharing depends on (the selector). And
		// where the status is mistaken somebody else wrote it: a deposed leader, or
		// a user.
		leaves, newTerms := b.allocator.Retell(record)
		if leaves || change.status && b.allocator.Mistaken(record) {
			b.view.Requeue(service)
		}
		hope = newTerms
	}
	return b.allocator.Observe(record.UID, record.Addresses) || hope
}

// serve gives addresses to waiting Services, in their order, and hands those that
// got one to upstream, which writes their status. The others hear nothing: a
// thousand that wait for one address cost no write.
func (b *balancer) serve(line []ipam.Owner) {
	for _, owner := range line {
		service, err := b.services.Services(owner.Namespace).Get(owner.Name)
		if err != nil || service.UID != owner.UID {
			b.waiting.drop(owner.UID)
			continue
		}
		if !b.wants(service) {
			continue
		}
		had := b.allocator.Addresses(owner.UID)
		assignment, err := b.assign(service)
		if errors.Is(err, errGone) {
			continue
		}
		if err == nil && !slices.Equal(had, assignment.Addresses) {
			b.view.Requeue(service)
		}
	}
}

// readNodes tells the allocator which addresses are nodes' own. Listing from a
// cache cannot fail.
func (b *balancer) readNodes() {
	nodes, _ := b.nodes.List(labels.Everything())
	b.allocator.SetNodes(ipam.NodeAddresses(nodes))
	b.allocator.SetReported(ipam.ReportedAddresses(nodes...))
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
	for _, conflict := range b.allocator.SetPools(pools, b.records()) {
		klog.InfoS("Two Services record one address", "conflict", conflict)
	}
}

// records are what all Services have recorded, those of other controllers last.
func (b *balancer) records() []ipam.Record {
	services, _ := b.services.List(labels.Everything())
	var ours, others []*corev1.Service
	for _, service := range services {
		if b.classes.ours(service) {
			ours = append(ours, service)
		} else {
			others = append(others, service)
		}
	}
	records := ipam.Records(ours)
	for _, record := range ipam.Records(others) {
		record.Foreign = true
		records = append(records, record)
	}
	return records
}
