package baremetal

import (
	"context"
	"errors"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
	servicehelper "k8s.io/cloud-provider/service/helpers"
	controllersmetrics "k8s.io/component-base/metrics/prometheus/controllers"
)

// TestOldCacheFreesNothing edits or deletes a Service when the cache does not
// show yet that its address was written.
func TestOldCacheFreesNothing(t *testing.T) {
	finalizer := func(s *corev1.Service) { s.Finalizers = []string{servicehelper.LoadBalancerCleanupFinalizer} }
	for name, leave := range map[string]func(*harness){
		"deleted": func(h *harness) {
			if err := h.balancer.EnsureLoadBalancerDeleted(context.Background(), "", loadBalancer("web", finalizer)); err != nil {
				h.t.Fatal(err)
			}
		},
		"edited": func(h *harness) {
			if _, err := h.balancer.assign(loadBalancer("web", finalizer, requesting("203.0.113.2"))); err != nil {
				h.t.Fatal(err)
			}
			edited := loadBalancer("web", finalizer, requesting("203.0.113.2"))
			h.update(edited) // An event, but without the address.
			h.cached(edited)
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t, Options{}, loadBalancer("web", finalizer), loadBalancer("next"))
			h.pools.Add(lanPool("203.0.113.1-203.0.113.2"))
			h.begin()
			if got, err := h.ensure("web"); err != nil || got != "203.0.113.1" {
				t.Fatalf("web has %s (%v)", got, err)
			}
			h.writeUnseen("web", "10")
			leave(h)
			time.Sleep(20 * time.Millisecond)
			claim := loadBalancer("next", requesting("203.0.113.1"))
			if _, err := h.balancer.tryAssign(claim); err == nil {
				t.Fatal("the address was given out while the API shows it with another Service")
			}

			// The cache catches up; then the address is left for good.
			h.version = 9
			h.update(loadBalancer("web", finalizer, recording("203.0.113.1")))
			time.Sleep(20 * time.Millisecond)
			if _, err := h.balancer.tryAssign(claim); err == nil {
				t.Fatal("the address was given out while the cache shows it with another Service")
			}
			h.update(loadBalancer("web", finalizer, recording("203.0.113.2")))
			h.eventually("the address is free", func() bool {
				_, err := h.balancer.tryAssign(claim)
				return err == nil
			})
		})
	}
}

// TestChangeDuringWrite forges a status while upstream writes: the cache may be
// older than the write or not, which is known only when that has ended.
func TestChangeDuringWrite(t *testing.T) {
	h := newHarness(t, Options{}, loadBalancer("web", recording("203.0.113.1")))
	h.pools.Add(lanPool("203.0.113.1"))
	h.begin().handedBack("web")
	name := cache.NewObjectName("default", "web")
	h.balancer.writes.begin(name)
	written := loadBalancer("web", recording("203.0.113.1"))
	h.update(written)
	forged := loadBalancer("web", recording("203.0.113.99"))
	h.update(forged)
	h.cached(forged)
	time.Sleep(20 * time.Millisecond)
	h.balancer.writes.end(name, written, nil)
	h.handedBack("web")
}

// writeUnseen is a write by upstream of which the cache hears nothing yet.
func (h *harness) writeUnseen(name, version string) {
	h.t.Helper()
	h.client.PrependReactor("patch", "services", func(clienttesting.Action) (bool, runtime.Object, error) {
		written := loadBalancer(name)
		written.ResourceVersion = version
		return true, written, nil
	})
	services := h.balancer.writes.watch(h.client).CoreV1().Services("default")
	if _, err := services.Patch(context.Background(), name, types.StrategicMergePatchType, []byte(`{}`), metav1.PatchOptions{}, "status"); err != nil {
		h.t.Fatal(err)
	}
}

