package baremetal

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	servicehelper "k8s.io/cloud-provider/service/helpers"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

func TestViewHidesClasses(t *testing.T) {
	for _, test := range []struct {
		name    string
		options Options
		visible map[string]bool
	}{
		{"default", Options{}, map[string]bool{"classless": true, "ours": true}},
		{"required", Options{RequireClass: true}, map[string]bool{"ours": true}},
		{"renamed", Options{LoadBalancerClass: theirClass}, map[string]bool{"classless": true, "theirs": true}},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newHarness(t, test.options,
				loadBalancer("classless"), loadBalancer("ours", class(v1alpha1.LoadBalancerClass)), loadBalancer("theirs", class(theirClass)),
			).begin()
			listed, err := h.Services().Lister().List(labels.Everything())
			if err != nil || len(listed) != len(test.visible) {
				t.Errorf("%d Services are visible (%v); want %d", len(listed), err, len(test.visible))
			}
			for _, name := range []string{"classless", "ours", "theirs"} {
				service, err := h.Services().Lister().Services("default").Get(name)
				if test.visible[name] && (err != nil || service.Spec.LoadBalancerClass != nil) {
					t.Errorf("%s is %v (%v); want it without a class", name, service, err)
				}
				if !test.visible[name] && !apierrors.IsNotFound(err) {
					t.Errorf("%s is visible (%v)", name, err)
				}
			}
			for range test.visible {
				if event := <-h.queue.events; !test.visible[event[len("add "):len(event)-len(":LoadBalancer")]] {
					t.Errorf("event %q", event)
				}
			}
		})
	}
}

func TestCleanUpBelongsToTheFormerClass(t *testing.T) {
	finalizer := func(s *corev1.Service) { s.Finalizers = []string{servicehelper.LoadBalancerCleanupFinalizer} }
	h := newHarness(t, Options{}, loadBalancer("theirs", class(theirClass), finalizer)).begin()
	h.create(loadBalancer("ours", class(v1alpha1.LoadBalancerClass), finalizer))
	h.expect("add ours:LoadBalancer")
	for _, name := range []string{"theirs", "ours"} {
		h.update(loadBalancer(name, finalizer, func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeClusterIP }))
	}
	h.expect("update ours:LoadBalancer to ours:ClusterIP")
	if _, err := h.Services().Lister().Services("default").Get("theirs"); !apierrors.IsNotFound(err) {
		t.Errorf("another controller's Service became visible when its type changed (%v)", err)
	}
}

func TestCleanUpAfterRestart(t *testing.T) {
	clusterIP := func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeClusterIP }
	marked := loadBalancer("marked", clusterIP)
	marked.Status.Conditions = append(marked.Status.Conditions, conditionAnnounced())
	for _, test := range []struct {
		options Options
		service *corev1.Service
		want    bool
	}{
		{Options{}, loadBalancer("plain", clusterIP), true},
		{Options{RequireClass: true}, loadBalancer("plain", clusterIP), false},
		{Options{RequireClass: true}, marked, true},
	} {
		if got := newClasses(test.options).ours(test.service); got != test.want {
			t.Errorf("%+v: %s is ours: %v; want %v", test.options, test.service.Name, got, test.want)
		}
	}
}

func TestViewIsNotSyncedBeforeAdoption(t *testing.T) {
	h := newHarness(t, Options{})
	if h.Services().Informer().HasSynced() {
		t.Error("synced with empty caches")
	}
	h.begin()
}
