package e2e

import (
	"context"
	"strings"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/cluster"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab"
)

const (
	ccm     = "baremetal-cloud-controller-manager"
	speaker = v1alpha1.SpeakerPodName
)

// TestBGP runs its subtests on one cluster of three nodes, one after the other.
func TestBGP(t *testing.T) {
	c := cluster.StartTest(t, lab.Config{Name: "e2e-bgp", Nodes: 3})
	c.CheckInvariants(t)
	c.Deploy(t, "web", 3, "")

	t.Run("Service before pool and peer", func(t *testing.T) { serviceFirst(t, c) })
	t.Run("Service life", func(t *testing.T) { serviceLife(t, c) })
	t.Run("Requested addresses", func(t *testing.T) { requestedAddresses(t, c) })
	t.Run("Local traffic follows its pod", func(t *testing.T) { localTraffic(t, c) })
	t.Run("Endpoint gone while the planner is away", func(t *testing.T) { endpointGone(t, c) })
	t.Run("Restarts", func(t *testing.T) { restarts(t, c) })
	t.Run("New node", func(t *testing.T) { newNode(t, c) })
	t.Run("Dead node", func(t *testing.T) { deadNode(t, c) })
	// The last one: kube-proxy looks for an API server that was away ever more
	// rarely, and takes up to a minute to see what is new.
	t.Run("API server away", func(t *testing.T) { apiServerAway(t, c) })
}

// serviceFirst: a Service that waits is served when the cause goes away.
func serviceFirst(t *testing.T, c *cluster.Cluster) {
	c.Apply(t, cluster.Service("web"))
	condition := c.WaitCondition(t, "web", metav1.ConditionFalse)
	if condition.Reason != "NoPool" {
		t.Errorf("reason %s, want NoPool", condition.Reason)
	}
	c.Apply(t, cluster.Pool)
	address := c.Address(t, "web")
	c.WaitReason(t, "web", "NoPeer")
	c.Apply(t, cluster.Peer)
	c.WaitNextHops(t, address, "node1", "node2", "node3")
	c.WaitCondition(t, "web", metav1.ConditionTrue)
	c.Delete(t, "service/web")
}

// serviceLife: create, answer from behind the router, delete, withdraw, release.
func serviceLife(t *testing.T, c *cluster.Cluster) {
	c.Apply(t, cluster.Pool+"---"+cluster.Peer)
	c.Apply(t, cluster.Service("web"))
	address := c.Address(t, "web")
	c.WaitNextHops(t, address, "node1", "node2", "node3")
	condition := c.WaitCondition(t, "web", metav1.ConditionTrue)
	for _, node := range []string{"node1", "node2", "node3"} {
		if !strings.Contains(condition.Message, node) {
			t.Errorf("message %q does not name %s", condition.Message, node)
		}
	}
	get(t, c, address)
	waitPool(t, c, "1")

	c.Delete(t, "service/web")
	c.WaitNextHops(t, address)
	waitPool(t, c, "0")
	// The address came back: it can be had again.
	c.Apply(t, cluster.Service("web", "loadBalancerIP: "+address))
	if again := c.Address(t, "web"); again != address {
		t.Errorf("address %s, want %s again", again, address)
	}
	get(t, c, address)
	c.Delete(t, "service/web")
}

func requestedAddresses(t *testing.T, c *cluster.Cluster) {
	c.Apply(t, cluster.Pool+"---"+cluster.Peer)
	c.Apply(t, `
apiVersion: lb.baremetal.dev/v1alpha1
kind: AddressPool
metadata: {name: named}
spec: {addresses: ["198.19.255.0/30"], autoAssign: false}
`)
	c.Apply(t, strings.Replace(cluster.Service("web"), "metadata: {name: web}",
		"metadata: {name: web, annotations: {lb.baremetal.dev/pool: named}}", 1))
	if address := c.Address(t, "web"); !strings.HasPrefix(address, "198.19.255.") {
		t.Errorf("address %s is not of the named pool", address)
	}
	c.Apply(t, cluster.Service("taken", "loadBalancerIP: "+c.Address(t, "web")))
	waitEvent(t, c, "taken", "default/web")
	c.Apply(t, cluster.Service("outside", "loadBalancerIP: 192.0.2.200"))
	waitEvent(t, c, "outside", "192.0.2.200")
	c.Delete(t, "service/web", "service/taken", "service/outside", "addresspool/named")
}

// localTraffic: under externalTrafficPolicy Local the route is where the pod is.
func localTraffic(t *testing.T, c *cluster.Cluster) {
	c.Apply(t, cluster.Pool+"---"+cluster.Peer)
	c.Deploy(t, "one", 1, "node1")
	c.Apply(t, cluster.Service("one", "externalTrafficPolicy: Local"))
	address := c.Address(t, "one")
	c.WaitNextHops(t, address, "node1")
	get(t, c, address)
	c.Deploy(t, "one", 1, "node3")
	c.WaitNextHops(t, address, "node3")
	get(t, c, address)
	if again := c.Address(t, "one"); again != address {
		t.Errorf("the address moved from %s to %s", address, again)
	}
	c.Delete(t, "service/one", "deployment/one")
}

