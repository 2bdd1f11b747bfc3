package planner

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	lbclient "github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/client"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/plan"
)

// pools is an objectWriter with one AddressPool, lan, in its cache; the test
// plays the API server. What is patched is in the cache at once.
type pools struct {
	*objectWriter
	t      *testing.T
	client *fake.Clientset

	mu      sync.Mutex
	pool    *v1alpha1.AddressPool // nil where it is no more
	version int
	refuse  int // with this code, unless 0
	patches []poolPatch
}

// poolPatch is a patch that arrived at the API server.
type poolPatch struct {
	path string
	text string
	at   time.Duration // since the start
	pool v1alpha1.AddressPool
}

func newPools(t *testing.T, pool *v1alpha1.AddressPool, services ...*corev1.Service) *pools {
	t.Helper()
	s := &pools{t: t, client: fake.NewClientset(), version: 100}
	for _, svc := range services {
		if err := s.client.Tracker().Add(svc); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	config := &rest.Config{Host: "http://test", Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
		var code int
		var body string
		if r.Method == http.MethodGet {
			code, body = s.read()
		} else {
			patch, err := io.ReadAll(r.Body)
			if err != nil {
				return nil, err
			}
			code, body = s.answer(r.URL.Path, patch, time.Since(began))
		}
		return &http.Response{
			StatusCode: code, Header: http.Header{"Content-Type": {"application/json"}},
			Body: io.NopCloser(strings.NewReader(body)), Request: r,
		}, nil
	})}
	lb, err := lbclient.New(config)
	if err != nil {
		t.Fatal(err)
	}
	metadata, err := metadata.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	s.objectWriter = newObjectWriter(s.client, lb, metadata, newObjects(s.client, lb, "speakers"))
	s.cache(pool)
	return s
}

// cache has the informer and the API server hold this AddressPool.
func (s *pools) cache(pool *v1alpha1.AddressPool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pool = pool
	s.replace(pool)
}

// replace has the informer hold this AddressPool.
func (s *pools) replace(pool *v1alpha1.AddressPool) {
	s.t.Helper()
	if err := s.objects.pools.GetStore().Replace([]any{pool}, ""); err != nil {
		s.t.Fatal(err)
	}
}

// read is the answer to those who ask for the metadata of the AddressPool.
func (s *pools) read() (code int, body string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return http.StatusOK, s.encode(metadataOf(s.pool))
}

func metadataOf(pool *v1alpha1.AddressPool) *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{
		TypeMeta:   metav1.TypeMeta{APIVersion: "meta.k8s.io/v1", Kind: "PartialObjectMetadata"},
		ObjectMeta: pool.ObjectMeta,
	}
}

func (s *pools) encode(answer any) string {
	text, err := json.Marshal(answer)
	if err != nil {
		s.t.Error(err)
	}
	return string(text)
}

func (s *pools) answer(path string, patch []byte, at time.Duration) (code int, body string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	updated := s.pool.DeepCopy()
	if err := json.Unmarshal(patch, updated); err != nil {
		s.t.Errorf("patch %s: %v", patch, err)
	}
	s.patches = append(s.patches, poolPatch{path: path, text: string(patch), at: at, pool: *updated})
	code = s.refuse
	if code == 0 && updated.ResourceVersion != s.pool.ResourceVersion {
		code = http.StatusConflict
	}
	if code != 0 {
		reason := strings.ReplaceAll(http.StatusText(code), " ", "")
		return code, fmt.Sprintf(`{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": %q, "code": %d}`, reason, code)
	}
	s.version++
	updated.ResourceVersion = fmt.Sprint(s.version)
	s.pool = updated
	s.replace(updated)
	if !strings.HasSuffix(path, "/status") {
		return http.StatusOK, s.encode(metadataOf(updated))
	}
	return http.StatusOK, s.encode(updated)
}

// take returns the patches since the last call.
func (s *pools) take() []poolPatch {
	s.mu.Lock()
	defer s.mu.Unlock()
	patches := s.patches
	s.patches = nil
	return patches
}

