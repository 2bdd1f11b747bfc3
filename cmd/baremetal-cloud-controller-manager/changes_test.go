package main

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	servicehelper "k8s.io/cloud-provider/service/helpers"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/plan"
)

// TestChangesOfALiveService changes a Service that has an address in all the ways
// in which people do. Its address moves only where they ask for it.
func TestChangesOfALiveService(t *testing.T) {
	c := newCluster(t)
	c.pool("lan", "203.0.113.0/28", "2001:db8:100::/64")
	c.pool("other", "198.51.100.0/28")
	c.patchPool("other", `{"spec": {"autoAssign": false, "allowExternalIPs": true}}`)
	start(t, c.server)
	c.service("bystander")
	c.has("bystander", "203.0.113.0", soon)
	c.service("web", ofClass(v1alpha1.LoadBalancerClass))
	c.has("web", "203.0.113.1", soon)

	annotation := func(key, value string) string {
		return fmt.Sprintf(`{"metadata": {"annotations": {%q: %s}}}`, key, value)
	}
	for _, step := range []struct{ name, patch, want string }{
		{"ports", `{"spec": {"ports": [{"name": "a", "port": 81}, {"name": "b", "port": 82}]}}`, "203.0.113.1"},
		{"traffic policy", `{"spec": {"externalTrafficPolicy": "Local"}}`, "203.0.113.1"},
		{"selector", `{"spec": {"selector": {"app": "x"}}}`, "203.0.113.1"},
		{"labels", `{"metadata": {"labels": {"app": "x"}}}`, "203.0.113.1"},
		{"request of another", annotation(v1alpha1.ServiceAddresses, `"203.0.113.9"`), "203.0.113.9"},
		{"request removed", annotation(v1alpha1.ServiceAddresses, "null"), "203.0.113.9"},
		{"refused request", annotation(v1alpha1.ServiceAddresses, `"203.0.113.0"`), "203.0.113.9"},
		{"two of a family", annotation(v1alpha1.ServiceAddresses, `"203.0.113.9,203.0.113.10"`), "203.0.113.9,203.0.113.10"},
		{"one of them", annotation(v1alpha1.ServiceAddresses, `"203.0.113.10"`), "203.0.113.10"},
		{"malformed", annotation(v1alpha1.ServiceAddresses, `"203.0.113.10-12"`), "203.0.113.10"},
		{"annotation removed", annotation(v1alpha1.ServiceAddresses, "null"), "203.0.113.10"},
		{"two families", `{"spec": {"ipFamilyPolicy": "PreferDualStack"}}`, "203.0.113.10,2001:db8:100::"},
		{"both required", `{"spec": {"ipFamilyPolicy": "RequireDualStack"}}`, "203.0.113.10,2001:db8:100::"},
		{"one family", `{"spec": {"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"], "clusterIPs": null}}`, "203.0.113.10"},
		{"loadBalancerIP", `{"spec": {"loadBalancerIP": "203.0.113.3"}}`, "203.0.113.3"},
		{"no loadBalancerIP", `{"spec": {"loadBalancerIP": ""}}`, "203.0.113.3"},
		{"another pool", annotation(v1alpha1.ServicePool, `"other"`), "198.51.100.0"},
		{"no pool", annotation(v1alpha1.ServicePool, "null"), "198.51.100.0"},
		{"externalIPs", `{"spec": {"externalIPs": ["198.51.100.5"]}}`, "198.51.100.5"},
		{"no externalIPs", `{"spec": {"externalIPs": []}}`, "198.51.100.5"},
		{"a key that none shares", annotation(v1alpha1.ServiceShareKey, `"k"`), "198.51.100.5"},
		{"source ranges", `{"spec": {"loadBalancerSourceRanges": ["192.0.2.0/24"]}}`, "198.51.100.5"},
	} {
		c.patch("web", step.patch)
		if got := c.settled("web", step.want); got != step.want {
			t.Errorf("%s: has %s; want %s", step.name, got, step.want)
		}
	}
	t.Run("type and back", func(t *testing.T) {
		c.patch("web", `{"spec": {"type": "ClusterIP", "loadBalancerSourceRanges": null}}`)
		eventually(t, soon, "it is let go", func() bool {
			service := c.get("web")
			return !servicehelper.HasLBFinalizer(service) && len(service.Status.LoadBalancer.Ingress) == 0
		})
		c.service("next", requesting("198.51.100.5"))
		c.has("next", "198.51.100.5", soon)
		c.patch("web", `{"spec": {"type": "LoadBalancer"}}`)
		c.has("web", "203.0.113.2", soon)
	})
	t.Run("class", func(t *testing.T) {
		// The API lets the class change only with the type.
		c.patch("web", `{"spec": {"type": "ClusterIP"}}`)
		eventually(t, soon, "it is let go", func() bool { return !servicehelper.HasLBFinalizer(c.get("web")) })
		c.patch("web", `{"spec": {"type": "LoadBalancer", "loadBalancerClass": "example.com/other"}}`)
		time.Sleep(300 * time.Millisecond)
		if service := c.get("web"); servicehelper.HasLBFinalizer(service) || addressesOf(service) != "" {
			t.Errorf("another class: finalizers %v, addresses %s", service.Finalizers, addressesOf(service))
		}
	})
	if got := c.addresses("bystander"); got != "203.0.113.0" {
		t.Errorf("the bystander has %s", got)
	}
}

