package baremetal

import (
	"context"
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	cloudprovider "k8s.io/cloud-provider"
	servicehelper "k8s.io/cloud-provider/service/helpers"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/ipam"
)

func conditionAnnounced() metav1.Condition {
	return metav1.Condition{Type: v1alpha1.ConditionAnnounced, Status: metav1.ConditionTrue}
}

// ensure is what upstream does with a Service of the View.
func (h *harness) ensure(name string) (string, error) {
	h.t.Helper()
	service, err := h.Services().Lister().Services("default").Get(name)
	if err != nil {
		h.t.Fatal(err)
	}
	status, err := h.balancer.EnsureLoadBalancer(context.Background(), "", service, nil)
	if err != nil {
		return "", err
	}
	if len(status.Ingress) != 1 || status.Ingress[0].IPMode == nil || *status.Ingress[0].IPMode != corev1.LoadBalancerIPModeVIP {
		h.t.Fatalf("status %v; want one address of mode VIP", status)
	}
	return status.Ingress[0].IP, nil
}

func TestColdCachesAnswerWithAnError(t *testing.T) {
	h := newHarness(t, Options{})
	service := loadBalancer("web")
	if _, _, err := h.balancer.GetLoadBalancer(t.Context(), "", service); err == nil {
		t.Error("GetLoadBalancer answers before addresses are adopted: upstream would drop the finalizer")
	}
	if _, err := h.balancer.EnsureLoadBalancer(t.Context(), "", service, nil); err == nil {
		t.Error("EnsureLoadBalancer answers before addresses are adopted")
	}
	if err := h.balancer.EnsureLoadBalancerDeleted(t.Context(), "", service); err == nil {
		t.Error("EnsureLoadBalancerDeleted answers before addresses are adopted")
	}
}

func TestRecordedAddressIsAdopted(t *testing.T) {
	h := newHarness(t, Options{}, loadBalancer("web", recording("203.0.113.7")), loadBalancer("new"), loadBalancer("theirs", class(theirClass), recording("203.0.113.8")))
	h.pools.Add(lanPool("203.0.113.7-203.0.113.9"))
	h.begin()
	for name, want := range map[string]string{"new": "203.0.113.9", "web": "203.0.113.7"} {
		if got, err := h.ensure(name); err != nil || got != want {
			t.Errorf("%s has %s (%v); want %s", name, got, err, want)
		}
	}
}

func TestOthersAreImplementedElsewhere(t *testing.T) {
	h := newHarness(t, Options{RequireClass: true}, loadBalancer("classless")).begin()
	for _, service := range []*corev1.Service{loadBalancer("classless"), loadBalancer("theirs", class(theirClass))} {
		if _, err := h.balancer.EnsureLoadBalancer(t.Context(), "", service, nil); err != cloudprovider.ImplementedElsewhere {
			t.Errorf("%s: error %v; want ImplementedElsewhere, bare", service.Name, err)
		}
	}
	if err := h.balancer.UpdateLoadBalancer(t.Context(), "", loadBalancer("x"), nil); err != cloudprovider.ImplementedElsewhere {
		t.Errorf("UpdateLoadBalancer: %v; want ImplementedElsewhere, bare", err)
	}
	if got := h.balancer.allocator.Addresses("x"); got != nil {
		t.Errorf("UpdateLoadBalancer created %v", got)
	}
}

func TestWaitingServiceIsHandedBack(t *testing.T) {
	h := newHarness(t, Options{}, loadBalancer("web")).begin()
	h.expect("add web:LoadBalancer")
	_, err := h.ensure("web")
	var refusal *ipam.Refusal
	if !errors.As(err, &refusal) || refusal.Reason != ipam.NoPool {
		t.Fatalf("error %v; want %s", err, ipam.NoPool)
	}
	if _, exists, err := h.balancer.GetLoadBalancer(t.Context(), "", loadBalancer("web")); !exists || err != nil {
		t.Errorf("exists %v (%v): a waiting Service must be taken out of the line when it is deleted", exists, err)
	}
	h.pools.Add(lanPool("203.0.113.1"))
	h.expect("add web:LoadBalancer")
	if got, err := h.ensure("web"); err != nil || got != "203.0.113.1" {
		t.Errorf("web has %s (%v)", got, err)
	}
}

// TestOnlyServedServicesAreHandedBack lets many wait for one address: the others
// must not be woken for nothing, first come is first served.
func TestOnlyServedServicesAreHandedBack(t *testing.T) {
	h := newHarness(t, Options{}, loadBalancer("a"), loadBalancer("b"), loadBalancer("c")).begin()
	for range 3 {
		<-h.queue.events
	}
	for _, name := range []string{"c", "a", "b"} {
		if _, err := h.ensure(name); err == nil {
			t.Fatal("no refusal")
		}
	}
	h.pools.Add(lanPool("203.0.113.1"))
	h.expect("add c:LoadBalancer")
	h.pools.Modify(func() *v1alpha1.AddressPool {
		p := lanPool("203.0.113.1-203.0.113.2")
		p.Generation = 2
		return p
	}())
	h.expect("add a:LoadBalancer")
	if line := h.balancer.waiting.line(func(types.UID) bool { return true }); len(line) != 1 || line[0].Name != "b" {
		t.Errorf("waiting are %v; want b alone", line)
	}
}

func TestReleasedAddressIsFreeWhenTheAPIShowsIt(t *testing.T) {
	h := newHarness(t, Options{}, loadBalancer("web", recording("203.0.113.1"), func(s *corev1.Service) {
		s.Finalizers = []string{servicehelper.LoadBalancerCleanupFinalizer}
	}), loadBalancer("next"))
	h.pools.Add(lanPool("203.0.113.1"))
	h.begin()
	if _, err := h.ensure("web"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := h.balancer.EnsureLoadBalancerDeleted(t.Context(), "", loadBalancer("web")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := h.ensure("next"); err == nil {
		t.Error("the address was given out while another Service records it")
	}
	h.delete("web")
	h.eventually("the next has the address", func() bool { return len(h.balancer.allocator.Addresses("next")) == 1 })
}

func TestDeletedServiceLeaksNothing(t *testing.T) {
	h := newHarness(t, Options{})
	h.pools.Add(lanPool("203.0.113.1"))
	h.begin()
	if _, err := h.balancer.assign(loadBalancer("gone")); !errors.Is(err, errGone) {
		t.Errorf("error %v; want %v", err, errGone)
	}
	h.eventually("a Service that is gone has nothing", func() bool { return h.balancer.allocator.Addresses("gone") == nil })
	if _, err := h.balancer.assign(loadBalancer("late", requesting("192.0.2.1"))); !errors.Is(err, errGone) {
		t.Errorf("error %v; want %v", err, errGone)
	}
	h.eventually("a Service that is gone does not wait", func() bool { return !h.balancer.waiting.has("late") })
}
