package baremetal

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	corelisters "k8s.io/client-go/listers/core/v1"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
	cloudproviderapi "k8s.io/cloud-provider/api"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

// registered is a Node as a cluster has them, with something in all its parts.
func registered() *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name: "node1", UID: "a", ResourceVersion: "7", CreationTimestamp: metav1.Unix(1, 0),
			Labels:          map[string]string{"rack": "r1"},
			Finalizers:      []string{"example.com/keep"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: "machine", UID: "b"}},
			ManagedFields:   []metav1.ManagedFieldsEntry{{Manager: "kubelet"}},
			Annotations: map[string]string{
				v1alpha1.NodeAnnouncements:                        "program",
				"example.com/other":                               "value",
				cloudproviderapi.AnnotationAlphaProvidedIPAddr:    "192.0.2.1,2001:db8::1",
				"volumes.kubernetes.io/controller-managed-attach": "true",
			},
		},
		Spec: corev1.NodeSpec{
			PodCIDR: "198.51.100.0/24", PodCIDRs: []string{"198.51.100.0/24"}, Unschedulable: true,
			Taints: []corev1.Taint{
				{Key: "example.com/first", Effect: corev1.TaintEffectNoExecute},
				{Key: cloudproviderapi.TaintExternalCloudProvider, Value: "true", Effect: corev1.TaintEffectNoSchedule},
				{Key: "example.com/last", Value: "x", Effect: corev1.TaintEffectNoSchedule},
			},
		},
		Status: corev1.NodeStatus{
			Addresses:  []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: "node1"}},
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionFalse}},
			Images:     []corev1.ContainerImage{{Names: []string{"a"}, SizeBytes: 1}},
			NodeInfo:   corev1.NodeSystemInfo{MachineID: "m", KubeletVersion: "v1.31.0"},
			Phase:      corev1.NodeRunning,
		},
	}
}

// trimmed is the Node as the cache has it.
func trimmed(t *testing.T, node *corev1.Node) *corev1.Node {
	t.Helper()
	object, err := Trim(node.DeepCopy())
	if err != nil {
		t.Fatal(err)
	}
	return object.(*corev1.Node)
}

// differenceTo is a client over a cache with the Node, and what it sends to.
func differenceTo(t *testing.T, cached *corev1.Node) (kubernetes.Interface, *fake.Clientset) {
	t.Helper()
	indexer := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{})
	if err := indexer.Add(cached); err != nil {
		t.Fatal(err)
	}
	client := fake.NewClientset(registered())
	return differenceClient{Interface: client, cached: corelisters.NewNodeLister(indexer)}, client
}

// TestUpdateWritesTheDifference is about the update by which upstream initializes
// a Node: from a trimmed one, and of a whole object.
func TestUpdateWritesTheDifference(t *testing.T) {
	cached := trimmed(t, registered())
	client, sink := differenceTo(t, cached)
	updated := cached.DeepCopy()
	updated.Spec.ProviderID = "baremetal://node1"
	updated.Spec.Taints = []corev1.Taint{cached.Spec.Taints[0], cached.Spec.Taints[2]}
	if _, err := client.CoreV1().Nodes().Update(t.Context(), updated, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	actions := sink.Actions()
	if len(actions) != 1 {
		t.Fatalf("%d requests: %v", len(actions), actions)
	}
	patch, ok := actions[0].(clienttesting.PatchAction)
	if !ok || patch.GetName() != "node1" || patch.GetPatchType() != types.StrategicMergePatchType || patch.GetSubresource() != "" {
		t.Fatalf("sent %v", actions[0])
	}
	const want = `{"metadata":{"resourceVersion":"7","uid":"a"},` +
		`"spec":{"providerID":"baremetal://node1",` +
		`"taints":[{"effect":"NoExecute","key":"example.com/first"},{"effect":"NoSchedule","key":"example.com/last","value":"x"}]}}`
	if got := string(patch.GetPatch()); got != want {
		t.Errorf("patch\n%s\nwant\n%s", got, want)
	}
}

func TestUpdateOfTheOnlyTaint(t *testing.T) {
	node := registered()
	node.Spec.Taints = node.Spec.Taints[1:2]
	cached := trimmed(t, node)
	client, sink := differenceTo(t, cached)
	updated := cached.DeepCopy()
	updated.Spec.Taints = []corev1.Taint{}
	if _, err := client.CoreV1().Nodes().Update(t.Context(), updated, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	const want = `{"metadata":{"resourceVersion":"7","uid":"a"},"spec":{"taints":null}}`
	if got := string(sink.Actions()[0].(clienttesting.PatchAction).GetPatch()); got != want {
		t.Errorf("patch %s; want %s", got, want)
	}
}

// TestUpdateOfAnotherVersionConflicts, or a change that came in between would be
// taken back.
func TestUpdateOfAnotherVersionConflicts(t *testing.T) {
	for name, change := range map[string]func(*corev1.Node){
		"version": func(node *corev1.Node) { node.ResourceVersion = "6" },
		"object":  func(node *corev1.Node) { node.UID = "other" },
	} {
		t.Run(name, func(t *testing.T) {
			cached := trimmed(t, registered())
			client, sink := differenceTo(t, cached)
			updated := cached.DeepCopy()
			updated.Spec.Taints = nil
			change(updated)
			if _, err := client.CoreV1().Nodes().Update(t.Context(), updated, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
				t.Errorf("error %v; want a conflict, so that upstream tries again", err)
			}
			if actions := sink.Actions(); len(actions) > 0 {
				t.Errorf("sent %v", actions)
			}
		})
	}
}

func TestPatchThatChangesNothingIsNotSent(t *testing.T) {
	client, sink := differenceTo(t, trimmed(t, registered()))
	nodes := client.CoreV1().Nodes()
	node, err := nodes.Patch(t.Context(), "node1", types.StrategicMergePatchType, []byte("{}"), metav1.PatchOptions{}, "status")
	if err != nil || node.Name != "node1" {
		t.Errorf("answer %v, %v", node, err)
	}
	if actions := sink.Actions(); len(actions) > 0 {
		t.Errorf("sent %v", actions)
	}
	if _, err := nodes.Patch(t.Context(), "node1", types.StrategicMergePatchType, []byte(`{"metadata":{"labels":{"a":"b"}}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	if actions := sink.Actions(); len(actions) != 1 || !strings.Contains(string(actions[0].(clienttesting.PatchAction).GetPatch()), "labels") {
		t.Errorf("sent %v; want the patch", actions)
	}
}