// settled is what the Service has when it has had the wanted addresses, or others,
// for a while.
func (c *cluster) settled(name, want string) string {
	c.t.Helper()
	const calm = 400 * time.Millisecond
	got, since := c.addresses(name), time.Now()
	for begin := time.Now(); time.Since(begin) < soon; time.Sleep(20 * time.Millisecond) {
		if now := c.addresses(name); now != got {
			got, since = now, time.Now()
		}
		if time.Since(since) > calm && (got == want || time.Since(since) > 5*calm) {
			break
		}
	}
	return got
}

// TestSharing lets Services share, and stop to.
func TestSharing(t *testing.T) {
	c := newCluster(t)
	c.pool("lan", "203.0.113.0/28")
	c.pool("single", "198.51.100.1")
	c.patchPool("single", `{"spec": {"autoAssign": false, "sharing": "Ports"}}`)
	p := start(t, c.server)
	port := func(number int32, protocol corev1.Protocol) func(*corev1.Service) {
		return func(service *corev1.Service) {
			service.Spec.Ports = []corev1.ServicePort{{Protocol: protocol, Port: number}}
		}
	}
	key := annotated(v1alpha1.ServiceShareKey, "dns")
	c.service("tcp", key, port(53, corev1.ProtocolTCP))
	c.has("tcp", "203.0.113.0", soon)
	c.service("udp", key, port(53, corev1.ProtocolUDP))
	c.has("udp", "203.0.113.0", soon)
	c.service("clash", key, port(53, corev1.ProtocolTCP))
	c.has("clash", "203.0.113.1", soon)
	c.service("asks", key, port(53, corev1.ProtocolTCP), requesting("203.0.113.0"))
	c.refused("asks", "both have TCP port 53")
	c.service("keyless", port(80, corev1.ProtocolTCP), requesting("203.0.113.0"))
	c.refused("keyless", "in use by Service default/tcp")

	byPort := annotated(v1alpha1.ServicePool, "single")
	c.service("one", byPort, port(80, corev1.ProtocolTCP))
	c.has("one", "198.51.100.1", soon)
	c.service("two", byPort, port(443, corev1.ProtocolTCP))
	c.has("two", "198.51.100.1", soon)
	c.service("three", byPort, port(443, corev1.ProtocolTCP))
	c.refused("three", `AddressPool "single" has no free IPv4 address`)

	t.Run("a port edit that breaks it", func(t *testing.T) {
		c.patch("udp", `{"spec": {"ports": [{"protocol": "TCP", "port": 53}]}}`)
		c.has("udp", "203.0.113.2", soon)
		c.patch("two", `{"spec": {"ports": [{"protocol": "TCP", "port": 80}]}}`)
		c.has("two", "", soon) // it asks for this pool, and there is no other address
		c.has("three", "198.51.100.1", soon)
		if got := c.addresses("tcp") + " " + c.addresses("one"); got != "203.0.113.0 198.51.100.1" {
			t.Errorf("those who stayed have %s", got)
		}
	})
	t.Run("a stricter pool moves nobody", func(t *testing.T) {
		eventually(t, soon, "it is known that three has an address", func() bool {
			condition := meta.FindStatusCondition(c.get("three").Status.Conditions, v1alpha1.ConditionAnnounced)
			return condition != nil && condition.Reason == string(plan.NoSpeaker)
		})
		c.patchPool("single", `{"spec": {"sharing": "Never"}}`)
		p.kill()
		p = start(t, c.server)
		c.service("late", byPort, port(8080, corev1.ProtocolTCP))
		c.refused("late", "has no free IPv4 address")
		for _, name := range []string{"one", "three"} {
			if got := c.addresses(name); got != "198.51.100.1" {
				t.Errorf("%s has %s", name, got)
			}
		}
	})
}

