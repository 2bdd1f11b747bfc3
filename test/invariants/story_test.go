package invariants

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

// story is a history made by hand: what the API shows, and how long it does so.
type story struct {
	t       testing.TB
	judge   *Judge
	now     time.Time
	version int64
	said    map[string]*program // of nodes
	pools   []*v1alpha1.AddressPool
	shown   map[string]*corev1.Service
}

// program is what a node is told, by address.
type program struct {
	bgp   map[string]bool
	owner map[string]string
}

// begin is a cluster of three nodes with speakers, a router, and the pools
// "main" (BGP, 203.0.113.0/29) and "lan" (Layer 2, 192.0.2.200-192.0.2.203,
// autoAssign false). Each node has the program that it should have for no
// Service.
func begin(t testing.TB, options Options) *story {
	s := &story{
		t: t, now: time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC),
		said: make(map[string]*program), shown: make(map[string]*corev1.Service),
	}
	s.judge = NewJudge(options, s.now)
	for _, name := range []string{"node1", "node2", "node3"} {
		s.node(name, nil)
		s.pod(name, true)
	}
	s.pool("main", v1alpha1.AddressPoolSpec{Addresses: []string{"203.0.113.0/29"}})
	s.pool("lan", v1alpha1.AddressPoolSpec{
		Addresses: []string{"192.0.2.200-192.0.2.203"}, Protocols: []v1alpha1.Protocol{v1alpha1.ProtocolLayer2}, AutoAssign: ptr.To(false),
	})
	s.judge.Set(s.now, &v1alpha1.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: "tor"}, Spec: v1alpha1.BGPPeerSpec{PeerAddress: "192.0.2.1"}})
	s.judge.Connect(s.now, true)
	s.pass(6 * time.Second) // clocks run after an outage
	return s
}

// pass lets time pass, and the pools' counts follow.
func (s *story) pass(d time.Duration) {
	for range int(d / tick) {
		s.now = s.now.Add(tick)
		s.judge.Tick(s.now)
	}
}

func (s *story) meta(name string) metav1.ObjectMeta {
	s.version++
	return metav1.ObjectMeta{Name: name, Namespace: "default", UID: types.UID(name), ResourceVersion: fmt.Sprint(s.version), Generation: s.version}
}

// service shows a Service with the addresses; edit changes it, from the way it was
// shown last.
func (s *story) service(name string, addresses string, edit func(*corev1.Service)) {
	s.t.Helper()
	svc := &corev1.Service{
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeLoadBalancer, IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol},
			Ports: []corev1.ServicePort{{Port: 80}},
		},
	}
	if before := s.shown[name]; before != nil {
		svc = before.DeepCopy()
	}
	meta := s.meta(name)
	meta.Annotations, meta.Finalizers, meta.DeletionTimestamp = svc.Annotations, svc.Finalizers, svc.DeletionTimestamp
	svc.ObjectMeta = meta
	svc.Status.LoadBalancer.Ingress = nil
	for _, a := range strings.Fields(addresses) {
		svc.Status.LoadBalancer.Ingress = append(svc.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: a})
	}
	if edit != nil {
		edit(svc)
	}
	s.shown[name] = svc
	s.judge.Set(s.now, svc)
	s.count()
}

func (s *story) gone(name string) {
	s.judge.Delete(s.now, s.shown[name])
	delete(s.shown, name)
	s.count()
}

// count makes the pools' status say what Services show.
func (s *story) count() {
	for _, p := range s.pools {
		s.allocated(p, s.holds(p))
	}
}

func (s *story) holds(p *v1alpha1.AddressPool) int {
	set, addresses := newPool(p).set, make(map[netip.Addr]bool)
	for _, svc := range s.shown {
		for _, a := range newService(svc).addresses {
			if set.Contains(a) {
				addresses[a] = true
			}
		}
	}
	return len(addresses)
}

func (s *story) allocated(p *v1alpha1.AddressPool, n int) {
	p = p.DeepCopy()
	p.Status.Allocated = fmt.Sprint(n)
	s.judge.Set(s.now, p)
}

func (s *story) pool(name string, spec v1alpha1.AddressPoolSpec) {
	p := &v1alpha1.AddressPool{ObjectMeta: s.meta(name), Spec: spec}
	s.pools = slices.DeleteFunc(s.pools, func(p *v1alpha1.AddressPool) bool { return p.Name == name })
	s.pools = append(s.pools, p)
	s.allocated(p, s.holds(p))
}

