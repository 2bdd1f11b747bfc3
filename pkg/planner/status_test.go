package planner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	ktesting "k8s.io/client-go/testing"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	lbclient "github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/client"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/plan"
)

// statuses is a statusWriter whose caches and API server the test plays.
type statuses struct {
	*statusWriter
	t      *testing.T
	client *fake.Clientset
	server apiServer
}

// apiServer is what the test sees of the API server.
type apiServer struct {
	mu      sync.Mutex
	version int
	patches []string
	times   []time.Duration // of the patches, since the start
}

// seen are the patches, and when they came.
func (s *apiServer) seen() ([]string, []time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.patches), slices.Clone(s.times)
}

func newStatuses(t *testing.T) *statuses {
	t.Helper()
	lb, err := lbclient.New(&rest.Config{Host: "http://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	s := &statuses{t: t, client: fake.NewClientset(), server: apiServer{version: 100}}
	s.statusWriter = newStatusWriter(s.client, lb, newObjects(s.client, lb, "speakers"))
	began := time.Now()
	s.client.PrependReactor("patch", "services", func(action ktesting.Action) (bool, runtime.Object, error) {
		patch := action.(ktesting.PatchAction)
		s.server.mu.Lock()
		defer s.server.mu.Unlock()
		s.server.patches = append(s.server.patches, patch.GetName()+" "+string(patch.GetPatch()))
		s.server.times = append(s.server.times, time.Since(began))
		s.server.version++
		return true, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: patch.GetName(), ResourceVersion: fmt.Sprint(s.server.version)}}, nil
	})
	return s
}

// caches has the informers hold these Services and no others.
func (s *statuses) caches(services ...*corev1.Service) {
	s.t.Helper()
	objects := make([]any, len(services))
	for i, svc := range services {
		objects[i] = svc
	}
	if err := s.objects.services.GetStore().Replace(objects, ""); err != nil {
		s.t.Fatal(err)
	}
}

// one writes a plan and returns the patches that took.
func (s *statuses) one(p *plan.Plan) (patches []string, wait time.Duration) {
	s.t.Helper()
	before, _ := s.server.seen()
	wait, interrupted, err := s.write(s.t.Context(), p)
	if err != nil || interrupted {
		s.t.Errorf("interrupted: %t, error: %v", interrupted, err)
	}
	after, _ := s.server.seen()
	return after[len(before):], wait
}

func serviceAt(resourceVersion int, name string, conditions ...metav1.Condition) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID("uid-" + name), ResourceVersion: fmt.Sprint(resourceVersion)},
		Status:     corev1.ServiceStatus{Conditions: conditions},
	}
}

func announcedBy(node string) metav1.Condition {
	return metav1.Condition{
		Type: v1alpha1.ConditionAnnounced, Status: metav1.ConditionTrue, Reason: "Announced",
		Message: "203.0.113.1: announced by " + node, LastTransitionTime: metav1.Unix(1e9, 0),
	}
}

// planned is a plan with Services that the node announces at 203.0.113.1.
func planned(node string, services ...string) *plan.Plan {
	p := &plan.Plan{}
	for _, name := range services {
		p.Services = append(p.Services, plan.Service{Namespace: "default", Name: name, Addresses: []plan.Address{{
			Range: announce.Single(netip.MustParseAddr("203.0.113.1")),
			BGP:   []plan.NodeVerdict{{Node: node, Verdict: plan.Announces}},
		}}})
	}
	return p
}

