package e2e

import (
	"slices"
	"strings"
	"testing"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/cluster"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/addr"
)

// layer2Interfaces: who may announce follows can-reach, and the Node's own list;
// what does not work is reported.
func layer2Interfaces(t *testing.T, c *cluster.Cluster) {
	own := addr.Node(1).IPv4.String()
	on(t, c, "node2", "ip", "route", "add", "unreachable", own)
	c.Apply(t, cluster.Layer2Pool("reach", addr.ScalePool, "layer2: {interfaces: [\"can-reach:"+own+"\"]}"))
	c.Apply(t, cluster.Service("web"))
	address := c.Address(t, "web")
	c.WaitOwner(t, address, "node3")
	for node, want := range map[string]string{"node1": "is an address of this node", "node2": "not reached from this node"} {
		c.WaitReport(t, node, want, func(r announce.Report) bool {
			return slices.ContainsFunc(r.Reach, func(reach announce.Reach) bool { return strings.Contains(reach.Error, want) })
		})
	}
	// Routes change: no node is asked twice.
	on(t, c, "node2", "ip", "route", "del", "unreachable", own)
	on(t, c, "node3", "ip", "route", "add", "unreachable", own)
	c.WaitOwner(t, address, "node2")
	on(t, c, "node3", "ip", "route", "del", "unreachable", own)
	// The Node's annotation wins over the pool.
	kubectl(t, c, "annotate", "node", "node2", "lb.baremetal.dev/layer2-interfaces=eth9")
	c.WaitOwner(t, address, "node3")
	kubectl(t, c, "annotate", "node", "node2", "lb.baremetal.dev/layer2-interfaces-")
	c.Delete(t, "service/web", "addresspool/reach")
}

// layer2IPVS: kube-proxy in its mode IPVS makes the kernel of every node answer,
// unless it is told not to. The kernel here has no IPVS; the interface is enough.
func layer2IPVS(t *testing.T, c *cluster.Cluster) {
	c.Apply(t, lanPool)
	c.Apply(t, cluster.Service("web"))
	address := c.Address(t, "web")
	owner := c.WaitOwner(t, address)
	on(t, c, owner, "ip", "link", "add", "kube-ipvs0", "type", "veth", "peer", "name", "ipvs-peer")
	on(t, c, owner, "ip", "address", "add", address+"/32", "dev", "kube-ipvs0")
	trapped := func(r announce.Report) bool {
		return slices.ContainsFunc(r.Problems, func(p string) bool { return strings.Contains(p, address) && strings.Contains(p, "strictARP") })
	}
	c.WaitReport(t, owner, "kube-ipvs0", trapped)
	on(t, c, owner, "ip", "link", "delete", "kube-ipvs0")
	c.WaitReport(t, owner, "no kube-ipvs0", func(r announce.Report) bool { return !trapped(r) })
	c.Delete(t, "service/web", "addresspool/lan")
}

func on(t *testing.T, c *cluster.Cluster, host string, argv ...string) {
	t.Helper()
	if out, err := c.On(cluster.Context(t), host, argv...); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func kubectl(t *testing.T, c *cluster.Cluster, argv ...string) {
	t.Helper()
	if out, err := c.Kubectl(cluster.Context(t), argv...); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}
