package speaker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

// source is an API server with one Node.
type source struct {
	sync.Mutex
	down    bool
	items   []corev1.Node
	lists   int
	watches []*watch.FakeWatcher
	from    []string // resourceVersions of the watches
}

var errDown = errors.New("connection refused")

func (s *source) listNode(context.Context) (*corev1.NodeList, error) {
	s.Lock()
	defer s.Unlock()
	s.lists++
	if s.down {
		return nil, errDown
	}
	return &corev1.NodeList{ListMeta: metav1.ListMeta{ResourceVersion: "10"}, Items: s.items}, nil
}

func (s *source) watchNode(ctx context.Context, version string) (watch.Interface, error) {
	s.Lock()
	defer s.Unlock()
	if s.down {
		return nil, errDown
	}
	w := watch.NewFake()
	context.AfterFunc(ctx, func() {
		s.Lock()
		defer s.Unlock()
		w.Stop()
	})
	s.watches = append(s.watches, w)
	s.from = append(s.from, version)
	return w, nil
}

// last is the present watch.
func (s *source) last() *watch.FakeWatcher {
	s.Lock()
	defer s.Unlock()
	return s.watches[len(s.watches)-1]
}

// tell sends an event to the present watch, which is being read.
func (s *source) tell(e watch.EventType, n *corev1.Node) {
	s.Lock()
	defer s.Unlock()
	s.watches[len(s.watches)-1].Action(e, n)
}

func (s *source) set(down bool, items ...corev1.Node) {
	s.Lock()
	defer s.Unlock()
	s.down, s.items = down, items
}

func nodeWith(version, program string) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{
		ResourceVersion: version,
		Annotations:     map[string]string{v1alpha1.NodeAnnouncements: program},
	}}
}

func TestWatcher(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{items: []corev1.Node{*nodeWith("9", "a")}}
		seen := make(chan string, 100)
		var last string
		w := &watcher{client: s, wait: backoff, changed: func(n node) {
			if text := fmt.Sprint(n.program, " ", n.gone || n.abandoned); text != last {
				seen <- text
				last = text
			}
		}}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _ = w.run(ctx) }()
		expect := func(want ...string) {
			t.Helper()
			synctest.Wait()
			var got []string
			for len(seen) > 0 {
				got = append(got, <-seen)
			}
			if !slices.Equal(got, want) {
				t.Errorf("seen %q, want %q", got, want)
			}
		}
		expired := &metav1.Status{Status: metav1.StatusFailure, Code: 410, Reason: metav1.StatusReasonExpired}
		expect("a false")
		s.last().Modify(nodeWith("11", "b"))
		expect("b false")
		s.last().Action(watch.Bookmark, nodeWith("15", ""))
		expect()

		// A watch that ends in the normal course of events goes on where it was.
		time.Sleep(time.Minute)
		s.last().Stop()
		expect()
		if s.lists != 1 || s.from[1] != "15" {
			t.Errorf("%d lists, watches from %q; want one list, and a watch from 15", s.lists, s.from)
		}

		// One that is too old lists again at once.
		s.last().Error(expired)
		expect("a false")

		s.set(false)
		s.last().Delete(nodeWith("20", "b"))
		expect(" true")

		// A long outage, and news within a second after it.
		time.Sleep(time.Minute)
		s.set(true)
		s.last().Stop()
		time.Sleep(10 * time.Minute)
		expect()
		s.set(false, *nodeWith("21", "c"))
		time.Sleep(maxBackoff * 5 / 4)
		expect("c false")
		if s.lists > 1000 {
			t.Errorf("%d lists in ten minutes of outage", s.lists)
		}

		s.set(false)
		s.last().Error(expired)
		expect(" true")
	})
}

func TestWatcherAbandons(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{items: []corev1.Node{*nodeWith("9", "a")}}
		var mu sync.Mutex
		var last node
		w := &watcher{client: s, wait: backoff, changed: func(n node) {
			mu.Lock()
			defer mu.Unlock()
			last = n
		}}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _ = w.run(ctx) }()
		expect := func(what string, gone, abandoned bool) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if last.gone != gone || last.abandoned != abandoned {
				t.Errorf("%s: %+v", what, last)
			}
		}
		remove := func() {
			s.set(false)
			s.tell(watch.Deleted, nodeWith("20", "a"))
		}
		expect("at the start", false, false)
		remove()
		expect("deleted", true, false)
		time.Sleep(goneHold - time.Second)
		expect("almost", true, false)
		time.Sleep(time.Second)
		expect("in time", true, true)
		s.set(false, *nodeWith("21", "b"))
		s.tell(watch.Added, nodeWith("21", "b"))
		expect("back", false, false)

		// Back in the meantime.
		time.Sleep(time.Minute)
		remove()
		time.Sleep(goneHold - time.Second)
		s.tell(watch.Added, nodeWith("22", "b"))
		expect("back for a moment", false, false)
		s.tell(watch.Deleted, nodeWith("23", "b"))
		time.Sleep(goneHold - time.Second)
		expect("deleted again", true, false)

		// While the API server is away nobody knows.
		s.set(true)
		s.last().Stop()
		time.Sleep(time.Hour)
		expect("outage", true, false)
		s.set(false)
		time.Sleep(time.Second)
		expect("after the outage", true, false)
		time.Sleep(goneHold)
		expect("in time after it", true, true)
	})
}

func TestNodeOf(t *testing.T) {
	t.Parallel()
	n := nodeWith("1", "p")
	if got := nodeOf(n); got.leaving() || !got.announced || got.program != "p" {
		t.Errorf("%+v", got)
	}
	n.Annotations[v1alpha1.NodeDrain] = "true"
	if got := nodeOf(n); !got.leaving() {
		t.Errorf("draining: %+v", got)
	}
	if got := nodeOf(&corev1.Node{Spec: corev1.NodeSpec{Unschedulable: true}}); !got.leaving() || got.announced {
		t.Errorf("cordoned: %+v", got)
	}
	for message, want := range map[string]bool{
		"[container runtime is down, node is shutting down]": true,
		"kubelet stopped posting node status":                false,
	} {
		n := &corev1.Node{Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{
			{Type: corev1.NodeMemoryPressure, Status: corev1.ConditionFalse},
			{Type: corev1.NodeReady, Status: corev1.ConditionFalse, Message: message},
		}}}
		if got := nodeOf(n); got.leaving() != want {
			t.Errorf("%s: %+v", message, got)
		}
		n.Status.Conditions[1].Status = corev1.ConditionTrue
		if got := nodeOf(n); got.leaving() {
			t.Errorf("%s, but ready: %+v", message, got)
		}
	}
}