func TestWrites(t *testing.T) {
	name := cache.NewObjectName("default", "web")
	at := func(version string) *corev1.Service {
		return loadBalancer("web", func(s *corev1.Service) { s.ResourceVersion = version })
	}
	conflict := apierrors.NewConflict(corev1.Resource("services"), "web", errors.New("changed"))
	for _, test := range []struct {
		name  string
		write func(*writes)
		// shown are the versions which show the write, and which do not.
		shown, hidden string
	}{
		{"none", func(*writes) {}, "1", ""},
		{"under way", func(w *writes) { w.begin(name) }, "", "99"},
		{"done", func(w *writes) { w.begin(name); w.end(name, at("10"), nil) }, "10", "9"},
		{"rejected", func(w *writes) { w.begin(name); w.end(name, nil, conflict) }, "1", ""},
		{"done, then rejected", func(w *writes) {
			w.begin(name)
			w.end(name, at("10"), nil)
			w.begin(name)
			w.end(name, nil, conflict)
		}, "10", "9"},
		{"lost", func(w *writes) { w.begin(name); w.end(name, nil, errors.New("connection reset")) }, "", "99"},
		{"lost, then done", func(w *writes) {
			w.begin(name)
			w.end(name, nil, apierrors.NewTimeoutError("too slow", 1))
			w.begin(name)
			w.end(name, at("10"), nil)
		}, "11", "9"},
		{"of a Service that is gone", func(w *writes) { w.begin(name); w.forget(name); w.end(name, at("10"), nil) }, "1", ""},
		{"not comparable", func(w *writes) { w.begin(name); w.end(name, at("x"), nil) }, "", "99"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWrites(func() {})
			test.write(w)
			if test.hidden != "" && w.shownBy(at(test.hidden)) {
				t.Errorf("version %s is taken to show it", test.hidden)
			}
			if test.shown != "" {
				if !w.shownBy(at(test.shown)) {
					t.Errorf("version %s is taken not to show it", test.shown)
				}
				if len(w.unseen) > 0 {
					t.Errorf("kept: %v", w.unseen)
				}
			}
		})
	}
}

// TestLostWriteIsLookedFor breaks the connection during a write that was done:
// upstream's retry finds nothing to write, and so ends no other one.
func TestLostWriteIsLookedFor(t *testing.T) {
	h := newHarness(t, Options{}, loadBalancer("web"))
	h.pools.Add(lanPool("203.0.113.1"))
	h.begin().handedBack("web")
	if _, err := h.ensure("web"); err != nil {
		t.Fatal(err)
	}
	h.client.PrependReactor("patch", "services", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, errors.New("connection reset")
	})
	h.update(loadBalancer("web", recording("203.0.113.1")))
	services := h.balancer.writes.watch(h.client).CoreV1().Services("default")
	if _, err := services.Patch(t.Context(), "web", types.StrategicMergePatchType, []byte(`{}`), metav1.PatchOptions{}, "status"); err == nil {
		t.Fatal("no error")
	}
	if _, err := h.ensure("web"); err != nil {
		t.Fatal(err)
	}
	h.update(loadBalancer("web", recording("203.0.113.99")))
	h.handedBack("web")
}

// TestUpstreamWritesAreWatched pins that the upstream controller writes by Patch,
// through the client that it is given.
func TestUpstreamWritesAreWatched(t *testing.T) {
	h := newHarness(t, Options{}, loadBalancer("web"))
	h.pools.Add(lanPool("203.0.113.1"))
	seen := make(chan struct{}, 10)
	h.balancer.writes.ended = func() { seen <- struct{}{} }
	upstream, err := newServiceController(h.Cloud, h.client, h.factory.Core().V1().Nodes(), "")
	if err != nil {
		t.Fatal(err)
	}
	h.begin()
	go upstream.Run(t.Context(), 1, controllersmetrics.NewControllerManagerMetrics("test"))
	h.eventually("web has its address", func() bool {
		web, err := h.client.CoreV1().Services("default").Get(t.Context(), "web", metav1.GetOptions{})
		return err == nil && len(web.Status.LoadBalancer.Ingress) == 1
	})
	patches := 0
	for _, action := range h.client.Actions() {
		if action.Matches("patch", "services") {
			patches++
		}
		if action.Matches("update", "services") {
			t.Errorf("upstream updates Services: %v", action)
		}
	}
	for range patches {
		<-seen
	}
	if patches != 2 {
		t.Errorf("%d writes; want the finalizer and the status", patches)
	}
}

func TestAddressesAreForOneService(t *testing.T) {
	for patch, want := range map[string]string{
		`{"status":{"loadBalancer":{}}}`:                     `{"metadata":{"uid":"u"},"status":{"loadBalancer":{}}}`,
		`{"metadata":{"annotations":null},"status":{"x":1}}`: `{"metadata":{"annotations":null,"uid":"u"},"status":{"x":1}}`,
		`{"metadata":{"finalizers":["a"]}}`:                  `{"metadata":{"finalizers":["a"]}}`,
	} {
		got, err := meantFor("u", []byte(patch))
		if err != nil || string(got) != want {
			t.Errorf("%s became %s (%v); want %s", patch, got, err, want)
		}
	}
}
