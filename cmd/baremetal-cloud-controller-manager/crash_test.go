package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	servicehelper "k8s.io/cloud-provider/service/helpers"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

var (
	crashes = flag.Int("crashes", 10, "how often TestCrashes kills or stops a cloud-controller-manager, with one replica and with two")
	seed    = flag.Uint64("seed", uint64(time.Now().UnixNano()), "of TestCrashes")
)

// repair is how long what a deposed leader wrote may stay in a status.
const repair = time.Second

// TestCrashes kills cloud-controller-managers by SIGKILL, and stops them for a
// while, at random instants, while Services come, change and go. No address is on
// two Services or moves, none leaks, and no finalizer is left.
func TestCrashes(t *testing.T) {
	for name, replicas := range map[string]int{"one": 1, "two": 2} {
		t.Run(name, func(t *testing.T) {
			t.Logf("seed %d", *seed)
			c := newCluster(t)
			c.namespace(v1alpha1.DefaultNamespace)
			c.pool("lan", "203.0.113.0/26")
			c.patchPool("lan", `{"spec": {"sharing": "Key"}}`)
			crashing(t, c, replicas)
		})
	}
}

func crashing(t *testing.T, c *cluster, replicas int) {
	random := rand.New(rand.NewPCG(*seed, uint64(replicas)))
	fleet := make([]*process, replicas)
	for i := range fleet {
		fleet[i] = replica(t, c, i)
	}
	c.service("first")
	c.has("first", "*", soon)

	ctx, stop := context.WithCancel(t.Context())
	var beside sync.WaitGroup
	w := &witness{cluster: c, last: map[types.UID]sight{}, since: map[string]time.Time{}}
	watching := w.start(ctx)
	beside.Go(func() { w.run(watching) })
	users, rest := context.WithCancel(ctx)
	var living sync.WaitGroup
	for i := range 4 {
		u := &user{cluster: c, random: rand.New(rand.NewPCG(*seed, uint64(100+i))), prefix: fmt.Sprintf("u%d", i)}
		if i < 2 {
			u.prefix = fmt.Sprintf("%s%d", contented, i)
		}
		living.Go(func() { u.run(users) })
	}

	for n := range *crashes {
		pause(time.Duration(random.IntN(1000)) * time.Millisecond)
		i := random.IntN(replicas)
		if random.IntN(2) == 0 {
			fleet[i].kill()
			fleet[i] = replica(t, c, i)
		} else {
			stopped(t, fleet[i], time.Duration(random.IntN(6000))*time.Millisecond)
		}
		for i := range fleet {
			if fleet[i].ended() { // it was deposed
				fleet[i].kill()
				fleet[i] = replica(t, c, i)
			}
		}
		if t.Failed() {
			t.Fatalf("after %d crashes", n+1)
		}
		if n%5 == 4 { // so that some Services live to see many crashes, and some few
			c.pending(soon)
		}
	}
	rest()
	living.Wait()
	c.pending(2 * soon)
	w.check(t)
	c.nothingLeft()
	stop()
	beside.Wait()
	w.check(t)
	t.Logf("%d crashes, %d states of Services seen, %d repaired", *crashes, w.states, w.repaired)
}

func replica(t *testing.T, c *cluster, i int) *process {
	t.Setenv("POD_NAME", fmt.Sprintf("replica-%d", i))
	return start(t, c.server, "--leader-elect=true",
		"--leader-elect-lease-duration=3s", "--leader-elect-renew-deadline=2s", "--leader-elect-retry-period=300ms")
}

// stopped stops the process for a while, as an overloaded machine does.
func stopped(t *testing.T, p *process, d time.Duration) {
	if err := p.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	pause(d)
	if err := p.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
}

// pause lets time pass, which is what these faults consist of.
func pause(d time.Duration) { time.Sleep(d) }

// contented is how the names of Services begin that never ask for anything else
// than they have: their addresses must never change. The others may move long
// after they asked, when a stopped process goes on.
const contented = "c"

// user changes Services of its own.
type user struct {
	*cluster
	random *rand.Rand
	prefix string
}

func (u *user) run(ctx context.Context) {
	for ctx.Err() == nil {
		name := fmt.Sprintf("%s-%d", u.prefix, u.random.IntN(10))
		if err := u.act(ctx, name); err != nil && ctx.Err() == nil && !apierrors.IsNotFound(err) && !apierrors.IsAlreadyExists(err) && !apierrors.IsInvalid(err) {
			u.t.Errorf("user: %v", err)
		}
		pause(time.Duration(u.random.IntN(60)) * time.Millisecond)
	}
}

func (u *user) act(ctx context.Context, name string) (err error) {
	services := u.CoreV1().Services(metav1.NamespaceDefault)
	patch := func(text string) {
		_, err = services.Patch(ctx, name, types.MergePatchType, []byte(text), metav1.PatchOptions{})
	}
	kinds := []int{0, 0, 1, 2, 3, 4, 5, 6}
	if u.prefix[:1] == contented {
		kinds = []int{0, 0, 1, 6, 6, 6}
	}
	switch kinds[u.random.IntN(len(kinds))] {
	case 0:
		service := &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{}},
			Spec: corev1.ServiceSpec{
				Type: corev1.ServiceTypeLoadBalancer,
				// Of all ports each is used by one name: keys always permit to share.
				Ports: []corev1.ServicePort{{Port: 1000 + int32(u.prefix[1]-'0')*100 + int32(u.random.IntN(100))}},
			},
		}
		if u.random.IntN(3) == 0 {
			service.Annotations[v1alpha1.ServiceShareKey] = "k"
			service.Spec.Ports[0].Port = 2000 + int32(u.prefix[1]-'0')*10 + int32(name[len(name)-1]-'0')
		}
		_, err = services.Create(ctx, service, metav1.CreateOptions{})
	case 1:
		err = services.Delete(ctx, name, metav1.DeleteOptions{})
	case 2:
		patch(`{"spec": {"type": "ClusterIP"}}`)
	case 3:
		patch(`{"spec": {"type": "LoadBalancer"}}`)
	case 4:
		patch(fmt.Sprintf(`{"metadata": {"annotations": {%q: "203.0.113.%d"}}}`, v1alpha1.ServiceAddresses, u.random.IntN(64)))
	case 5:
		patch(fmt.Sprintf(`{"metadata": {"annotations": {%q: null}}}`, v1alpha1.ServiceAddresses))
	default:
		patch(fmt.Sprintf(`{"metadata": {"labels": {"n": "%d"}}}`, u.random.IntN(100)))
	}
	return err
}

