package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/cluster"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/addr"
)

// TestLayer2 runs its subtests on one cluster of three nodes, one after the
// other. What an owner is, is asked on the wire.
func TestLayer2(t *testing.T) {
	c := cluster.StartTest(t, lab.Config{Name: "e2e-layer2", Nodes: 3, NodeGrace: 3 * time.Second})
	c.CheckInvariants(t)
	c.Deploy(t, "web", 3, "")

	t.Run("Dual stack", func(t *testing.T) { layer2DualStack(t, c) })
	t.Run("Neighbour unreachability detection", func(t *testing.T) { layer2Neighbors(t, c) })
	t.Run("Local traffic follows its pod", func(t *testing.T) { layer2Local(t, c) })
	t.Run("Endpoint gone while the planner is away", func(t *testing.T) { layer2EndpointGone(t, c) })
	t.Run("BGP and Layer2", func(t *testing.T) { layer2AndBGP(t, c) })
	t.Run("Interfaces", func(t *testing.T) { layer2Interfaces(t, c) })
	t.Run("kube-proxy in IPVS mode", func(t *testing.T) { layer2IPVS(t, c) })
	t.Run("Address in use", func(t *testing.T) { layer2InUse(t, c) })
	t.Run("Spoofed claim", func(t *testing.T) { layer2Spoofed(t, c) })
	t.Run("Hostile LAN", func(t *testing.T) { layer2Hostile(t, c) })
	t.Run("Change of the MAC address", func(t *testing.T) { layer2MAC(t, c) })
	t.Run("Many addresses and a dead node", func(t *testing.T) { layer2Many(t, c) })
	// The last ones: kube-proxy looks for an API server that was away ever more
	// rarely.
	t.Run("Speaker killed while the API server is away", func(t *testing.T) { layer2KilledAlone(t, c) })
	t.Run("Speaker returns to addresses that have moved", func(t *testing.T) { layer2ReturnedAlone(t, c) })
	t.Run("Node rebooted while the API server is away", func(t *testing.T) { layer2RebootedAlone(t, c) })
}

