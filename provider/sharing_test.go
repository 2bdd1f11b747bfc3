package baremetal

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/ipam"
)

func keyed(key string) func(*corev1.Service) {
	return func(s *corev1.Service) {
		metav1.SetMetaDataAnnotation(&s.ObjectMeta, v1alpha1.ServiceShareKey, key)
	}
}

func onPort(port int32) func(*corev1.Service) {
	return func(s *corev1.Service) {
		s.Spec.Ports = []corev1.ServicePort{{Port: port, Protocol: corev1.ProtocolTCP}}
	}
}

func localTo(app string) func(*corev1.Service) {
	return func(s *corev1.Service) {
		s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
		s.Spec.Selector = map[string]string{"app": app}
	}
}

// sharers are a harness with a pool, in which the first Service has 203.0.113.7.
func sharers(t *testing.T, services ...*corev1.Service) *harness {
	t.Helper()
	h := newHarness(t, Options{}, services...)
	h.pools.Add(lanPool("203.0.113.7-203.0.113.9"))
	h.begin()
	if got, err := h.ensure(services[0].Name); err != nil || got != "203.0.113.7" {
		t.Fatalf("%s has %s (%v)", services[0].Name, got, err)
	}
	return h
}

// edit changes a Service as its user does, and has upstream look at it.
func (h *harness) edit(service *corev1.Service) {
	h.t.Helper()
	h.update(service)
	h.eventually("the edit is cached", func() bool {
		cached, err := h.Services().Lister().Services("default").Get(service.Name)
		return err == nil && cached.ResourceVersion == service.ResourceVersion
	})
	_, _ = h.ensure(service.Name) // a refusal is what some edits lead to
}

func TestWhoWaitsForATermIsServedWhenItChanges(t *testing.T) {
	address := recording("203.0.113.7")
	for name, pair := range map[string][3]*corev1.Service{
		"the key is made equal": {
			loadBalancer("a", onPort(80)),
			loadBalancer("b", onPort(443), keyed("k"), requesting("203.0.113.7")),
			loadBalancer("a", onPort(80), keyed("k"), address),
		},
		"the port is given up": {
			loadBalancer("a", onPort(80), keyed("k")),
			loadBalancer("b", onPort(80), keyed("k"), requesting("203.0.113.7")),
			loadBalancer("a", onPort(81), keyed("k"), address),
		},
		"the selector is made equal": {
			loadBalancer("a", onPort(80), keyed("k"), localTo("x")),
			loadBalancer("b", onPort(81), keyed("k"), localTo("y"), requesting("203.0.113.7")),
			loadBalancer("a", onPort(80), keyed("k"), localTo("y"), address),
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := sharers(t, pair[0], pair[1])
			if got, err := h.ensure("b"); err == nil {
				t.Fatalf("b shares %s", got)
			}
			h.edit(pair[2])
			h.handedBack("b")
			if got, err := h.ensure("b"); err != nil || got != "203.0.113.7" {
				t.Errorf("b has %s (%v)", got, err)
			}
		})
	}
}

// TestSelectorCountsAtOnce though upstream does not look at selectors: else an old one
// would let others in, and drive out the Service that was there.
func TestSelectorCountsAtOnce(t *testing.T) {
	h := sharers(t, loadBalancer("a", onPort(80), keyed("k"), localTo("x")),
		loadBalancer("b", onPort(81), keyed("k"), localTo("x"), requesting("203.0.113.7")))
	h.update(loadBalancer("a", onPort(80), keyed("k"), localTo("y"), recording("203.0.113.7")))
	claim, err := ipam.NewClaim(loadBalancer("b", onPort(81), keyed("k"), localTo("x"), requesting("203.0.113.7")), nil)
	if err != nil {
		t.Fatal(err)
	}
	h.eventually("the new selector counts", func() bool { return h.balancer.allocator.Explain(&claim) != nil })
	if got, err := h.ensure("b"); err == nil {
		t.Errorf("b shares %s", got)
	}
	if got := h.holds("a"); got != "[203.0.113.7]" {
		t.Errorf("a has %s", got)
	}
}

// TestMalformedRequestIsNoExcuse for a port that another one has.
func TestMalformedRequestIsNoExcuse(t *testing.T) {
	h := sharers(t, loadBalancer("a", onPort(80), keyed("k")), loadBalancer("b", onPort(81), keyed("k"), requesting("203.0.113.7")))
	if got, err := h.ensure("b"); err != nil || got != "203.0.113.7" {
		t.Fatalf("b has %s (%v)", got, err)
	}
	h.update(loadBalancer("a", onPort(81), keyed("k"), requesting("no address"), recording("203.0.113.7")))
	h.eventually("a leaves", func() bool {
		service, err := h.Services().Lister().Services("default").Get("a")
		if err != nil || service.Spec.LoadBalancerIP == "" {
			return false
		}
		status, err := h.balancer.EnsureLoadBalancer(t.Context(), "", service, nil)
		return err == nil && len(status.Ingress) == 0
	})
	if got := h.holds("b"); got != "[203.0.113.7]" {
		t.Errorf("b has %s", got)
	}
}

func TestExternalAddressIsServedWhenAllowed(t *testing.T) {
	external := func(s *corev1.Service) { s.Spec.ExternalIPs = []string{"198.51.100.5"} }
	h := newHarness(t, Options{}, loadBalancer("a", external))
	h.pools.Add(lanPool("203.0.113.7-203.0.113.9"))
	open := &v1alpha1.AddressPool{
		ObjectMeta: metav1.ObjectMeta{Name: "open", UID: "open", Generation: 1},
		Spec:       v1alpha1.AddressPoolSpec{Addresses: []string{"198.51.100.0/28"}, AutoAssign: new(bool)},
	}
	h.pools.Add(open)
	h.begin()
	if got, err := h.ensure("a"); err != nil || got != "203.0.113.7" {
		t.Fatalf("a has %s (%v)", got, err)
	}
	allowed := open.DeepCopy()
	allowed.Generation, allowed.Spec.AllowExternalIPs = 2, true
	h.pools.Modify(allowed)
	h.eventually("a has both", func() bool { return h.holds("a") == "[198.51.100.5 203.0.113.7]" })
}

func TestNobodySharesWithAnotherController(t *testing.T) {
	h := newHarness(t, Options{}, loadBalancer("theirs", onPort(80), keyed("k"), class(theirClass), recording("203.0.113.7")), loadBalancer("ours", onPort(81), keyed("k")))
	h.pools.Add(lanPool("203.0.113.7-203.0.113.9"))
	h.begin()
	if got, err := h.ensure("ours"); err != nil || got == "203.0.113.7" {
		t.Errorf("ours has %s (%v)", got, err)
	}
}