// witness watches all states of all Services.
type witness struct {
	*cluster
	mu       sync.Mutex
	last     map[types.UID]sight
	since    map[string]time.Time // of addresses that two Services show that may not
	states   int
	repaired int
	wrong    []string
}

// sight is a state of a Service.
type sight struct {
	name, addresses, key string
	port                 int32
}

func (w *witness) start(ctx context.Context) watch.Interface {
	w.t.Helper()
	list, err := w.CoreV1().Services(metav1.NamespaceDefault).List(ctx, metav1.ListOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	watching, err := w.CoreV1().Services(metav1.NamespaceDefault).Watch(ctx, metav1.ListOptions{ResourceVersion: list.ResourceVersion})
	if err != nil {
		w.t.Fatal(err)
	}
	return watching
}

func (w *witness) run(watching watch.Interface) {
	defer watching.Stop()
	for event := range watching.ResultChan() {
		service, ok := event.Object.(*corev1.Service)
		if !ok {
			continue
		}
		w.mu.Lock()
		w.see(event.Type, service)
		w.mu.Unlock()
	}
}

func (w *witness) see(kind watch.EventType, service *corev1.Service) {
	w.states++
	now := sight{
		name:      service.Name,
		addresses: addressesOf(service),
		key:       service.Annotations[v1alpha1.ServiceShareKey],
		port:      service.Spec.Ports[0].Port,
	}
	before, known := w.last[service.UID]
	if kind == watch.Deleted {
		delete(w.last, service.UID)
	} else {
		w.last[service.UID] = now
	}
	moved := known && before.addresses != "" && before.addresses != now.addresses
	if moved && strings.HasPrefix(now.name, contented) && service.DeletionTimestamp == nil {
		w.wrong = append(w.wrong, fmt.Sprintf("%s moved from %s to %q by itself", now.name, before.addresses, now.addresses))
	}
	w.countDuplicates()
}

// countDuplicates notes which addresses are on two Services that may not share
// them.
func (w *witness) countDuplicates() {
	owners := map[string][]sight{}
	for _, s := range w.last {
		if s.addresses != "" {
			owners[s.addresses] = append(owners[s.addresses], s)
		}
	}
	for address, services := range owners {
		clash := slices.ContainsFunc(services, func(s sight) bool {
			return slices.ContainsFunc(services, func(o sight) bool {
				return o.name != s.name && (s.key == "" || s.key != o.key || s.port == o.port)
			})
		})
		since, known := w.since[address]
		switch {
		case clash && !known:
			w.since[address] = time.Now()
		case clash && time.Since(since) > repair:
			w.wrong = append(w.wrong, fmt.Sprintf("%s is on %v for %v", address, services, time.Since(since)))
			w.since[address] = time.Now()
		case !clash && known:
			if lasted := time.Since(since); lasted > repair {
				w.wrong = append(w.wrong, fmt.Sprintf("%s was on several Services for %v", address, lasted))
			}
			w.repaired++
			delete(w.since, address)
		}
	}
	for address := range w.since {
		if owners[address] == nil {
			delete(w.since, address)
		}
	}
}

func (w *witness) check(t *testing.T) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.countDuplicates()
	for _, wrong := range w.wrong {
		t.Error(wrong)
	}
	w.wrong = nil
}

// pending waits until no Service waits that requests no address, and none is on
// its way out.
func (c *cluster) pending(within time.Duration) {
	c.t.Helper()
	var waits []string
	eventually(c.t, within, "everything is served", func() bool {
		list, err := c.CoreV1().Services(metav1.NamespaceDefault).List(c.t.Context(), metav1.ListOptions{})
		if err != nil {
			c.t.Fatal(err)
		}
		waits = waits[:0]
		for i := range list.Items {
			s := &list.Items[i]
			wants := s.Spec.Type == corev1.ServiceTypeLoadBalancer && s.DeletionTimestamp == nil
			if s.DeletionTimestamp != nil || wants && addressesOf(s) == "" && s.Annotations[v1alpha1.ServiceAddresses] == "" ||
				!wants && s.DeletionTimestamp == nil && servicehelper.HasLBFinalizer(s) {
				waits = append(waits, s.Name)
			}
		}
		return len(waits) == 0
	})
}

// nothingLeft deletes all Services, and fails unless every address of the pool
// can be given out again.
func (c *cluster) nothingLeft() {
	c.t.Helper()
	for name := range c.all() {
		if name != "kubernetes" {
			_ = c.CoreV1().Services(metav1.NamespaceDefault).Delete(c.t.Context(), name, metav1.DeleteOptions{})
		}
	}
	eventually(c.t, soon, "no Service and no finalizer is left", func() bool { return len(c.all()) == 1 })
	parallel(64, 8, func(i int) { c.service(fmt.Sprintf("full-%d", i)) })
	eventually(c.t, 2*soon, "every address of the pool is given out", func() bool { return len(unique(c.t.(*testing.T), c.all())) == 64 })
}
