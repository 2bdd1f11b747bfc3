package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/cluster"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab"
)

// TestAddresses runs its subtests on one cluster, one after the other: whose an
// address is, seen from where its packets go.
func TestAddresses(t *testing.T) {
	c := cluster.StartTest(t, lab.Config{Name: "e2e-addresses", Nodes: 3})
	c.CheckInvariants(t)
	c.Deploy(t, "web", 2, "")
	c.Apply(t, cluster.Peer)

	t.Run("Shared on the LAN", func(t *testing.T) { sharedOnLAN(t, c) })
	t.Run("Shared by BGP with local traffic", func(t *testing.T) { sharedLocal(t, c) })
	t.Run("External address", func(t *testing.T) { externalAddress(t, c) })
	t.Run("Pool is edited, then deleted", func(t *testing.T) { poolDeleted(t, c) })
}

// sharing is the YAML of a Service over the Deployment web that shares, by key,
// on its own port.
func sharing(name string, port int, spec ...string) string {
	yaml := cluster.Service(name, spec...)
	yaml = strings.Replace(yaml, "selector: {app: "+name+"}", "selector: {app: web}", 1)
	yaml = strings.Replace(yaml, "port: 80,", fmt.Sprintf("port: %d,", port), 1)
	return strings.Replace(yaml, "metadata: {name: "+name+"}",
		"metadata: {name: "+name+", annotations: {lb.baremetal.dev/share-key: web}}", 1)
}

