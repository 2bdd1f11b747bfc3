// Package cluster is a lab with the project installed: manifests/ applied as
// they are, the programs run as Pods with the permissions written there.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/invariants"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab"
)

// Pool and Peer are the pool and the router that most tests need.
const (
	Pool = `
apiVersion: lb.baremetal.dev/v1alpha1
kind: AddressPool
metadata: {name: main}
spec: {addresses: ["203.0.113.0/24"]}
`
	Peer = `
apiVersion: lb.baremetal.dev/v1alpha1
kind: BGPPeer
metadata: {name: tor}
spec: {localASN: 64512, peerASN: 64500, peerAddress: 192.0.2.1}
`
)

// Cluster is a running lab with the project in it.
type Cluster struct {
	*lab.Lab
	Client kubernetes.Interface
	// Invariants is nil before CheckInvariants.
	Invariants *invariants.Checker
}

// StartTest starts a lab for a test and installs the project. The lab ends with
// the test.
func StartTest(t testing.TB, config lab.Config) *Cluster {
	t.Helper()
	c := &Cluster{Lab: lab.StartTest(t, config)}
	client, err := c.Lab.Client()
	if err != nil {
		t.Fatal(err)
	}
	c.Client = client
	if err := c.Install(Context(t)); err != nil {
		t.Fatal(err)
	}
	return c
}

// CheckInvariants watches the cluster until the test ends, and fails the test for
// what must never be so. See package invariants.
func (c *Cluster) CheckInvariants(t testing.TB) {
	t.Helper()
	config, err := c.RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	c.Invariants = invariants.Check(t, config, invariants.Options{})
}

// Context is one that ends with the test, a minute and a half from now at the
// latest, so that no step of a test hangs.
func Context(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// Root is the directory of the project's checkout.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("not in a checkout of the project")
		}
		dir = parent
	}
}

// Install applies manifests/base by server-side apply, and waits until its Pods
// are ready.
func (c *Cluster) Install(ctx context.Context) error {
	root, err := Root()
	if err != nil {
		return err
	}
	base := filepath.Join(root, "manifests", "base")
	// The CRDs and the namespace must be there before what is of their kinds;
	// apply orders them, but the API server serves a new kind a moment later.
	err = c.WaitFor(ctx, "kubectl apply of manifests/base", func(ctx context.Context) (bool, error) {
		_, err := c.Kubectl(ctx, "apply", "--server-side", "-k", base)
		return err == nil, err
	})
	if err != nil {
		return err
	}
	nodes, err := c.Client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	if err := c.WaitPodsReady(ctx, v1alpha1.DefaultNamespace, v1alpha1.SpeakerPodLabel+"="+v1alpha1.SpeakerPodName, len(nodes.Items)); err != nil {
		return err
	}
	if err := c.WaitPodsReady(ctx, v1alpha1.DefaultNamespace, "app.kubernetes.io/name=baremetal-cloud-controller-manager", 2); err != nil {
		return err
	}
	// An admission policy takes effect a moment after it is created.
	return c.WaitFor(ctx, "the kinds of lb.baremetal.dev are served", func(ctx context.Context) (bool, error) {
		_, err := c.Kubectl(ctx, "get", "addresspools,bgppeers")
		return err == nil, err
	})
}

// Apply applies YAML as an administrator would.
func (c *Cluster) Apply(t testing.TB, manifest string) {
	t.Helper()
	if _, err := c.KubectlStdin(Context(t), strings.NewReader(manifest), "apply", "-f", "-"); err != nil {
		t.Fatalf("%v\n%s", err, manifest)
	}
}

// Delete deletes the object, given as KIND/NAME, and waits until it is gone.
func (c *Cluster) Delete(t testing.TB, objects ...string) {
	t.Helper()
	if _, err := c.Kubectl(Context(t), append([]string{"delete", "--wait", "--ignore-not-found"}, objects...)...); err != nil {
		t.Fatal(err)
	}
}

