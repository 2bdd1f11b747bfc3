//go:build measure

package e2e

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/cluster"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/addr"
)

// TestLayer2Scale measures 2,000 addresses on the LAN, and prints what it finds.
// It takes minutes, which a test that cannot fail is not worth in CI: see make
// bench-layer2.
func TestLayer2Scale(t *testing.T) {
	c := cluster.StartTest(t, lab.Config{Name: "e2e-layer2-scale", Nodes: 3, NodeGrace: 3 * time.Second})
	c.Apply(t, scalePool)
	began := time.Now()
	addresses := bulk(t, c, "scale", 0, 2000)
	t.Logf("%d Services have addresses %s after the first is created", len(addresses), time.Since(began).Round(time.Millisecond))
	owners := c.WaitOwners(t, addresses, even(3))
	t.Logf("%d addresses answer %s after their Services are created: %v", len(addresses), time.Since(began).Round(time.Millisecond), cluster.CountByNode(owners))

	t.Run("Latency", func(t *testing.T) { layer2Latency(t, c, "a quiet LAN", addresses, 0) })
	t.Run("Latency in a flood", func(t *testing.T) { layer2Latency(t, c, "20,000 other requests/s", addresses, 20_000) })
	t.Run("Takeover", func(t *testing.T) { layer2Takeover(t, c, addresses, owners) })
}

// layer2Latency asks every 10ms, each time for another address, so that a late
// answer is still known by its address.
func layer2Latency(t *testing.T, c *cluster.Cluster, what string, addresses []string, rate int) {
	const asked = 2000 // 20s
	nodes := []string{"node1", "node2", "node3"}
	usage := func() (all []lab.Usage) {
		for _, node := range nodes {
			u, err := c.ProgramUsage(cluster.Context(t), node, speaker)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, u)
		}
		return all
	}
	before, began := usage(), time.Now()
	var flood *lab.Traffic
	if rate > 0 {
		var err error
		flood, err = c.StartFlood(cluster.Context(t), lab.LAN, lab.FloodOptions{
			Addresses: []string{addr.Strangers, addr.Layer2Pool}, Rate: rate, Duration: asked*10*time.Millisecond + time.Second,
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	answers, err := c.Ask(cluster.Context(t), lab.LAN, lab.AskOptions{Addresses: addresses[:asked], Every: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if flood != nil {
		waitEnd(t, "other requests", flood)
	}
	took, after := time.Since(began), usage()
	var latencies []time.Duration
	lost := 0
	for _, a := range answers {
		lost += a.Asked - a.Answered
		latencies = append(latencies, a.Latencies...)
	}
	slices.Sort(latencies)
	if len(latencies) == 0 {
		t.Fatal("no answers")
	}
	quantile := func(q float64) time.Duration { return latencies[min(int(q*float64(len(latencies))), len(latencies)-1)] }
	t.Logf("%s: p50 %s, p99 %s, max %s, %d of %d lost", what, quantile(0.5), quantile(0.99), latencies[len(latencies)-1], lost, len(answers))
	for i, node := range nodes {
		cpu := after[i].CPU - before[i].CPU
		t.Logf("the speaker on %s: %s of CPU in %s (%.1f %%), %d MiB", node, cpu, took.Round(time.Millisecond), 100*cpu.Seconds()/took.Seconds(), after[i].RSS>>20)
	}
}

// layer2Takeover counts the gratuitous packets that tell of a takeover.
func layer2Takeover(t *testing.T, c *cluster.Cluster, addresses []string, before map[string]string) {
	const dead = "node3"
	moved := ownedBy(before, dead)
	heard, err := c.StartCapture(cluster.Context(t), lab.LAN, lab.CaptureOptions{Claims: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.PowerOff(cluster.Context(t), dead); err != nil {
		t.Fatal(err)
	}
	off := time.Now()
	c.WaitOwners(t, moved, func(owners map[string]string) error {
		if n := len(ownedBy(owners, dead)); n > 0 {
			return fmt.Errorf("%d are at %s", n, dead)
		}
		return nil
	})
	t.Logf("%d addresses of %s answer %s after its end", len(moved), dead, time.Since(off).Round(time.Millisecond))
	// The burst goes on for some seconds (RFC 4861 section 7.2.6).
	never(t, heard, 10*time.Second, dead+" speaks", func(p *lab.Packet) bool {
		return p.Time.After(off.Add(time.Second)) && p.SenderIP == addr.Node(3).IPv4
	})
	packets, err := heard.Stop()
	if err != nil {
		t.Fatal(err)
	}
	count, first := 0, make(map[string]time.Duration)
	for _, p := range packets {
		address, _, _ := p.Claim()
		text := address.String()
		if _, found := slices.BinarySearch(moved, text); !p.Gratuitous() || p.Time.Before(off) || !found {
			continue
		}
		count++
		if _, seen := first[text]; !seen {
			first[text] = p.Time.Sub(off)
		}
	}
	var times []time.Duration
	for _, at := range first {
		times = append(times, at)
	}
	slices.Sort(times)
	if len(times) != len(moved) {
		t.Errorf("%d of %d addresses were claimed by gratuitous packets", len(times), len(moved))
	}
	if len(times) > 0 {
		t.Logf("%d gratuitous packets, %.1f for each address; the first for an address %s to %s after the end of %s",
			count, float64(count)/float64(len(times)), times[0].Round(time.Millisecond), times[len(times)-1].Round(time.Millisecond), dead)
	}
}
