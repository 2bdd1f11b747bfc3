package invariants

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

const (
	// tick is how often a Checker judges. What a rule has to see in between, a
	// status that changes twice, it sees by the events.
	tick = 100 * time.Millisecond
	// retryInterval is the time between two attempts to watch. It does not grow:
	// what is not watched is not judged.
	retryInterval = 200 * time.Millisecond
	// watchTimeout is when the API server ends a watch.
	watchTimeout = 10 * time.Minute
)

// Checker feeds a Judge from the API of a cluster. Its methods may be called
// concurrently.
type Checker struct {
	sources []*source

	mu        sync.Mutex
	judge     *Judge
	following map[*source]bool
	connected chan struct{} // closed when all is watched for the first time
	once      sync.Once
	told      int // violations that were handed to OnViolation

	// OnViolation is called for each violation, if it is set before Run.
	OnViolation func(Violation)
}

// NewChecker returns a Checker for the cluster of config, which it does not
// change.
func NewChecker(config *rest.Config, options Options) (*Checker, error) {
	options = options.withDefaults()
	config = rest.CopyConfig(config)
	config.UserAgent = "invariants"
	config.QPS = -1
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("invariants: %w", err)
	}
	c := &Checker{
		judge:     NewJudge(options, time.Now()),
		following: make(map[*source]bool),
		connected: make(chan struct{}),
	}
	add := func(resource dynamic.ResourceInterface, name, selector string, empty func() metav1.Object) {
		c.sources = append(c.sources, &source{checker: c, name: name, resource: resource, selector: selector, empty: empty})
	}
	core, discovery := corev1.SchemeGroupVersion, discoveryv1.SchemeGroupVersion
	add(client.Resource(core.WithResource("services")), "Services", "", func() metav1.Object { return &corev1.Service{} })
	add(client.Resource(core.WithResource("nodes")), "Nodes", "", func() metav1.Object { return &corev1.Node{} })
	add(client.Resource(discovery.WithResource("endpointslices")), "EndpointSlices", "", func() metav1.Object { return &discoveryv1.EndpointSlice{} })
	add(client.Resource(core.WithResource("pods")).Namespace(options.Namespace), "Pods",
		v1alpha1.SpeakerPodLabel+"="+v1alpha1.SpeakerPodName, func() metav1.Object { return &corev1.Pod{} })
	add(client.Resource(v1alpha1.AddressPoolResource), "AddressPools", "", func() metav1.Object { return &v1alpha1.AddressPool{} })
	add(client.Resource(v1alpha1.BGPPeerResource), "BGPPeers", "", func() metav1.Object { return &v1alpha1.BGPPeer{} })
	if !options.NoLeases {
		leases := schema.GroupVersionResource{Group: coordinationv1.GroupName, Version: "v1", Resource: "leases"}
		add(client.Resource(leases).Namespace(options.Namespace), "Leases", "", func() metav1.Object { return &coordinationv1.Lease{} })
	}
	return c, nil
}

// Run watches and judges until the context ends; it returns nil then. It is
// called once.
func (c *Checker) Run(ctx context.Context) error {
	var group errgroup.Group
	for _, s := range c.sources {
		group.Go(func() error {
			s.run(ctx)
			return nil
		})
	}
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-ticker.C:
			c.tick()
		}
	}
	return group.Wait()
}

func (c *Checker) tick() {
	for _, v := range c.newViolations() {
		if c.OnViolation != nil {
			c.OnViolation(v)
		}
	}
}

func (c *Checker) newViolations() []Violation {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.judge.Tick(time.Now())
	fresh := c.judge.Violations()[c.told:]
	c.told += len(fresh)
	return fresh
}

// WaitConnected waits until all kinds are watched.
func (c *Checker) WaitConnected(ctx context.Context) error {
	select {
	case <-c.connected:
		return nil
	case <-ctx.Done():
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, s := range c.sources {
			if !c.following[s] {
				return fmt.Errorf("invariants: %s are not watched: %w", s.name, ctx.Err())
			}
		}
		return nil
	}
}

// follow takes note of whether a source is watched.
func (c *Checker) follow(s *source, up bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.following[s] = up
	all := true
	for _, s := range c.sources {
		all = all && c.following[s]
	}
	c.judge.Connect(time.Now(), all)
	if all {
		c.once.Do(func() { close(c.connected) })
	}
}

func (c *Checker) see(object metav1.Object, gone bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if gone {
		c.judge.Delete(time.Now(), object)
	} else {
		c.judge.Set(time.Now(), object)
	}
}

// Suspend stops all clocks until the function that it returns is called.
func (c *Checker) Suspend(why string) (resume func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := c.judge.Suspend(time.Now(), why)
	return sync.OnceFunc(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.judge.Resume(time.Now(), id)
	})
}

