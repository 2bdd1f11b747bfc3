package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/cluster"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/addr"
)

const managerName = "baremetal-cloud-controller-manager"

// bench is a lab under measurement.
type bench struct {
	*cluster.Cluster
	routes *routeLog
	serial int // of names of Services
}

func newBench(ctx context.Context, c *cluster.Cluster) (*bench, error) {
	// The measuring client has no limit of its own.
	config, err := c.RESTConfig()
	if err != nil {
		return nil, err
	}
	config.QPS, config.Burst = -1, 0
	config.ContentType = "application/vnd.kubernetes.protobuf"
	if c.Client, err = kubernetes.NewForConfig(config); err != nil {
		return nil, err
	}
	routes, err := watchRoutes(ctx, c.Lab)
	if err != nil {
		return nil, err
	}
	return &bench{Cluster: c, routes: routes}, nil
}

// withFloor runs a measurement while the floor serves and the project does not.
func (b *bench) withFloor(ctx context.Context, events bool, measure func() error) error {
	if err := b.scaleManager(ctx, 0); err != nil {
		return err
	}
	node, err := b.Client.CoreV1().Nodes().Get(ctx, "node1", metav1.GetOptions{})
	if err != nil {
		return err
	}
	serving, stop := context.WithCancel(ctx)
	group, serving := errgroup.WithContext(serving)
	floor := newFloor(b.Client, node, events)
	group.Go(func() error {
		err := floor.run(serving)
		if serving.Err() != nil {
			return nil
		}
		return err
	})
	group.Go(func() error {
		defer stop()
		if err := b.waitSessions(serving, 1); err != nil {
			return err
		}
		return measure()
	})
	if err := group.Wait(); err != nil {
		return err
	}
	if err := floor.withdraw(ctx); err != nil {
		return err
	}
	return b.removeServices(ctx)
}

// withProject runs a measurement while the project serves.
func (b *bench) withProject(ctx context.Context, measure func() error) error {
	if err := b.scaleManager(ctx, 2); err != nil {
		return err
	}
	if _, err := b.KubectlStdin(ctx, strings.NewReader(cluster.Pool+"---"+cluster.Peer), "apply", "-f", "-"); err != nil {
		return err
	}
	if err := b.waitSessions(ctx, 3); err != nil {
		return err
	}
	if err := measure(); err != nil {
		return err
	}
	return b.removeServices(ctx)
}

// oneAtATime creates n Services, each when the route to the one before is in
// the router's kernel.
func (b *bench) oneAtATime(ctx context.Context, n int, into *latencies) error {
	// What settles from before must not be measured: one Service first, unseen.
	for i := range n + 1 {
		l, err := b.one(ctx)
		if err != nil {
			return fmt.Errorf("creating one Service after another, number %d: %w", i, err)
		}
		if i > 0 {
			into.finalizer = append(into.finalizer, l.finalizer)
			into.status = append(into.status, l.status)
			into.node = append(into.node, l.node)
			into.route = append(into.route, l.route)
		}
	}
	return nil
}

// latency of one Service, from just before it is created.
type latency struct{ finalizer, status, node, route time.Duration }

func (b *bench) one(ctx context.Context) (l latency, err error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	b.serial++
	name := fmt.Sprintf("one-%05d", b.serial)
	nodes, err := b.watchNodes(ctx)
	if err != nil {
		return l, err
	}
	watch, err := b.Client.CoreV1().Services("default").Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
	if err != nil {
		return l, err
	}
	defer watch.Stop()
	started := time.Now()
	if _, err := b.Client.CoreV1().Services("default").Create(ctx, service(name), metav1.CreateOptions{}); err != nil {
		return l, err
	}
	var address string
	for event := range watch.ResultChan() {
		svc, ok := event.Object.(*corev1.Service)
		if ok && len(svc.Finalizers) > 0 && l.finalizer == 0 {
			l.finalizer = time.Since(started)
		}
		if ok && len(svc.Status.LoadBalancer.Ingress) > 0 {
			l.status = time.Since(started)
			address = svc.Status.LoadBalancer.Ingress[0].IP
			break
		}
	}
	if address == "" {
		return l, errors.New("no address")
	}
	at, err := b.routes.wait(ctx, address)
	if err != nil {
		return l, err
	}
	l.route = at.Sub(started)
	if at, err = firstTold(nodes, netip.MustParseAddr(address)); err != nil {
		return l, err
	}
	l.node = at.Sub(started)
	return l, nil
}

