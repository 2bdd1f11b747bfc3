package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/apiserver"
)

// cluster is what the tests do to an API server.
type cluster struct {
	t      testing.TB
	server *apiserver.Server
	kubernetes.Interface
	pools dynamic.ResourceInterface
}

func newCluster(t testing.TB) *cluster {
	t.Helper()
	server := apiserver.Start(t)
	return &cluster{
		t:         t,
		server:    server,
		Interface: kubernetes.NewForConfigOrDie(server.Config),
		pools:     dynamic.NewForConfigOrDie(server.Config).Resource(v1alpha1.AddressPoolResource),
	}
}

// pool creates an AddressPool with the addresses.
func (c *cluster) pool(name string, addresses ...string) {
	c.t.Helper()
	entries := make([]any, len(addresses))
	for i, address := range addresses {
		entries[i] = address
	}
	_, err := c.pools.Create(c.t.Context(), &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": v1alpha1.SchemeGroupVersion.String(),
		"kind":       "AddressPool",
		"metadata":   map[string]any{"name": name},
		"spec":       map[string]any{"addresses": entries},
	}}, metav1.CreateOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
}

// patchPool changes an AddressPool.
func (c *cluster) patchPool(name, patch string) {
	c.t.Helper()
	if _, err := c.pools.Patch(c.t.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) namespace(name string) {
	c.t.Helper()
	_, err := c.CoreV1().Namespaces().Create(c.t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
}

// service creates a Service of type LoadBalancer.
func (c *cluster) service(name string, change ...func(*corev1.Service)) {
	c.t.Helper()
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{}},
		Spec: corev1.ServiceSpec{
			Type:  corev1.ServiceTypeLoadBalancer,
			Ports: []corev1.ServicePort{{Port: 80}},
		},
	}
	for _, f := range change {
		f(service)
	}
	if _, err := c.CoreV1().Services(metav1.NamespaceDefault).Create(c.t.Context(), service, metav1.CreateOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) get(name string) *corev1.Service {
	c.t.Helper()
	service, err := c.CoreV1().Services(metav1.NamespaceDefault).Get(c.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	return service
}

func (c *cluster) patch(name, patch string) {
	c.t.Helper()
	if _, err := c.CoreV1().Services(metav1.NamespaceDefault).Patch(c.t.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) delete(name string) {
	c.t.Helper()
	if err := c.CoreV1().Services(metav1.NamespaceDefault).Delete(c.t.Context(), name, metav1.DeleteOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

// addresses are those in the Service's status.
func (c *cluster) addresses(name string) string {
	return addressesOf(c.get(name))
}

func addressesOf(service *corev1.Service) string {
	var addresses []string
	for _, ingress := range service.Status.LoadBalancer.Ingress {
		addresses = append(addresses, ingress.IP)
	}
	return strings.Join(addresses, ",")
}

// has waits until the Service has the addresses; "*" stands for any.
func (c *cluster) has(name, addresses string, within time.Duration) string {
	c.t.Helper()
	var got string
	eventually(c.t, within, fmt.Sprintf("Service %s has %s", name, addresses), func() bool {
		got = c.addresses(name)
		return got == addresses || addresses == "*" && got != ""
	})
	return got
}

// refused waits for the Event that tells why the Service is pending.
func (c *cluster) refused(name, text string) {
	c.t.Helper()
	c.event(name, "SyncLoadBalancerFailed", text)
}

// event waits for an Event of the Service.
func (c *cluster) event(name, reason, text string) {
	c.t.Helper()
	eventually(c.t, 10*time.Second, fmt.Sprintf("an Event %s of Service %s says %q", reason, name, text), func() bool {
		events, err := c.CoreV1().Events(metav1.NamespaceDefault).List(c.t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.name=" + name})
		if err != nil {
			c.t.Fatal(err)
		}
		return slices.ContainsFunc(events.Items, func(event corev1.Event) bool {
			return event.Reason == reason && strings.Contains(event.Message, text)
		})
	})
}

// forge writes the address, or none, into the Service's status.
func (c *cluster) forge(name, address string) {
	c.t.Helper()
	ingress := []corev1.LoadBalancerIngress{}
	if address != "" {
		ingress = append(ingress, corev1.LoadBalancerIngress{IP: address})
	}
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"loadBalancer": map[string]any{"ingress": ingress}}})
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err := c.CoreV1().Services(metav1.NamespaceDefault).Patch(c.t.Context(), name, types.MergePatchType, patch, metav1.PatchOptions{}, "status"); err != nil {
		c.t.Fatal(err)
	}
}

// all are the addresses of all Services by name.
func (c *cluster) all() map[string]string {
	c.t.Helper()
	list, err := c.CoreV1().Services(metav1.NamespaceDefault).List(c.t.Context(), metav1.ListOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	all := map[string]string{}
	for i := range list.Items {
		all[list.Items[i].Name] = addressesOf(&list.Items[i])
	}
	return all
}

// parallel calls f for 0 to n-1 by some workers at a time.
func parallel(n, workers int, f func(i int)) {
	var group sync.WaitGroup
	next := make(chan int)
	for range workers {
		group.Go(func() {
			for i := range next {
				f(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	group.Wait()
}

// Changes of a Service before it is created.

func annotated(key, value string) func(*corev1.Service) {
	return func(service *corev1.Service) { service.Annotations[key] = value }
}

func requesting(address string) func(*corev1.Service) {
	return func(service *corev1.Service) { service.Spec.LoadBalancerIP = address }
}

func ofClass(class string) func(*corev1.Service) {
	return func(service *corev1.Service) { service.Spec.LoadBalancerClass = &class }
}

func withFamilies(policy corev1.IPFamilyPolicy, families ...corev1.IPFamily) func(*corev1.Service) {
	return func(service *corev1.Service) {
		service.Spec.IPFamilyPolicy = &policy
		service.Spec.IPFamilies = families
	}
}
