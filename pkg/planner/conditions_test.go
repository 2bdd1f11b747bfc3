package planner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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

// conditions is a conditionWriter whose caches and API server the test plays.
type conditions struct {
	*conditionWriter
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

func newConditions(t *testing.T) *conditions {
	t.Helper()
	lb, err := lbclient.New(&rest.Config{Host: "http://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	s := &conditions{t: t, client: fake.NewClientset(), server: apiServer{version: 100}}
	s.conditionWriter = newConditionWriter(s.client, newObjects(s.client, lb, "speakers"))
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
func (s *conditions) caches(services ...*corev1.Service) {
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
func (s *conditions) one(p *plan.Plan) (patches []string, wait time.Duration) {
	s.t.Helper()
	before, _ := s.server.seen()
	came := s.write(s.t.Context(), p)
	if len(came.errs) > 0 || came.interrupted {
		s.t.Errorf("interrupted: %t, errors: %v", came.interrupted, came.errs)
	}
	after, _ := s.server.seen()
	return after[len(before):], came.again
}

// start runs the loop; the channel is closed when it has ended.
func (l *statusLoop) start(ctx context.Context) <-chan struct{} {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		l.run(ctx)
	}()
	return ended
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
		p.Services = append(p.Services, plan.Service{Namespace: "default", Name: name, Addresses: []plan.Address{
			plan.Judged(announce.Single(netip.MustParseAddr("203.0.113.1")), plan.NodeVerdict{Node: node, Verdict: plan.Announces}),
		}})
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
			s := newConditions(t)
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
	s := newConditions(t)
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
	s := newConditions(t)
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

func TestServicesThatAreGoneAreForgotten(t *testing.T) {
	s := newConditions(t)
	s.caches(serviceAt(1, "web"), serviceAt(1, "api"))
	s.one(planned("a", "web", "api"))
	s.caches(serviceAt(1, "api"))
	s.one(planned("a", "api"))
	if len(s.sent) != 1 || len(s.written) != 1 {
		t.Errorf("sent %v, written %v; want api only", s.sent, s.written)
	}
}

// TestConditionsWaitForCalm runs the loop with plans that come every so often.
func TestConditionsWaitForCalm(t *testing.T) {
	for name, test := range map[string]struct {
		plans, every int           // milliseconds
		want         time.Duration // of the first write
	}{
		"one plan":                 {1, 0, conditionQuiet},
		"a burst":                  {10, 50, 450*time.Millisecond + conditionQuiet},
		"plans that come for ever": {400, 50, conditionPatience},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newConditions(t)
				s.caches(serviceAt(1, "web"))
				ctx, cancel := context.WithCancel(t.Context())
				ended := s.start(ctx)
				for range test.plans {
					s.set(planned("a", "web"))
					synctest.Wait()
					if patches, _ := s.server.seen(); len(patches) > 0 {
						break
					}
					time.Sleep(time.Duration(test.every) * time.Millisecond)
				}
				time.Sleep(conditionQuiet)
				synctest.Wait()
				cancel()
				<-ended
				if _, times := s.server.seen(); !slices.Equal(times, []time.Duration{test.want}) {
					t.Errorf("written after %v; want %v", times, test.want)
				}
			})
		})
	}
}

// TestConditionsAreWrittenWhilePlansChange has more conditions to write than go
// into one turn, and plans that never stop changing.
func TestConditionsAreWrittenWhilePlansChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const services = 500
		s := newConditions(t)
		var names []string
		var objects []*corev1.Service
		for i := range services {
			names = append(names, fmt.Sprintf("s%03d", i))
			objects = append(objects, serviceAt(1, names[i]))
		}
		s.caches(objects...)
		ctx, cancel := context.WithCancel(t.Context())
		ended := s.start(ctx)
		began := time.Now()
		written := 0
		for written < services && time.Since(began) < time.Minute {
			s.set(planned("a", names...))
			time.Sleep(20 * time.Millisecond)
			synctest.Wait()
			patches, _ := s.server.seen()
			written = len(patches)
		}
		if took, most := time.Since(began), conditionPatience+services*time.Second/conditionRate+turn; took > most {
			t.Errorf("%d conditions written after %v; want all %d after %v", written, took, services, most)
		}
		cancel()
		<-ended
	})
}

func TestConditionsThatFailAreTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newConditions(t)
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
		ended := s.start(ctx)
		s.set(planned("a", "web", "api"))
		time.Sleep(time.Minute)
		want := []time.Duration{conditionQuiet, conditionQuiet + 2*retryInterval} // api at once, then web
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
		s := newConditions(t)
		s.caches(serviceAt(1, "web"))
		s.set(planned("a", "web"))
		s.forget()
		ctx, cancel := context.WithCancel(t.Context())
		ended := s.start(ctx)
		time.Sleep(time.Minute)
		if patches, _ := s.server.seen(); len(patches) > 0 {
			t.Errorf("written: %s", patches)
		}
		cancel()
		<-ended
	})
}

// TestNewServicesAreExpectedToBeServed: that a Service has no address yet is told
// when that lasts, and not in a write of its own for each new Service.
func TestNewServicesAreExpectedToBeServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newConditions(t)
		created := serviceAt(1, "web")
		created.CreationTimestamp = metav1.Now()
		waiting := &plan.Plan{Services: []plan.Service{{Namespace: "default", Name: "web"}}}
		refused := &plan.Plan{Services: []plan.Service{{Namespace: "default", Name: "web", Refusal: &plan.Problem{Reason: "NoPool", Message: "create one"}}}}
		s.caches(created)
		time.Sleep(time.Second)
		if patches, wait := s.one(waiting); len(patches) > 0 || wait != servingPatience-time.Second {
			t.Errorf("patches %s, wait %v", patches, wait)
		}
		if patches, _ := s.one(refused); len(patches) != 1 {
			t.Errorf("a refusal takes patches %s", patches)
		}
		s.forget()
		time.Sleep(servingPatience)
		if patches, wait := s.one(waiting); len(patches) != 1 || wait != 0 {
			t.Errorf("later: patches %s, wait %v", patches, wait)
		}
		s.forget()
		created.CreationTimestamp = metav1.NewTime(time.Now().Add(time.Hour)) // by a clock that is ahead
		if patches, _ := s.one(waiting); len(patches) != 1 {
			t.Errorf("by a clock that is ahead: patches %s", patches)
		}
	})
}
