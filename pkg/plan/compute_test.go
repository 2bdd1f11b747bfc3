package plan

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

// cluster is a State with n ready nodes, each with a speaker, one pool and one
// router.
func cluster(n int) *State {
	s := &State{
		Pools: []*v1alpha1.AddressPool{{
			ObjectMeta: metav1.ObjectMeta{Name: "main"},
			Spec:       v1alpha1.AddressPoolSpec{Addresses: []string{"198.18.0.0/16"}},
		}},
		Peers: []*v1alpha1.BGPPeer{{
			ObjectMeta: metav1.ObjectMeta{Name: "tor"},
			Spec:       v1alpha1.BGPPeerSpec{LocalASN: 64512, PeerASN: 64500, PeerAddress: "192.0.2.1"},
		}},
		Previous: make(map[string]announce.Program),
	}
	for i := range n {
		name := fmt.Sprintf("node%02d", i+1)
		s.Nodes = append(s.Nodes, &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{}, Annotations: map[string]string{}},
			Status: corev1.NodeStatus{
				Addresses:  []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: fmt.Sprintf("192.0.2.%d", 10+i)}},
				Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
			},
		})
		s.SpeakerPods = append(s.SpeakerPods, &corev1.Pod{
			Spec:   corev1.PodSpec{NodeName: name},
			Status: corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}},
		})
	}
	return s
}

// addService adds a Service with the i-th address of the pool.
func (s *State) addService(i int) *corev1.Service {
	addr := netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)})
	svc := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: fmt.Sprintf("s%05d", i),
			CreationTimestamp: metav1.NewTime(time.Unix(int64(i), 0)),
		},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer},
		Status: corev1.ServiceStatus{LoadBalancer: corev1.LoadBalancerStatus{
			Ingress: []corev1.LoadBalancerIngress{{IP: addr.String()}},
		}},
	}
	s.Services = append(s.Services, svc)
	return svc
}

// advance makes the plan's programs the previous ones.
func (s *State) advance() *Plan {
	p := Compute(s)
	s.Previous = p.Programs
	return p
}

func announcers(t *testing.T, p *Plan, service string) []string {
	t.Helper()
	for i := range p.Services {
		if p.Services[i].Name == service {
			return p.Services[i].Addresses[0].NextHops()
		}
	}
	t.Fatalf("no Service %s in the plan", service)
	return nil
}

func programNodes(p *Plan, addr string) []string {
	var nodes []string
	for _, name := range slices.Sorted(maps.Keys(p.Programs)) {
		program := p.Programs[name]
		if program.Contains(netip.MustParseAddr(addr)) {
			nodes = append(nodes, name)
		}
	}
	return nodes
}

func TestCappedNextHopsStick(t *testing.T) {
	s := cluster(6)
	s.Pools[0].Spec.MaxNextHops = ptr.To[int32](2)
	for i := range 30 {
		s.addService(i)
	}
	before := s.advance()

	// A new node, and a lost one: only addresses of the lost one move.
	lost := s.Nodes[0].Name
	s.Nodes[0].Status.Conditions[0].Status = corev1.ConditionUnknown
	after := s.advance()
	load := make(map[string]int)
	for i := range 30 {
		name := fmt.Sprintf("s%05d", i)
		was, is := announcers(t, before, name), announcers(t, after, name)
		if len(is) != 2 {
			t.Fatalf("%s has next hops %v, want two", name, is)
		}
		for _, node := range was {
			if node != lost && !slices.Contains(is, node) {
				t.Errorf("%s moved from %v to %v, though only %s is lost", name, was, is, lost)
			}
		}
		for _, node := range is {
			load[node]++
		}
	}
	for node, n := range load {
		if n < 10 || n > 14 { // 60 next hops over 5 nodes
			t.Errorf("%s has %d of 60 next hops", node, n)
		}
	}

	// It comes back: nothing moves again.
	s.Nodes[0].Status.Conditions[0].Status = corev1.ConditionTrue
	again := s.advance()
	for i := range 30 {
		name := fmt.Sprintf("s%05d", i)
		if was, is := announcers(t, after, name), announcers(t, again, name); !slices.Equal(was, is) {
			t.Errorf("%s moved back from %v to %v", name, was, is)
		}
	}
}

