package baremetal

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"
	cachetesting "k8s.io/client-go/tools/cache/testing"
	"k8s.io/client-go/tools/record"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

const theirClass = "example.com/other"

// harness is a Cloud over caches that the test fills.
type harness struct {
	*Cloud
	t      *testing.T
	client *fake.Clientset
	pools  *cachetesting.FakeControllerSource
	queue  *queue

	events *record.FakeRecorder
	// version is the resourceVersion of the last change.
	version int

	factory informers.SharedInformerFactory
}

// queue stands for the upstream controller: it takes keys as that would.
type queue struct {
	events chan string
}

func (q *queue) OnAdd(object any, _ bool) {
	q.events <- "add " + describe(object.(*corev1.Service))
}

func (q *queue) OnUpdate(before, now any) {
	q.events <- "update " + describe(before.(*corev1.Service)) + " to " + describe(now.(*corev1.Service))
}

func (q *queue) OnDelete(any) {}

func describe(service *corev1.Service) string {
	text := service.Name + ":" + string(service.Spec.Type)
	if class := service.Spec.LoadBalancerClass; class != nil {
		text += ":" + *class
	}
	return text
}

func newHarness(t *testing.T, options Options, services ...*corev1.Service) *harness {
	t.Helper()
	h := &harness{
		t:      t,
		Cloud:  New(options),
		client: fake.NewClientset(),
		pools:  cachetesting.NewFakeControllerSource(),
		queue:  &queue{events: make(chan string, 100)},
		events: record.NewFakeRecorder(100),
	}
	h.stop = t.Context().Done()
	h.balancer.notices.events = h.events
	for _, service := range services {
		h.create(service)
	}
	pools := cache.NewSharedIndexInformer(h.pools, &v1alpha1.AddressPool{}, 0, nil)
	if err := h.balancer.watchPools(pools, h.stop); err != nil {
		t.Fatal(err)
	}
	h.factory = informers.NewSharedInformerFactoryWithOptions(h.client, 0, informers.WithTransform(Trim))
	h.SetInformers(h.factory)
	if _, err := h.Services().Informer().AddEventHandlerWithResyncPeriod(h.queue, time.Minute); err != nil {
		t.Fatal(err)
	}
	return h
}

// begin fills the caches, as the cloud-controller-manager does.
func (h *harness) begin() *harness {
	h.t.Helper()
	h.eventually("the pools are cached", func() bool {
		pools, err := h.pools.List(metav1.ListOptions{})
		return err == nil && meta.LenList(pools) == len(h.balancer.pools.ListKeys())
	})
	h.factory.Start(h.stop)
	h.eventually("ready", h.Services().Informer().HasSynced)
	return h
}

func (h *harness) create(service *corev1.Service) *corev1.Service {
	h.t.Helper()
	h.setVersion(service)
	created, err := h.client.CoreV1().Services(service.Namespace).Create(context.Background(), service, metav1.CreateOptions{})
	if err != nil {
		h.t.Fatal(err)
	}
	return created
}

func (h *harness) update(service *corev1.Service) {
	h.t.Helper()
	h.setVersion(service)
	if _, err := h.client.CoreV1().Services(service.Namespace).Update(context.Background(), service, metav1.UpdateOptions{}); err != nil {
		h.t.Fatal(err)
	}
}

// setVersion does what the fake client does not.
func (h *harness) setVersion(service *corev1.Service) {
	h.version++
	service.ResourceVersion = strconv.Itoa(h.version)
}

func (h *harness) delete(name string) {
	h.t.Helper()
	if err := h.client.CoreV1().Services("default").Delete(context.Background(), name, metav1.DeleteOptions{}); err != nil {
		h.t.Fatal(err)
	}
}

// expect waits for the events, in their order.
func (h *harness) expect(events ...string) {
	h.t.Helper()
	for _, want := range events {
		select {
		case got := <-h.queue.events:
			if got != want {
				h.t.Fatalf("event %q; want %q", got, want)
			}
		case <-time.After(10 * time.Second):
			h.t.Fatalf("no event; want %q", want)
		}
	}
}

// handedBack waits until the Service is handed to upstream, whatever else is.
func (h *harness) handedBack(name string) {
	h.t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		select {
		case event := <-h.queue.events:
			if event == "add "+name+":LoadBalancer" {
				return
			}
		case <-deadline:
			h.t.Fatalf("%s is not handed back", name)
		}
	}
}

// holds are the addresses that the Service has by the books.
func (h *harness) holds(uid types.UID) string {
	return fmt.Sprint(h.balancer.allocator.Addresses(uid))
}

func (h *harness) eventually(what string, condition func() bool) {
	h.t.Helper()
	for begin := time.Now(); !condition(); time.Sleep(time.Millisecond) {
		if time.Since(begin) > 10*time.Second {
			h.t.Fatalf("never: %s", what)
		}
	}
}

func lanPool(addresses string) *v1alpha1.AddressPool {
	return &v1alpha1.AddressPool{
		ObjectMeta: metav1.ObjectMeta{Name: "lan", UID: "lan"},
		Spec:       v1alpha1.AddressPoolSpec{Addresses: strings.Fields(addresses)},
	}
}

func loadBalancer(name string, change ...func(*corev1.Service)) *corev1.Service {
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(name)},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer},
	}
	for _, f := range change {
		f(service)
	}
	return service
}

func class(name string) func(*corev1.Service) {
	return func(s *corev1.Service) { s.Spec.LoadBalancerClass = &name }
}

func requesting(address string) func(*corev1.Service) {
	return func(s *corev1.Service) { s.Spec.LoadBalancerIP = address }
}

func recording(address string) func(*corev1.Service) {
	return func(s *corev1.Service) {
		s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: address}}
	}
}