func (s *story) poolGone(name string) {
	i := slices.IndexFunc(s.pools, func(p *v1alpha1.AddressPool) bool { return p.Name == name })
	s.judge.Delete(s.now, s.pools[i])
	s.pools = slices.Delete(s.pools, i, i+1)
}

// deletePool shows a pool that is being deleted, and kept by our finalizer.
func (s *story) deletePool(name string) {
	i := slices.IndexFunc(s.pools, func(p *v1alpha1.AddressPool) bool { return p.Name == name })
	p := s.pools[i].DeepCopy()
	p.DeletionTimestamp, p.Finalizers = &metav1.Time{Time: s.now}, []string{v1alpha1.PoolInUse}
	s.pools[i] = p
	s.judge.Set(s.now, p)
}

// node shows a Node with its program.
func (s *story) node(name string, edit func(*corev1.Node)) {
	s.t.Helper()
	if s.said[name] == nil {
		s.said[name] = &program{bgp: make(map[string]bool), owner: make(map[string]string)}
	}
	n := &corev1.Node{ObjectMeta: s.meta(name), Status: corev1.NodeStatus{
		Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
	}}
	report := announce.Report{Interfaces: []announce.Interface{{
		Name: "eth0", MAC: "02:00:5e:00:53:11", Prefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.11/24")},
	}}}
	n.Annotations = map[string]string{
		v1alpha1.NodeSpeaker:       s.text(announce.EncodeReport(report)),
		v1alpha1.NodeAnnouncements: s.text(announce.Encode(s.encode(s.said[name]))),
	}
	n.Labels = map[string]string{}
	if edit != nil {
		edit(n)
	}
	s.judge.Set(s.now, n)
}

func (s *story) encode(said *program) announce.Program {
	var p announce.Program
	for a := range said.bgp {
		p.Peers = []announce.Peer{{Name: "tor", LocalASN: 64512, PeerASN: 64500, Address: netip.MustParseAddr("192.0.2.1"), Port: 179, IPv4: true}}
		p.RouterID = netip.MustParseAddr("192.0.2.11")
		p.Groups = append(p.Groups, announce.Group{Pool: "main", BGP: &announce.BGP{Peers: []string{"tor"}}, Addresses: []announce.Range{announce.Single(netip.MustParseAddr(a))}})
	}
	for a, owner := range said.owner {
		p.Nodes = []announce.Node{{Name: "node1"}, {Name: "node2"}, {Name: "node3"}}
		p.Groups = append(p.Groups, announce.Group{Pool: "lan", Layer2: &announce.Layer2{Candidates: []string{owner}}, Addresses: []announce.Range{announce.Single(netip.MustParseAddr(a))}})
	}
	p.Normalize()
	return p
}

func (s *story) text(text string, err error) string {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
	return text
}

// bgp makes exactly these nodes announce the address by BGP.
func (s *story) bgp(address string, nodes ...string) {
	s.t.Helper()
	for _, name := range []string{"node1", "node2", "node3"} {
		if slices.Contains(nodes, name) {
			s.said[name].bgp[address] = true
		} else {
			delete(s.said[name].bgp, address)
		}
		s.node(name, nil)
	}
}

// own makes a node's program name the owner of an address on the LAN.
func (s *story) own(node, address, owner string) {
	s.t.Helper()
	s.said[node].owner[address] = owner
	s.node(node, nil)
}

func (s *story) pod(node string, ready bool) {
	status := corev1.ConditionFalse
	if ready {
		status = corev1.ConditionTrue
	}
	pod := &corev1.Pod{ObjectMeta: s.meta("speaker-" + node), Spec: corev1.PodSpec{NodeName: node}}
	pod.Labels = map[string]string{v1alpha1.SpeakerPodLabel: v1alpha1.SpeakerPodName}
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: status}}
	s.judge.Set(s.now, pod)
}

// endpoints of a Service, on nodes.
func (s *story) endpoints(service string, nodes ...string) {
	slice := &discoveryv1.EndpointSlice{ObjectMeta: s.meta(service + "-slice")}
	slice.Labels = map[string]string{discoveryv1.LabelServiceName: service}
	for _, n := range nodes {
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{NodeName: &n, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true)}})
	}
	s.judge.Set(s.now, slice)
}

