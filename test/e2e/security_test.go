package e2e

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/cluster"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab"
)

const password = "correct horse"

// TestSecurity runs its subtests on one cluster of two nodes, whose router wants
// a password.
func TestSecurity(t *testing.T) {
	c := cluster.StartTest(t, lab.Config{Name: "e2e-security", Nodes: 2, Router: lab.RouterConfig{Password: password}})
	c.CheckInvariants(t)

	t.Run("Key of the heartbeats", func(t *testing.T) { heartbeatKey(t, c) })
	t.Run("Password", func(t *testing.T) { passwords(t, c) })
	t.Run("Speaker's rights", func(t *testing.T) { speakerRights(t, c) })
	t.Run("Cloud-controller-manager's rights", func(t *testing.T) { managerRights(t, c) })
	t.Run("Validation", func(t *testing.T) { validation(t, c) })
}

// passwords: no session without the password, and none of it anywhere but in
// its Secret.
func passwords(t *testing.T, c *cluster.Cluster) {
	c.Deploy(t, "web", 2, "")
	c.Apply(t, cluster.Pool)
	c.Apply(t, strings.Replace(cluster.Peer, "peerAddress: 192.0.2.1", "peerAddress: 192.0.2.1, passwordSecretRef: {name: tor}", 1))
	c.Apply(t, cluster.Service("web"))
	address := c.Address(t, "web")
	waitPeer(t, c, "Secret") // the condition says what is missing
	c.WaitNextHops(t, address)

	if _, err := c.Kubectl(cluster.Context(t), "-n", v1alpha1.DefaultNamespace, "create", "secret", "generic", "tor", "--from-literal=password="+password); err != nil {
		t.Fatal(err)
	}
	c.WaitNextHops(t, address, "node1", "node2")
	get(t, c, address)

	if strings.Contains(told(t, c), password) {
		t.Error("the password stands in an object, an Event or a log")
	}
	c.Delete(t, "service/web", "deployment/web")
}

// told is what the programs tell: their objects, Events and logs.
func told(t *testing.T, c *cluster.Cluster) string {
	dump, err := c.Kubectl(cluster.Context(t), "get", "nodes,services,addresspools,bgppeers,events", "-A", "-o", "yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, pod := range append(c.Pods(t, speaker), c.Pods(t, ccm)...) {
		log, err := c.Logs(pod.Namespace + "/" + pod.Name)
		if err != nil {
			t.Error(err)
		}
		dump += log
	}
	return dump
}

// heartbeatKey rotates the key that speakers have in common, as the guide says.
func heartbeatKey(t *testing.T, c *cluster.Cluster) {
	// next waits for a key that follows the one before.
	next := func(before []byte) (key []byte) {
		t.Helper()
		err := c.WaitFor(cluster.Context(t), "Secret "+announce.HeartbeatSecret+" has another key", func(ctx context.Context) (bool, error) {
			secret, err := c.Client.CoreV1().Secrets(v1alpha1.DefaultNamespace).Get(ctx, announce.HeartbeatSecret, metav1.GetOptions{})
			if err != nil {
				return false, err
			}
			keys, err := announce.DecodeHeartbeatKeys(secret.Data)
			key = keys.Current
			return err == nil && !bytes.Equal(key, before) && bytes.Equal(keys.Previous, before) && secret.Annotations[v1alpha1.SecretRotate] == "", err
		})
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	first := next(nil)
	if _, err := c.Kubectl(cluster.Context(t), "-n", v1alpha1.DefaultNamespace, "annotate", "secret", announce.HeartbeatSecret, v1alpha1.SecretRotate+"=true"); err != nil {
		t.Fatal(err)
	}
	second := next(first)
	err := c.WaitFor(cluster.Context(t), "an Event tells of the rotation", func(ctx context.Context) (bool, error) {
		events, err := c.Kubectl(ctx, "-n", v1alpha1.DefaultNamespace, "events", "--for=secret/"+announce.HeartbeatSecret)
		return strings.Contains(events, "HeartbeatKeyRotated"), err
	})
	if err != nil {
		t.Error(err)
	}
	dump := told(t, c)
	for _, key := range [][]byte{first, second} {
		for _, form := range []string{string(key), base64.StdEncoding.EncodeToString(key), hex.EncodeToString(key), fmt.Sprint(key)} {
			if strings.Contains(dump, form) {
				t.Errorf("the key stands in an object, an Event or a log")
			}
		}
	}
	for _, sign := range []string{"The keys of the heartbeats cannot be read", "Reading the keys of the heartbeats from time to time", "Keeping the keys of the heartbeats"} {
		if strings.Contains(dump, sign) {
			t.Errorf("a speaker says %q", sign)
		}
	}
}

// speakerRights: what a stolen token of a speaker is good for.
func speakerRights(t *testing.T, c *cluster.Cluster) {
	client := c.ClientOf(t, speaker, c.Pod(t, speaker, "node1"))
	patchNode := func(node, patch string, subresources ...string) error {
		_, err := client.CoreV1().Nodes().Patch(cluster.Context(t), node, types.MergePatchType, []byte(patch), metav1.PatchOptions{}, subresources...)
		return err
	}
	if err := patchNode("node1", `{"metadata":{"annotations":{"lb.baremetal.dev/speaker":"{}"}}}`); err != nil {
		t.Errorf("its own report: %v", err)
	}
	for what, err := range map[string]error{
		"another node's report":    patchNode("node2", `{"metadata":{"annotations":{"lb.baremetal.dev/speaker":"{}"}}}`),
		"its own announcements":    patchNode("node1", `{"metadata":{"annotations":{"lb.baremetal.dev/announcements":"{}"}}}`),
		"another annotation":       patchNode("node1", `{"metadata":{"annotations":{"lb.baremetal.dev/drain":"true"}}}`),
		"a label":                  patchNode("node1", `{"metadata":{"labels":{"rack":"b"}}}`),
		"a taint":                  patchNode("node1", `{"spec":{"taints":[{"key":"a","effect":"NoExecute"}]}}`),
		"the status":               patchNode("node1", `{"metadata":{"annotations":{"lb.baremetal.dev/speaker":"{}"}}}`, "status"),
		"a Node":                   client.CoreV1().Nodes().Delete(cluster.Context(t), "node2", metav1.DeleteOptions{}),
		"the names of Secrets":     second(client.CoreV1().Secrets(v1alpha1.DefaultNamespace).List(cluster.Context(t), metav1.ListOptions{})),
		"a Secret somewhere else":  second(client.CoreV1().Secrets("default").Get(cluster.Context(t), "any", metav1.GetOptions{})),
		"Services":                 second(client.CoreV1().Services("").List(cluster.Context(t), metav1.ListOptions{})),
		"Pods":                     second(client.CoreV1().Pods("").List(cluster.Context(t), metav1.ListOptions{})),
		"EndpointSlices":           second(client.DiscoveryV1().EndpointSlices("").List(cluster.Context(t), metav1.ListOptions{})),
		"a token of the other one": second(client.CoreV1().ServiceAccounts(v1alpha1.DefaultNamespace).CreateToken(cluster.Context(t), ccm, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})),
	} {
		refused(t, what, err)
	}
}