// TestDeletionWhileNobodyWatches deletes Services whose finalizer waits for a
// cloud-controller-manager that is down.
func TestDeletionWhileNobodyWatches(t *testing.T) {
	c := newCluster(t)
	c.pool("lan", "203.0.113.1")
	p := start(t, c.server)
	c.service("web")
	c.has("web", "203.0.113.1", soon)
	p.kill()
	c.delete("web")
	c.service("next")
	if service := c.get("web"); service.DeletionTimestamp == nil {
		t.Fatal("there was no finalizer")
	}
	start(t, c.server)
	eventually(t, soon, "the Service is gone", func() bool {
		_, err := c.CoreV1().Services(metav1.NamespaceDefault).Get(t.Context(), "web", metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
	c.has("next", "203.0.113.1", soon)
}

// TestAddressesOfAnotherController lets Services come from another load balancer,
// which wrote their addresses into status.
func TestAddressesOfAnotherController(t *testing.T) {
	c := newCluster(t)
	for name, address := range map[string]string{"pooled": "203.0.113.7", "outside": "192.0.2.7"} {
		c.service(name)
		c.forge(name, address)
	}
	c.pool("lan", "203.0.113.0/28")
	start(t, c.server)
	c.has("outside", "203.0.113.8", soon) // an address of no pool is not ours to keep
	c.service("new")
	c.has("new", "203.0.113.9", soon)
	if got := c.settled("pooled", "203.0.113.7"); got != "203.0.113.7" {
		t.Errorf("the address of another controller moved to %s", got)
	}
}

// TestManyAreDeletedTogether deletes as many Services as a namespace may hold, as
// the deletion of that namespace does.
func TestManyAreDeletedTogether(t *testing.T) {
	const services = 500
	c := newCluster(t)
	c.pool("lan", "198.51.100.0/22")
	start(t, c.server)
	parallel(services, 16, func(i int) { c.service(fmt.Sprintf("s-%d", i)) })
	eventually(t, time.Minute, "all have addresses", func() bool { return len(unique(t, c.all())) == services })
	begin := time.Now()
	if err := c.CoreV1().RESTClient().Delete().Namespace(metav1.NamespaceDefault).Resource("services").Do(t.Context()).Error(); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "all are gone", func() bool {
		all := c.all()
		delete(all, "kubernetes")
		return len(all) == 0
	})
	t.Logf("%d Services were gone after %v", services, time.Since(begin))
	c.service("after", requesting("198.51.100.0"))
	c.has("after", "198.51.100.0", soon)
}
