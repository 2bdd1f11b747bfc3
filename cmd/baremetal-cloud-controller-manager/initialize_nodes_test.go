package main

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	cloudproviderapi "k8s.io/cloud-provider/api"
	"k8s.io/cloud-provider/names"
	"k8s.io/utils/ptr"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

// fast are flags with which upstream compares all Nodes many times a second, and
// says so.
var fast = []string{"--node-status-update-frequency=50ms", "--node-monitor-period=50ms", "--v=2"}

// node registers a Node as a kubelet with --cloud-provider=external does, that is
// NotReady, and has things of others.
func (c *cluster) node(name string, change ...func(*corev1.Node)) *corev1.Node {
	c.t.Helper()
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name:        name,
			Labels:      map[string]string{corev1.LabelHostname: name, "rack": "r1"},
			Annotations: map[string]string{"example.com/other": "value", v1alpha1.NodeRouterID: "192.0.2.99"},
			Finalizers:  []string{"example.com/keep"},
		},
		Spec: corev1.NodeSpec{
			PodCIDR: "198.51.100.0/24", PodCIDRs: []string{"198.51.100.0/24"},
			Unschedulable: true,
			Taints: []corev1.Taint{
				{Key: "example.com/first", Effect: corev1.TaintEffectNoExecute, TimeAdded: ptr.To(metav1.Unix(1700000000, 0))},
				{Key: cloudproviderapi.TaintExternalCloudProvider, Value: "true", Effect: corev1.TaintEffectNoSchedule},
				{Key: "example.com/last", Value: "x", Effect: corev1.TaintEffectNoSchedule},
			},
		},
		Status: corev1.NodeStatus{
			Addresses:  []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: name}},
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionFalse, Reason: "KubeletNotReady", LastHeartbeatTime: metav1.Unix(1700000000, 0), LastTransitionTime: metav1.Unix(1700000000, 0)}},
			Images:     []corev1.ContainerImage{{Names: []string{"example.com/image:1"}, SizeBytes: 1}},
			NodeInfo:   corev1.NodeSystemInfo{MachineID: "m", KubeletVersion: "v1.31.0"},
		},
	}
	for _, f := range change {
		f(node)
	}
	created, err := c.CoreV1().Nodes().Create(c.t.Context(), node, metav1.CreateOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	return created
}