func TestConditionsAreWrittenWhereTheyDiffer(t *testing.T) {
	deleting := serviceAt(1, "web", announcedBy("a"))
	deleting.DeletionTimestamp = &metav1.Time{}
	other := metav1.Condition{Type: "example.com/Checked", Status: metav1.ConditionTrue}
	for name, test := range map[string]struct {
		service *corev1.Service
		plan    *plan.Plan
		want    map[string]any // the condition in the patch; nil for no patch
	}{
		"the first":              {serviceAt(1, "web", other), planned("a", "web"), map[string]any{"status": "True", "reason": "Announced", "message": "203.0.113.1: announced by a"}},
		"another message":        {serviceAt(1, "web", announcedBy("b")), planned("a", "web"), map[string]any{"status": "True", "message": "203.0.113.1: announced by a", "lastTransitionTime": "2001-09-09T01:46:40Z"}},
		"no address any more":    {serviceAt(1, "web", announcedBy("a")), &plan.Plan{Services: []plan.Service{{Namespace: "default", Name: "web"}}}, map[string]any{"status": "False", "reason": "NoAddress"}},
		"equal":                  {serviceAt(1, "web", announcedBy("a"), other), planned("a", "web"), nil},
		"no longer ours":         {serviceAt(1, "web", announcedBy("a"), other), &plan.Plan{}, map[string]any{"$patch": "delete"}},
		"never ours":             {serviceAt(1, "web", other), &plan.Plan{}, nil},
		"deleted meanwhile":      {serviceAt(1, "other"), planned("a", "web"), nil},
		"on its way out, at all": {deleting, &plan.Plan{}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStatuses(t)
			s.caches(test.service)
			patches, wait := s.one(test.plan)
			if wait != 0 {
				t.Errorf("waits %v", wait)
			}
			if test.want == nil {
				if len(patches) > 0 {
					t.Errorf("patched: %s", patches)
				}
				return
			}
			if len(patches) != 1 {
				t.Fatalf("patches %s; want one", patches)
			}
			var patch struct {
				Metadata struct{ UID string }
				Status   struct{ Conditions []map[string]any }
			}
			if err := json.Unmarshal([]byte(strings.TrimPrefix(patches[0], "web ")), &patch); err != nil {
				t.Fatal(err)
			}
			if patch.Metadata.UID != "uid-web" || len(patch.Status.Conditions) != 1 {
				t.Fatalf("patch %s", patches[0])
			}
			test.want["type"] = v1alpha1.ConditionAnnounced
			for key, want := range test.want {
				if got := patch.Status.Conditions[0][key]; got != want {
					t.Errorf("%s is %v; want %v", key, got, want)
				}
			}
		})
	}
}

func TestStaleCachesAreWaitedFor(t *testing.T) {
	s := newStatuses(t)
	s.caches(serviceAt(1, "web"))
	if patches, wait := s.one(planned("a", "web")); len(patches) != 1 || wait != 0 {
		t.Fatalf("patches %s, wait %v", patches, wait)
	}
	// The cache does not know of the write yet.
	if patches, wait := s.one(planned("a", "web")); len(patches) != 0 || wait != cacheLag {
		t.Errorf("patches %s, wait %v", patches, wait)
	}
	// A newer plan that takes the condition away waits, too.
	if patches, wait := s.one(&plan.Plan{}); len(patches) != 0 || wait != cacheLag {
		t.Errorf("patches %s, wait %v", patches, wait)
	}
	s.caches(serviceAt(s.server.version, "web", announcedBy("a")))
	if patches, wait := s.one(planned("a", "web")); len(patches) != 0 || wait != 0 {
		t.Errorf("patches %s, wait %v", patches, wait)
	}
	if patches, _ := s.one(&plan.Plan{}); len(patches) != 1 {
		t.Errorf("patches %s; want one that removes the condition", patches)
	}
}

func TestWroteTellsOurConditionsFromOthers(t *testing.T) {
	s := newStatuses(t)
	s.caches(serviceAt(1, "web"))
	check := func(what string, svc *corev1.Service, want bool) {
		t.Helper()
		if got := s.wrote(svc); got != want {
			t.Errorf("%s: %t; want %t", what, got, want)
		}
	}
	check("before any write", serviceAt(2, "web"), false)
	s.one(planned("a", "web"))
	ours := announcedBy("a")
	ours.LastTransitionTime = metav1.Now()
	check("ours", serviceAt(3, "web", ours), true)
	check("edited", serviceAt(3, "web", announcedBy("b")), false)
	check("removed", serviceAt(3, "web"), false)
	check("another Service's", serviceAt(3, "api", ours), false)

	s.caches(serviceAt(s.server.version, "web", ours))
	s.one(&plan.Plan{})
	check("removed by us", serviceAt(4, "web"), true)
	check("there again", serviceAt(4, "web", ours), false)

	s.forget()
	check("in a later term", serviceAt(4, "web"), false)
}