// Permit passes over findings of a kind about a subject, given as a regular
// expression of the whole of it ("Service default/web", "address .*"), until the
// function that it returns is called.
func (c *Checker) Permit(kind Kind, subject, why string) (end func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := c.judge.Permit(time.Now(), kind, subject, why)
	return sync.OnceFunc(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.judge.EndPermit(time.Now(), id)
	})
}

// Note enters what the caller does into the history.
func (c *Checker) Note(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.judge.Note(time.Now(), format, args...)
}

// Violations so far.
func (c *Checker) Violations() []Violation {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.judge.Violations()
}

// Disturbances so far.
func (c *Checker) Disturbances() []Disturbance {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.judge.Disturbances()
}

// Open are the findings of this moment, whatever their grace.
func (c *Checker) Open() []Finding {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.judge.Tick(time.Now())
	return c.judge.Open()
}

// History is what is known of the subjects, and of what concerned all lately.
func (c *Checker) History(subjects ...string) []Entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.judge.history.of(time.Now(), subjects)
}

// Judged is for how long the allocation of addresses and the programs of nodes
// could be judged.
func (c *Checker) Judged() (allocation, programs time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.judge.Judged()
}

// source lists and watches the objects of a kind. Unlike an informer it tells
// when it does not, and tries again at once: a watch goes on where it ended, so
// that nothing is missed that the API server still has.
type source struct {
	checker  *Checker
	name     string
	resource dynamic.ResourceInterface
	selector string
	empty    func() metav1.Object

	known   map[types.UID]metav1.Object
	version string // to watch from; empty means that a list is due
}

func (s *source) run(ctx context.Context) {
	retry := time.NewTicker(retryInterval)
	defer retry.Stop()
	for ctx.Err() == nil {
		err := s.follow(ctx)
		if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) || apierrors.IsInvalid(err) {
			s.version = ""
		}
		if err == nil {
			continue // the watch ended as it does from time to time
		}
		s.checker.follow(s, false)
		select {
		case <-ctx.Done():
		case <-retry.C:
		}
	}
}

// follow watches until the watch ends. The error says why it could not begin, or
// why it cannot go on.
func (s *source) follow(ctx context.Context) error {
	if s.version == "" {
		if err := s.list(ctx); err != nil {
			return err
		}
	}
	w, err := s.resource.Watch(ctx, metav1.ListOptions{
		LabelSelector: s.selector, ResourceVersion: s.version, AllowWatchBookmarks: true,
		TimeoutSeconds: ptr.To(int64(watchTimeout / time.Second)),
	})
	if err != nil {
		return err
	}
	defer w.Stop()
	s.checker.follow(s, true)
	for event := range w.ResultChan() {
		if err := s.take(event); err != nil {
			return err
		}
	}
	return nil
}

func (s *source) list(ctx context.Context) error {
	list, err := s.resource.List(ctx, metav1.ListOptions{LabelSelector: s.selector})
	if err != nil {
		return err
	}
	before := s.known
	s.known = make(map[types.UID]metav1.Object)
	for uid, object := range before {
		s.known[uid] = object
	}
	present := make(map[types.UID]bool)
	for i := range list.Items {
		present[list.Items[i].GetUID()] = true
	}
	// What is gone goes first: an object may have come under its name.
	for uid, object := range before {
		if !present[uid] {
			delete(s.known, uid)
			s.checker.see(object, true)
		}
	}
	for i := range list.Items {
		if err := s.set(&list.Items[i]); err != nil {
			return err
		}
	}
	s.version = list.GetResourceVersion()
	return nil
}

func (s *source) take(event watch.Event) error {
	if event.Type == watch.Error {
		return apierrors.FromObject(event.Object)
	}
	object, ok := event.Object.(*unstructured.Unstructured)
	if !ok {
		return fmt.Errorf("%s: a watch sent %T", s.name, event.Object)
	}
	s.version = object.GetResourceVersion()
	switch event.Type {
	case watch.Added, watch.Modified:
		return s.set(object)
	case watch.Deleted:
		delete(s.known, object.GetUID())
		typed, err := s.typed(object)
		if err != nil {
			return err
		}
		s.checker.see(typed, true)
	}
	return nil
}

func (s *source) set(object *unstructured.Unstructured) error {
	typed, err := s.typed(object)
	if err != nil {
		return err
	}
	before := s.known[typed.GetUID()]
	s.known[typed.GetUID()] = typed
	if before == nil || before.GetResourceVersion() != typed.GetResourceVersion() {
		s.checker.see(typed, false)
	}
	return nil
}

func (s *source) typed(object *unstructured.Unstructured) (metav1.Object, error) {
	typed := s.empty()
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, typed); err != nil {
		return nil, fmt.Errorf("%s %s: %w", s.name, object.GetName(), err)
	}
	typed.SetManagedFields(nil)
	return typed, nil
}
