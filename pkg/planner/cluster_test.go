package planner

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/apiserver"
)

// soon is what an effect may take on a busy machine; atOnce is what the design
// promises for repairs, with room for that machine.
const (
	soon   = 15 * time.Second
	atOnce = time.Second
)

// cluster is what the tests do to an API server. Its objects go when the test
// ends.
type cluster struct {
	t      *testing.T
	server *apiserver.Server
	kubernetes.Interface
	pools, peers dynamic.ResourceInterface
}

func newCluster(t *testing.T, server *apiserver.Server) *cluster {
	t.Helper()
	objects := dynamic.NewForConfigOrDie(server.Config)
	c := &cluster{
		t:         t,
		server:    server,
		Interface: kubernetes.NewForConfigOrDie(server.Config),
		pools:     objects.Resource(v1alpha1.AddressPoolResource),
		peers:     objects.Resource(v1alpha1.BGPPeerResource),
	}
	t.Cleanup(c.clean)
	_, err := c.CoreV1().Namespaces().Create(t.Context(),
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.DefaultNamespace}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	return c
}

func (c *cluster) clean() {
	ctx := context.Background() // that of the test has ended
	fail := func(err error) {
		if err != nil {
			c.t.Errorf("cleaning up: %v", err)
		}
	}
	services, err := c.CoreV1().Services(metav1.NamespaceDefault).List(ctx, metav1.ListOptions{})
	fail(err)
	for i := range services.Items {
		fail(c.CoreV1().Services(metav1.NamespaceDefault).Delete(ctx, services.Items[i].Name, metav1.DeleteOptions{}))
	}
	fail(c.CoreV1().Nodes().DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}))
	fail(c.CoordinationV1().Leases(metav1.NamespaceDefault).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}))
	pools, err := c.pools.List(ctx, metav1.ListOptions{})
	fail(err)
	for i := range pools.Items {
		// The planner, which takes its finalizer off, has ended.
		_, err := c.pools.Patch(ctx, pools.Items[i].GetName(), types.MergePatchType, []byte(`{"metadata": {"finalizers": null}}`), metav1.PatchOptions{})
		fail(err)
	}
	fail(c.pools.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}))
	fail(c.peers.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}))
	fail(c.CoreV1().Secrets(v1alpha1.DefaultNamespace).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}))
}

// running is a planner under test.
type running struct {
	stop   func()
	writes *writes
}

// start runs a planner until stop or the end of the test.
func (c *cluster) start(identity string, leaderElect bool) running {
	c.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	seen := &writes{}
	config := rest.CopyConfig(c.server.Config)
	config.Wrap(seen.wrap)
	ended := make(chan error, 1)
	go func() {
		ended <- Run(ctx, Config{
			REST:        config,
			LeaderElect: leaderElect, LeaseNamespace: metav1.NamespaceDefault, Identity: identity,
		})
	}()
	stop := sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				c.t.Errorf("planner %s: %v", identity, err)
			}
		case <-time.After(soon):
			c.t.Errorf("planner %s does not end", identity)
		}
	})
	c.t.Cleanup(stop)
	return running{stop: stop, writes: seen}
}

// writes are the requests of a planner that change objects, Leases excepted.
type writes struct {
	mu    sync.Mutex
	seen  []string
	times []time.Time // of those seen
	lease bool        // asked for the Lease
}

func (w *writes) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		w.mu.Lock()
		switch {
		case strings.Contains(r.URL.Path, "/leases/"):
			w.lease = true
		case r.Method != http.MethodGet:
			w.seen = append(w.seen, r.Method+" "+r.URL.Path)
			w.times = append(w.times, time.Now())
		}
		w.mu.Unlock()
		return next.RoundTrip(r)
	})
}

func (w *writes) all() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.seen)
}

// of are the times of the requests that are equal to one.
func (w *writes) of(request string) []time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	var times []time.Time
	for i, seen := range w.seen {
		if seen == request {
			times = append(times, w.times[i])
		}
	}
	return times
}

