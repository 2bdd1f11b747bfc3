package planner

import (
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/plan"
)

// TestSpeakersAreAwaySinceTheyAreMissed: between two plans, hours may pass.
func TestSpeakersAreAwaySinceTheyAreMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &planner{away: make(map[string]time.Time), unready: make(map[string]time.Time)}
		look := func(ready corev1.ConditionStatus, nodes ...*corev1.Node) map[string]time.Time {
			pod := &corev1.Pod{Spec: corev1.PodSpec{NodeName: "a"}}
			pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}}
			s := &plan.State{Nodes: nodes, SpeakerPods: []*corev1.Pod{pod}}
			p.lookAtNodes(s)
			return s.SpeakersAway
		}
		a := nodeAt("1", "a")
		if away := look(corev1.ConditionTrue, a); len(away) != 0 {
			t.Errorf("away %v", away)
		}
		time.Sleep(time.Hour)
		missed := time.Now()
		for range 2 {
			if since := look(corev1.ConditionFalse, a)["a"]; !since.Equal(missed) {
				t.Errorf("away since %v, want %v", since, missed)
			}
			time.Sleep(time.Second)
		}
		if away := look(corev1.ConditionTrue, a); len(away) != 0 {
			t.Errorf("back, and away %v", away)
		}
		look(corev1.ConditionFalse, a)
		if away := look(corev1.ConditionFalse); len(away) != 0 {
			t.Errorf("the node is gone, and its speaker away %v", away)
		}
	})
}

// TestNodesAreNotReadySinceTheyAreMissed: a new leader believes the condition.
func TestNodesAreNotReadySinceTheyAreMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := nodeAt("1", "a")
		condition := func(status corev1.ConditionStatus) {
			n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: status, LastTransitionTime: metav1.NewTime(time.Now().Truncate(time.Second))}}
		}
		look := func(p *planner) time.Time {
			s := &plan.State{Nodes: []*corev1.Node{n}}
			p.lookAtNodes(s)
			return s.NotReadySince["a"]
		}
		fresh := func() *planner {
			return &planner{away: make(map[string]time.Time), unready: make(map[string]time.Time)}
		}
		old := fresh()
		condition(corev1.ConditionTrue)
		if since := look(old); !since.IsZero() {
			t.Errorf("a ready node is not so since %v", since)
		}
		time.Sleep(300 * time.Millisecond)
		condition(corev1.ConditionUnknown)
		missed := time.Now()
		time.Sleep(10 * time.Millisecond)
		if since := look(old); since.Before(missed) || since.After(time.Now()) {
			t.Errorf("not ready since %v, want about %v", since, missed)
		}
		time.Sleep(5 * time.Second)
		if since := look(fresh()); since.After(missed.Add(time.Second)) {
			t.Errorf("for a new leader it is not ready since %v, want %v", since, missed)
		}
		condition(corev1.ConditionTrue)
		if since := look(old); !since.IsZero() {
			t.Errorf("a node that is ready again is not so since %v", since)
		}
	})
}