func TestObjectsThatAreGoneAreForgottenByStatuses(t *testing.T) {
	s := newStatuses(t)
	s.caches(serviceAt(1, "web"), serviceAt(1, "api"))
	s.next["uid-pool"] = time.Now()
	s.one(planned("a", "web", "api"))
	s.caches(serviceAt(1, "api"))
	s.one(planned("a", "api"))
	if len(s.sent) != 1 || len(s.written) != 1 || len(s.next) != 0 {
		t.Errorf("sent %v, written %v, next %v; want api only", s.sent, s.written, s.next)
	}
}

// poolServer answers patches of AddressPools; the test sets how.
type poolServer struct {
	code    int
	body    string
	patches []string
}

func (s *poolServer) RoundTrip(r *http.Request) (*http.Response, error) {
	patch, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	s.patches = append(s.patches, r.Method+" "+r.URL.Path+" "+string(patch))
	return &http.Response{
		StatusCode: s.code, Header: http.Header{"Content-Type": {"application/json"}},
		Body: io.NopCloser(strings.NewReader(s.body)), Request: r,
	}, nil
}

func poolAt(resourceVersion, allocated string) *v1alpha1.AddressPool {
	return &v1alpha1.AddressPool{
		ObjectMeta: metav1.ObjectMeta{Name: "lan", UID: "uid-lan", ResourceVersion: resourceVersion},
		Status: v1alpha1.AddressPoolStatus{
			Capacity: "256", Allocated: allocated, Available: "9",
			Conditions: []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: "Ready"}},
		},
	}
}

func TestStatusOfAddressPools(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &poolServer{code: http.StatusOK, body: `{"metadata": {"name": "lan", "uid": "uid-lan", "resourceVersion": "20"}}`}
		client := fake.NewClientset()
		lb, err := lbclient.New(&rest.Config{Host: "http://test", Transport: server})
		if err != nil {
			t.Fatal(err)
		}
		w := newStatusWriter(client, lb, newObjects(client, lb, "speakers"))
		step := func(what string, cached *v1alpha1.AddressPool, allocated string, patches int, wait time.Duration, fails bool) {
			t.Helper()
			if err := w.objects.pools.GetStore().Replace([]any{cached}, ""); err != nil {
				t.Fatal(err)
			}
			server.patches = nil
			got, _, err := w.write(t.Context(), &plan.Plan{Pools: []plan.Pool{
				{Name: "gone"},
				{Name: "lan", Capacity: "256", Allocated: allocated, Available: "9"},
			}})
			if (err != nil) != fails || got != wait || len(server.patches) != patches {
				t.Errorf("%s: patches %q, wait %v, error %v; want %d and %v, failing: %t", what, server.patches, got, err, patches, wait, fails)
			}
		}
		step("the first", &v1alpha1.AddressPool{ObjectMeta: poolAt("10", "").ObjectMeta}, "1", 1, 0, false)
		const want = `PATCH /apis/lb.baremetal.dev/v1alpha1/addresspools/lan/status {"metadata":{"uid":"uid-lan"},"status":{"capacity":"256","allocated":"1",`
		if len(server.patches) > 0 && !strings.HasPrefix(server.patches[0], want) {
			t.Errorf("patch %s", server.patches[0])
		}
		step("a stale cache", poolAt("10", "0"), "2", 0, cacheLag, false)
		step("equal", poolAt("20", "1"), "1", 0, 0, false)
		time.Sleep(objectInterval / 4)
		step("too early", poolAt("20", "1"), "2", 0, objectInterval*3/4, false)
		time.Sleep(objectInterval)
		step("in time", poolAt("20", "1"), "2", 1, 0, false)
		time.Sleep(objectInterval)
		server.code, server.body = http.StatusNotFound, `{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}`
		step("deleted", poolAt("21", "1"), "3", 1, 0, false)
		time.Sleep(objectInterval)
		server.code, server.body = http.StatusForbidden, `{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden", "code": 403}`
		step("forbidden", poolAt("21", "1"), "3", 1, 0, true)
	})
}