func poolAt(resourceVersion, allocated string) *v1alpha1.AddressPool {
	return &v1alpha1.AddressPool{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.SchemeGroupVersion.String(), Kind: "AddressPool"},
		ObjectMeta: metav1.ObjectMeta{Name: "lan", UID: "uid-lan", ResourceVersion: resourceVersion},
		Spec:       v1alpha1.AddressPoolSpec{Addresses: []string{"203.0.113.0/24"}},
		Status: v1alpha1.AddressPoolStatus{
			Capacity: "256", Allocated: allocated, Available: "9",
			Conditions: []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: "Ready"}},
		},
	}
}

// allocating is a plan in which the pool lan has so many addresses in use.
func allocating(allocated string) *plan.Plan {
	return &plan.Plan{Pools: []plan.Pool{
		{Name: "gone"},
		{Name: "lan", Capacity: "256", Allocated: allocated, Available: "9"},
	}}
}

func TestStatusOfAddressPools(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newPools(t, poolAt("10", ""))
		step := func(what string, cached *v1alpha1.AddressPool, allocated string, patches int, wait time.Duration, fails bool) []poolPatch {
			t.Helper()
			s.replace(cached)
			came := s.write(t.Context(), allocating(allocated))
			got := s.take()
			if (len(came.errs) > 0) != fails || came.again != wait || len(got) != patches {
				t.Errorf("%s: patches %+v, wait %v, errors %v; want %d and %v, failing: %t", what, got, came.again, came.errs, patches, wait, fails)
			}
			return got
		}
		first := step("the first", &v1alpha1.AddressPool{ObjectMeta: poolAt("10", "").ObjectMeta}, "1", 1, 0, false)
		const path, want = "/apis/lb.baremetal.dev/v1alpha1/addresspools/lan/status", `{"metadata":{"uid":"uid-lan"},"status":{"capacity":"256","allocated":"1",`
		if len(first) > 0 && (first[0].path != path || !strings.HasPrefix(first[0].text, want)) {
			t.Errorf("patch of %s: %s", first[0].path, first[0].text)
		}
		step("a stale cache", poolAt("100", "0"), "2", 0, cacheLag, false)
		step("equal", poolAt("101", "1"), "1", 0, 0, false)
		time.Sleep(objectInterval / 4)
		step("too early", poolAt("101", "1"), "2", 0, objectInterval*3/4, false)
		time.Sleep(objectInterval)
		step("in time", poolAt("101", "1"), "2", 1, 0, false)
		time.Sleep(objectInterval)
		s.refuse = http.StatusNotFound
		step("deleted", poolAt("102", "1"), "3", 1, 0, false)
		time.Sleep(objectInterval)
		s.refuse = http.StatusForbidden
		step("forbidden", poolAt("102", "1"), "3", 1, retryInterval, true)
	})
}

// TestPoolsWhilePlansNeverStop has plans come for ten seconds, each with another
// number.
func TestPoolsWhilePlansNeverStop(t *testing.T) {
	for _, every := range []time.Duration{5 * time.Millisecond, 20 * time.Millisecond, 70 * time.Millisecond, 300 * time.Millisecond} {
		t.Run(every.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newPools(t, poolAt("10", "0"))
				ctx, cancel := context.WithCancel(t.Context())
				ended := s.start(ctx)
				began := time.Now()
				plans := 0
				for time.Since(began) < 10*time.Second {
					plans++
					s.set(allocating(fmt.Sprint(plans)))
					time.Sleep(every)
				}
				time.Sleep(2 * objectInterval)
				cancel()
				<-ended

				patches := s.take()
				if first := patches[0].at; first > objectPatience {
					t.Errorf("the first write was after %v", first)
				}
				for i, p := range patches {
					if i > 0 && p.at-patches[i-1].at != objectInterval {
						t.Errorf("written after %v, and %v later", patches[i-1].at, p.at-patches[i-1].at)
					}
					// That of the plan of then, or of the one before.
					latest := min(int(p.at/every)+1, plans)
					if got := p.pool.Status.Allocated; got != fmt.Sprint(latest) && got != fmt.Sprint(latest-1) {
						t.Errorf("written after %v: %s; the plan said %d", p.at, got, latest)
					}
				}
				last := patches[len(patches)-1]
				if last.pool.Status.Allocated != fmt.Sprint(plans) || last.at > 10*time.Second+objectInterval {
					t.Errorf("the last write was after %v: %s; want %d", last.at, last.pool.Status.Allocated, plans)
				}
				if len(patches) < 10 {
					t.Errorf("%d writes", len(patches))
				}
			})
		})
	}
}