// nodeEntry is what a Node was told, and when.
type nodeEntry struct {
	at    time.Time
	value string
}

// watchNodes follows what Nodes are told until the context ends.
func (b *bench) watchNodes(ctx context.Context) (<-chan nodeEntry, error) {
	watch, err := b.Client.CoreV1().Nodes().Watch(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	entries := make(chan nodeEntry, 1024) // more than come while one Service is measured
	go func() {
		defer close(entries)
		for event := range watch.ResultChan() {
			if n, ok := event.Object.(*corev1.Node); ok {
				entries <- nodeEntry{time.Now(), n.Annotations[v1alpha1.NodeAnnouncements]}
			}
		}
	}()
	return entries, nil
}

// firstTold returns when the first Node was told to announce the address.
func firstTold(entries <-chan nodeEntry, address netip.Addr) (time.Time, error) {
	for e := range entries {
		if p, err := announce.Decode(e.value); err == nil && p.Contains(address) {
			return e.at, nil
		}
	}
	return time.Time{}, fmt.Errorf("no Node was told to announce %s", address)
}

// service is a LoadBalancer Service without endpoints and node ports, of which
// there are too few for thousands.
func service(name string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"},
		Spec: corev1.ServiceSpec{
			Type:                          corev1.ServiceTypeLoadBalancer,
			AllocateLoadBalancerNodePorts: ptr.To(false),
			Ports:                         []corev1.ServicePort{{Port: 80}},
		},
	}
}

// projectBulk measures the project from the start of the
// cloud-controller-manager with n Services waiting.
func (b *bench) projectBulk(ctx context.Context, n int) (bulkResult, error) {
	var result bulkResult
	if err := b.scaleManager(ctx, 1); err != nil {
		return result, err
	}
	scale := strings.ReplaceAll(cluster.Pool, "203.0.113.0/24", "198.19.128.0/17")
	if _, err := b.KubectlStdin(ctx, strings.NewReader(scale+"---"+cluster.Peer), "apply", "-f", "-"); err != nil {
		return result, err
	}
	if err := b.waitSessions(ctx, 3); err != nil {
		return result, err
	}
	pod, err := b.managerPod(ctx)
	if err != nil {
		return result, err
	}
	if err := b.Kill(ctx, pod.Spec.NodeName, pod.Name, syscall.SIGTERM); err != nil {
		return result, err
	}
	if _, err := b.createPending(ctx, n); err != nil {
		return result, err
	}
	before, err := b.speakers(ctx)
	if err != nil {
		return result, err
	}
	watch, err := b.Client.CoreV1().Services("default").Watch(ctx, metav1.ListOptions{})
	if err != nil {
		return result, err
	}
	defer watch.Stop()

	started := time.Now()
	if err := b.StartProgram(ctx, pod.Spec.NodeName, pod.Name); err != nil {
		return result, err
	}
	addressed := make(map[string]bool)
	for event := range watch.ResultChan() {
		if svc, ok := event.Object.(*corev1.Service); ok && len(svc.Status.LoadBalancer.Ingress) > 0 {
			addressed[svc.Name] = true
		}
		if len(addressed) == n {
			break
		}
	}
	if len(addressed) < n {
		return result, fmt.Errorf("only %d of %d Services got an address", len(addressed), n)
	}
	result.addressed = time.Since(started)

	last := started
	for i := range n {
		at, err := b.routes.wait(ctx, scaleAddress(i).String())
		if err != nil {
			return result, err
		}
		if at.After(last) {
			last = at
		}
	}
	result.routed = last.Sub(started)

	// All that is done for them is done when every condition is written.
	err = b.WaitFor(ctx, "all conditions are written", func(ctx context.Context) (bool, error) {
		services, err := b.Client.CoreV1().Services("default").List(ctx, metav1.ListOptions{ResourceVersion: "0"})
		if err != nil {
			return false, err
		}
		written := 0
		for _, svc := range services.Items {
			for _, c := range svc.Status.Conditions {
				if c.Type == v1alpha1.ConditionAnnounced && c.Status == metav1.ConditionTrue {
					written++
				}
			}
		}
		if written < n {
			return false, fmt.Errorf("%d of %d", written, n)
		}
		return true, nil
	})
	if err != nil {
		return result, err
	}
	if result.manager, err = b.usage(ctx, pod.Spec.NodeName, pod.Name); err != nil {
		return result, err
	}
	if result.speakers, err = b.speakers(ctx); err != nil {
		return result, err
	}
	for node, u := range result.speakers {
		u.cpu -= before[node].cpu
		result.speakers[node] = u
	}
	return result, nil
}

