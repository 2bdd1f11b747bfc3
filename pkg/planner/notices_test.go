package planner

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/plan"
)

func TestConflictsBecomeEventsOnce(t *testing.T) {
	recorder := record.NewFakeRecorder(10)
	n := newNotices(recorder)
	state := func(conflicts ...announce.Conflict) *plan.State {
		text, err := json.Marshal(announce.Report{
			Interfaces: []announce.Interface{{Name: "eth0", MAC: "02:00:5e:00:53:01", Prefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.11/24")}}},
			Conflicts:  conflicts,
		})
		if err != nil {
			t.Fatal(err)
		}
		return &plan.State{
			Nodes: []*corev1.Node{{
				ObjectMeta: metav1.ObjectMeta{Name: "a", Annotations: map[string]string{v1alpha1.NodeSpeaker: string(text)}},
				Status:     corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}},
			}},
			Pools: []*v1alpha1.AddressPool{{
				ObjectMeta: metav1.ObjectMeta{Name: "lan"},
				Spec:       v1alpha1.AddressPoolSpec{Addresses: []string{"192.0.2.200/29"}, Protocols: []v1alpha1.Protocol{v1alpha1.ProtocolLayer2}},
			}},
			Services: []*corev1.Service{{
				ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
				Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer},
				Status:     corev1.ServiceStatus{LoadBalancer: corev1.LoadBalancerStatus{Ingress: []corev1.LoadBalancerIngress{{IP: "192.0.2.201"}}}},
			}},
		}
	}
	conflict := announce.Conflict{Address: netip.MustParseAddr("192.0.2.201"), Interface: "eth0", MAC: announce.MAC{2, 0, 0x5e, 0, 0x53, 0xff}, Held: true}
	for step, test := range []struct {
		conflicts []announce.Conflict
		want      string
	}{
		{},
		{conflicts: []announce.Conflict{conflict}, want: "AddressInUse"},
		{conflicts: []announce.Conflict{conflict}},
		{},
		{conflicts: []announce.Conflict{conflict}, want: "AddressInUse"},
		{conflicts: []announce.Conflict{{Address: conflict.Address, Interface: "eth0", MAC: conflict.MAC}}, want: "AddressClaimed"},
	} {
		s := state(test.conflicts...)
		if next := n.tell(plan.Compute(s), s); !next.IsZero() {
			t.Errorf("step %d: more is due at %v", step, next)
		}
		got := ""
		select {
		case got = <-recorder.Events:
		default:
		}
		if test.want == "" && got != "" || !strings.Contains(got, test.want) {
			t.Errorf("step %d: Event %q, want %q", step, got, test.want)
		}
	}
}

// unannounced is a plan, and the state it is of, in which no node announces the
// addresses of Services, each given as NAME=VERDICT.
func unannounced(now time.Time, services ...string) (*plan.Plan, *plan.State) {
	p, s := &plan.Plan{}, &plan.State{Now: now}
	for _, text := range services {
		name, verdict, _ := strings.Cut(text, "=")
		s.Services = append(s.Services, serviceAt(1, name))
		p.Services = append(p.Services, plan.Service{Namespace: "default", Name: name, Addresses: []plan.Address{
			plan.Judged(announce.Single(netip.MustParseAddr("203.0.113.1")), plan.NodeVerdict{Node: "a", Verdict: plan.Verdict(verdict)}),
		}})
	}
	return p, s
}

// events takes what a recorder has, without the messages.
func events(recorder *record.FakeRecorder) []string {
	var reasons []string
	for {
		select {
		case text := <-recorder.Events:
			reasons = append(reasons, strings.Fields(text)[1])
		default:
			return reasons
		}
	}
}

func TestAnAddressThatNobodyAnnouncesBecomesAnEvent(t *testing.T) {
	recorder := record.NewFakeRecorder(10)
	n := newNotices(recorder)
	began := time.Unix(1e9, 0)
	for _, step := range []struct {
		at       time.Duration
		services []string
		want     []string
		next     time.Duration // 0 for never
	}{
		{at: 0, services: []string{"web=NoEndpoint"}, next: settling},
		{at: time.Second, services: []string{"web=NoEndpoint", "api=NoPeer"}, next: settling},
		{at: settling, services: []string{"web=NoEndpoint", "api=NoPeer"}, want: []string{"NoEndpoint"}, next: time.Second + settling},
		{at: settling + 500*time.Millisecond, services: []string{"web=NoEndpoint", "api=Announces"}},
		{at: time.Hour, services: []string{"web=NoEndpoint"}},
		{at: 2 * time.Hour, services: []string{"web=NotReady"}, next: 2*time.Hour + settling},
		{at: 2*time.Hour + settling, services: []string{"web=NotReady"}, want: []string{"NotReady"}},
		{at: 3 * time.Hour, services: []string{"web=Announces"}},
		{at: 4 * time.Hour, services: []string{"web=NotReady"}, next: 4*time.Hour + settling},
		{at: 5 * time.Hour, services: []string{"web=NotReady"}, want: []string{"NotReady"}},
	} {
		next := n.tell(unannounced(began.Add(step.at), step.services...))
		if got := events(recorder); !slices.Equal(got, step.want) {
			t.Errorf("after %v: Events %q; want %q", step.at, got, step.want)
		}
		if step.next == 0 && !next.IsZero() || step.next > 0 && !next.Equal(began.Add(step.next)) {
			t.Errorf("after %v: the next is due after %v; want %v", step.at, next.Sub(began), step.next)
		}
	}

	// A Service that waits for an address is told by those who assign.
	p, s := unannounced(began, "web=NoPeer")
	p.Services[0].Addresses = nil
	if next := newNotices(recorder).tell(p, s); !next.IsZero() {
		t.Errorf("a Service without an address: due at %v", next)
	}
}

