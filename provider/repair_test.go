package baremetal

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/ipam"
)

// A Service that waits for an address of one family has the other, and its
// status is as much worth as any.
func TestWaitingServiceIsRepaired(t *testing.T) {
	dual := func(s *corev1.Service) {
		s.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}
		s.Spec.IPFamilyPolicy = ptr.To(corev1.IPFamilyPolicyPreferDualStack)
	}
	h := newHarness(t, Options{}, loadBalancer("web", dual))
	h.pools.Add(lanPool("203.0.113.1"))
	h.begin().handedBack("web")
	if _, err := h.ensure("web"); err != nil {
		t.Fatal(err)
	}
	h.update(loadBalancer("web", dual, recording("203.0.113.1")))
	h.update(loadBalancer("web", dual, recording("203.0.113.99")))
	h.handedBack("web")
	h.update(loadBalancer("web", dual))
	h.handedBack("web")
	if got, err := h.ensure("web"); err != nil || got != "203.0.113.1" {
		t.Errorf("web has %s (%v)", got, err)
	}
}

func TestRefusedServiceIsRepaired(t *testing.T) {
	outside := requesting("192.0.2.1")
	h := newHarness(t, Options{}, loadBalancer("web", recording("203.0.113.1")))
	h.pools.Add(lanPool("203.0.113.1"))
	h.begin().handedBack("web")
	if _, err := h.ensure("web"); err != nil {
		t.Fatal(err)
	}
	edited := loadBalancer("web", outside, recording("203.0.113.1"))
	h.update(edited)
	h.cached(edited)
	if _, err := h.ensure("web"); err == nil {
		t.Fatal("no refusal")
	}
	for _, forged := range []*corev1.Service{loadBalancer("web", outside), loadBalancer("web", outside, recording("203.0.113.99"))} {
		h.update(forged)
		h.handedBack("web")
		if got, err := h.ensure("web"); err != nil || got != "203.0.113.1" {
			t.Errorf("web has %s (%v); want what it had", got, err)
		}
		if event := h.event(); !strings.Contains(event, "Warning NotInAnyPool 192.0.2.1 lies in no AddressPool") {
			t.Errorf("Event %q", event)
		}
	}
}

// cached waits until the cache shows the Service.
func (h *harness) cached(service *corev1.Service) {
	h.t.Helper()
	h.eventually("the cache shows "+service.Name, func() bool {
		cached, err := h.balancer.services.Services(service.Namespace).Get(service.Name)
		return err == nil && cached.ResourceVersion == service.ResourceVersion
	})
}

// A refused Service that has nothing must not go on showing what is another's,
// but what another controller gave it is not ours to clear.
func TestPendingServiceShowsNothingOfOurs(t *testing.T) {
	node := &corev1.Node{Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Address: "192.0.2.9"}}}}
	for recorded, want := range map[string]bool{"203.0.113.1": true, "192.0.2.9": false, "198.51.100.1": false} {
		t.Run(recorded, func(t *testing.T) {
			service := loadBalancer("web", recording(recorded))
			h := newHarness(t, Options{}, loadBalancer("owner", recording("203.0.113.1")))
			h.pools.Add(lanPool("203.0.113.1"))
			if err := h.client.Tracker().Add(node); err != nil {
				t.Fatal(err)
			}
			h.begin()
			h.create(service)
			h.cached(service)
			status, err := h.balancer.EnsureLoadBalancer(t.Context(), "", service, nil)
			if cleared := err == nil && len(status.Ingress) == 0; cleared != want {
				t.Errorf("status %v (%v); cleared: %v, want %v", status, err, cleared, want)
			}
		})
	}
}

func TestUnservedIsToldOncePerChange(t *testing.T) {
	external := func(addresses ...string) func(*corev1.Service) {
		return func(s *corev1.Service) { s.Spec.ExternalIPs = addresses }
	}
	h := newHarness(t, Options{}, loadBalancer("web"))
	h.pools.Add(lanPool("203.0.113.1-203.0.113.3"))
	h.begin()
	for _, step := range []struct {
		service *corev1.Service
		want    string
	}{
		{loadBalancer("web", external("203.0.113.2")), "203.0.113.2"},
		{loadBalancer("web", external("203.0.113.2")), ""},
		{loadBalancer("web", external("203.0.113.3")), "203.0.113.3"},
		{loadBalancer("web"), ""},
		{loadBalancer("web", external("203.0.113.3")), "203.0.113.3"},
	} {
		h.update(step.service)
		h.cached(step.service) // run, too, tells what the cached one lacks
		status, err := h.balancer.EnsureLoadBalancer(t.Context(), "", step.service, nil)
		if err != nil || len(status.Ingress) != 1 || status.Ingress[0].IP != "203.0.113.1" {
			t.Errorf("status %v (%v): the Service's own address must not fail", status, err)
		}
		event := h.event()
		if step.want == "" && event != "" {
			t.Errorf("Event %q; want none", event)
		}
		if step.want != "" && (!strings.HasPrefix(event, "Warning "+string(ipam.PoolForbidden)+" ") || !strings.Contains(event, "spec.externalIPs: "+step.want)) {
			t.Errorf("Event %q; want one about %s", event, step.want)
		}
	}
}

// event is the next Event that was written, or empty.
func (h *harness) event() string {
	select {
	case event := <-h.events.Events:
		return event
	default:
		return ""
	}
}