func (s *story) lease(name, holder string) {
	s.judge.Set(s.now, &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: v1alpha1.DefaultNamespace},
		Spec: coordinationv1.LeaseSpec{
			HolderIdentity: &holder, LeaseDurationSeconds: ptr.To(int32(3)), RenewTime: ptr.To(metav1.NewMicroTime(s.now)),
		},
	})
}

// served is a Service "web" with an address of the pool "main" that all announce.
func served(s *story) {
	s.service("web", "203.0.113.1", nil)
	s.bgp("203.0.113.1", "node1", "node2", "node3")
	s.pass(15 * time.Second)
}

// onLAN is a Service "web" with an address on the LAN that node1 owns.
func onLAN(s *story) {
	s.service("web", "192.0.2.200", annotate(v1alpha1.ServicePool, "lan"))
	s.own("node1", "192.0.2.200", "node1")
	s.pass(15 * time.Second)
}

// Edits of objects.

func annotate(key, value string) func(*corev1.Service) {
	return func(svc *corev1.Service) {
		svc.Annotations = map[string]string{key: value}
	}
}

func annotateNode(key, value string) func(*corev1.Node) {
	return func(n *corev1.Node) { n.Annotations[key] = value }
}

func labelNode(key, value string) func(*corev1.Node) {
	return func(n *corev1.Node) { n.Labels[key] = value }
}

// reports changes what the Node's speaker reports.
func reports(change func(*announce.Report)) func(*corev1.Node) {
	return func(n *corev1.Node) {
		r, err := announce.DecodeReport(n.Annotations[v1alpha1.NodeSpeaker])
		if err != nil {
			panic(err)
		}
		change(&r)
		if n.Annotations[v1alpha1.NodeSpeaker], err = announce.EncodeReport(r); err != nil {
			panic(err)
		}
	}
}

func notReady(n *corev1.Node) { n.Status.Conditions[0].Status = corev1.ConditionUnknown }

func port(number int32) func(*corev1.Service) {
	return func(svc *corev1.Service) { svc.Spec.Ports = []corev1.ServicePort{{Port: number}} }
}

func local(svc *corev1.Service) {
	svc.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	svc.Spec.Selector = map[string]string{"app": svc.Name}
}

func dual(policy corev1.IPFamilyPolicy) func(*corev1.Service) {
	return func(svc *corev1.Service) {
		svc.Spec.IPFamilies, svc.Spec.IPFamilyPolicy = []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}, &policy
	}
}

func deleting(finalizers ...string) func(*corev1.Service) {
	return func(svc *corev1.Service) {
		svc.DeletionTimestamp, svc.Finalizers = &metav1.Time{Time: time.Unix(1, 0)}, finalizers
	}
}

func both(edits ...func(*corev1.Service)) func(*corev1.Service) {
	return func(svc *corev1.Service) {
		for _, edit := range edits {
			edit(svc)
		}
	}
}

// kinds of the violations, without repetitions, sorted.
func (s *story) kinds() []Kind {
	var kinds []Kind
	for _, v := range s.judge.Violations() {
		kinds = append(kinds, v.Kind)
	}
	slices.Sort(kinds)
	return slices.Compact(kinds)
}

// check fails the test unless violations are of exactly these kinds.
func (s *story) check(want ...Kind) {
	s.t.Helper()
	if got := s.kinds(); !slices.Equal(got, want) {
		s.t.Errorf("violations of %v, want %v", got, want)
		for _, v := range s.judge.Violations() {
			s.t.Log(v)
		}
	}
}

// share is two Services "a" and "b" with one address, and a key.
func share(s *story, mode v1alpha1.SharingMode, a, b func(*corev1.Service)) {
	s.pool("main", v1alpha1.AddressPoolSpec{Addresses: []string{"203.0.113.0/29"}, Sharing: mode})
	s.pass(6 * time.Second) // the mode of before counts for a moment
	keyed := annotate(v1alpha1.ServiceShareKey, "k")
	s.service("a", first, both(keyed, a))
	s.service("b", first, both(keyed, b))
	s.bgp(first, all...)
	s.pass(time.Second)
}

func elsewhere(svc *corev1.Service) { svc.Namespace = "elsewhere" }

func unkeyed(svc *corev1.Service) { svc.Annotations = nil }

func selector(key, value string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{key: value}}
}