// TestFailingPoolsDoNotHurry: a write that fails is tried again once a second.
func TestFailingPoolsDoNotHurry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newPools(t, poolAt("10", "0"))
		s.refuse = http.StatusInternalServerError
		ctx, cancel := context.WithCancel(t.Context())
		ended := s.start(ctx)
		for range 100 {
			s.set(allocating("1"))
			time.Sleep(50 * time.Millisecond)
		}
		if got := len(s.take()); got < 4 || got > 6 {
			t.Errorf("%d writes in 5 s; want about 5", got)
		}
		s.mu.Lock()
		s.refuse = 0
		s.mu.Unlock()
		time.Sleep(2 * retryInterval)
		if got := s.take(); len(got) != 1 || got[0].pool.Status.Allocated != "1" {
			t.Errorf("when the API server is well again: %+v", got)
		}
		cancel()
		<-ended
	})
}

// TestAForeignStatusIsRepaired though no plan comes: its event wakes the loop.
func TestAForeignStatusIsRepaired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newPools(t, poolAt("10", "0"))
		ctx, cancel := context.WithCancel(t.Context())
		ended := s.start(ctx)
		s.set(allocating("1"))
		time.Sleep(time.Minute)
		s.take()
		s.cache(poolAt("200", "77"))
		s.wake()
		time.Sleep(objectPatience)
		synctest.Wait()
		if got := s.take(); len(got) != 1 || got[0].pool.Status.Allocated != "1" {
			t.Errorf("patches %+v", got)
		}
		cancel()
		<-ended
	})
}

func TestPoolsThatAreGoneAreForgotten(t *testing.T) {
	s := newPools(t, poolAt("10", "0"))
	s.write(t.Context(), allocating("1"))
	s.finalizers.take("uid-lan")
	if err := s.objects.pools.GetStore().Replace(nil, ""); err != nil {
		t.Fatal(err)
	}
	s.write(t.Context(), allocating("1"))
	if len(s.written)+len(s.statuses)+len(s.finalizers) > 0 {
		t.Errorf("written %v, statuses %v, finalizers %v", s.written, s.statuses, s.finalizers)
	}
}