// TestStatusesWaitForCalm runs the loop with plans that come every so often.
func TestStatusesWaitForCalm(t *testing.T) {
	for name, test := range map[string]struct {
		plans, every int           // milliseconds
		want         time.Duration // of the first write
	}{
		"one plan":                 {1, 0, quiet},
		"a burst":                  {10, 50, 450*time.Millisecond + quiet},
		"plans that come for ever": {400, 50, patience},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStatuses(t)
				s.caches(serviceAt(1, "web"))
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- s.run(ctx) }()
				for range test.plans {
					s.set(planned("a", "web"))
					synctest.Wait()
					if patches, _ := s.server.seen(); len(patches) > 0 {
						break
					}
					time.Sleep(time.Duration(test.every) * time.Millisecond)
				}
				time.Sleep(quiet)
				synctest.Wait()
				cancel()
				if err := <-ended; err != nil {
					t.Error(err)
				}
				if _, times := s.server.seen(); !slices.Equal(times, []time.Duration{test.want}) {
					t.Errorf("written after %v; want %v", times, test.want)
				}
			})
		})
	}
}

// TestStatusesAreWrittenWhilePlansChange has more conditions to write than go
// into one turn, and plans that never stop changing.
func TestStatusesAreWrittenWhilePlansChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const services = 500
		s := newStatuses(t)
		var names []string
		var objects []*corev1.Service
		for i := range services {
			names = append(names, fmt.Sprintf("s%03d", i))
			objects = append(objects, serviceAt(1, names[i]))
		}
		s.caches(objects...)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.run(ctx) }()
		began := time.Now()
		written := 0
		for written < services && time.Since(began) < time.Minute {
			s.set(planned("a", names...))
			time.Sleep(20 * time.Millisecond)
			synctest.Wait()
			patches, _ := s.server.seen()
			written = len(patches)
		}
		if took, most := time.Since(began), patience+services*time.Second/conditionRate+turn; took > most {
			t.Errorf("%d conditions written after %v; want all %d after %v", written, took, services, most)
		}
		cancel()
		<-ended
	})
}

func TestStatusesThatFailAreTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStatuses(t)
		s.caches(serviceAt(1, "web"), serviceAt(1, "api"))
		failures := 2
		s.client.PrependReactor("patch", "services", func(action ktesting.Action) (bool, runtime.Object, error) {
			if failures > 0 && action.(ktesting.PatchAction).GetName() == "web" {
				failures--
				return true, nil, errors.New("etcd is away")
			}
			return false, nil, nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.run(ctx) }()
		s.set(planned("a", "web", "api"))
		time.Sleep(time.Minute)
		want := []time.Duration{quiet, quiet + 2*retryInterval} // api at once, then web
		if _, times := s.server.seen(); !slices.Equal(times, want) {
			t.Errorf("written after %v; want %v", times, want)
		}
		cancel()
		<-ended
	})
}

// TestALaterTermKnowsNoEarlierPlan: another planner may have gone on meanwhile.
func TestALaterTermKnowsNoEarlierPlan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStatuses(t)
		s.caches(serviceAt(1, "web"))
		s.set(planned("a", "web"))
		s.forget()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.run(ctx) }()
		time.Sleep(time.Minute)
		if patches, _ := s.server.seen(); len(patches) > 0 {
			t.Errorf("written: %s", patches)
		}
		cancel()
		<-ended
	})
}