// A speaker that restarts is not noticed: its program stays, also where it is
// the only next hop, but it does not count.
func TestSpeakerAwayKeepsItsProgram(t *testing.T) {
	for _, gone := range []string{"not ready", "terminating", "missing"} {
		t.Run(gone, func(t *testing.T) {
			s := cluster(3)
			svc := s.addService(1)
			svc.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
			s.EndpointSlices = []*discoveryv1.EndpointSlice{{
				ObjectMeta: metav1.ObjectMeta{Namespace: "default", Labels: map[string]string{discoveryv1.LabelServiceName: svc.Name}},
				Endpoints:  []discoveryv1.Endpoint{{NodeName: ptr.To("node02")}},
			}}
			s.advance()
			switch gone {
			case "not ready":
				s.SpeakerPods[1].Status.Conditions[0].Status = corev1.ConditionFalse
			case "terminating":
				s.SpeakerPods[1].DeletionTimestamp = ptr.To(metav1.Now())
			case "missing":
				s.SpeakerPods = slices.Delete(s.SpeakerPods, 1, 2)
			}
			s.addService(2)
			p := s.advance()
			if got := programNodes(p, "198.18.0.1"); !slices.Equal(got, []string{"node02"}) {
				t.Errorf("programs of %v have the address, want node02", got)
			}
			if got := announcers(t, p, svc.Name); len(got) != 0 {
				t.Errorf("%v count as announcers", got)
			}
			if _, reason, _ := p.Services[0].Condition(); reason != string(Retains) {
				t.Errorf("reason %s, want %s", reason, Retains)
			}
			// What comes new meanwhile goes to the others.
			if got := programNodes(p, "198.18.0.2"); !slices.Equal(got, []string{"node01", "node03"}) {
				t.Errorf("programs of %v have the new address, want node01 and node03", got)
			}
		})
	}
}

func TestAddressOutsideAllPoolsKeepsItsAttributes(t *testing.T) {
	for _, edit := range []string{"pool shrunk", "pool deleted"} {
		t.Run(edit, func(t *testing.T) {
			s := cluster(2)
			s.Pools[0].Spec.BGP = &v1alpha1.AddressPoolBGP{Advertisements: []v1alpha1.BGPAdvertisement{
				{Communities: []string{"64500:7"}, LocalPref: ptr.To[int64](300)},
			}}
			svc := s.addService(1)
			before := s.advance()
			svc.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionAnnounced, Status: metav1.ConditionTrue}}
			if edit == "pool deleted" {
				s.Pools = nil
			} else {
				s.Pools[0].Spec.Addresses = []string{"198.19.0.0/24"}
				s.Pools[0].Spec.BGP = nil
			}
			for range 2 { // also from its own outcome
				after := s.advance()
				for node, program := range after.Programs {
					if want := before.Programs[node]; program.Hash != want.Hash {
						t.Errorf("%s: program %+v, want %+v as before", node, program.Groups, want.Groups)
					}
				}
			}
		})
	}
}

func TestForeignServiceIsLeftAlone(t *testing.T) {
	s := cluster(2)
	s.addService(1)
	s.Pools = nil // the address is in no pool, and the Service has no condition of ours
	p := s.advance()
	if len(p.Services) != 0 || len(programNodes(p, "198.18.0.1")) != 0 {
		t.Errorf("a Service of another load balancer is planned: %v", p)
	}
}

func TestLabelEditThatLeavesNobodyKeepsTheLast(t *testing.T) {
	s := cluster(2)
	svc := s.addService(1)
	s.advance()
	s.Pools[0].Spec.NodeSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"lb": "yse"}}
	for range 2 {
		p := s.advance()
		if got := announcers(t, p, svc.Name); len(got) != 2 {
			t.Fatalf("announced by %v, want both nodes still", got)
		}
		if announced, reason, message := p.Services[0].Condition(); !announced || reason != "KeptLastNodes" || !strings.Contains(message, "nodeSelector") {
			t.Errorf("condition %t %s %q", announced, reason, message)
		}
	}
	// The corrected label ends it.
	s.Nodes[0].Labels["lb"] = "yse"
	if got := announcers(t, s.advance(), svc.Name); !slices.Equal(got, []string{"node01"}) {
		t.Errorf("announced by %v, want node01", got)
	}
	// A new address has no last nodes to keep.
	s.Nodes[0].Labels["lb"] = "no"
	s.addService(2)
	if got := announcers(t, s.advance(), "s00002"); len(got) != 0 {
		t.Errorf("a new address is announced by %v", got)
	}
}