func TestFinalizerOfPools(t *testing.T) {
	const other = "example.com/other"
	holder := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
		Status:     corev1.ServiceStatus{LoadBalancer: corev1.LoadBalancerStatus{Ingress: []corev1.LoadBalancerIngress{{IP: "203.0.113.7"}}}},
	}
	elsewhere := holder.DeepCopy()
	elsewhere.Status.LoadBalancer.Ingress[0].IP = "198.51.100.7"
	for name, test := range map[string]struct {
		has      []string
		deleting bool
		inUse    bool            // by the plan
		service  *corev1.Service // as the API server has it; nil for none
		want     []string        // nil where nothing is to be written
	}{
		"the first address":          {inUse: true, want: []string{v1alpha1.PoolInUse}},
		"beside that of others":      {has: []string{other}, inUse: true, want: []string{other, v1alpha1.PoolInUse}},
		"in use":                     {has: []string{v1alpha1.PoolInUse}, inUse: true},
		"unused":                     {has: []string{other}},
		"the last address":           {has: []string{other, v1alpha1.PoolInUse, "example.com/more"}, want: []string{other, "example.com/more"}},
		"the last, others elsewhere": {has: []string{v1alpha1.PoolInUse}, service: elsewhere, want: []string{}},
		"a cache that lags":          {has: []string{v1alpha1.PoolInUse}, service: holder},
		"deleted while in use":       {has: []string{v1alpha1.PoolInUse}, deleting: true, inUse: true},
		"deleted, the last address":  {has: []string{v1alpha1.PoolInUse, other}, deleting: true, want: []string{other}},
		"deleted, a cache that lags": {has: []string{v1alpha1.PoolInUse}, deleting: true, service: holder},
		"deleted before its use":     {has: []string{other}, deleting: true, inUse: true},
	} {
		t.Run(name, func(t *testing.T) {
			pool := poolAt("10", "1")
			pool.Finalizers = test.has
			if test.deleting {
				pool.DeletionTimestamp = &metav1.Time{Time: time.Unix(1e9, 0)}
			}
			var services []*corev1.Service
			if test.service != nil {
				services = append(services, test.service)
			}
			s := newPools(t, pool, services...)
			p := allocating("1")
			p.Pools[1].InUse = test.inUse
			if came := s.write(t.Context(), p); len(came.errs) > 0 {
				t.Error(came.errs)
			}
			patches := s.take()
			if test.want == nil {
				if len(patches) > 0 {
					t.Errorf("patches %+v; want none", patches)
				}
				return
			}
			if len(patches) != 1 || !slices.Equal(patches[0].pool.Finalizers, test.want) {
				t.Fatalf("patches %+v; want one for the finalizers %q", patches, test.want)
			}
			for _, precondition := range []string{`"uid":"uid-lan"`, `"resourceVersion":"10"`} {
				if !strings.Contains(patches[0].text, precondition) {
					t.Errorf("patch %s has no precondition %s", patches[0].text, precondition)
				}
			}
		})
	}
}

// TestFinalizerIsWrittenToTheVersionThatWasRead: what others change meanwhile
// is not lost, and soon all is as it should be.
func TestFinalizerIsWrittenToTheVersionThatWasRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newPools(t, poolAt("10", "1"))
		changed := poolAt("11", "1")
		changed.Finalizers = []string{"example.com/other"}
		s.pool = changed // the cache does not know yet
		p := allocating("1")
		p.Pools[1].InUse = true
		ctx, cancel := context.WithCancel(t.Context())
		ended := s.start(ctx)
		s.set(p)
		time.Sleep(objectQuiet)
		synctest.Wait()
		if got := s.take(); len(got) != 2 || got[0].pool.ResourceVersion != "10" || got[1].pool.ResourceVersion != "11" {
			t.Errorf("patches %+v; want one that is refused, and one of the present version", got)
		}
		if want := []string{"example.com/other", v1alpha1.PoolInUse}; !slices.Equal(s.pool.Finalizers, want) {
			t.Errorf("finalizers %q; want %q", s.pool.Finalizers, want)
		}
		cancel()
		<-ended
	})
}

// TestFinalizerOfAPoolThatGoesInAndOutOfUse comes at once, goes a second later at
// the earliest, and ends up right.
func TestFinalizerOfAPoolThatGoesInAndOutOfUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newPools(t, poolAt("10", "1"))
		ctx, cancel := context.WithCancel(t.Context())
		ended := s.start(ctx)
		for i := range 101 {
			p := allocating("1")
			p.Pools[1].InUse = i%2 == 0
			s.set(p)
			time.Sleep(50 * time.Millisecond)
		}
		time.Sleep(objectInterval)
		cancel()
		<-ended
		patches := s.take()
		for i := range patches {
			if i > 1 && patches[i].at-patches[i-2].at < objectInterval {
				t.Errorf("written after %v, %v and %v", patches[i-2].at, patches[i-1].at, patches[i].at)
			}
		}
		if !slices.Contains(s.pool.Finalizers, v1alpha1.PoolInUse) {
			t.Errorf("finalizers %q after %d writes", s.pool.Finalizers, len(patches))
		}
	})
}