// restarts: no restart of a program of ours is noticed by a request, by a
// connection that stays open, or by an address; also where the node is the only
// next hop.
func restarts(t *testing.T, c *cluster.Cluster) {
	c.Apply(t, cluster.Pool+"---"+cluster.Peer)
	c.Deploy(t, "one", 1, "node2")
	c.Apply(t, cluster.Service("web"))
	c.Apply(t, cluster.Service("one", "externalTrafficPolicy: Local"))
	all, one := c.Address(t, "web"), c.Address(t, "one")
	c.WaitNextHops(t, all, "node1", "node2", "node3")
	c.WaitNextHops(t, one, "node2")

	for _, test := range []struct {
		name, component string
		signal          syscall.Signal
	}{
		{"speaker terminated", speaker, syscall.SIGTERM},
		{"speaker killed", speaker, syscall.SIGKILL},
		{"cloud-controller-manager terminated", ccm, syscall.SIGTERM},
		{"cloud-controller-manager killed", ccm, syscall.SIGKILL},
	} {
		t.Run(test.name, func(t *testing.T) {
			loads := startLoads(t, c, all, one)
			for _, pod := range c.Pods(t, test.component) {
				if err := c.Restart(cluster.Context(t), pod.Spec.NodeName, pod.Name, test.signal); err != nil {
					t.Fatal(err)
				}
				waitPodReady(t, c, pod.Name)
				// The next one goes when this one's session is back, as in a
				// rolling update.
				waitEstablished(t, c, 3)
			}
			// Longer than it would take a stale route to be flushed at the end
			// of the restart.
			observe(t, loads, 3*time.Second)
			loads.stop(t)
			if got := c.Address(t, "web"); got != all {
				t.Errorf("the address moved from %s to %s", all, got)
			}
			if got := c.Address(t, "one"); got != one {
				t.Errorf("the address moved from %s to %s", one, got)
			}
			c.WaitNextHops(t, all, "node1", "node2", "node3")
			c.WaitNextHops(t, one, "node2")
		})
	}
	c.Delete(t, "service/web", "service/one", "deployment/one")
}

// apiServerAway: a minute without the API server withdraws nothing, and what
// comes after it comes fast.
func apiServerAway(t *testing.T, c *cluster.Cluster) {
	c.Apply(t, cluster.Pool+"---"+cluster.Peer)
	c.Deploy(t, "one", 1, "node2")
	c.Apply(t, cluster.Service("web"))
	c.Apply(t, cluster.Service("one", "externalTrafficPolicy: Local"))
	all, one := c.Address(t, "web"), c.Address(t, "one")
	c.WaitNextHops(t, all, "node1", "node2", "node3")
	c.WaitNextHops(t, one, "node2")

	loads := startLoads(t, c, all, one)
	if err := c.StopAPI(cluster.Context(t)); err != nil {
		t.Fatal(err)
	}
	observe(t, loads, time.Minute)
	if err := c.StartAPI(cluster.Context(t)); err != nil {
		t.Fatal(err)
	}
	// The first Service, as soon as the API server takes it.
	var created time.Time
	err := c.WaitFor(cluster.Context(t), "a Service can be created", func(ctx context.Context) (bool, error) {
		_, err := c.KubectlStdin(ctx, strings.NewReader(cluster.Service("late")), "create", "-f", "-")
		created = time.Now()
		return err == nil, err
	})
	if err != nil {
		t.Fatal(err)
	}
	late := c.Address(t, "late")
	c.WaitNextHops(t, late, "node1", "node2", "node3")
	t.Logf("the first Service after the return was announced after %s", time.Since(created).Round(10*time.Millisecond))
	// On a free machine it is less than a second (docs/benchmarks.md); whoever
	// backs off or waits for a Lease needs fifteen and more.
	if took := time.Since(created); took > 10*time.Second {
		t.Errorf("the first Service after the return was announced after %s", took)
	}
	observe(t, loads, 5*time.Second)
	loads.stop(t)
	if got := c.Address(t, "web"); got != all {
		t.Errorf("the address moved from %s to %s", all, got)
	}
	c.Delete(t, "service/web", "service/one", "service/late", "deployment/one")
}

// newNode: a node that joins announces everything; one that drains announces
// nothing, and keeps its sessions.
func newNode(t *testing.T, c *cluster.Cluster) {
	c.Apply(t, cluster.Pool+"---"+cluster.Peer)
	c.Apply(t, cluster.Service("web"))
	address := c.Address(t, "web")
	name, err := c.AddNode(cluster.Context(t), lab.NodeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c.WaitNextHops(t, address, "node1", "node2", "node3", name)
	if _, err := c.Kubectl(cluster.Context(t), "annotate", "node", name, v1alpha1.NodeDrain+"=true"); err != nil {
		t.Fatal(err)
	}
	c.WaitNextHops(t, address, "node1", "node2", "node3")
	waitEstablished(t, c, 4)
	if err := c.RemoveNode(cluster.Context(t), name); err != nil {
		t.Fatal(err)
	}
	c.Delete(t, "service/web")
}

// deadNode: a node that loses its power goes out of the plan when it turns
// NotReady, and comes back with everything.
func deadNode(t *testing.T, c *cluster.Cluster) {
	c.Apply(t, cluster.Pool+"---"+cluster.Peer)
	c.Apply(t, cluster.Service("web"))
	address := c.Address(t, "web")
	c.WaitNextHops(t, address, "node1", "node2", "node3")
	began := time.Now()
	step := func(what string) { t.Logf("%s after %s", what, time.Since(began).Round(10*time.Millisecond)) }
	if err := c.PowerOff(cluster.Context(t), "node3"); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitNodeNotReady(cluster.Context(t), "node3"); err != nil {
		t.Fatal(err)
	}
	step("NotReady")
	c.WaitMessage(t, "web", "announced by node1, node2")
	step("out of the plan")
	if err := c.PowerOn(cluster.Context(t), "node3"); err != nil {
		t.Fatal(err)
	}
	c.WaitNextHops(t, address, "node1", "node2", "node3")
	step("back, and all routes with it,")
	get(t, c, address)
	step("answers")
	c.Delete(t, "service/web")
}
