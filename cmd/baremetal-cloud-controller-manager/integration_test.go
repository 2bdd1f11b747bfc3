package main

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	servicehelper "k8s.io/cloud-provider/service/helpers"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

// soon is what a first answer may take on a busy machine; atOnce is what the
// design promises when the cause of a refusal goes away.
const (
	soon   = 20 * time.Second
	atOnce = time.Second
)

func TestLifeOfAnAddress(t *testing.T) {
	c := newCluster(t)
	start(t, c.server)
	c.pool("lan", "203.0.113.10-203.0.113.11")

	c.service("web")
	c.has("web", "203.0.113.10", soon)
	service := c.get("web")
	if mode := service.Status.LoadBalancer.Ingress[0].IPMode; mode == nil || *mode != corev1.LoadBalancerIPModeVIP {
		t.Errorf("ipMode is %v; want VIP", mode)
	}
	c.service("api")
	c.has("api", "203.0.113.11", atOnce)

	c.service("late")
	c.refused("late", `AddressPool "lan" has no free IPv4 address`)
	c.delete("web")
	c.has("late", "203.0.113.10", atOnce)

	t.Run("a type change gives it back", func(t *testing.T) {
		c.patch("late", `{"spec": {"type": "ClusterIP"}}`)
		eventually(t, soon, "the finalizer is gone", func() bool { return !servicehelper.HasLBFinalizer(c.get("late")) })
		c.service("next")
		c.has("next", "203.0.113.10", soon)
	})
}