// answers fails the test unless the address answers on the port.
func answers(t *testing.T, c *cluster.Cluster, host, address string, port int) {
	t.Helper()
	url := fmt.Sprintf("http://%s:%d/", address, port)
	err := c.WaitFor(cluster.Context(t), url+" answers "+host, func(ctx context.Context) (bool, error) {
		out, err := c.On(ctx, host, "curl", "-sS", "--max-time", "1", url)
		return strings.Contains(out, "pod="), err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// sharedOnLAN: two Services of one address have one owner, and each its port; the
// address stays when the first of them goes.
func sharedOnLAN(t *testing.T, c *cluster.Cluster) {
	c.Apply(t, lanPool)
	c.Apply(t, sharing("plain", 80))
	address := c.Address(t, "plain")
	c.Apply(t, sharing("secure", 443))
	if got := c.Address(t, "secure"); got != address {
		t.Fatalf("the second Service has %s; want %s, which the first one has", got, address)
	}
	owner := c.WaitOwner(t, address)
	answers(t, c, lab.LAN, address, 80)
	answers(t, c, lab.LAN, address, 443)
	c.WaitCondition(t, "secure", metav1.ConditionTrue)

	c.Delete(t, "service/plain")
	c.WaitGone(t, "plain")
	answers(t, c, lab.LAN, address, 443)
	if got := c.WaitOwner(t, address); got != owner {
		t.Errorf("the owner changed from %s to %s", owner, got)
	}
	if got := c.Address(t, "secure"); got != address {
		t.Errorf("the address changed from %s to %s", address, got)
	}
	c.Delete(t, "service/secure", "addresspool/lan")
}

// sharedLocal: Services with local traffic that have the same Pods share an
// address, and its routes are where these are.
func sharedLocal(t *testing.T, c *cluster.Cluster) {
	c.Apply(t, cluster.Pool)
	c.Deploy(t, "web", 1, "node2")
	c.Apply(t, sharing("plain", 80, "externalTrafficPolicy: Local")+"---"+sharing("secure", 443, "externalTrafficPolicy: Local"))
	address := c.Address(t, "plain")
	if got := c.Address(t, "secure"); got != address {
		t.Fatalf("the second Service has %s; want %s, which the first one has", got, address)
	}
	c.WaitNextHops(t, address, "node2")
	answers(t, c, lab.Client, address, 80)
	answers(t, c, lab.Client, address, 443)

	// Now their traffic cannot be told apart: who changed leaves.
	c.Apply(t, sharing("secure", 443))
	err := c.WaitFor(cluster.Context(t), "the one that changed has another address", func(ctx context.Context) (bool, error) {
		svc, err := c.Client.CoreV1().Services("default").Get(ctx, "secure", metav1.GetOptions{})
		return err == nil && len(svc.Status.LoadBalancer.Ingress) == 1 && svc.Status.LoadBalancer.Ingress[0].IP != address, err
	})
	if err != nil {
		t.Fatal(err)
	}
	c.WaitNextHops(t, c.Address(t, "secure"), "node1", "node2", "node3")
	c.WaitNextHops(t, address, "node2")
	answers(t, c, lab.Client, address, 80)
	c.Delete(t, "service/plain", "service/secure")
}

// externalAddress: an external address in a pool that allows it is announced.
func externalAddress(t *testing.T, c *cluster.Cluster) {
	c.Apply(t, `
apiVersion: lb.baremetal.dev/v1alpha1
kind: AddressPool
metadata: {name: external}
spec: {addresses: ["198.19.255.0/28"], autoAssign: false, allowExternalIPs: true}
`)
	c.Apply(t, cluster.Service("web", "externalIPs: [198.19.255.9]"))
	if got := c.Address(t, "web"); got != "198.19.255.9" {
		t.Fatalf("address %s; want the external one", got)
	}
	c.WaitNextHops(t, "198.19.255.9", "node1", "node2", "node3")
	answers(t, c, lab.Client, "198.19.255.9", 80)
	c.Delete(t, "service/web", "addresspool/external")
}

// poolDeleted: neither an edit of the pool nor its deletion takes an address away.
func poolDeleted(t *testing.T, c *cluster.Cluster) {
	pool := func(addresses string) string {
		return fmt.Sprintf(`
apiVersion: lb.baremetal.dev/v1alpha1
kind: AddressPool
metadata: {name: leaving}
spec: {addresses: ["%s"], autoAssign: false}
`, addresses)
	}
	c.Apply(t, pool("198.19.254.0/28"))
	web := strings.Replace(cluster.Service("web"), "metadata: {name: web}",
		"metadata: {name: web, annotations: {lb.baremetal.dev/pool: leaving}}", 1)
	c.Apply(t, web)
	address := c.Address(t, "web")
	c.WaitNextHops(t, address, "node1", "node2", "node3")
	get(t, c, address)
	load, err := c.StartLoad(cluster.Context(t), lab.Client, "http://"+address+"/", lab.LoadOptions{Rate: 50, Timeout: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if err := load.Wait(cluster.Context(t), func(r lab.LoadReport) bool { return r.OK >= 5 }); err != nil {
		t.Fatal(err)
	}

	c.Apply(t, pool("198.19.253.0/28"))
	c.WaitMention(t, "web", "lies in no AddressPool any more")
	waitEvent(t, c, "web", "lies in no AddressPool any more")
	c.Apply(t, pool("198.19.254.0/28"))
	c.WaitMessage(t, "web", address+": announced by node1, node2, node3")

	if _, err := c.Kubectl(cluster.Context(t), "delete", "addresspool", "leaving", "--wait=false"); err != nil {
		t.Fatal(err)
	}
	c.WaitMention(t, "web", `AddressPool "leaving" is being deleted`)
	c.Apply(t, strings.ReplaceAll(web, "name: web,", "name: late,"))
	waitEvent(t, c, "late", `AddressPool "leaving" is being deleted`)
	report, err := load.Stop()
	if err != nil {
		t.Fatal(err)
	}
	if report.Failed > 0 {
		t.Errorf("requests failed: %s", report)
	}
	c.WaitNextHops(t, address, "node1", "node2", "node3")

	c.Delete(t, "service/web", "service/late")
	err = c.WaitFor(cluster.Context(t), "the pool is gone", func(ctx context.Context) (bool, error) {
		out, err := c.Kubectl(ctx, "get", "addresspools", "-o", "name")
		return err == nil && !strings.Contains(out, "leaving"), err
	})
	if err != nil {
		t.Fatal(err)
	}
}