// Deploy runs a Deployment of echo servers and waits until they are ready. Node
// is where they run; empty means anywhere.
func (c *Cluster) Deploy(t testing.TB, name string, replicas int, node string) {
	t.Helper()
	selector := "{}"
	if node != "" {
		selector = fmt.Sprintf("{kubernetes.io/hostname: %s}", node)
	}
	c.Apply(t, fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s}
spec:
  replicas: %[2]d
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      nodeSelector: %[3]s
      terminationGracePeriodSeconds: 5
      containers:
      - name: echo
        image: lab-echo
        imagePullPolicy: Never
        env: [{name: NODE_NAME, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}]
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
`, name, replicas, selector))
	if err := c.WaitPodsReady(Context(t), "default", "app="+name, replicas); err != nil {
		t.Fatal(err)
	}
}

// Service returns the YAML of a LoadBalancer Service over the Deployment of the
// same name, with further lines of its spec.
func Service(name string, spec ...string) string {
	lines := ""
	for _, line := range spec {
		lines += "  " + line + "\n"
	}
	return fmt.Sprintf(`
apiVersion: v1
kind: Service
metadata: {name: %[1]s}
spec:
  type: LoadBalancer
  selector: {app: %[1]s}
  ports: [{port: 80, targetPort: 8080}]
%[2]s`, name, lines)
}

// Address waits until a Service in the default namespace has an address, and
// returns it.
func (c *Cluster) Address(t testing.TB, service string) string {
	t.Helper()
	var address string
	err := c.WaitFor(Context(t), "Service "+service+" has an address", func(ctx context.Context) (bool, error) {
		svc, err := c.Client.CoreV1().Services("default").Get(ctx, service, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		if len(svc.Status.LoadBalancer.Ingress) == 0 {
			return false, errors.New("its status is empty")
		}
		address = svc.Status.LoadBalancer.Ingress[0].IP
		return true, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return address
}

// WaitNextHops waits until the router's kernel sends an address to exactly
// these nodes; none means that it has no route.
func (c *Cluster) WaitNextHops(t testing.TB, address string, nodes ...string) {
	t.Helper()
	ctx := Context(t)
	var want []netip.Addr
	for _, name := range nodes {
		want = append(want, c.NodeAddress(t, name))
	}
	slices.SortFunc(want, netip.Addr.Compare)
	err := c.WaitFor(ctx, fmt.Sprintf("the router sends %s to %v", address, nodes), func(ctx context.Context) (bool, error) {
		got, err := c.NextHops(ctx, address)
		if err != nil {
			return false, err
		}
		if !slices.Equal(got, want) {
			return false, fmt.Errorf("next hops are %v, not %v", got, want)
		}
		return true, nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// NodeAddress is the IPv4 address of a node.
func (c *Cluster) NodeAddress(t testing.TB, name string) netip.Addr {
	t.Helper()
	node, err := c.Client.CoreV1().Nodes().Get(Context(t), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range node.Status.Addresses {
		if addr, err := netip.ParseAddr(a.Address); err == nil && addr.Is4() {
			return addr
		}
	}
	t.Fatalf("node %s has no IPv4 address", name)
	return netip.Addr{}
}

// WaitCondition waits until a Service's Announced condition has the status.
func (c *Cluster) WaitCondition(t testing.TB, service string, want metav1.ConditionStatus) metav1.Condition {
	t.Helper()
	return c.waitCondition(t, service, "status "+string(want), func(c metav1.Condition) bool { return c.Status == want })
}

// WaitReason waits until a Service's Announced condition has the reason.
func (c *Cluster) WaitReason(t testing.TB, service, want string) metav1.Condition {
	t.Helper()
	return c.waitCondition(t, service, "reason "+want, func(c metav1.Condition) bool { return c.Reason == want })
}

// WaitMessage waits until a Service's Announced condition ends with the text.
func (c *Cluster) WaitMessage(t testing.TB, service, want string) metav1.Condition {
	t.Helper()
	return c.waitCondition(t, service, "message "+want, func(c metav1.Condition) bool { return strings.HasSuffix(c.Message, want) })
}

// WaitMention waits until a Service's Announced condition has the text.
func (c *Cluster) WaitMention(t testing.TB, service, want string) metav1.Condition {
	t.Helper()
	return c.waitCondition(t, service, "mention of "+want, func(c metav1.Condition) bool { return strings.Contains(c.Message, want) })
}

func (c *Cluster) waitCondition(t testing.TB, service, what string, want func(metav1.Condition) bool) metav1.Condition {
	t.Helper()
	var condition metav1.Condition
	err := c.WaitFor(Context(t), fmt.Sprintf("the Announced condition of Service %s has %s", service, what), func(ctx context.Context) (bool, error) {
		svc, err := c.Client.CoreV1().Services("default").Get(ctx, service, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		found := meta.FindStatusCondition(svc.Status.Conditions, v1alpha1.ConditionAnnounced)
		if found == nil {
			return false, errors.New("it has no such condition")
		}
		condition = *found
		if !want(condition) {
			return false, fmt.Errorf("it is %s (%s): %s", found.Status, found.Reason, found.Message)
		}
		return true, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return condition
}

// WaitGone waits until a Service does not exist any more.
func (c *Cluster) WaitGone(t testing.TB, service string) {
	t.Helper()
	err := c.WaitFor(Context(t), "Service "+service+" is gone", func(ctx context.Context) (bool, error) {
		_, err := c.Client.CoreV1().Services("default").Get(ctx, service, metav1.GetOptions{})
		return apierrors.IsNotFound(err), nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Pod returns the name of the only Pod of a component on a node.
func (c *Cluster) Pod(t testing.TB, component, node string) string {
	t.Helper()
	pods, err := c.Client.CoreV1().Pods(v1alpha1.DefaultNamespace).List(Context(t), metav1.ListOptions{
		LabelSelector: "app.kubernetes.io/name=" + component,
		FieldSelector: "spec.nodeName=" + node,
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(pods.Items) != 1 {
		t.Fatalf("%d Pods of %s on %s, want one", len(pods.Items), component, node)
	}
	return pods.Items[0].Name
}

// Pods are the Pods of a component.
func (c *Cluster) Pods(t testing.TB, component string) []corev1.Pod {
	t.Helper()
	pods, err := c.Client.CoreV1().Pods(v1alpha1.DefaultNamespace).List(Context(t), metav1.ListOptions{
		LabelSelector: "app.kubernetes.io/name=" + component,
	})
	if err != nil {
		t.Fatal(err)
	}
	return pods.Items
}

// ClientOf is a client with the token of a Pod: what its ServiceAccount may do,
// it may do.
func (c *Cluster) ClientOf(t testing.TB, serviceAccount, pod string) kubernetes.Interface {
	t.Helper()
	token, err := c.Client.CoreV1().ServiceAccounts(v1alpha1.DefaultNamespace).CreateToken(Context(t), serviceAccount,
		&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
			BoundObjectRef: &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod},
		}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	admin, err := c.RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	config := rest.AnonymousClientConfig(admin)
	config.Dial = admin.Dial
	config.BearerToken = token.Status.Token
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}