func TestWaitingServicesAreServedAtOnce(t *testing.T) {
	c := newCluster(t)
	start(t, c.server)
	c.service("early")
	c.refused("early", "there is no AddressPool with autoAssign")
	c.pool("lan", "203.0.113.1")
	c.has("early", "203.0.113.1", atOnce)

	c.service("grown")
	c.refused("grown", "has no free IPv4 address")
	c.patchPool("lan", `{"spec": {"addresses": ["203.0.113.1-203.0.113.2"]}}`)
	c.has("grown", "203.0.113.2", atOnce)

	c.patchPool("lan", `{"spec": {"addresses": ["203.0.113.1-203.0.113.9"], "disabled": true}}`)
	time.Sleep(200 * time.Millisecond)
	c.service("disabled")
	c.refused("disabled", `AddressPool "lan" is disabled`)
	c.patchPool("lan", `{"spec": {"disabled": false, "namespaceSelector": {"matchLabels": {"lan": "yes"}}}}`)
	time.Sleep(200 * time.Millisecond)
	c.service("labelled")
	c.refused("labelled", "spec.namespaceSelector")
	if _, err := c.CoreV1().Namespaces().Patch(t.Context(), metav1.NamespaceDefault, "application/merge-patch+json", []byte(`{"metadata": {"labels": {"lan": "yes"}}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	c.has("disabled", "*", atOnce)
	c.has("labelled", "*", atOnce)

	node, err := c.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "203.0.113.8"}}
	if _, err := c.CoreV1().Nodes().UpdateStatus(t.Context(), node, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond)
	c.service("node", requesting("203.0.113.8"))
	c.refused("node", `203.0.113.8 is the address of node "a"`)
	if err := c.CoreV1().Nodes().Delete(t.Context(), "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	c.has("node", "203.0.113.8", atOnce)
}

func TestRequests(t *testing.T) {
	c := newCluster(t)
	c.pool("a", "203.0.113.0/24")
	c.pool("b", "198.51.100.0/24", "2001:db8:100::/64")
	start(t, c.server)

	c.service("field", requesting("203.0.113.7"))
	c.has("field", "203.0.113.7", soon)
	c.service("annotation", annotated(v1alpha1.ServiceAddresses, "203.0.113.8"))
	c.has("annotation", "203.0.113.8", soon)
	c.service("named", annotated(v1alpha1.ServicePool, "b"))
	c.has("named", "198.51.100.0", soon)
	c.service("dual", withFamilies(corev1.IPFamilyPolicyRequireDualStack, corev1.IPv4Protocol, corev1.IPv6Protocol), annotated(v1alpha1.ServicePool, "b"))
	c.has("dual", "198.51.100.1,2001:db8:100::", soon)
	c.service("six", withFamilies(corev1.IPFamilyPolicySingleStack, corev1.IPv6Protocol))
	c.has("six", "2001:db8:100::1", soon)

	c.service("taken", requesting("203.0.113.7"))
	c.refused("taken", "in use by Service default/field")
	c.service("shared", requesting("203.0.113.7"), annotated(v1alpha1.ServiceShareKey, "k"))
	c.refused("shared", "cannot be shared")
	c.service("outside", requesting("192.0.2.1"))
	c.refused("outside", "lies in no AddressPool")
	c.service("several", annotated(v1alpha1.ServiceAddresses, "203.0.113.20,203.0.113.21"))
	c.has("several", "203.0.113.20,203.0.113.21", soon)

	c.patch("field", `{"spec": {"loadBalancerIP": "203.0.113.9"}}`)
	c.has("field", "203.0.113.9", soon)
	c.has("taken", "203.0.113.7", soon)
}

func TestLoadBalancerClasses(t *testing.T) {
	c := newCluster(t)
	c.pool("lan", "203.0.113.0/24")
	untouched := func(t *testing.T, name string) {
		t.Helper()
		service := c.get(name)
		if servicehelper.HasLBFinalizer(service) || len(service.Status.LoadBalancer.Ingress) > 0 {
			t.Errorf("Service %s was touched: finalizers %v, addresses %s", name, service.Finalizers, addressesOf(service))
		}
	}
	t.Run("default", func(t *testing.T) {
		p := start(t, c.server)
		c.service("ours", ofClass(v1alpha1.LoadBalancerClass))
		c.service("theirs", ofClass("example.com/other"), func(s *corev1.Service) {
			s.Finalizers = []string{"example.com/keep"}
		})
		c.service("classless")
		c.has("ours", "*", soon)
		c.has("classless", "*", soon)
		if class := c.get("ours").Spec.LoadBalancerClass; class == nil || *class != v1alpha1.LoadBalancerClass {
			t.Errorf("the class became %v", class)
		}
		untouched(t, "theirs")
		// Another controller's Service and finalizer are not ours to clean up.
		c.patch("theirs", fmt.Sprintf(`{"metadata": {"finalizers": [%q]}}`, servicehelper.LoadBalancerCleanupFinalizer))
		c.patch("theirs", `{"spec": {"type": "ClusterIP"}}`)
		c.patch("ours", `{"spec": {"type": "ClusterIP"}}`)
		eventually(t, soon, "our finalizer is gone", func() bool { return !servicehelper.HasLBFinalizer(c.get("ours")) })
		if !servicehelper.HasLBFinalizer(c.get("theirs")) {
			t.Error("the finalizer of another controller's Service was removed")
		}
		p.kill()
	})
	t.Run("required", func(t *testing.T) {
		start(t, c.server, "--require-load-balancer-class")
		before := c.addresses("classless")
		c.service("other-classless")
		c.service("required", ofClass(v1alpha1.LoadBalancerClass))
		if got := c.has("required", "*", soon); got == before {
			t.Errorf("%s, which a Service of another controller records, was given out", got)
		}
		untouched(t, "other-classless")
		if got := c.addresses("classless"); got != before {
			t.Errorf("the address of a classless Service changed from %s to %s", before, got)
		}
	})
}

func TestKillChangesNoAddress(t *testing.T) {
	const services = 500
	c := newCluster(t)
	c.pool("lan", "198.51.100.0/22")
	p := start(t, c.server)
	created := make(chan struct{})
	go func() {
		defer close(created)
		parallel(services, 16, func(i int) { c.service(fmt.Sprintf("s-%d", i)) })
	}()
	// Killed at an instant when about half of them have an address.
	eventually(t, time.Minute, "half of the Services have addresses", func() bool { return len(unique(t, c.all())) > services/2 })
	p.kill()
	<-created
	before := c.all()
	unique(t, before)

	start(t, c.server)
	eventually(t, time.Minute, "all Services have addresses", func() bool { return len(unique(t, c.all())) == services })
	for name, address := range c.all() {
		if before[name] != "" && before[name] != address {
			t.Errorf("Service %s moved from %s to %s", name, before[name], address)
		}
	}
}

func TestForgedStatusIsRepaired(t *testing.T) {
	c := newCluster(t)
	c.pool("lan", "203.0.113.0/24")
	start(t, c.server)
	c.service("web", requesting("203.0.113.5"))
	c.service("partial", requesting("203.0.113.6"), withFamilies(corev1.IPFamilyPolicyPreferDualStack, corev1.IPv4Protocol, corev1.IPv6Protocol))
	c.service("refused", requesting("203.0.113.7"))
	for name, address := range map[string]string{"web": "203.0.113.5", "partial": "203.0.113.6", "refused": "203.0.113.7"} {
		c.has(name, address, soon)
	}
	c.patch("refused", `{"spec": {"loadBalancerIP": "192.0.2.1"}}`)
	c.refused("refused", "lies in no AddressPool")
	c.service("pending", requesting("192.0.2.2"))
	c.refused("pending", "lies in no AddressPool")

	for name, address := range map[string]string{"web": "203.0.113.5", "partial": "203.0.113.6", "refused": "203.0.113.7"} {
		c.forge(name, "203.0.113.99")
		c.has(name, address, atOnce)
		c.forge(name, "")
		c.has(name, address, atOnce)
	}
	c.forge("pending", "203.0.113.5")
	c.has("pending", "", atOnce)
}

func TestExternalIPs(t *testing.T) {
	c := newCluster(t)
	c.pool("lan", "203.0.113.0/28")
	c.pool("open", "198.51.100.0/28")
	c.patchPool("open", `{"spec": {"allowExternalIPs": true, "autoAssign": false}}`)
	start(t, c.server)
	external := func(addresses ...string) func(*corev1.Service) {
		return func(service *corev1.Service) { service.Spec.ExternalIPs = addresses }
	}
	c.service("claims", external("198.51.100.7", "192.0.2.7"))
	c.has("claims", "198.51.100.7", soon)
	c.service("thief", external("198.51.100.7"))
	c.refused("thief", "in use by Service default/claims")
	c.service("forbidden", requesting("203.0.113.5"), external("203.0.113.6"))
	c.has("forbidden", "203.0.113.5", soon)
	c.event("forbidden", "PoolForbidden", "spec.externalIPs: 203.0.113.6 lies in AddressPool \"lan\"")

	c.patch("claims", `{"spec": {"externalIPs": ["198.51.100.8"]}}`)
	c.has("claims", "198.51.100.8", soon)
	c.has("thief", "198.51.100.7", soon)
}

func TestLeaseIsGivenUp(t *testing.T) {
	c := newCluster(t)
	c.pool("lan", "203.0.113.0/24")
	c.namespace(v1alpha1.DefaultNamespace)
	first := start(t, c.server, "--leader-elect=true")
	c.service("one")
	c.has("one", "203.0.113.0", soon)
	second := start(t, c.server, "--leader-elect=true")
	eventually(t, soon, "the second waits", func() bool { return second.logged("Attempting to acquire leader lease") })
	time.Sleep(time.Second)

	if code := first.terminate(t); code != 0 {
		t.Errorf("exit code %d after SIGTERM; want 0", code)
	}
	c.service("two")
	begin := time.Now()
	c.has("two", "203.0.113.1", 5*time.Second)
	t.Logf("the next leader served after %v", time.Since(begin))
	if got := c.addresses("one"); got != "203.0.113.0" {
		t.Errorf("Service one moved to %s", got)
	}
}

// unique fails when two Services have one address; it returns those that have one.
func unique(t *testing.T, all map[string]string) map[string]string {
	t.Helper()
	owners := map[string]string{}
	have := maps.Clone(all)
	for name, address := range all {
		if address == "" {
			delete(have, name)
			continue
		}
		for one := range strings.SplitSeq(address, ",") {
			if other, ok := owners[one]; ok {
				t.Fatalf("Services %s and %s both have %s", name, other, one)
			}
			owners[one] = name
		}
	}
	return have
}
