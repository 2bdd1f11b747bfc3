package planner

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/plan"
)

// TestDeletedServicesAreCleanedUpAtAPace: a few at once, the rest soon, and all of it
// along with whatever else a node is told.
func TestDeletedServicesAreCleanedUpAtAPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many = 400
		client := fake.NewClientset()
		w := newNodeWriter(client)
		var nodes []*corev1.Node
		two, one, another := &plan.Plan{}, &plan.Plan{}, &plan.Plan{}
		for _, p := range []*plan.Plan{two, one, another} {
			p.Programs = make(map[string]announce.Program)
		}
		for i := range many {
			name := fmt.Sprintf("node%03d", i)
			nodes = append(nodes, nodeAt("1", name))
			if err := client.Tracker().Add(nodeAt("", name)); err != nil {
				t.Fatal(err)
			}
			two.Programs[name] = programOf(0, "203.0.113.1", "203.0.113.2")
			one.Programs[name] = programOf(0, "203.0.113.1")
			another.Programs[name] = programOf(0, "203.0.113.1", "203.0.113.3")
		}
		write := func(p *plan.Plan) (writes int, again time.Duration) {
			t.Helper()
			client.ClearActions()
			again, err := w.write(t.Context(), nodes, p)
			if err != nil {
				t.Fatal(err)
			}
			return len(client.Actions()), again
		}
		if writes, again := write(two); writes != many || again != 0 {
			t.Errorf("announcing: %d writes, again in %v", writes, again)
		}
		writes, again := write(one)
		if writes != cleanupBurst || again != cleanupInterval {
			t.Errorf("%d writes at once, again in %v", writes, again)
		}
		for seconds := 1; again > 0; seconds++ {
			time.Sleep(again)
			var more int
			more, again = write(one)
			if writes += more; more > cleanupRate {
				t.Errorf("%d writes in a second", more)
			}
			if seconds > many/cleanupRate {
				t.Fatalf("%d of %d after %d s", writes, many, seconds)
			}
		}
		if writes != many {
			t.Errorf("%d writes in all", writes)
		}

		// What nodes gain does not wait, and takes along what they lose.
		write(two)
		if writes, again := write(another); writes != many || again != 0 {
			t.Errorf("gaining: %d writes, again in %v", writes, again)
		}
	})
}

// TestServicesWithoutEndpointsDoNotWait: their addresses are withdrawn at once.
func TestServicesWithoutEndpointsDoNotWait(t *testing.T) {
	l := newLarge(t, 3*cleanupBurst, 2)
	l.nodes.cleanups.budget.SetLimit(0)
	l.nodes.cleanups.budget.SetBurst(0)
	l.plan()
	before := l.writes
	l.moveEndpoint(nodeName(1)) // away from a node that gets nothing else
	if l.plan(); l.writes-before < 2 {
		t.Errorf("%d writes, want those of the node that gains and of the one that loses", l.writes-before)
	}

	// A Service on its way out has no claim to be withdrawn at once.
	svc := serviceAt(2, "s00001")
	svc.Spec, svc.CreationTimestamp = corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer}, metav1.Unix(1, 0)
	svc.DeletionTimestamp = &metav1.Time{Time: time.Unix(2, 0)}
	l.add(l.objects.services, svc)
	before = l.writes
	if l.plan(); l.writes != before {
		t.Errorf("%d writes for a Service on its way out, without a budget for them", l.writes-before)
	}
}
