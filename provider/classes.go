package baremetal

import (
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/ipam"
)

// classes tells which Services are ours. It is safe for concurrent use.
//
// A Service of type LoadBalancer says so by its class, which cannot change while
// it is of that type. When the type changes, the API server drops the class, and
// the clean-up that is due then must be done by the one whose it was: so classes
// remembers.
type classes struct {
	Options

	mu  sync.RWMutex
	was map[types.UID]bool
}

func newClasses(options Options) *classes {
	return &classes{Options: options, was: map[types.UID]bool{}}
}

// ours reports whether the Service is, or was before its type changed, ours.
func (c *classes) ours(service *corev1.Service) bool {
	if service.Spec.Type == corev1.ServiceTypeLoadBalancer {
		return c.chosen(service.Spec.LoadBalancerClass)
	}
	c.mu.RLock()
	was, known := c.was[service.UID]
	c.mu.RUnlock()
	if known {
		return was
	}
	// Its type changed while nobody looked. Upstream would take any Service
	// without a class for its own; so do we, where no other controller is to be
	// expected.
	return ipam.Marked(service) || !c.RequireClass
}

func (c *classes) chosen(class *string) bool {
	if class == nil {
		return !c.RequireClass
	}
	return *class == c.LoadBalancerClass
}

// note remembers whose the Service is.
func (c *classes) note(service *corev1.Service) {
	if service.Spec.Type != corev1.ServiceTypeLoadBalancer {
		return
	}
	chosen := c.chosen(service.Spec.LoadBalancerClass)
	c.mu.RLock()
	was, known := c.was[service.UID]
	c.mu.RUnlock()
	if known && was == chosen {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.was[service.UID] = chosen
}

// forget drops what is known of a Service that is gone.
func (c *classes) forget(uid types.UID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.was, uid)
}