func TestDrainAlwaysWithdraws(t *testing.T) {
	s := cluster(1)
	svc := s.addService(1)
	s.advance()
	s.Nodes[0].Annotations[v1alpha1.NodeDrain] = "true"
	if got := announcers(t, s.advance(), svc.Name); len(got) != 0 {
		t.Errorf("a draining node announces: %v", got)
	}
}

func TestLeaveOut(t *testing.T) {
	s := cluster(2)
	s.addService(1)
	s.addService(2)
	p := s.advance()
	concerned := p.LeaveOut("node01", []announce.Range{announce.Single(netip.MustParseAddr("198.18.0.2"))})
	if len(concerned) != 1 || concerned[0].Name != "s00002" {
		t.Errorf("concerned %v, want s00002", concerned)
	}
	if got := announcers(t, p, "s00001"); len(got) != 2 {
		t.Errorf("s00001 is announced by %v, want both", got)
	}
	if got := announcers(t, p, "s00002"); !slices.Equal(got, []string{"node02"}) {
		t.Errorf("s00002 is announced by %v, want node02", got)
	}
}

// No address is ever in the program of a node twice for two Services, and the
// programs and verdicts agree.
func TestProgramsMatchVerdicts(t *testing.T) {
	s := cluster(5)
	s.Pools[0].Spec.MaxNextHops = ptr.To[int32](3)
	for i := range 200 {
		svc := s.addService(i % 150) // some addresses twice
		svc.Name = fmt.Sprintf("%s-%d", svc.Name, i)
	}
	p := s.advance()
	want := make(map[string]map[netip.Addr]bool)
	for _, svc := range p.Services {
		for _, a := range svc.Addresses {
			for _, node := range a.NextHops() {
				if want[node] == nil {
					want[node] = make(map[netip.Addr]bool)
				}
				if want[node][a.From()] {
					t.Errorf("%s is announced for two Services by %s", a.Range, node)
				}
				want[node][a.From()] = true
			}
		}
	}
	for node, program := range p.Programs {
		got := 0
		for _, g := range program.Groups {
			for _, r := range g.Addresses {
				for addr := r.From(); ; addr = addr.Next() {
					got++
					if !want[node][addr] {
						t.Errorf("%s announces %s without a verdict", node, addr)
					}
					if addr == r.To() {
						break
					}
				}
			}
		}
		if got != len(want[node]) {
			t.Errorf("%s announces %d addresses, want %d", node, got, len(want[node]))
		}
	}
}

func BenchmarkCompute(b *testing.B) {
	for _, size := range []struct{ nodes, services int }{{3, 40}, {3, 2000}, {100, 2000}} {
		b.Run(fmt.Sprintf("nodes=%d/services=%d", size.nodes, size.services), func(b *testing.B) {
			s := cluster(size.nodes)
			for i := range size.services {
				s.addService(i)
			}
			s.advance()
			b.ReportAllocs()
			for b.Loop() {
				Compute(s)
			}
		})
	}
}

// A rolling restart of the speakers moves no capped next hop.
func TestRollingRestartMovesNothing(t *testing.T) {
	s := cluster(6)
	s.Pools[0].Spec.MaxNextHops = ptr.To[int32](3)
	for i := range 30 {
		s.addService(i)
	}
	before := s.advance()
	for i := range s.SpeakerPods {
		s.SpeakerPods[i].Status.Conditions[0].Status = corev1.ConditionFalse
		during := s.advance()
		for node, program := range during.Programs {
			if program.Hash != before.Programs[node].Hash {
				t.Errorf("%s has another program while the speaker of %s restarts", node, s.Nodes[i].Name)
			}
		}
		s.SpeakerPods[i].Status.Conditions[0].Status = corev1.ConditionTrue
		after := s.advance()
		for node, program := range after.Programs {
			if program.Hash != before.Programs[node].Hash {
				t.Errorf("%s has another program after the speaker of %s restarted", node, s.Nodes[i].Name)
			}
		}
	}
}

