package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	cloudproviderapi "k8s.io/cloud-provider/api"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/cluster"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab"
)

// TestInitializeNodes has a cluster whose kubelets want their nodes initialized
// by a cloud, from a base that does not and then with the overlay that does.
func TestInitializeNodes(t *testing.T) {
	c := cluster.StartTest(t, lab.Config{Name: "e2e-initialize-nodes", Nodes: 2, UninitializedNodes: true})
	c.CheckInvariants(t)
	c.Apply(t, cluster.Pool+"---"+cluster.Peer)
	c.Apply(t, cluster.Service("web", "externalTrafficPolicy: Local"))
	address := c.Address(t, "web")

	// The base works on such nodes, and leaves them alone.
	for _, name := range []string{"node1", "node2"} {
		if node := getNode(t, c, name); !uninitialized(node) || node.Spec.ProviderID != "" {
			t.Errorf("without --initialize-nodes, %s has taints %v and provider ID %q", name, node.Spec.Taints, node.Spec.ProviderID)
		}
	}

	initializeNodes(t, c)
	for _, name := range []string{"node1", "node2"} {
		waitInitialized(t, c, name)
	}

	t.Run("A node that joins is used", func(t *testing.T) {
		name, err := c.AddNode(cluster.Context(t), lab.NodeOptions{})
		if err != nil {
			t.Fatal(err)
		}
		waitInitialized(t, c, name)
		// Pods do not tolerate the taint, and the address follows them.
		c.Deploy(t, "web", 1, name)
		c.WaitNextHops(t, address, name)
		get(t, c, address)
	})
	t.Run("Rights", func(t *testing.T) { initializeNodesRights(t, c) })
	t.Run("A node that is NotReady stays", func(t *testing.T) {
		before := getNode(t, c, "node2")
		if err := c.PowerOff(cluster.Context(t), "node2"); err != nil {
			t.Fatal(err)
		}
		if err := c.WaitNodeNotReady(cluster.Context(t), "node2"); err != nil {
			t.Fatal(err)
		}
		if err := c.PowerOn(cluster.Context(t), "node2"); err != nil {
			t.Fatal(err)
		}
		if err := c.WaitNodeReady(cluster.Context(t), "node2"); err != nil {
			t.Fatal(err)
		}
		if after := getNode(t, c, "node2"); after.UID != before.UID {
			t.Error("the Node was deleted and created again")
		}
	})
}

// initializeNodes installs the overlay over the base.
func initializeNodes(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	root, err := cluster.Root()
	if err != nil {
		t.Fatal(err)
	}
	overlay := filepath.Join(root, "manifests", "overlays", "initialize-nodes")
	if _, err := c.Kubectl(cluster.Context(t), "apply", "--server-side", "-k", overlay); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Kubectl(cluster.Context(t), "-n", v1alpha1.DefaultNamespace, "rollout", "status", "deployment/"+ccm); err != nil {
		t.Fatal(err)
	}
}

func getNode(t *testing.T, c *cluster.Cluster, name string) *corev1.Node {
	t.Helper()
	node, err := c.Client.CoreV1().Nodes().Get(cluster.Context(t), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return node
}

func uninitialized(node *corev1.Node) bool {
	for _, taint := range node.Spec.Taints {
		if taint.Key == cloudproviderapi.TaintExternalCloudProvider {
			return true
		}
	}
	return false
}

// waitInitialized waits until the Node has lost the taint, and then has what it
// is to have.
func waitInitialized(t *testing.T, c *cluster.Cluster, name string) {
	t.Helper()
	err := c.WaitFor(cluster.Context(t), "Node "+name+" is initialized", func(ctx context.Context) (bool, error) {
		node, err := c.Client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		if uninitialized(node) {
			return false, fmt.Errorf("it has the taints %v", node.Spec.Taints)
		}
		return true, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	node := getNode(t, c, name)
	if want := "baremetal://" + name; node.Spec.ProviderID != want {
		t.Errorf("%s has the provider ID %q, want %q", name, node.Spec.ProviderID, want)
	}
	c.NodeAddress(t, name) // It still has one.
}

// initializeNodesRights: the policy of the overlay is in force, with the rights of
// the cloud-controller-manager and by its token, and lets through no more than it
// has to.
func initializeNodesRights(t *testing.T, c *cluster.Cluster) {
	client := c.ClientOf(t, ccm, c.Pods(t, ccm)[0].Name)
	for _, test := range []struct{ name, patch, subresource, want string }{
		{"cordon", `{"spec": {"unschedulable": true}}`, "", "may not change spec"},
		{"taint", `{"spec": {"taints": [{"key": "a", "effect": "NoExecute"}]}}`, "", "may not change spec (taints)"},
		{"label", `{"metadata": {"labels": {"a": "b"}}}`, "", "may not change labels"},
		{"address", `{"status": {"addresses": [{"type": "ExternalDNS", "address": "a"}]}}`, "status", "may add no address"},
		{"capacity", `{"status": {"capacity": {"cpu": "1"}}}`, "status", "may not change status"},
	} {
		var subresources []string
		if test.subresource != "" {
			subresources = append(subresources, test.subresource)
		}
		_, err := client.CoreV1().Nodes().Patch(cluster.Context(t), "node1", types.StrategicMergePatchType, []byte(test.patch), metav1.PatchOptions{}, subresources...)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %v, want one with %q", test.name, err, test.want)
		}
	}
	node := getNode(t, c, "node1")
	if _, err := client.CoreV1().Nodes().Update(cluster.Context(t), node, metav1.UpdateOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("update: error %v, want that it is forbidden", err)
	}
	if err := client.CoreV1().Nodes().Delete(cluster.Context(t), "node1", metav1.DeleteOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("delete: error %v, want that it is forbidden", err)
	}
	// What initialization needs.
	patch := fmt.Sprintf(`{"metadata": {"annotations": {%q: "192.0.2.250"}}, "spec": {"taints": [{"key": %q, "effect": "NoSchedule"}]}}`,
		cloudproviderapi.AnnotationAlphaProvidedIPAddr, cloudproviderapi.TaintExternalCloudProvider)
	if _, err := c.Client.CoreV1().Nodes().Patch(cluster.Context(t), "node1", types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	waitInitialized(t, c, "node1")
	err := c.WaitFor(cluster.Context(t), "node1 publishes the address that its kubelet provided", func(context.Context) (bool, error) {
		addresses := getNode(t, c, "node1").Status.Addresses
		if len(addresses) == 0 || addresses[0] != (corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: "192.0.2.250"}) {
			return false, fmt.Errorf("it publishes %v", addresses)
		}
		return true, nil
	})
	if err != nil {
		t.Error(err)
	}
}