func TestEventsOfAnUnannouncedAddressSayWhatItsConditionSays(t *testing.T) {
	recorder := record.NewFakeRecorder(1)
	n := newNotices(recorder)
	n.tell(unannounced(time.Unix(1e9, 0), "web=Excluded"))
	p, s := unannounced(time.Unix(1e9, 0).Add(settling), "web=Excluded")
	n.tell(p, s)
	_, _, message := p.Services[0].Condition()
	if got, want := <-recorder.Events, "Warning Excluded "+message; got != want {
		t.Errorf("Event %q; want %q", got, want)
	}
}

// TestMassFailuresWriteFewEvents: the conditions tell the rest.
func TestMassFailuresWriteFewEvents(t *testing.T) {
	recorder := record.NewFakeRecorder(3000)
	n := newNotices(recorder)
	var services []string
	for i := range 2000 {
		services = append(services, fmt.Sprintf("s%04d=NoSpeaker", i))
	}
	began := time.Now()
	n.tell(unannounced(began, services...))
	if next := n.tell(unannounced(began.Add(settling), services...)); !next.IsZero() {
		t.Errorf("more is due at %v", next)
	}
	if got := len(events(recorder)); got != eventBurst {
		t.Errorf("%d Events; want %d", got, eventBurst)
	}
	n.tell(unannounced(began.Add(time.Hour), services...))
	if got := events(recorder); len(got) > 0 {
		t.Errorf("what was left out comes later: %d Events", len(got))
	}
	n.tell(unannounced(began.Add(2*time.Hour), "web=NoPeer"))
	n.tell(unannounced(began.Add(3*time.Hour), "web=NoPeer"))
	if got := events(recorder); !slices.Equal(got, []string{"NoPeer"}) {
		t.Errorf("later on: Events %q", got)
	}
}

// TestANewLeaderDoesNotRepeatEvents: the conditions show what its predecessor
// told.
func TestANewLeaderDoesNotRepeatEvents(t *testing.T) {
	recorder := record.NewFakeRecorder(10)
	n := newNotices(recorder)
	now := time.Unix(1e9, 0)
	began := map[string]time.Time{"old": now.Add(-time.Hour), "fresh": now.Add(-time.Second), "other": now.Add(-time.Hour)}
	for _, at := range []time.Time{now, now.Add(settling)} {
		p, s := unannounced(at, "old=NoPeer", "fresh=NoPeer", "other=NoPeer")
		for _, svc := range s.Services {
			reason := "NoPeer"
			if svc.Name == "other" {
				reason = "NotReady"
			}
			meta.SetStatusCondition(&svc.Status.Conditions, metav1.Condition{
				Type: v1alpha1.ConditionAnnounced, Status: metav1.ConditionFalse, Reason: reason, LastTransitionTime: metav1.NewTime(began[svc.Name]),
			})
		}
		n.tell(p, s)
	}
	if got := events(recorder); !slices.Equal(got, []string{"NoPeer", "NoPeer"}) {
		t.Errorf("Events %q; want one for fresh and one for other", got)
	}
}

// TestMovesAreTogetherInOneEvent of the node that failed, however many addresses
// moved.
func TestMovesAreTogetherInOneEvent(t *testing.T) {
	recorder := record.NewFakeRecorder(20)
	n := newNotices(recorder)
	now := time.Unix(1e9, 0)
	state := &plan.State{Now: now, Nodes: []*corev1.Node{nodeAt("1", "a"), nodeAt("1", "b"), nodeAt("1", "c")}}
	n.tellMoves([]plan.Move{
		{From: "a", To: "b", Verdict: plan.NotReady, Addresses: 3},
		{From: "a", To: "c", Verdict: plan.NotReady, Addresses: 4},
		{From: "a", To: "b", Verdict: plan.NotReady, TakenOver: true, Addresses: 1000},
		{From: "b", To: "c", Verdict: plan.Leaving, Addresses: 5},
		{From: "gone", To: "c", Verdict: plan.NotReady, Addresses: 5},
	}, state)
	for _, want := range []string{
		"Warning AddressesMoved its addresses on the LAN went to b (3), c (4): not Ready",
		"Warning AddressesMoved its addresses on the LAN went to b (1000): nodes that stood by did not hear it any more, and took them over",
		"Normal AddressesMoved its addresses on the LAN went to c (5): the speaker is stopping, for the node is being emptied",
	} {
		select {
		case got := <-recorder.Events:
			if got != want {
				t.Errorf("Event %q, want %q", got, want)
			}
		default:
			t.Errorf("no Event %q", want)
		}
	}
	var many []plan.Move
	for i := range 20 {
		many = append(many, plan.Move{From: "a", To: fmt.Sprint("n", i), Verdict: plan.NotReady, Addresses: 1})
	}
	n.tellMoves(many, state)
	if got := <-recorder.Events; !strings.Contains(got, "n7 (1) and 12 more: not Ready") {
		t.Errorf("Event %q", got)
	}
	// Nodes that fail all the time are not told of all the time.
	for range 2 * eventBurst {
		n.tellMoves(many[:1], state)
		if left := len(recorder.Events); left > 0 {
			<-recorder.Events
			continue
		}
		return
	}
	t.Errorf("more than %d Events at once", 2*eventBurst)
}

func BenchmarkNotices(b *testing.B) {
	var services []string
	for i := range 2000 {
		services = append(services, fmt.Sprintf("s%04d=Announces", i))
	}
	p, s := unannounced(time.Now(), services...)
	n := newNotices(record.NewFakeRecorder(0))
	b.ReportAllocs()
	for b.Loop() {
		n.tell(p, s)
	}
}