func TestFoldingStaysInsideThePool(t *testing.T) {
	for _, test := range []struct {
		addresses string
		length    int32
		folded    bool
	}{
		{"198.18.0.0/16", 24, true},
		{"198.18.0.0/16", 16, true},
		{"198.18.0.0/16", 8, false},
		{"198.18.0.1-198.18.0.254", 24, false},
		{"198.18.0.0/24", 25, true},
	} {
		s := cluster(1)
		s.Pools[0].Spec.Addresses = []string{test.addresses}
		s.Pools[0].Spec.BGP = &v1alpha1.AddressPoolBGP{Advertisements: []v1alpha1.BGPAdvertisement{{AggregationLength: &test.length}}}
		s.addService(1)
		p := s.advance()
		length := p.Programs["node01"].Groups[0].BGP.AggregationLength
		if (length > 0) != test.folded {
			t.Errorf("%s with length %d: folded to /%d", test.addresses, test.length, length)
		}
		problem := slices.ContainsFunc(p.Pools[0].Problems, func(p Problem) bool { return p.Reason == "Aggregation" })
		if problem == test.folded {
			t.Errorf("%s with length %d: problems %v", test.addresses, test.length, p.Pools[0].Problems)
		}
	}
}

// Without its pool, an address is announced by those that did, and nobody else.
func TestDeletedPoolWidensNothing(t *testing.T) {
	s := cluster(3)
	s.Nodes[0].Labels["lb"] = "yes"
	s.Pools[0].Spec.NodeSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"lb": "yes"}}
	svc := s.addService(1)
	s.advance()
	s.Pools = nil // before any condition is written
	for range 2 {
		if got := announcers(t, s.advance(), svc.Name); !slices.Equal(got, []string{"node01"}) {
			t.Errorf("announced by %v, want node01 only", got)
		}
	}
}

func TestSecondPeerWithTheSameAddress(t *testing.T) {
	s := cluster(1)
	s.addService(1)
	younger := s.Peers[0].DeepCopy()
	younger.Name, younger.CreationTimestamp = "a-new-name", metav1.NewTime(time.Unix(1000, 0))
	s.Peers = append(s.Peers, younger)
	p := s.advance()
	if peers := p.Programs["node01"].Peers; len(peers) != 1 || peers[0].Name != "tor" {
		t.Errorf("sessions %v, want that of the older BGPPeer", peers)
	}
	if problems := p.Peers[0].Problems; len(problems) == 0 || !strings.Contains(problems[0].Message, "tor, which is older") {
		t.Errorf("problems of the younger: %v", problems)
	}
	// The rename is finished: the new one takes over.
	s.Peers = s.Peers[1:]
	if peers := s.advance().Programs["node01"].Peers; len(peers) != 1 || peers[0].Name != "a-new-name" {
		t.Errorf("sessions %v, want that of the remaining BGPPeer", peers)
	}
}

func TestPeerSelectorThatLeavesNobodyKeepsTheLast(t *testing.T) {
	s := cluster(2)
	svc := s.addService(1)
	s.advance()
	s.Peers[0].Spec.NodeSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"rack": "typo"}}
	for range 2 {
		p := s.advance()
		if got := announcers(t, p, svc.Name); len(got) != 2 {
			t.Fatalf("announced by %v, want both still", got)
		}
		if problems := p.Peers[0].Problems; len(problems) == 0 || problems[0].Reason != "KeptLastNodes" {
			t.Errorf("problems %v", problems)
		}
	}
}

func TestNodesWithoutASessionComeLast(t *testing.T) {
	s := cluster(3)
	s.Pools[0].Spec.MaxNextHops = ptr.To[int32](1)
	report := func(i int, state string) {
		text, err := announce.EncodeReport(announce.Report{Sessions: []announce.Session{{Peer: "tor", State: state}}})
		if err != nil {
			t.Fatal(err)
		}
		s.Nodes[i].Annotations[v1alpha1.NodeSpeaker] = text
	}
	svc := s.addService(1)
	if got := announcers(t, s.advance(), svc.Name); !slices.Equal(got, []string{"node01"}) {
		t.Fatalf("announced by %v", got)
	}
	report(0, "active")
	report(1, announce.StateEstablished)
	p := s.advance()
	if got := announcers(t, p, svc.Name); !slices.Equal(got, []string{"node02"}) {
		t.Errorf("announced by %v, want node02, whose session is up", got)
	}
	// Where no session is up, the condition says so.
	report(1, "active")
	report(2, "active")
	p = s.advance()
	if announced, reason, _ := p.Services[0].Condition(); announced || reason != "NoSession" {
		t.Errorf("condition %t %s, want NoSession", announced, reason)
	}
}
