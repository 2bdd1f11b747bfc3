package planner

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	ktesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	lbclient "github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/client"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

// large is a planner of a large cluster. What it patches is in its caches at once.
type large struct {
	*planner
	tb       testing.TB
	notices  *notices
	version  int
	writes   int
	endpoint *discoveryv1.EndpointSlice // of a Service with local endpoints
}

// newLarge has one router and one pool. Every other Service sends traffic to local
// endpoints only, and has four of them.
func newLarge(tb testing.TB, nodes, services int) *large {
	tb.Helper()
	lb, err := lbclient.New(&rest.Config{Host: "http://127.0.0.1:1"})
	if err != nil {
		tb.Fatal(err)
	}
	client := fake.NewClientset()
	objects := newObjects(client, lb, "speakers")
	l := &large{tb: tb, version: 1000, notices: newNotices(record.NewFakeRecorder(services))}
	l.planner = &planner{
		client: client, objects: objects, changed: make(chan struct{}, 1),
		nodes: newNodeWriter(client), conditions: newConditionWriter(client, objects), statuses: newObjectWriter(client, lb, nil, objects),
		away: make(map[string]time.Time), unready: make(map[string]time.Time),
	}
	l.conditions.limiter = rate.NewLimiter(rate.Inf, 0)
	client.PrependReactor("patch", "nodes", l.patchNode)
	client.PrependReactor("patch", "services", l.patchService)
	l.add(objects.pools, &v1alpha1.AddressPool{
		ObjectMeta: metav1.ObjectMeta{Name: "main"},
		Spec:       v1alpha1.AddressPoolSpec{Addresses: []string{"198.18.0.0/15"}},
	})
	l.add(objects.peers, &v1alpha1.BGPPeer{
		ObjectMeta: metav1.ObjectMeta{Name: "tor"},
		Spec:       v1alpha1.BGPPeerSpec{LocalASN: 64512, PeerASN: 64500, PeerAddress: "192.0.2.1"},
	})
	for i := range nodes {
		l.addNode(i)
	}
	for i := range services {
		l.addService(i, nodes)
	}
	return l
}

func (l *large) add(to cache.SharedIndexInformer, object any) {
	l.tb.Helper()
	if err := to.GetStore().Add(object); err != nil {
		l.tb.Fatal(err)
	}
}

func nodeName(i int) string { return fmt.Sprintf("node%04d", i) }

func (l *large) addNode(i int) {
	n := nodeAt("1", nodeName(i))
	n.UID = types.UID(n.Name)
	n.Annotations = map[string]string{v1alpha1.NodeSpeaker: reportText(l.tb, "tor=established")}
	n.Status = corev1.NodeStatus{
		Addresses:  []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: fmt.Sprintf("192.0.%d.%d", 2+i/250, i%250+1)}},
		Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
	}
	l.add(l.objects.nodes, n)
}

func (l *large) addService(i, nodes int) {
	svc := serviceAt(1, fmt.Sprintf("s%05d", i))
	svc.CreationTimestamp = metav1.Unix(int64(i), 0)
	svc.Spec = corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Ports: []corev1.ServicePort{{Protocol: corev1.ProtocolTCP, Port: 80}}}
	addr := netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)})
	svc.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: addr.String()}}
	if i%2 == 1 {
		svc.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
		svc.Spec.HealthCheckNodePort = int32(30000 + i)
		l.endpoint = &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{
			Namespace: svc.Namespace, Name: svc.Name, Labels: map[string]string{discoveryv1.LabelServiceName: svc.Name},
		}}
		for k := range 4 {
			name := nodeName((i*7 + k*131) % nodes)
			l.endpoint.Endpoints = append(l.endpoint.Endpoints, discoveryv1.Endpoint{NodeName: &name})
		}
		l.add(l.objects.slices, l.endpoint)
	}
	l.add(l.objects.services, svc)
}

// moveEndpoint moves an endpoint of one Service to another node.
func (l *large) moveEndpoint(to string) {
	moved := l.endpoint.DeepCopy()
	moved.Endpoints[0].NodeName = &to
	l.add(l.objects.slices, moved)
}

func (l *large) patchNode(action ktesting.Action) (bool, runtime.Object, error) {
	patch := action.(ktesting.PatchAction)
	n, ok := cached[*corev1.Node](l.objects.nodes, patch.GetName())
	if !ok {
		return false, nil, nil
	}
	updated := n.DeepCopy()
	l.patched(patch, updated)
	updated.ResourceVersion = strconv.Itoa(l.version)
	l.add(l.objects.nodes, updated)
	return true, updated, nil
}

func (l *large) patchService(action ktesting.Action) (bool, runtime.Object, error) {
	patch := action.(ktesting.PatchAction)
	svc, ok := cached[*corev1.Service](l.objects.services, patch.GetNamespace()+"/"+patch.GetName())
	if !ok {
		return false, nil, nil
	}
	var change corev1.Service
	l.patched(patch, &change)
	updated := svc.DeepCopy()
	for _, condition := range change.Status.Conditions {
		meta.SetStatusCondition(&updated.Status.Conditions, condition)
	}
	updated.ResourceVersion = strconv.Itoa(l.version)
	l.add(l.objects.services, updated)
	return true, updated, nil
}

func (l *large) patched(patch ktesting.PatchAction, into any) {
	if err := json.Unmarshal(patch.GetPatch(), into); err != nil {
		l.tb.Error(err)
	}
	l.version++
	l.writes++
}

// plan plans once, writes all that follows from it, and returns the writes.
func (l *large) plan() int {
	l.tb.Helper()
	before := l.writes
	if _, _, err := l.planOnce(l.tb.Context(), "cluster", l.notices); err != nil {
		l.tb.Fatal(err)
	}
	for <-l.conditions.news; ; {
		if came := l.conditions.write(l.tb.Context(), l.conditions.statusLoop.plan()); !came.interrupted {
			break
		}
	}
	return l.writes - before
}

func TestPlansOfLargeClustersWriteWhatChanged(t *testing.T) {
	l := newLarge(t, 60, 300)
	if writes, want := l.plan(), 60+300; writes != want {
		t.Errorf("the first plan took %d writes, want %d", writes, want)
	}
	if writes := l.plan(); writes != 0 {
		t.Errorf("%d writes though nothing changed", writes)
	}
	used := make(map[string]bool)
	for _, e := range l.endpoint.Endpoints {
		used[*e.NodeName] = true
	}
	free := 0
	for used[nodeName(free)] {
		free++
	}
	l.moveEndpoint(nodeName(free))
	if writes, want := l.plan(), 2+1; writes != want { // two nodes, one condition
		t.Errorf("an endpoint that moves took %d writes, want %d", writes, want)
	}
}

// BenchmarkPlan is all that a change of one Service costs, but for the API server.
func BenchmarkPlan(b *testing.B) {
	for _, size := range []struct{ nodes, services int }{{10, 1000}, {100, 5000}, {1000, 10000}} {
		for _, changing := range []bool{false, true} {
			b.Run(fmt.Sprintf("nodes=%d/services=%d/changing=%t", size.nodes, size.services, changing), func(b *testing.B) {
				l := newLarge(b, size.nodes, size.services)
				l.plan()
				writes, i := l.writes, 0
				for b.Loop() {
					if changing {
						l.moveEndpoint(nodeName(i % size.nodes))
						i++
					}
					l.plan()
				}
				b.ReportMetric(float64(l.writes-writes)/float64(b.N), "writes/op")
			})
		}
	}
}
