package baremetal

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/tools/cache"
)

// TestUpstreamSeesOneNode that never changes, however many there are.
func TestUpstreamSeesOneNode(t *testing.T) {
	h := newHarness(t, Options{}, loadBalancer("web"))
	nodes := h.factory.Core().V1().Nodes()
	heard := make(chan string, 10)
	handler := func(whose string) cache.ResourceEventHandler {
		return cache.ResourceEventHandlerFuncs{AddFunc: func(any) { heard <- whose }}
	}
	upstream := anyNodes{nodes}.Informer()
	for _, add := range []func() (cache.ResourceEventHandlerRegistration, error){
		func() (cache.ResourceEventHandlerRegistration, error) {
			return upstream.AddEventHandler(handler("upstream"))
		},
		func() (cache.ResourceEventHandlerRegistration, error) {
			return upstream.AddEventHandlerWithResyncPeriod(handler("upstream"), 0)
		},
		func() (cache.ResourceEventHandlerRegistration, error) {
			return upstream.AddEventHandlerWithOptions(handler("upstream"), cache.HandlerOptions{})
		},
		func() (cache.ResourceEventHandlerRegistration, error) {
			return nodes.Informer().AddEventHandler(handler("others"))
		},
	} {
		if _, err := add(); err != nil {
			t.Fatal(err)
		}
	}
	h.begin()
	for _, name := range []string{"a", "b"} {
		if _, err := h.client.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		if whose := <-heard; whose != "others" {
			t.Errorf("%s heard of node %s", whose, name)
		}
	}
	if !upstream.HasSynced() {
		t.Error("not synced")
	}
	list, err := anyNodes{nodes}.Lister().List(labels.Everything())
	if err != nil || len(list) != 1 {
		t.Errorf("upstream sees %d nodes (%v)", len(list), err)
	}
}