// managerRights: what a stolen token of the cloud-controller-manager is not
// good for.
func managerRights(t *testing.T, c *cluster.Cluster) {
	client := c.ClientOf(t, ccm, c.Pods(t, ccm)[0].Name)
	patchNode := func(patch string) error {
		_, err := client.CoreV1().Nodes().Patch(cluster.Context(t), "node1", types.MergePatchType, []byte(patch), metav1.PatchOptions{})
		return err
	}
	for what, err := range map[string]error{
		"a speaker's report":  patchNode(`{"metadata":{"annotations":{"lb.baremetal.dev/speaker":"forged"}}}`),
		"another annotation":  patchNode(`{"metadata":{"annotations":{"lb.baremetal.dev/drain":"true"}}}`),
		"a label":             patchNode(`{"metadata":{"labels":{"rack":"b"}}}`),
		"a taint":             patchNode(`{"spec":{"taints":[{"key":"a","effect":"NoExecute"}]}}`),
		"a Node":              client.CoreV1().Nodes().Delete(cluster.Context(t), "node2", metav1.DeleteOptions{}),
		"Secrets":             second(client.CoreV1().Secrets(v1alpha1.DefaultNamespace).Get(cluster.Context(t), "tor", metav1.GetOptions{})),
		"Pods of others":      second(client.CoreV1().Pods("default").List(cluster.Context(t), metav1.ListOptions{})),
		"the spec of Service": second(client.CoreV1().Services("default").Patch(cluster.Context(t), "kubernetes", types.MergePatchType, []byte(`{"spec":{"externalIPs":["192.0.2.9"]}}`), metav1.PatchOptions{})),
	} {
		refused(t, what, err)
	}
}

// validation: a word of what kubectl apply says to objects that cannot be meant.
// The table of all rules is a unit test of the API package.
func validation(t *testing.T, c *cluster.Cluster) {
	for what, test := range map[string]struct{ object, says string }{
		"a reversed range":       {strings.Replace(cluster.Pool, "203.0.113.0/24", "198.51.100.9-198.51.100.1", 1), "reversed"},
		"an overlap":             {strings.Replace(cluster.Pool, `"203.0.113.0/24"`, `"203.0.113.0/24", "203.0.113.7"`, 1), "overlap"},
		"no address":             {strings.Replace(cluster.Pool, "203.0.113.0/24", "203.0.113.300", 1), "203.0.113.300"},
		"layer2 without Layer2":  {strings.Replace(cluster.Pool, "spec: {", "spec: {layer2: {interfaces: [eth0]}, ", 1), "layer2 is set"},
		"an AS number of 0":      {strings.Replace(cluster.Peer, "peerASN: 64500", "peerASN: 0", 1), "peerASN"},
		"address and interface":  {strings.Replace(cluster.Peer, "peerAddress:", "interface: eth0, peerAddress:", 1), "interface"},
		"neither of them":        {strings.Replace(cluster.Peer, ", peerAddress: 192.0.2.1", "", 1), "peerAddress"},
		"nothing to be sent":     {strings.Replace(cluster.Peer, "spec: {", "spec: {announce: Cluster, addPaths: {sendMax: 0}, ", 1), "sendMax"},
		"a community of letters": {strings.Replace(cluster.Pool, "spec: {", `spec: {bgp: {advertisements: [{communities: ["a:b"]}]}, `, 1), "a:b"},
	} {
		_, err := c.KubectlStdin(cluster.Context(t), strings.NewReader(test.object), "apply", "--dry-run=server", "-f", "-")
		if err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: kubectl apply says %v; want %q in it", what, err, test.says)
		}
	}
}

func refused(t *testing.T, what string, err error) {
	t.Helper()
	if !apierrors.IsForbidden(err) {
		t.Errorf("%s: %v; want it to be forbidden", what, err)
	}
}

func second[T any](_ T, err error) error { return err }
