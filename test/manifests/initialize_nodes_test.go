package manifests

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission"
	cloudproviderapi "k8s.io/cloud-provider/api"
	"sigs.k8s.io/yaml"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

const initializeNodes = "overlays/initialize-nodes"

var uninitialized = corev1.Taint{Key: cloudproviderapi.TaintExternalCloudProvider, Value: "true", Effect: corev1.TaintEffectNoSchedule}

// joining is a Node that waits to be initialized.
func joining() *corev1.Node {
	return &corev1.Node{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
		ObjectMeta: metav1.ObjectMeta{
			Name:   "node1",
			Labels: map[string]string{"a": "b", corev1.LabelFailureDomainBetaZone: "z", corev1.LabelTopologyRegion: "r"},
			Annotations: map[string]string{
				cloudproviderapi.AnnotationAlphaProvidedIPAddr: "192.0.2.1,2001:db8::1",
				v1alpha1.NodeAnnouncements:                     "old",
			},
		},
		Spec: corev1.NodeSpec{
			PodCIDR: "198.51.100.0/24", PodCIDRs: []string{"198.51.100.0/24"},
			Taints: []corev1.Taint{{Key: "first", Effect: corev1.TaintEffectNoExecute}, uninitialized, {Key: "last", Effect: corev1.TaintEffectNoSchedule}},
		},
		Status: corev1.NodeStatus{
			Addresses: []corev1.NodeAddress{
				{Type: corev1.NodeInternalIP, Address: "192.0.2.7"},
				{Type: corev1.NodeExternalIP, Address: "203.0.113.7"},
				{Type: corev1.NodeHostName, Address: "node1"},
			},
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionFalse}},
			NodeInfo:   corev1.NodeSystemInfo{MachineID: "m"},
		},
	}
}

