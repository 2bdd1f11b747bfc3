package baremetal

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"
	cloudprovider "k8s.io/cloud-provider"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/ipam"
)

// errNotReady answers while caches fill. Upstream's workers start after that, so
// it is seen only by those who call the provider in another way.
var errNotReady = errors.New("recorded addresses are not read yet")

var _ cloudprovider.LoadBalancer = (*balancer)(nil)

// begin says why upstream must try later: recorded addresses are not adopted, or
// nobody knows what became of its last write.
func (b *balancer) begin(ctx context.Context, service *corev1.Service) error {
	if !b.ready() {
		return errNotReady
	}
	name := cache.MetaObjectToName(service)
	b.writes.answer(name, service.UID)
	return b.writes.settle(ctx, name)
}

// EnsureLoadBalancer gives the Service its addresses. A refusal is an error whose
// text upstream puts into an Event; the Service is served when its cause goes
// away, without waiting for upstream's retry.
//
// On an error upstream leaves the status as it is. Where that shows addresses
// which the Service does not have, a refusal is told here instead, and the answer
// is what it has.
func (b *balancer) EnsureLoadBalancer(ctx context.Context, _ string, service *corev1.Service, _ []*corev1.Node) (*corev1.LoadBalancerStatus, error) {
	if err := b.begin(ctx, service); err != nil {
		return nil, err
	}
	if !b.serves(service) {
		return nil, cloudprovider.ImplementedElsewhere
	}
	assignment, err := b.assign(service)
	if b.waiting.has(service.UID) {
		// The line may have been served before the Service stood in it.
		b.noteService(service, false)
	}
	var refusal *ipam.Refusal
	if errors.As(err, &refusal) && b.allocator.Mistaken(ipam.RecordOf(service)) {
		b.notices.tell(service, refusal)
		return statusOf(b.allocator.Addresses(service.UID)), nil
	}
	if err != nil {
		return nil, err
	}
	return statusOf(assignment.Addresses), nil
}

// UpdateLoadBalancer does nothing: which nodes announce is not decided here.
// Saying so spares an Event per Service whenever a node comes or goes.
func (b *balancer) UpdateLoadBalancer(context.Context, string, *corev1.Service, []*corev1.Node) error {
	return cloudprovider.ImplementedElsewhere
}

// EnsureLoadBalancerDeleted ends the Service's hold on its addresses. They are
// given to others when the API no longer shows them with this Service.
func (b *balancer) EnsureLoadBalancerDeleted(ctx context.Context, _ string, service *corev1.Service) error {
	if err := b.begin(ctx, service); err != nil {
		return err
	}
	b.release(service)
	return nil
}

// GetLoadBalancer reports whether the Service has addresses, by our books or by
// its status. Upstream skips EnsureLoadBalancerDeleted where it is false.
func (b *balancer) GetLoadBalancer(ctx context.Context, _ string, service *corev1.Service) (*corev1.LoadBalancerStatus, bool, error) {
	if err := b.begin(ctx, service); err != nil {
		return nil, false, err
	}
	if addresses := b.allocator.Addresses(service.UID); len(addresses) > 0 {
		return statusOf(addresses), true, nil
	}
	if recorded := ipam.Recorded(service); len(recorded) > 0 {
		return service.Status.LoadBalancer.DeepCopy(), true, nil
	}
	return nil, b.waiting.has(service.UID), nil
}

// GetLoadBalancerName is the namespaced name: addresses need no other name.
func (b *balancer) GetLoadBalancerName(_ context.Context, _ string, service *corev1.Service) string {
	return fmt.Sprintf("%s/%s", service.Namespace, service.Name)
}
