package baremetal

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	cloudprovider "k8s.io/cloud-provider"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/ipam"
)

// errNotReady answers while caches fill. Upstream's workers start after that, so
// it is seen only by those who call the provider in another way.
var errNotReady = errors.New("recorded addresses are not read yet")

var _ cloudprovider.LoadBalancer = (*balancer)(nil)

// EnsureLoadBalancer gives the Service its addresses. A refusal is an error whose
// text upstream puts into an Event; the Service is served when its cause goes
// away, without waiting for upstream's retry.
func (b *balancer) EnsureLoadBalancer(_ context.Context, _ string, service *corev1.Service, _ []*corev1.Node) (*corev1.LoadBalancerStatus, error) {
	if !b.ready() {
		return nil, errNotReady
	}
	if !b.serves(service) {
		return nil, cloudprovider.ImplementedElsewhere
	}
	assignment, err := b.assign(service)
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
func (b *balancer) EnsureLoadBalancerDeleted(_ context.Context, _ string, service *corev1.Service) error {
	if !b.ready() {
		return errNotReady
	}
	b.release(service)
	return nil
}

// GetLoadBalancer reports whether the Service has addresses, by our books or by
// its status. Upstream skips EnsureLoadBalancerDeleted where it is false.
func (b *balancer) GetLoadBalancer(_ context.Context, _ string, service *corev1.Service) (*corev1.LoadBalancerStatus, bool, error) {
	if !b.ready() {
		return nil, false, errNotReady
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