// TestInitializeNodes is about what the overlay gives the
// cloud-controller-manager, and what it does not.
func TestInitializeNodes(t *testing.T) {
	policies := compiled(t, initializeNodes)
	manager := serviceAccount("baremetal-cloud-controller-manager", "node1")

	taints := func(taints ...corev1.Taint) func(*corev1.Node) {
		return func(node *corev1.Node) { node.Spec.Taints = taints }
	}
	untainted := func(node *corev1.Node) {
		node.Spec.Taints = []corev1.Taint{node.Spec.Taints[0], node.Spec.Taints[2]}
	}
	provider := func(id string) func(*corev1.Node) {
		return func(node *corev1.Node) { node.Spec.ProviderID = id }
	}
	label := func(key, value string) func(*corev1.Node) {
		return func(node *corev1.Node) { metav1.SetMetaDataLabel(&node.ObjectMeta, key, value) }
	}
	addresses := func(addresses ...corev1.NodeAddress) func(*corev1.Node) {
		return func(node *corev1.Node) { node.Status.Addresses = addresses }
	}
	internal := func(address string) corev1.NodeAddress {
		return corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: address}
	}
	var (
		first, last = joining().Spec.Taints[0], joining().Spec.Taints[2]
		external    = joining().Status.Addresses[1]
		hostname    = joining().Status.Addresses[2]
		none        = func(*corev1.Node) {}
	)

	for _, test := range []struct {
		name          string
		given, change func(*corev1.Node)
		want          string // in the message, or "" for allowed
	}{
		{"taint and provider ID", none, func(node *corev1.Node) { untainted(node); provider("baremetal://node1")(node) }, ""},
		{"taint", none, untainted, ""},
		{"the only taint", taints(uninitialized), taints(), ""},
		{"taint with two effects", taints(uninitialized, first, corev1.Taint{Key: uninitialized.Key, Effect: corev1.TaintEffectNoExecute}), taints(first), ""},
		{"program", none, func(node *corev1.Node) { node.Annotations[v1alpha1.NodeAnnouncements] = "new" }, ""},
		{"no change without taints", taints(), none, ""},
		{"another taint", none, taints(uninitialized, last), "may not change spec (taints)"},
		{"all taints", none, taints(), "may not change spec (taints)"},
		{"taints in another order", none, taints(last, first), "may not change spec (taints)"},
		{"a new taint", none, taints(first, last, corev1.Taint{Key: "a", Effect: corev1.TaintEffectNoExecute}), "may not change spec (taints)"},
		{"the taint, back", untainted, func(node *corev1.Node) { node.Spec.Taints = joining().Spec.Taints }, "may not change spec (taints)"},
		{"another effect", none, func(node *corev1.Node) { node.Spec.Taints[0].Effect = corev1.TaintEffectNoSchedule }, "may not change spec (taints)"},

		{"a provider ID of somebody else", none, provider("metal3://a"), "no other provider ID than baremetal://node1"},
		{"another node's provider ID", none, provider("baremetal://node2"), "no other provider ID than baremetal://node1"},
		{"another provider ID", provider("metal3://a"), provider("baremetal://node1"), "no other provider ID"},
		{"no provider ID", provider("metal3://a"), provider(""), "no other provider ID"},
		{"podCIDR", none, func(node *corev1.Node) { node.Spec.PodCIDR = "198.51.101.0/24" }, "may not change spec (unschedulable, podCIDRs)"},
		{"no podCIDR", none, func(node *corev1.Node) { node.Spec.PodCIDRs = nil }, "may not change spec (unschedulable, podCIDRs)"},
		{"cordon", none, func(node *corev1.Node) { node.Spec.Unschedulable = true }, "may not change spec (unschedulable, podCIDRs)"},

		{"zone as its deprecated name says", none, label(corev1.LabelTopologyZone, "z"), ""},
		{"corrects the zone", label(corev1.LabelTopologyZone, "y"), label(corev1.LabelTopologyZone, "z"), ""},
		{"another zone", none, label(corev1.LabelTopologyZone, "y"), "may not change labels"},
		{"region without a deprecated name", none, label(corev1.LabelTopologyRegion, "q"), "may not change labels"},
		{"the deprecated name", none, label(corev1.LabelFailureDomainBetaZone, "y"), "may not change labels"},
		{"both names", none, func(node *corev1.Node) {
			label(corev1.LabelFailureDomainBetaZone, "y")(node)
			label(corev1.LabelTopologyZone, "y")(node)
		}, "may not change labels"},
		{"excludes the node", none, label(corev1.LabelNodeExcludeBalancers, ""), "may not change labels"},
		{"removes a label", none, func(node *corev1.Node) { delete(node.Labels, corev1.LabelTopologyRegion) }, "may not change labels"},
		{"no labels", none, func(node *corev1.Node) { node.Labels = nil }, "may not change labels"},

		{"provided address", none, addresses(internal("192.0.2.1"), external, hostname), ""},
		{"both provided addresses", none, addresses(internal("192.0.2.1"), internal("2001:db8::1"), external, hostname), ""},
		{"beside the others", none, addresses(internal("192.0.2.7"), internal("192.0.2.1"), external, hostname), ""},
		{"first addresses", addresses(), addresses(internal("192.0.2.1")), ""},
		{"another order", none, addresses(hostname, internal("192.0.2.7"), external), ""},
		{"an address that is not provided", none, addresses(internal("192.0.2.9"), internal("192.0.2.1"), external, hostname), "may add no address"},
		{"a provided address of another type", none, addresses(corev1.NodeAddress{Type: corev1.NodeExternalIP, Address: "192.0.2.1"}, internal("192.0.2.7"), external, hostname), "may add no address"},
		{"a name", none, addresses(append(joining().Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalDNS, Address: "a"})...), "may add no address"},
		{"nothing is provided", func(node *corev1.Node) { node.Annotations = nil }, addresses(append(joining().Status.Addresses, internal("192.0.2.1"))...), "may add no address"},
		{"what is provided is malformed", func(node *corev1.Node) {
			node.Annotations[cloudproviderapi.AnnotationAlphaProvidedIPAddr] = "node1, 192.0.2.1"
		}, addresses(append(joining().Status.Addresses, internal("192.0.2.1"))...), "may add no address"},
		{"drops an address", none, addresses(external, hostname), "may drop no address"},
		{"drops the hostname", none, addresses(internal("192.0.2.1"), external), "may drop no address"},
		{"conditions", none, func(node *corev1.Node) { node.Status.Conditions[0].Status = corev1.ConditionTrue }, "may not change status"},
		{"no conditions", none, func(node *corev1.Node) { node.Status.Conditions = nil }, "may not change status"},
		{"images", none, func(node *corev1.Node) { node.Status.Images = []corev1.ContainerImage{{Names: []string{"a"}}} }, "may not change status"},
		{"another annotation", none, func(node *corev1.Node) {
			node.Annotations[cloudproviderapi.AnnotationAlphaProvidedIPAddr] = "192.0.2.7"
		}, "not " + cloudproviderapi.AnnotationAlphaProvidedIPAddr},
	} {
		for _, subresource := range []string{"", "status"} {
			old := joining()
			test.given(old)
			updated := old.DeepCopy()
			test.change(updated)
			got := decide(t, policies, manager, admission.Update, subresource, updated, old)
			checkDecision(t, test.name+" "+subresource, got, test.want)
		}
	}
}

// TestOverlayTakesThePlaceOfThePolicy renders the overlay: the policy in it is
// that of the file, which the other tests read, with nothing left of the base's.
func TestOverlayTakesThePlaceOfThePolicy(t *testing.T) {
	rendered, err := exec.Command(kubectl(t), "kustomize", filepath.Join(root, initializeNodes)).Output()
	if err != nil {
		t.Fatal(err)
	}
	want := policies(t, initializeNodes)
	for document := range bytes.SplitSeq(rendered, []byte("\n---\n")) {
		var kind metav1.TypeMeta
		if err := yaml.Unmarshal(document, &kind); err != nil {
			t.Fatal(err)
		}
		if kind.Kind != "ValidatingAdmissionPolicy" {
			continue
		}
		var policy admissionregistrationv1.ValidatingAdmissionPolicy
		if err := yaml.UnmarshalStrict(document, &policy); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want[policy.Name], policy); diff != "" {
			t.Errorf("%s (-file +rendered):\n%s", policy.Name, diff)
		}
		delete(want, policy.Name)
	}
	for name := range want {
		t.Errorf("%s is not rendered", name)
	}
}

// kubectl is the lab's, or else that in the PATH. Without one the test is
// skipped, but fails where CI is set: there a missing program is a mistake.
func kubectl(t *testing.T) string {
	t.Helper()
	path := filepath.Join("..", "..", "bin", "lab", "kubectl")
	if _, err := os.Stat(path); err == nil {
		return path
	}
	path, err := exec.LookPath("kubectl")
	switch {
	case err == nil:
		return path
	case os.Getenv("CI") != "":
		t.Fatal(err)
	}
	t.Skip(err)
	return ""
}
