package e2e

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/cluster"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/addr"
)

// layer2Spoofed: a foreign claim to an address in use is answered by the owner
// and reported, and no request fails.
func layer2Spoofed(t *testing.T, c *cluster.Cluster) {
	c.Apply(t, lanPool)
	c.Apply(t, cluster.Service("web", "ipFamilyPolicy: RequireDualStack"))
	addresses := c.Addresses(t, "web", 2)
	all := loads{}
	for _, address := range addresses {
		c.WaitOwner(t, address)
		getLAN(t, c, lab.LAN, address)
		url := lanURL(address)
		// A request that meets the moment between claim and defence is sent
		// again by TCP a second later.
		load := lanLoad(t, c, url, lab.LoadOptions{Rate: 5, Timeout: 3 * time.Second})
		all[url] = load
		// Within seconds of its probes, a claim may be a late answer to them.
		if err := load.Wait(cluster.Context(t), func(r lab.LoadReport) bool { return r.OK >= 20 }); err != nil {
			t.Fatal(err)
		}
	}
	heard := capture(t, c)
	for _, address := range addresses {
		owner := c.Owner(t, address)
		mac, err := c.MAC(cluster.Context(t), owner, "eth0")
		if err != nil {
			t.Fatal(err)
		}
		claim, err := c.StartClaim(cluster.Context(t), lab.Router, lab.ClaimOptions{Addresses: []string{address}, MAC: foreignMAC})
		if err != nil {
			t.Fatal(err)
		}
		waitEnd(t, "claim to "+address, claim)
		claimed, err := heard.Wait(cluster.Context(t), "the claim", claimOf(foreignMAC, address))
		if err != nil {
			t.Fatal(err)
		}
		defended, err := heard.Wait(cluster.Context(t), owner+" defends "+address, func(p *lab.Packet) bool {
			return p.Gratuitous() && p.Time.After(claimed.Time) && claimOf(mac, address)(p)
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s defended %s after %s", owner, address, defended.Time.Sub(claimed.Time))
		c.WaitReport(t, owner, "the conflict", func(r announce.Report) bool {
			return slices.ContainsFunc(r.Conflicts, func(conflict announce.Conflict) bool {
				return conflict.Address.String() == address && conflict.MAC.String() == foreignMAC && !conflict.Held
			})
		})
		c.WaitOwner(t, address, owner)
	}
	all.stop(t)
	c.Delete(t, "service/web", "addresspool/lan")
}

// layer2Hostile: malformed packets and a flood of requests for other addresses
// leave speakers alive, small, and answering.
func layer2Hostile(t *testing.T, c *cluster.Cluster) {
	const (
		rounds    = 5 * time.Second
		maxMemory = 128 << 20
	)
	c.Apply(t, lanPool)
	c.Apply(t, cluster.Service("web", "ipFamilyPolicy: RequireDualStack"))
	addresses := c.Addresses(t, "web", 2)
	all := loads{}
	for _, address := range addresses {
		c.WaitOwner(t, address)
		getLAN(t, c, lab.LAN, address)
		all[lanURL(address)] = lanLoad(t, c, lanURL(address), lab.LoadOptions{Rate: 10, Timeout: 2 * time.Second})
	}
	before := speakerRestarts(t, c)
	garble, err := c.StartGarble(cluster.Context(t), lab.Router, lab.GarbleOptions{Victims: addresses, Seed: 1, Rate: 5000, Duration: rounds})
	if err != nil {
		t.Fatal(err)
	}
	flood, err := c.StartFlood(cluster.Context(t), lab.LAN, lab.FloodOptions{
		Addresses: []string{addr.Strangers, "2001:db8:2::4:0/120"}, Rate: 10_000, Duration: rounds,
	})
	if err != nil {
		t.Fatal(err)
	}
	answers, err := c.Ask(cluster.Context(t), lab.LAN, lab.AskOptions{Addresses: addresses, Count: 100, Every: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range answers {
		// The flood shares the cores with the speakers: some questions are lost, and asked
		// again by any host.
		if len(a.MACs) != 1 || a.Answered < a.Asked*90/100 {
			t.Errorf("%s is at %q, %d of %d requests answered", a.Address, a.MACs, a.Answered, a.Asked)
		}
	}
	waitEnd(t, "malformed frames", garble)
	waitEnd(t, "requests for other addresses", flood)
	all.stop(t)
	for _, node := range []string{"node1", "node2", "node3"} {
		usage, err := c.ProgramUsage(cluster.Context(t), node, speaker)
		if err != nil {
			t.Fatal(err)
		}
		if usage.RSS > maxMemory {
			t.Errorf("the speaker on %s has grown to %d MiB", node, usage.RSS>>20)
		}
		t.Logf("the speaker on %s: %d MiB, %s of CPU", node, usage.RSS>>20, usage.CPU)
	}
	if after := speakerRestarts(t, c); after != before {
		t.Errorf("%d restarts of speakers", after-before)
	}
	c.Delete(t, "service/web", "addresspool/lan")
}

// layer2Many: addresses spread evenly; those of a dead node go to the others,
// evenly, and nothing else moves, also when it comes back.
func layer2Many(t *testing.T, c *cluster.Cluster) {
	if err := c.OnLink(cluster.Context(t), lab.LAN, addr.ScalePool); err != nil {
		t.Fatal(err)
	}
	c.Apply(t, scalePool)
	addresses := bulk(t, c, "scale", 0, 300)
	before := c.WaitOwners(t, addresses, even(3))
	t.Logf("owners: %v", cluster.CountByNode(before))

	const dead = "node3"
	if err := c.PowerOff(cluster.Context(t), dead); err != nil {
		t.Fatal(err)
	}
	off := time.Now()
	if err := c.WaitNodeNotReady(cluster.Context(t), dead); err != nil {
		t.Fatal(err)
	}
	notReady := time.Now()
	c.WaitOwners(t, ownedBy(before, dead), nil)
	t.Logf("all addresses of %s answer %s after its end, %s after it is NotReady", dead,
		time.Since(off).Round(time.Millisecond), time.Since(notReady).Round(time.Millisecond))
	if took := time.Since(notReady); took > 2*time.Second {
		t.Errorf("the addresses of %s answer %s after it is NotReady", dead, took)
	}
	without := c.WaitOwners(t, addresses, even(2))
	for address, owner := range before {
		if owner != dead && without[address] != owner {
			t.Errorf("%s moved from %s to %s, for no reason", address, owner, without[address])
		}
	}

	heard := capture(t, c)
	powerOn(t, c, dead)
	back, err := c.MAC(cluster.Context(t), dead, "eth0")
	if err != nil {
		t.Fatal(err)
	}
	never(t, heard, 3*time.Second, dead+" takes an address back", claimOf(back, addresses...))
	c.WaitOwners(t, addresses, sameAs(without))

	// Those that come now fill the empty node first.
	addresses = bulk(t, c, "scale", 300, 500)
	c.WaitOwners(t, addresses, even(3))
	deleteBulk(t, c)
	c.Delete(t, "addresspool/scale")
}

// layer2KilledAlone: without the API server, a speaker that was killed goes on
// with what it announced.
func layer2KilledAlone(t *testing.T, c *cluster.Cluster) {
	c.Apply(t, lanPool)
	addresses, before := spread(t, c, 30)
	const node = "node2"
	owned := ownedBy(before, node)

	if err := c.StopAPI(cluster.Context(t)); err != nil {
		t.Fatal(err)
	}
	if err := c.Kill(cluster.Context(t), node, speaker, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	started := time.Now()
	if err := c.StartProgram(cluster.Context(t), node, speaker); err != nil {
		t.Fatal(err)
	}
	waitRunning(t, c, node)
	running := time.Now()
	c.WaitOwners(t, owned, func(owners map[string]string) error {
		if n := len(ownedBy(owners, node)); n != len(owned) {
			return fmt.Errorf("%d of %d are at %s", n, len(owned), node)
		}
		return nil
	})
	t.Logf("its addresses are at %s again %s after it runs, %s after it was let run", node,
		time.Since(running).Round(time.Millisecond), time.Since(started).Round(time.Millisecond))
	// Asking takes a part of a second itself.
	if took := time.Since(running); took > 1500*time.Millisecond {
		t.Errorf("it took %s", took)
	}
	if err := c.StartAPI(cluster.Context(t)); err != nil {
		t.Fatal(err)
	}
	// Kubernetes may take a node for NotReady now, so that some have moved.
	c.WaitOwners(t, addresses, nil)
	deleteBulk(t, c)
	c.Delete(t, "addresspool/lan")
}

// layer2ReturnedAlone: what a speaker remembers may have moved while it was away.
// Without the API server it asks the other candidates and the LAN, and believes them.
func layer2ReturnedAlone(t *testing.T, c *cluster.Cluster) {
	c.Apply(t, lanPool)
	addresses, _ := spread(t, c, 30)
	const node = "node2"
	if err := c.Kill(cluster.Context(t), node, speaker, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	// Its addresses stay at a node whose speaker is away, unless people say otherwise.
	annotate(t, c, node, v1alpha1.NodeDrain+"=true")
	moved := c.WaitOwners(t, addresses, even(2))
	if err := c.StopAPI(cluster.Context(t)); err != nil {
		t.Fatal(err)
	}
	mac, err := c.MAC(cluster.Context(t), node, "eth0")
	if err != nil {
		t.Fatal(err)
	}
	heard := capture(t, c)
	if err := c.StartProgram(cluster.Context(t), node, speaker); err != nil {
		t.Fatal(err)
	}
	waitRunning(t, c, node)
	never(t, heard, 5*time.Second, node+" takes an address back", claimOf(mac, addresses...))
	c.WaitOwners(t, addresses, sameAs(moved))
	if err := c.StartAPI(cluster.Context(t)); err != nil {
		t.Fatal(err)
	}
	annotate(t, c, node, v1alpha1.NodeDrain+"-")
	waitPodReady(t, c, c.Pod(t, speaker, node))
	c.WaitOwners(t, addresses, nil)
	deleteBulk(t, c)
	c.Delete(t, "addresspool/lan")
}

func annotate(t *testing.T, c *cluster.Cluster, node, annotation string) {
	t.Helper()
	if _, err := c.Kubectl(cluster.Context(t), "annotate", "node", node, annotation); err != nil {
		t.Fatal(err)
	}
}

// layer2RebootedAlone: a node that boots while the API server is away does not
// announce what another one has by now.
func layer2RebootedAlone(t *testing.T, c *cluster.Cluster) {
	c.Apply(t, lanPool)
	addresses, before := spread(t, c, 30)
	const node = "node2"
	// Its addresses go to the others first, so that its state file is stale.
	if err := c.PowerOff(cluster.Context(t), node); err != nil {
		t.Fatal(err)
	}
	without := c.WaitOwners(t, addresses, even(2))
	if len(ownedBy(before, node)) == 0 {
		t.Fatalf("%s has owned nothing: %v", node, before)
	}
	if err := c.StopAPI(cluster.Context(t)); err != nil {
		t.Fatal(err)
	}
	heard := capture(t, c)
	if err := c.PowerOn(cluster.Context(t), node); err != nil {
		t.Fatal(err)
	}
	mac, err := c.MAC(cluster.Context(t), node, "eth0")
	if err != nil {
		t.Fatal(err)
	}
	never(t, heard, 5*time.Second, node+" announces without the API server", claimOf(mac, addresses...))
	c.WaitOwners(t, addresses, sameAs(without))
	if err := c.StartAPI(cluster.Context(t)); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitNodeReady(cluster.Context(t), node); err != nil {
		t.Fatal(err)
	}
	waitPodReady(t, c, c.Pod(t, speaker, node))
	c.WaitOwners(t, addresses, nil)
	deleteBulk(t, c)
	c.Delete(t, "addresspool/lan")
}

func sameAs(want map[string]string) func(map[string]string) error {
	return func(owners map[string]string) error {
		var moved []string
		for address, owner := range owners {
			if want[address] != owner {
				moved = append(moved, fmt.Sprintf("%s from %s to %s", address, want[address], owner))
			}
		}
		if len(moved) > 0 {
			slices.Sort(moved)
			return fmt.Errorf("moved: %s", strings.Join(moved, ", "))
		}
		return nil
	}
}