func (w *writes) askedForLease() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lease
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// node creates a Node with a speaker, Ready.
func (c *cluster) node(name, address string) {
	c.t.Helper()
	_, err := c.CoreV1().Nodes().Create(c.t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{
		Name:        name,
		Annotations: map[string]string{v1alpha1.NodeSpeaker: reportText(c.t)},
	}}, metav1.CreateOptions{})
	c.must(err)
	status := statusPatch(c.t, corev1.NodeStatus{
		Addresses:  []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: address}},
		Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
	})
	_, err = c.CoreV1().Nodes().Patch(c.t.Context(), name, types.StrategicMergePatchType, status, metav1.PatchOptions{}, "status")
	c.must(err)
}

// reportText is a speaker's report of sessions, each given as PEER=STATE.
func reportText(t testing.TB, sessions ...string) string {
	t.Helper()
	report := announce.Report{Version: "test", Formats: []int{announce.FormatVersion}}
	for _, s := range sessions {
		peer, state, _ := strings.Cut(s, "=")
		report.Sessions = append(report.Sessions, announce.Session{Peer: peer, State: state})
	}
	text, err := announce.EncodeReport(report)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// annotate sets an annotation of a Node; nil removes it.
func (c *cluster) annotate(node, key string, value any) {
	c.t.Helper()
	_, err := c.CoreV1().Nodes().Patch(c.t.Context(), node, types.MergePatchType, annotation(c.t, key, value), metav1.PatchOptions{})
	c.must(err)
}

func (c *cluster) create(in dynamic.ResourceInterface, kind, name string, spec map[string]any) {
	c.t.Helper()
	_, err := in.Create(c.t.Context(), &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": v1alpha1.SchemeGroupVersion.String(),
		"kind":       kind,
		"metadata":   map[string]any{"name": name},
		"spec":       spec,
	}}, metav1.CreateOptions{})
	c.must(err)
}

func (c *cluster) pool(name string, addresses ...any) {
	c.t.Helper()
	c.create(c.pools, "AddressPool", name, map[string]any{"addresses": addresses})
}

func (c *cluster) peer(name, address string) {
	c.t.Helper()
	c.create(c.peers, "BGPPeer", name, map[string]any{"localASN": int64(64512), "peerASN": int64(64500), "peerAddress": address})
}

// foreignCondition is a condition that is not the planner's.
var foreignCondition = metav1.Condition{
	Type: "example.com/Checked", Status: metav1.ConditionTrue, Reason: "Test", Message: "not ours",
	LastTransitionTime: metav1.Unix(1e9, 0),
}

// service creates a Service of type LoadBalancer that has the address.
func (c *cluster) service(name, address string) {
	c.t.Helper()
	_, err := c.CoreV1().Services(metav1.NamespaceDefault).Create(c.t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Ports: []corev1.ServicePort{{Port: 80}}},
	}, metav1.CreateOptions{})
	c.must(err)
	status := statusPatch(c.t, corev1.ServiceStatus{
		Conditions:   []metav1.Condition{foreignCondition},
		LoadBalancer: corev1.LoadBalancerStatus{Ingress: []corev1.LoadBalancerIngress{{IP: address}}},
	})
	_, err = c.CoreV1().Services(metav1.NamespaceDefault).Patch(c.t.Context(), name, types.StrategicMergePatchType, status, metav1.PatchOptions{}, "status")
	c.must(err)
}

// statusPatch sets fields of a status: while the planner writes, an update of
// the whole object would conflict.
func statusPatch(t testing.TB, status any) []byte {
	t.Helper()
	patch, err := json.Marshal(map[string]any{"status": status})
	if err != nil {
		t.Fatal(err)
	}
	return patch
}

// annotation is a patch that sets an annotation; nil removes it.
func annotation(t testing.TB, key string, value any) []byte {
	t.Helper()
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]any{key: value}}})
	if err != nil {
		t.Fatal(err)
	}
	return patch
}

func (c *cluster) patchService(name, patch string, subresources ...string) {
	c.t.Helper()
	_, err := c.CoreV1().Services(metav1.NamespaceDefault).Patch(c.t.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}, subresources...)
	c.must(err)
}

// conditions of a Service, each as TYPE=STATUS REASON: MESSAGE.
func (c *cluster) conditions(name string) []string {
	c.t.Helper()
	service, err := c.CoreV1().Services(metav1.NamespaceDefault).Get(c.t.Context(), name, metav1.GetOptions{})
	c.must(err)
	return conditionTexts(service.Status.Conditions)
}

