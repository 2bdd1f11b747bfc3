package baremetal

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cloudproviderapi "k8s.io/cloud-provider/api"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

// TestTrimKeepsWhatTheNodeControllerReads, and nothing that is large.
func TestTrimKeepsWhatTheNodeControllerReads(t *testing.T) {
	before := registered()
	before.Annotations[v1alpha1.NodeSpeaker] = "report"
	got := trimmed(t, before)
	want := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name: "node1", UID: "a", ResourceVersion: "7", CreationTimestamp: metav1.Unix(1, 0), Labels: before.Labels,
			Annotations: map[string]string{cloudproviderapi.AnnotationAlphaProvidedIPAddr: "192.0.2.1,2001:db8::1", v1alpha1.NodeSpeaker: "report"},
		},
		Spec:   before.Spec,
		Status: corev1.NodeStatus{Addresses: before.Status.Addresses, Conditions: before.Status.Conditions},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("cached (-want +got):\n%s", diff)
	}
	delete(before.Annotations, cloudproviderapi.AnnotationAlphaProvidedIPAddr)
	delete(before.Annotations, v1alpha1.NodeSpeaker)
	if got := trimmed(t, before); got.Annotations != nil {
		t.Errorf("annotations %v; want none", got.Annotations)
	}
}