func (b *bench) managerPod(ctx context.Context) (*corev1.Pod, error) {
	pods, err := b.Client.CoreV1().Pods(v1alpha1.DefaultNamespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=" + managerName})
	if err != nil {
		return nil, err
	}
	if len(pods.Items) != 1 {
		return nil, fmt.Errorf("%d Pods of the cloud-controller-manager, want one", len(pods.Items))
	}
	return &pods.Items[0], nil
}

func (b *bench) speakers(ctx context.Context) (map[string]usage, error) {
	pods, err := b.Client.CoreV1().Pods(v1alpha1.DefaultNamespace).List(ctx, metav1.ListOptions{LabelSelector: v1alpha1.SpeakerPodLabel + "=" + v1alpha1.SpeakerPodName})
	if err != nil {
		return nil, err
	}
	all := make(map[string]usage)
	for _, pod := range pods.Items {
		if all[pod.Spec.NodeName], err = b.usage(ctx, pod.Spec.NodeName, pod.Name); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// usage reads what a Pod's process has taken so far.
func (b *bench) usage(ctx context.Context, node, pod string) (usage, error) {
	status, err := b.Status(ctx)
	if err != nil {
		return usage{}, err
	}
	for _, host := range status.Hosts {
		if host.Name != node {
			continue
		}
		at := slices.IndexFunc(host.Programs, func(p lab.ProgramStatus) bool { return strings.Contains(p.Name, "/"+pod+"/") })
		if at < 0 {
			break
		}
		p := host.Programs[at]
		text, err := b.On(ctx, node, "cat", fmt.Sprintf("/proc/%d/status", p.PID), fmt.Sprintf("/proc/%d/stat", p.PID))
		if err != nil {
			return usage{}, err
		}
		return parseUsage(text)
	}
	return usage{}, fmt.Errorf("no process of %s on %s", pod, node)
}

// parseUsage reads /proc/PID/status and /proc/PID/stat, see proc(5).
func parseUsage(text string) (usage, error) {
	var u usage
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.Atoi(strings.Fields(value)[0])
			if err != nil {
				return u, err
			}
			u.rss = kib >> 10
		}
		if _, fields, ok := strings.Cut(line, ") "); ok { // after the name, which may hold anything
			f := strings.Fields(fields)
			user, err := strconv.Atoi(f[11])
			if err != nil {
				return u, err
			}
			system, err := strconv.Atoi(f[12])
			if err != nil {
				return u, err
			}
			const ticksPerSecond = 100
			u.cpu = time.Duration(user+system) * time.Second / ticksPerSecond
		}
	}
	return u, nil
}

// scaleManager sets the number of cloud-controller-managers, and waits for it.
func (b *bench) scaleManager(ctx context.Context, n int) error {
	if _, err := b.Kubectl(ctx, "-n", v1alpha1.DefaultNamespace, "scale", "deployment/"+managerName, fmt.Sprintf("--replicas=%d", n)); err != nil {
		return err
	}
	return b.WaitFor(ctx, fmt.Sprintf("%d cloud-controller-managers", n), func(ctx context.Context) (bool, error) {
		pods, err := b.Client.CoreV1().Pods(v1alpha1.DefaultNamespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=" + managerName})
		if err != nil {
			return false, err
		}
		ready := 0
		for _, pod := range pods.Items {
			for _, c := range pod.Status.Conditions {
				if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
					ready++
				}
			}
		}
		if len(pods.Items) != n || ready != n {
			return false, fmt.Errorf("%d Pods, %d ready", len(pods.Items), ready)
		}
		return true, nil
	})
}

// waitSessions waits until the router has at least n established sessions.
func (b *bench) waitSessions(ctx context.Context, n int) error {
	return b.WaitFor(ctx, fmt.Sprintf("%d BGP sessions", n), func(ctx context.Context) (bool, error) {
		out, err := b.Birdc(ctx, "show", "protocols")
		if err != nil {
			return false, err
		}
		if got := strings.Count(out, "Established"); got < n {
			return false, fmt.Errorf("%d are established", got)
		}
		return true, nil
	})
}

// createPending creates n Services.
func (b *bench) createPending(ctx context.Context, n int) ([]*corev1.Service, error) {
	pending := make([]*corev1.Service, n)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(16)
	for i := range n {
		group.Go(func() (err error) {
			pending[i], err = b.Client.CoreV1().Services("default").Create(ctx, service(fmt.Sprintf("bulk-%05d", i)), metav1.CreateOptions{})
			return err
		})
	}
	return pending, group.Wait()
}

// removeServices deletes all LoadBalancer Services, whoever serves them: it
// takes off the finalizer itself, and waits until the router has no route left.
func (b *bench) removeServices(ctx context.Context) error {
	services, err := b.Client.CoreV1().Services("default").List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	group, deleting := errgroup.WithContext(ctx)
	group.SetLimit(16)
	for _, svc := range services.Items {
		if svc.Spec.Type != corev1.ServiceTypeLoadBalancer {
			continue
		}
		group.Go(func() error {
			client := b.Client.CoreV1().Services(svc.Namespace)
			if err := client.Delete(deleting, svc.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
				return err
			}
			_, err := client.Patch(deleting, svc.Name, types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
			if apierrors.IsNotFound(err) {
				return nil
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if _, err := b.Kubectl(ctx, "delete", "--ignore-not-found", "bgppeer/tor", "addresspool/main"); err != nil {
		return err
	}
	err = b.WaitFor(ctx, "the router has no routes left", func(ctx context.Context) (bool, error) {
		for _, pool := range []string{addr.Pool, addr.ScalePool} {
			routes, err := b.Routes(ctx, pool)
			if err != nil || len(routes) > 0 {
				return false, errors.Join(err, fmt.Errorf("%d to %s", len(routes), pool))
			}
		}
		return true, nil
	})
	b.routes.forget()
	return err
}

// routeLog remembers when the router's kernel got which route.
type routeLog struct {
	mu      sync.Mutex
	at      map[string]time.Time
	changed chan struct{} // closed and replaced at each route
}

// watchRoutes follows the router's routes as long as the context lives.
func watchRoutes(ctx context.Context, l *lab.Lab) (*routeLog, error) {
	cmd := lab.Command(ctx, "ip", "monitor", "route")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := l.StartOn(ctx, lab.Router, cmd); err != nil {
		return nil, err
	}
	r := &routeLog{at: make(map[string]time.Time), changed: make(chan struct{})}
	go func() { // ends with the process, which ends with ctx or the lab
		r.read(out)
		_ = cmd.Wait() // it is killed, so there is always an error
	}()
	return r, nil
}

func (r *routeLog) read(out io.Reader) {
	for lines := bufio.NewScanner(out); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) == 0 || fields[0] == "Deleted" || fields[0] == "nexthop" {
			continue
		}
		r.mu.Lock()
		if _, known := r.at[fields[0]]; !known {
			r.at[fields[0]] = time.Now()
			close(r.changed)
			r.changed = make(chan struct{})
		}
		r.mu.Unlock()
	}
}

// wait returns when the route to an address came.
func (r *routeLog) wait(ctx context.Context, address string) (time.Time, error) {
	for {
		r.mu.Lock()
		at, ok := r.at[address]
		changed := r.changed
		r.mu.Unlock()
		if ok {
			return at, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("no route to %s: %w", address, ctx.Err())
		}
	}
}

func (r *routeLog) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.at)
}

func keys[K comparable, V any](m map[K]V) iter.Seq[K] { return maps.Keys(m) }