func (c *cluster) getNode(name string) *corev1.Node {
	c.t.Helper()
	node, err := c.CoreV1().Nodes().Get(c.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	return node
}

func (c *cluster) patchNode(name, patch string) {
	c.t.Helper()
	if _, err := c.CoreV1().Nodes().Patch(c.t.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

// becomes waits until the Node is what it was, changed as told and in no other
// way.
func (c *cluster) becomes(before *corev1.Node, change ...func(*corev1.Node)) {
	c.t.Helper()
	want := before.DeepCopy()
	for _, f := range change {
		f(want)
	}
	forget := func(node *corev1.Node) *corev1.Node {
		node.ResourceVersion, node.ManagedFields = "", nil
		return node
	}
	forget(want)
	diff := "not looked at"
	defer func() {
		if diff != "" {
			c.t.Logf("Node %s (-want +got):\n%s", before.Name, diff)
		}
	}()
	eventually(c.t, soon, "Node "+before.Name+" is as wanted", func() bool {
		diff = cmp.Diff(want, forget(c.getNode(before.Name)))
		return diff == ""
	})
}

// What initialization may change, and nothing else.

func untainted(node *corev1.Node) {
	node.Spec.Taints = slices.DeleteFunc(node.Spec.Taints, func(taint corev1.Taint) bool {
		return taint.Key == cloudproviderapi.TaintExternalCloudProvider
	})
}

func withProviderID(id string) func(*corev1.Node) {
	return func(node *corev1.Node) { node.Spec.ProviderID = id }
}

func publishing(addresses ...string) func(*corev1.Node) {
	return func(node *corev1.Node) {
		node.Status.Addresses = nil
		for _, text := range addresses {
			kind, address, _ := strings.Cut(text, ":")
			node.Status.Addresses = append(node.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeAddressType(kind), Address: address})
		}
	}
}

func providing(nodeIP string) func(*corev1.Node) {
	return func(node *corev1.Node) { node.Annotations[cloudproviderapi.AnnotationAlphaProvidedIPAddr] = nodeIP }
}

func TestNodesAreInitialized(t *testing.T) {
	c := newCluster(t)
	bare := c.node("bare")
	single := c.node("single", providing("192.0.2.1"))
	dual := c.node("dual", providing("192.0.2.2,2001:db8::2"))
	named := c.node("named", withProviderID("metal3://namespace/host"),
		providing("192.0.2.3"), publishing("InternalIP:192.0.2.3", "ExternalIP:203.0.113.3", "Hostname:named"))
	// It was there before anybody initialized Nodes.
	old := c.node("old", untainted, publishing("InternalIP:192.0.2.4", "InternalIP:2001:db8::4", "Hostname:old"))
	unknown := c.node("unknown", untainted, withProviderID("baremetal://unknown"), func(node *corev1.Node) {
		node.Status.Conditions[0].Status = corev1.ConditionUnknown
	})
	// Upstream keeps labels in step with their deprecated names.
	zone := c.node("zone", untainted, func(node *corev1.Node) { node.Labels[corev1.LabelFailureDomainBetaZone] = "a" })
	broken := c.node("broken", providing("192.0.2.5,192.0.2.6"))
	p := start(t, c.server, append(fast, "--initialize-nodes")...)

	c.becomes(bare, untainted, withProviderID("baremetal://bare"))
	c.becomes(single, untainted, withProviderID("baremetal://single"), publishing("InternalIP:192.0.2.1", "Hostname:single"))
	c.becomes(dual, untainted, withProviderID("baremetal://dual"), publishing("InternalIP:192.0.2.2", "InternalIP:2001:db8::2", "Hostname:dual"))
	c.becomes(named, untainted)
	c.becomes(zone, func(node *corev1.Node) { node.Labels[corev1.LabelTopologyZone] = "a" })
	c.becomes(old)
	c.becomes(unknown)
	c.becomes(broken)
	c.event("broken", "InvalidProvidedNodeIP", "correct --node-ip of its kubelet")

	// All of them are NotReady, and would be deleted if anything did that.
	t.Run("no write when nothing changed", func(t *testing.T) { c.quiet(t, p) })
	if p.logged("lifecycle controller") || p.logged("cloud-node-lifecycle-controller") {
		t.Error("the log tells of a cloud-node-lifecycle controller")
	}
	t.Run("a node that comes later", func(t *testing.T) {
		late := c.node("late", providing("2001:db8::7"))
		c.becomes(late, untainted, withProviderID("baremetal://late"), publishing("InternalIP:2001:db8::7", "Hostname:late"))
	})
	t.Run("corrected", func(t *testing.T) {
		c.patchNode("broken", fmt.Sprintf(`{"metadata": {"annotations": {%q: "192.0.2.5"}}}`, cloudproviderapi.AnnotationAlphaProvidedIPAddr))
		c.becomes(broken, providing("192.0.2.5"), untainted, withProviderID("baremetal://broken"), publishing("InternalIP:192.0.2.5", "Hostname:broken"))
	})
	t.Run("another --node-ip", func(t *testing.T) {
		before := c.getNode("single")
		c.patchNode("single", fmt.Sprintf(`{"metadata": {"annotations": {%q: "192.0.2.8"}}}`, cloudproviderapi.AnnotationAlphaProvidedIPAddr))
		c.becomes(before, providing("192.0.2.8"), publishing("InternalIP:192.0.2.8", "Hostname:single"))
	})
}

// quiet lets upstream compare all Nodes some more times, and fails if it writes
// one, or only asks the API server to.
func (c *cluster) quiet(t *testing.T, p *process) {
	t.Helper()
	versions := func() map[string]string {
		list, err := c.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		versions := map[string]string{}
		for _, node := range list.Items {
			versions[node.Name] = node.ResourceVersion
		}
		return versions
	}
	before, requests := versions(), c.nodeWrites()
	p.compareNodes(t, 20)
	if diff := cmp.Diff(before, versions()); diff != "" {
		t.Errorf("versions of Nodes (-before +after):\n%s", diff)
	}
	if now := c.nodeWrites(); now != requests {
		t.Errorf("%d requests to write Nodes, and then %d", requests, now)
	}
}

// compareNodes waits until upstream has compared all Nodes n more times.
func (p *process) compareNodes(t testing.TB, n int) {
	t.Helper()
	compared := func() int {
		log, err := os.ReadFile(p.log)
		if err != nil {
			t.Fatal(err)
		}
		return len(regexp.MustCompile(`Update \d+ nodes status took`).FindAll(log, -1))
	}
	begin := compared()
	eventually(t, soon, "upstream has compared all Nodes", func() bool { return compared() >= begin+n })
}

// nodeWrites counts the requests that the API server got to write Nodes.
func (c *cluster) nodeWrites() int {
	c.t.Helper()
	metrics, err := c.CoreV1().RESTClient().Get().AbsPath("/metrics").DoRaw(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	total := 0
	for line := range bytes.Lines(metrics) {
		text := string(line)
		if !strings.HasPrefix(text, "apiserver_request_total{") || !strings.Contains(text, `resource="nodes"`) ||
			!regexp.MustCompile(`verb="(PATCH|APPLY|PUT|POST|DELETE)"`).MatchString(text) {
			continue
		}
		var n int
		if _, err := fmt.Sscan(text[strings.LastIndexByte(text, ' '):], &n); err != nil {
			c.t.Fatalf("%s: %v", text, err)
		}
		total += n
	}
	if total == 0 {
		c.t.Fatal("no request to write a Node is counted")
	}
	return total
}

// TestNodesAreNeverDeleted: upstream's cloud-node-lifecycle controller deletes
// Nodes that are NotReady and that a cloud does not know. It cannot be turned on.
func TestNodesAreNeverDeleted(t *testing.T) {
	controllers := slices.Sorted(maps.Keys((&manager{}).controllers()))
	if want := []string{names.CloudNodeController, names.ServiceLBController}; !slices.Equal(controllers, want) {
		t.Errorf("controllers %q; want %q", controllers, want)
	}
}

func TestNodesAreNotTouchedByDefault(t *testing.T) {
	c := newCluster(t)
	before := c.node("node", providing("192.0.2.1"))
	c.pool("lan", "203.0.113.1")
	p := start(t, c.server)
	c.service("web")
	c.has("web", "203.0.113.1", soon) // Controllers run.
	c.becomes(before)
	if p.logged("cloud-node-controller") {
		t.Error("the log tells of a cloud-node controller")
	}
}

func TestOnlyTheLeaderInitializesNodes(t *testing.T) {
	c := newCluster(t)
	c.namespace(v1alpha1.DefaultNamespace)
	leases := c.CoordinationV1().Leases(v1alpha1.DefaultNamespace)
	lease, err := leases.Create(t.Context(), &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: programName},
		Spec: coordinationv1.LeaseSpec{
			HolderIdentity: ptr.To("other"), LeaseDurationSeconds: ptr.To[int32](3600),
			AcquireTime: ptr.To(metav1.NowMicro()), RenewTime: ptr.To(metav1.NowMicro()),
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	before := c.node("node")
	p := start(t, c.server, "--initialize-nodes", "--leader-elect=true", "--leader-elect-retry-period=200ms", "--v=4")
	eventually(t, soon, "it waits for the Lease", func() bool { return p.logged("Lease is held by and has not yet expired") })
	c.becomes(before)

	lease.Spec.HolderIdentity, lease.Spec.LeaseDurationSeconds = ptr.To(""), ptr.To[int32](1)
	if _, err := leases.Update(t.Context(), lease, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	c.becomes(before, untainted, withProviderID("baremetal://node"))
}
