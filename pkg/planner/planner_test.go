package planner

import (
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/plan"
)

// TestSpeakersAreAwaySinceTheyAreMissed: between two plans, hours may pass.
func TestSpeakersAreAwaySinceTheyAreMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &planner{away: make(map[string]time.Time)}
		look := func(ready corev1.ConditionStatus, nodes ...*corev1.Node) map[string]time.Time {
			pod := &corev1.Pod{Spec: corev1.PodSpec{NodeName: "a"}}
			pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}}
			s := &plan.State{Nodes: nodes, SpeakerPods: []*corev1.Pod{pod}}
			p.lookForSpeakers(s)
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