func conditionTexts(conditions []metav1.Condition) []string {
	var texts []string
	for _, condition := range conditions {
		texts = append(texts, fmt.Sprintf("%s=%s %s: %s", condition.Type, condition.Status, condition.Reason, condition.Message))
	}
	slices.Sort(texts)
	return texts
}

// hasConditions waits until the Service has these conditions and no others.
func (c *cluster) hasConditions(name string, within time.Duration, want ...string) {
	c.t.Helper()
	var got []string
	eventually(c.t, within, func() bool { got = c.conditions(name); return slices.Equal(got, want) },
		func() string { return fmt.Sprintf("Service %s has the conditions %q; want %q", name, got, want) })
}

// program is that of a Node; ok says whether there is one that can be read.
func (c *cluster) program(node string) (p announce.Program, ok bool) {
	c.t.Helper()
	object, err := c.CoreV1().Nodes().Get(c.t.Context(), node, metav1.GetOptions{})
	c.must(err)
	p, err = announce.Decode(object.Annotations[v1alpha1.NodeAnnouncements])
	return p, err == nil
}

// announces waits until the Node's program holds exactly the addresses; it
// returns the program.
func (c *cluster) announces(node string, within time.Duration, want ...string) announce.Program {
	c.t.Helper()
	var (
		p   announce.Program
		got []string
	)
	eventually(c.t, within, func() bool {
		var ok bool
		p, ok = c.program(node)
		got = addressesOf(&p)
		return ok && slices.Equal(got, want)
	}, func() string { return fmt.Sprintf("Node %s is to announce %q; want %q", node, got, want) })
	return p
}

func addressesOf(p *announce.Program) []string {
	var texts []string
	for _, g := range p.Groups {
		for _, r := range g.Addresses {
			texts = append(texts, r.String())
		}
	}
	return texts
}

// poolStatus and peerStatus read a status as the API server has it.
func (c *cluster) poolStatus(name string) (s v1alpha1.AddressPoolStatus) {
	c.t.Helper()
	c.status(c.pools, name, &s)
	return s
}

func (c *cluster) peerStatus(name string) (s v1alpha1.BGPPeerStatus) {
	c.t.Helper()
	c.status(c.peers, name, &s)
	return s
}

func (c *cluster) status(in dynamic.ResourceInterface, name string, into any) {
	c.t.Helper()
	object, err := in.Get(c.t.Context(), name, metav1.GetOptions{})
	c.must(err)
	if fields, ok := object.Object["status"].(map[string]any); ok {
		c.must(runtime.DefaultUnstructuredConverter.FromUnstructured(fields, into))
	}
}

// versions are the resourceVersions of all objects that a planner may write.
func (c *cluster) versions() map[string]string {
	c.t.Helper()
	all := make(map[string]string)
	nodes, err := c.CoreV1().Nodes().List(c.t.Context(), metav1.ListOptions{})
	c.must(err)
	for i := range nodes.Items {
		all["Node "+nodes.Items[i].Name] = nodes.Items[i].ResourceVersion
	}
	services, err := c.CoreV1().Services(metav1.NamespaceDefault).List(c.t.Context(), metav1.ListOptions{})
	c.must(err)
	for i := range services.Items {
		all["Service "+services.Items[i].Name] = services.Items[i].ResourceVersion
	}
	for kind, in := range map[string]dynamic.ResourceInterface{"AddressPool ": c.pools, "BGPPeer ": c.peers} {
		list, err := in.List(c.t.Context(), metav1.ListOptions{})
		c.must(err)
		for i := range list.Items {
			all[kind+list.Items[i].GetName()] = list.Items[i].GetResourceVersion()
		}
	}
	return all
}

// holder is who holds the planner's Lease; empty for nobody.
func (c *cluster) holder() string {
	c.t.Helper()
	lease, err := c.CoordinationV1().Leases(metav1.NamespaceDefault).Get(c.t.Context(), LeaseName, metav1.GetOptions{})
	if err != nil || lease.Spec.HolderIdentity == nil {
		return ""
	}
	return *lease.Spec.HolderIdentity
}

func (c *cluster) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// eventually waits for what has to come true; otherwise tells what is instead.
func eventually(t testing.TB, within time.Duration, holds func() bool, otherwise func() string) {
	t.Helper()
	deadline := time.After(within)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-deadline:
			if holds() {
				return
			}
			t.Fatalf("after %v: %s", within, otherwise())
		case <-tick.C:
		}
	}
}
