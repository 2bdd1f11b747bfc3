package baremetal

import (
	"slices"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
)

// TestEventsOfProgressAreNotSent sends Events as upstream's service controller
// does.
func TestEventsOfProgressAreNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset()
		broadcaster := record.NewBroadcaster()
		defer broadcaster.Shutdown()
		broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: quietClient{client}.CoreV1().Events("")})
		recorder := broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "service-controller"})
		service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: "u"}}

		for range 2 { // the second one of a kind is a patch
			recorder.Event(service, corev1.EventTypeNormal, "EnsuringLoadBalancer", "Ensuring load balancer")
			recorder.Event(service, corev1.EventTypeNormal, "EnsuredLoadBalancer", "Ensured load balancer")
			recorder.Event(service, corev1.EventTypeNormal, "DeletingLoadBalancer", "Deleting load balancer")
			recorder.Event(service, corev1.EventTypeNormal, "DeletedLoadBalancer", "Deleted load balancer")
		}
		recorder.Event(service, corev1.EventTypeNormal, "Type", "LoadBalancer -> ClusterIP")
		for range 2 {
			recorder.Event(service, corev1.EventTypeWarning, "SyncLoadBalancerFailed", "no")
		}
		synctest.Wait()
		var writes []string
		for _, action := range client.Actions() {
			writes = append(writes, action.GetVerb()+" "+action.GetResource().Resource)
		}
		if want := []string{"create events", "create events", "patch events"}; !slices.Equal(writes, want) {
			t.Errorf("writes %q, want %q: the change of the type, the failure, and that it was repeated", writes, want)
		}
	})
}
