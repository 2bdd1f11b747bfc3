package planner

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
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
		n.tell(plan.Compute(s), s.Services)
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
