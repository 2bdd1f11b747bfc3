package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/cluster"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab"
)

// placeLabel is on the nodes where the Pods of place are.
const placeLabel = "e2e/place"

// place runs one Pod of a name on each of these nodes, until a node is left.
func place(t *testing.T, c *cluster.Cluster, name string, nodes ...string) {
	t.Helper()
	for _, node := range nodes {
		enter(t, c, node)
	}
	c.Apply(t, fmt.Sprintf(`
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: %[1]s}
spec:
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      nodeSelector: {%[2]s: here}
      terminationGracePeriodSeconds: 1
      containers:
      - name: echo
        image: lab-echo
        imagePullPolicy: Never
        env: [{name: NODE_NAME, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}]
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
`, name, placeLabel))
	if err := c.WaitPodsReady(cluster.Context(t), "default", "app="+name, len(nodes)); err != nil {
		t.Fatal(err)
	}
}

// enter has the Pods of place run on the node, and leave ends that.
func enter(t *testing.T, c *cluster.Cluster, node string) { label(t, c, node, placeLabel+"=here") }

func leave(t *testing.T, c *cluster.Cluster, node string) { label(t, c, node, placeLabel+"-") }

func label(t *testing.T, c *cluster.Cluster, node, text string) {
	t.Helper()
	if _, err := c.Kubectl(cluster.Context(t), "label", "node", "--overwrite", node, text); err != nil {
		t.Fatal(err)
	}
}

// stopPlanner ends the cloud-controller-managers, and has them run again when start
// is called.
func stopPlanner(t *testing.T, c *cluster.Cluster) (start func()) {
	t.Helper()
	pods := c.Pods(t, ccm)
	for _, pod := range pods {
		if err := c.Kill(cluster.Context(t), pod.Spec.NodeName, pod.Name, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	return func() {
		t.Helper()
		for _, pod := range pods {
			if err := c.StartProgram(cluster.Context(t), pod.Spec.NodeName, pod.Name); err != nil {
				t.Fatal(err)
			}
			waitPodReady(t, c, pod.Name)
		}
	}
}

// waitDemoted waits until the router has n paths to the address with the local AS number
// four times.
func waitDemoted(t *testing.T, c *cluster.Cluster, address string, n int) {
	t.Helper()
	err := c.WaitFor(cluster.Context(t), fmt.Sprintf("%d paths to %s are demoted", n, address), func(ctx context.Context) (bool, error) {
		paths, err := c.Birdc(ctx, "show", "route", "for", address, "all")
		if err != nil {
			return false, err
		}
		if got := strings.Count(paths, "64512 64512 64512 64512"); got != n {
			return false, fmt.Errorf("%d are:\n%s", got, paths)
		}
		return true, nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// waitUnfit waits until the report of a node tells that it has no endpoint for the
// address, or that it has one.
func waitUnfit(t *testing.T, c *cluster.Cluster, node, address string, unfit bool) {
	t.Helper()
	c.WaitReport(t, node, fmt.Sprintf("that it has no endpoint for %s: %t", address, unfit), func(r announce.Report) bool {
		return unfit == slices.ContainsFunc(r.Problems, func(p string) bool {
			return strings.Contains(p, "no endpoint") && strings.Contains(p, address)
		})
	})
}

// endpointGone: while the planner is away, routers prefer the nodes that have an endpoint
// under externalTrafficPolicy Local, and no path is withdrawn.
func endpointGone(t *testing.T, c *cluster.Cluster) {
	c.Apply(t, cluster.Pool+"---"+cluster.Peer)
	place(t, c, "placed", "node1", "node2")
	c.Apply(t, cluster.Service("placed", "externalTrafficPolicy: Local"))
	address := c.Address(t, "placed")
	c.WaitNextHops(t, address, "node1", "node2")
	get(t, c, address)

	start := stopPlanner(t, c)
	load, err := c.StartLoad(cluster.Context(t), lab.Client, "http://"+address+"/", lab.LoadOptions{Rate: 20, Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	left := time.Now()
	leave(t, c, "node1")
	c.WaitNextHops(t, address, "node2")
	t.Logf("the router prefers node2 %s after the Pod on node1 was given up", time.Since(left).Round(10*time.Millisecond))
	waitDemoted(t, c, address, 1)
	all := startLoads(t, c, address)
	observe(t, all, 3*time.Second)
	all.stop(t)
	report, err := load.Stop()
	if err != nil {
		t.Error(err)
	}
	t.Log(report)
	// Half of the requests go to node1 until it has said so for two seconds.
	if report.OK == 0 || report.LastFailure.Sub(report.FirstFailure) > 10*time.Second {
		t.Errorf("requests failed from %s to %s", report.FirstFailure, report.LastFailure)
	}
	waitUnfit(t, c, "node1", address, true)

	// Where no node has an endpoint, no path is better, and all stay.
	leave(t, c, "node2")
	waitDemoted(t, c, address, 2)
	c.WaitNextHops(t, address, "node1", "node2")

	enter(t, c, "node1")
	waitDemoted(t, c, address, 1)
	c.WaitNextHops(t, address, "node1")
	get(t, c, address)
	waitUnfit(t, c, "node1", address, false)

	start()
	enter(t, c, "node2")
	waitDemoted(t, c, address, 0)
	c.WaitNextHops(t, address, "node1", "node2")
	waitUnfit(t, c, "node2", address, false)
	c.Delete(t, "service/placed", "daemonset/placed")
	leave(t, c, "node1")
	leave(t, c, "node2")
}

// layer2EndpointGone: while the planner is away, a candidate with an endpoint takes the
// address over on the LAN, and keeps it.
func layer2EndpointGone(t *testing.T, c *cluster.Cluster) {
	c.Apply(t, lanPool)
	place(t, c, "placed", "node1", "node2")
	c.Apply(t, cluster.Service("placed", "externalTrafficPolicy: Local"))
	address := c.Address(t, "placed")
	owner := c.WaitOwner(t, address, "node1", "node2")
	other := map[string]string{"node1": "node2", "node2": "node1"}[owner]
	getLAN(t, c, lab.LAN, address)

	start := stopPlanner(t, c)
	load := lanLoad(t, c, lanURL(address), lab.LoadOptions{Rate: 20, Timeout: time.Second})
	left := time.Now()
	leave(t, c, owner)
	c.WaitOwner(t, address, other)
	t.Logf("%s has the address %s after the Pod on %s was given up", other, time.Since(left).Round(10*time.Millisecond), owner)
	getLAN(t, c, lab.LAN, address)
	report, err := load.Stop()
	if err != nil {
		t.Error(err)
	}
	t.Log(report)
	if report.LongestOutage > 10*time.Second {
		t.Errorf("requests failed for %s", report.LongestOutage)
	}

	// Where no candidate has an endpoint, nobody is better.
	heard := capture(t, c)
	mac, err := c.MAC(cluster.Context(t), owner, "eth0")
	if err != nil {
		t.Fatal(err)
	}
	leave(t, c, other)
	waitUnfit(t, c, other, address, true)
	never(t, heard, 3*time.Second, owner+" takes the address back", claimOf(mac, address))
	enter(t, c, other)
	waitUnfit(t, c, other, address, false)
	getLAN(t, c, lab.LAN, address)

	enter(t, c, owner)
	start()
	c.WaitOwner(t, address, other)
	getLAN(t, c, lab.LAN, address)
	c.Delete(t, "service/placed", "daemonset/placed", "addresspool/lan")
	leave(t, c, owner)
	leave(t, c, other)
}
