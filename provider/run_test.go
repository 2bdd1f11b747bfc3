package baremetal

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	corelisters "k8s.io/client-go/listers/core/v1"
	clienttesting "k8s.io/client-go/testing"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

// listing does something after Services were listed and before the list is used.
type listing struct {
	corelisters.ServiceLister
	then func()
}

func (l listing) List(selector labels.Selector) ([]*corev1.Service, error) {
	services, err := l.ServiceLister.List(selector)
	l.then()
	return services, err
}

// TestDeletionDuringPoolChange deletes a Service between the list of what is
// recorded and its adoption.
func TestDeletionDuringPoolChange(t *testing.T) {
	h := newHarness(t, Options{}, loadBalancer("web", recording("203.0.113.1")))
	services := h.balancer.services
	h.balancer.services = listing{ServiceLister: services, then: func() {
		if len(h.balancer.pools.ListKeys()) == 0 {
			return
		}
		h.delete("web")
		h.eventually("the cache shows that it is gone", func() bool {
			_, err := services.Services("default").Get("web")
			return apierrors.IsNotFound(err)
		})
		time.Sleep(20 * time.Millisecond) // Its event is delivered.
		h.balancer.services = services
	}}
	h.begin()
	h.pools.Add(lanPool("203.0.113.1"))
	h.eventually("the pool is known", func() bool {
		_, err := h.balancer.tryAssign(loadBalancer("probe", requesting("203.0.113.1")))
		return err == nil
	})
}

// TestAdoptionReadsTheLiveList has an API server that answers from a watch cache
// which has not seen the last assignment yet.
func TestAdoptionReadsTheLiveList(t *testing.T) {
	h := newHarness(t, Options{}, loadBalancer("web", recording("203.0.113.1")), loadBalancer("new"))
	h.client.PrependReactor("list", "services", func(action clienttesting.Action) (bool, runtime.Object, error) {
		if action.(clienttesting.ListActionImpl).ListOptions.ResourceVersion != "0" {
			return false, nil, nil
		}
		stale := &corev1.ServiceList{Items: []corev1.Service{*loadBalancer("web"), *loadBalancer("new")}}
		stale.ResourceVersion = "1"
		return true, stale, nil
	})
	h.client.PrependWatchReactor("services", clienttesting.DefaultWatchReactor(watch.NewFake(), nil))
	h.pools.Add(lanPool("203.0.113.1-203.0.113.2"))
	h.begin()
	if got, err := h.ensure("new"); err != nil || got != "203.0.113.2" {
		t.Errorf("new has %s (%v), which the last leader gave to web", got, err)
	}
}

func TestChangesOfOneServiceAreOne(t *testing.T) {
	c := newChanges()
	web := change{status: true}
	web.owner.UID = "web"
	c.note(func(b *batch) { b.service(web) })
	web.status = false
	c.note(func(b *batch) { b.service(web) })
	<-c.noted
	taken := c.take()
	if len(taken.services) != 1 || !taken.services["web"].status {
		t.Errorf("taken %+v; want one change, of the status too", taken)
	}
	c.postpone(taken.services["web"])
	select {
	case <-c.noted:
		t.Error("run is told of what was postponed")
	default:
	}
	if taken = c.take(); !taken.services["web"].status {
		t.Errorf("taken %+v; want what was postponed", taken)
	}
}

// TestReleasedAddressGoesToTheFirstInLine keeps an event of one who waits from passing others.
func TestReleasedAddressGoesToTheFirstInLine(t *testing.T) {
	h := newHarness(t, Options{}, loadBalancer("web"), loadBalancer("a"), loadBalancer("b"))
	h.pools.Add(lanPool("203.0.113.1"))
	h.begin()
	if _, err := h.ensure("web"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"b", "a"} {
		if _, err := h.ensure(name); err == nil {
			t.Fatal("no refusal")
		}
	}
	changed := loadBalancer("a", func(s *corev1.Service) { s.Labels = map[string]string{"x": "y"} })
	h.update(changed)
	h.delete("web")
	h.eventually("b has the address", func() bool { return h.holds("b") == "[203.0.113.1]" })
	h.pools.Modify(func() *v1alpha1.AddressPool {
		pool := lanPool("203.0.113.1-203.0.113.2")
		pool.Generation = 2
		return pool
	}())
	h.eventually("a has the other one", func() bool { return h.holds("a") == "[203.0.113.2]" })
}