// layer2DualStack: a Service on the LAN's own addresses answers to the LAN and
// from behind the router, and whoever asks, however, is told the one owner.
func layer2DualStack(t *testing.T, c *cluster.Cluster) {
	c.Apply(t, lanPool)
	c.Apply(t, cluster.Service("web", "ipFamilyPolicy: RequireDualStack"))
	addresses := c.Addresses(t, "web", 2)
	condition := c.WaitCondition(t, "web", metav1.ConditionTrue)
	hosts, err := c.HostsByMAC(cluster.Context(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range addresses {
		owner := c.WaitOwner(t, address)
		if !strings.Contains(condition.Message, owner) {
			t.Errorf("message %q does not name %s", condition.Message, owner)
		}
		getLAN(t, c, lab.LAN, address)
		getLAN(t, c, lab.Client, address)
		entry, err := c.Neighbor(cluster.Context(t), lab.LAN, netip.MustParseAddr(address))
		if err != nil {
			t.Fatal(err)
		}
		if hosts[entry.MAC] != owner {
			t.Errorf("neighbour %s, want the MAC address of %s", entry, owner)
		}
		for name, options := range map[string]lab.AskOptions{
			"unicast":             {Unicast: entry.MAC},
			"without option":      {NoOption: true},
			"duplicate detection": {Probe: true},
		} {
			options.Addresses = []string{address}
			answers, err := c.Ask(cluster.Context(t), lab.LAN, options)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(answers[0].MACs, []string{entry.MAC}) {
				t.Errorf("%s, asked by %s, is at %q; want %s", address, name, answers[0].MACs, entry.MAC)
			}
		}
	}
	c.Delete(t, "service/web")
	for _, address := range addresses {
		answers, err := c.Ask(cluster.Context(t), lab.LAN, lab.AskOptions{Addresses: []string{address}})
		if err != nil {
			t.Fatal(err)
		}
		if answers[0].Replies > 0 {
			t.Errorf("%s is at %q after its Service is gone", address, answers[0].MACs)
		}
	}
	c.Delete(t, "addresspool/lan")
}

// soakVariable is how long to probe with the kernel's own timers, for example
// 10m; without it, some seconds with fast ones do.
const soakVariable = "LAYER2_SOAK"

// layer2Neighbors: the unicast probes of a client's kernel are answered.
// Datagrams confirm nothing, unlike TCP, so only the probes keep the entry.
func layer2Neighbors(t *testing.T, c *cluster.Cluster) {
	cycles, soak := 3, time.Duration(0)
	if text := os.Getenv(soakVariable); text != "" {
		var err error
		if soak, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
		cycles = int(soak / time.Minute) // reachable for 45s at most, then 5s of delay
	} else {
		fast := lab.NeighborTimes{Reachable: 2 * time.Second, Delay: time.Second}
		if err := c.SetNeighborTimes(cluster.Context(t), lab.LAN, "eth0", fast); err != nil {
			t.Fatal(err)
		}
		defer func() {
			slow := lab.NeighborTimes{Reachable: 30 * time.Second, Delay: 5 * time.Second}
			if err := c.SetNeighborTimes(cluster.Context(t), lab.LAN, "eth0", slow); err != nil {
				t.Error(err)
			}
		}()
	}
	c.Apply(t, lanPool)
	manifest := cluster.Service("web", "ipFamilyPolicy: RequireDualStack")
	c.Apply(t, strings.Replace(manifest, "ports: [{port: 80, targetPort: 8080}]", "ports: [{port: 80, targetPort: 8080, protocol: UDP}]", 1))
	// Entries from before would live as long as the timers of before said.
	if err := c.FlushNeighbors(cluster.Context(t), lab.LAN); err != nil {
		t.Fatal(err)
	}
	all := loads{}
	var watches []*lab.NeighborWatch
	for _, address := range c.Addresses(t, "web", 2) {
		c.WaitOwner(t, address)
		settleLAN(t, c, address)
		watch, err := c.WatchNeighbor(cluster.Context(t), lab.LAN, netip.MustParseAddr(address))
		if err != nil {
			t.Fatal(err)
		}
		watches = append(watches, watch)
		url := "udp://" + netip.AddrPortFrom(netip.MustParseAddr(address), 80).String()
		all[url] = lanLoad(t, c, url, lab.LoadOptions{Rate: 5, Timeout: 2 * time.Second})
	}
	observe(t, all, soak)
	if soak == 0 {
		for _, watch := range watches {
			states := slices.Repeat([]lab.NeighborState{lab.Probe, lab.Reachable}, cycles)
			if err := watch.WaitStates(cluster.Context(t), states...); err != nil {
				t.Error(err)
			}
		}
	}
	all.stop(t)
	for _, watch := range watches {
		events, err := watch.Stop()
		if err != nil {
			t.Error(err)
		}
		probes, mac := 0, ""
		for _, e := range events {
			switch e.State {
			case lab.Probe:
				probes++
			case lab.Failed, lab.Gone:
				t.Errorf("%s at %s", e, e.Time.Format(time.StampMilli))
			case lab.Reachable:
				if mac != "" && mac != e.MAC {
					t.Errorf("%s, was at %s", e, mac)
				}
				mac = e.MAC
			}
		}
		if probes < cycles || len(events) == 0 || events[len(events)-1].State == lab.Incomplete {
			t.Errorf("%d times probed, want %d: %v", probes, cycles, events)
		}
	}
	c.Delete(t, "service/web", "addresspool/lan")
}

// layer2Local: under externalTrafficPolicy Local the owner is where the pod is.
func layer2Local(t *testing.T, c *cluster.Cluster) {
	c.Apply(t, lanPool)
	c.Deploy(t, "one", 1, "node1")
	c.Apply(t, cluster.Service("one", "externalTrafficPolicy: Local"))
	address := c.Address(t, "one")
	c.WaitOwner(t, address, "node1")
	getLAN(t, c, lab.LAN, address)
	c.Deploy(t, "one", 1, "node3")
	c.WaitOwner(t, address, "node3")
	// The client's entry was overridden: nothing has flushed it.
	getLAN(t, c, lab.LAN, address)
	c.Delete(t, "service/one", "deployment/one", "addresspool/lan")
}

// layer2AndBGP: one pool announced both ways.
func layer2AndBGP(t *testing.T, c *cluster.Cluster) {
	c.Apply(t, strings.Replace(scalePool, "[Layer2]", "[BGP, Layer2]", 1)+"---"+cluster.Peer)
	if err := c.OnLink(cluster.Context(t), lab.LAN, addr.ScalePool); err != nil {
		t.Fatal(err)
	}
	c.Apply(t, cluster.Service("web"))
	address := c.Address(t, "web")
	c.WaitNextHops(t, address, "node1", "node2", "node3")
	c.WaitOwner(t, address, "node1", "node2", "node3")
	getLAN(t, c, lab.LAN, address)
	getLAN(t, c, lab.Client, address)
	c.Delete(t, "service/web")
	c.WaitNextHops(t, address)
	c.Delete(t, "addresspool/scale", "bgppeer/tor")
}

// layer2InUse: what a foreign host uses is not announced, until it is gone.
func layer2InUse(t *testing.T, c *cluster.Cluster) {
	c.Apply(t, lanPool)
	wanted := map[string]string{"taken4": "192.0.2.240", "taken6": "2001:db8:2::2:40"}
	foreign := respond(t, c, wanted["taken4"], wanted["taken6"])
	for service, address := range wanted {
		family := "IPv4"
		if strings.Contains(address, ":") {
			family = "IPv6"
		}
		manifest := cluster.Service(service, "loadBalancerIP: \""+address+"\"", "ipFamilies: ["+family+"]")
		c.Apply(t, strings.Replace(manifest, "selector: {app: "+service+"}", "selector: {app: web}", 1))
	}
	for service, address := range wanted {
		condition := c.WaitReason(t, service, "AddressInUse")
		if condition.Status != metav1.ConditionFalse || !strings.Contains(condition.Message, foreignMAC) {
			t.Errorf("%s: %s, %q; want False and the MAC address %s", service, condition.Status, condition.Message, foreignMAC)
		}
		answers, err := c.Ask(cluster.Context(t), lab.LAN, lab.AskOptions{Addresses: []string{address}})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(answers[0].MACs, []string{foreignMAC}) {
			t.Errorf("%s is at %q; only the foreign host may answer", address, answers[0].MACs)
		}
	}
	if _, err := foreign.Stop(); err != nil {
		t.Error(err)
	}
	gone := time.Now()
	for service, address := range wanted {
		c.WaitOwner(t, address)
		if took := time.Since(gone); took > 13*time.Second {
			t.Errorf("%s is announced %s after the foreign host left", address, took)
		}
		c.WaitCondition(t, service, metav1.ConditionTrue)
		getLAN(t, c, lab.LAN, address)
	}
	t.Logf("announced %s after the foreign host left", time.Since(gone).Round(100*time.Millisecond))
	c.Delete(t, "service/taken4", "service/taken6", "addresspool/lan")
}

// layer2MAC: a new MAC address of the owner is told at once.
func layer2MAC(t *testing.T, c *cluster.Cluster) {
	const changed = "02:00:5e:00:53:02" // locally administered
	c.Apply(t, lanPool)
	c.Apply(t, cluster.Service("web"))
	address := c.Address(t, "web")
	owner := c.WaitOwner(t, address)
	before, err := c.MAC(cluster.Context(t), owner, "eth0")
	if err != nil {
		t.Fatal(err)
	}
	heard := capture(t, c)
	for _, mac := range []string{changed, before} {
		if err := c.SetMAC(cluster.Context(t), owner, "eth0", mac); err != nil {
			t.Fatal(err)
		}
		at := time.Now()
		claim, err := heard.Wait(cluster.Context(t), fmt.Sprintf("%s is claimed for %s", address, mac), func(p *lab.Packet) bool {
			return p.Gratuitous() && p.Time.After(at.Add(-time.Second)) && claimOf(mac, address)(p)
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("claimed %s after the change", claim.Time.Sub(at).Round(time.Millisecond))
		c.WaitOwner(t, address, owner)
	}
	c.Delete(t, "service/web", "addresspool/lan")
}
