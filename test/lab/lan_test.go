package lab_test

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/addr"
)

// MAC addresses for documentation (RFC 7042 section 2.1.2).
const (
	foreignMAC = "00:00:5e:00:53:01"
	otherMAC   = "00:00:5e:00:53:02"
)

// testLAN tries what speaks ARP and NDP against the hosts' kernels and against
// each other.
func (c *cluster) testLAN(t *testing.T, ctx context.Context) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, context.Context)
	}{
		{"ask a kernel", c.testAsk},
		{"neighbour states", c.testNeighbors},
		{"responder and capture", c.testResponder},
		{"flood and garble", c.testHostile},
		{"interfaces", c.testInterfaces},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, ctx) })
	}
}

func (c *cluster) testAsk(t *testing.T, ctx context.Context) {
	hosts, err := c.HostsByMAC(ctx)
	must(t, err)
	node1, node2 := addr.Node(1), addr.Node(2)
	mac, err := c.MAC(ctx, "node1", "eth0")
	must(t, err)
	both := []string{node1.IPv4.String(), node1.IPv6.String()}
	for name, options := range map[string]lab.AskOptions{
		"all":            {Addresses: append([]string{node2.IPv4.String(), node2.IPv6.String()}, both...)},
		"unicast":        {Addresses: both, Unicast: mac},
		"without option": {Addresses: both, NoOption: true},
		"probe":          {Addresses: both, Probe: true},
		"series":         {Addresses: both, Count: 20, Every: 5 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			options.Wait = 300 * time.Millisecond
			answers, err := c.Ask(ctx, lab.LAN, options)
			must(t, err)
			if len(answers) != len(options.Addresses) {
				t.Fatalf("%d answers", len(answers))
			}
			for _, a := range answers {
				want := "node1"
				if a.Address == node2.IPv4 || a.Address == node2.IPv6 {
					want = "node2"
				}
				least := max(1, options.Count/2) // some may be late on busy cores
				if len(a.MACs) != 1 || hosts[a.MACs[0]] != want || a.Answered < least || len(a.Latencies) != a.Answered {
					t.Errorf("want an answer of %s: %+v", want, a)
				}
			}
		})
	}
	nobody, err := c.Ask(ctx, lab.LAN, lab.AskOptions{Addresses: []string{addr.Layer2Pool, "2001:db8:2::2:0/122"}, Wait: 100 * time.Millisecond})
	must(t, err)
	if len(nobody) != 51+64 || slices.ContainsFunc(nobody, func(a lab.Answer) bool { return a.Replies > 0 || a.Asked != 1 }) {
		t.Errorf("answers from free addresses: %+v", nobody)
	}
}

// testNeighbors follows the kernel through neighbour unreachability detection:
// without TCP nothing but its unicast probes confirms an entry.
func (c *cluster) testNeighbors(t *testing.T, ctx context.Context) {
	must(t, c.SetNeighborTimes(ctx, lab.LAN, "eth0", lab.NeighborTimes{Reachable: time.Second, Delay: time.Second}))
	must(t, c.FlushNeighbors(ctx, lab.LAN))
	mac, err := c.MAC(ctx, "node1", "eth0")
	must(t, err)
	var watches []*lab.NeighborWatch
	for _, address := range []netip.Addr{addr.Node(1).IPv4, addr.Node(1).IPv6} {
		watch, err := c.WatchNeighbor(ctx, lab.LAN, address)
		must(t, err)
		watches = append(watches, watch)
		// No program listens there.
		load, err := c.StartLoad(ctx, lab.LAN, "udp://"+netip.AddrPortFrom(address, 9).String(), lab.LoadOptions{Rate: 10})
		must(t, err)
		defer func() {
			_, err := load.Stop()
			must(t, err)
		}()
	}
	short, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for _, watch := range watches {
		must(t, watch.WaitStates(short, lab.Reachable, lab.Probe, lab.Reachable))
		events, err := watch.Stop()
		must(t, err)
		for _, e := range events {
			if e.Interface != "eth0" || e.State == lab.Failed || e.State == lab.Reachable && e.MAC != mac {
				t.Errorf("%s, want %s", e, mac)
			}
		}
	}
	entry, err := c.Neighbor(ctx, lab.LAN, addr.Node(1).IPv4)
	must(t, err)
	if entry.MAC != mac || entry.Interface != "eth0" {
		t.Errorf("%s, want %s", entry, mac)
	}
	must(t, c.SetNeighborTimes(ctx, lab.LAN, "eth0", lab.NeighborTimes{Reachable: 30 * time.Second, Delay: 5 * time.Second}))
}

// testResponder: a host that uses addresses outside the LAN's subnet is found
// by requests, by the kernel, and by what it claims.
func (c *cluster) testResponder(t *testing.T, ctx context.Context) {
	const pool = "198.19.130.0/23"
	foreign, err := c.StartResponder(ctx, lab.Router, lab.RespondOptions{Addresses: []string{pool, "2001:db8:2::2:7"}, MAC: foreignMAC})
	must(t, err)
	answers, err := c.Ask(ctx, lab.LAN, lab.AskOptions{Addresses: []string{pool, "2001:db8:2::2:7"}})
	must(t, err)
	for _, a := range answers {
		if len(a.MACs) != 1 || a.MACs[0] != foreignMAC {
			t.Fatalf("%+v", a)
		}
	}
	if len(answers) != 513 {
		t.Errorf("%d answers", len(answers))
	}

	must(t, c.OnLink(ctx, lab.LAN, addr.ScalePool))
	_, err = c.On(ctx, lab.LAN, "sh", "-c", "ping -c 1 -W 1 198.19.130.9 || true")
	must(t, err)
	entry, err := c.Neighbor(ctx, lab.LAN, netip.MustParseAddr("198.19.130.9"))
	must(t, err)
	if entry.MAC != foreignMAC {
		t.Errorf("%s", entry)
	}

	second, err := c.StartResponder(ctx, "node2", lab.RespondOptions{Addresses: []string{"198.19.130.9"}, MAC: otherMAC})
	must(t, err)
	answers, err = c.Ask(ctx, lab.LAN, lab.AskOptions{Addresses: []string{"198.19.130.9"}})
	must(t, err)
	if want := []string{foreignMAC, otherMAC}; !slices.Equal(answers[0].MACs, want) {
		t.Errorf("answers of %q, want %q", answers[0].MACs, want)
	}

	heard, err := c.StartCapture(ctx, lab.LAN, lab.CaptureOptions{Claims: true})
	must(t, err)
	claims := 0
	for _, reply := range []bool{false, true} {
		claim, err := c.StartClaim(ctx, lab.Router, lab.ClaimOptions{Addresses: []string{pool, "2001:db8:2::2:7"}, MAC: foreignMAC, Reply: reply, Count: 2, Every: 10 * time.Millisecond})
		must(t, err)
		report, err := claim.Wait()
		must(t, err)
		claims += report.Sent
	}
	last := netip.MustParseAddr("2001:db8:2::2:7")
	seen := 0
	_, err = heard.Wait(ctx, "all claims", func(p *lab.Packet) bool {
		if p.TargetIP == last && p.Gratuitous() {
			seen++
		}
		return seen == 4
	})
	must(t, err)
	packets, err := heard.Stop()
	must(t, err)
	gratuitous := 0
	for _, p := range packets {
		if _, mac, _ := p.Claim(); p.Gratuitous() && mac == foreignMAC && !p.Sent {
			gratuitous++
		}
	}
	if gratuitous != claims || claims != 4*513 {
		t.Errorf("%d of %d gratuitous packets captured", gratuitous, claims)
	}
	for _, r := range []*lab.Traffic{foreign, second} {
		report, err := r.Stop()
		must(t, err)
		if report.Sent == 0 || report.Sent != report.Received || report.Dropped != 0 {
			t.Errorf("%+v", report)
		}
	}
}

// testHostile: kernels go on answering, and everything sent was counted.
func (c *cluster) testHostile(t *testing.T, ctx context.Context) {
	heard, err := c.StartCapture(ctx, "node1", lab.CaptureOptions{})
	must(t, err)
	garble, err := c.StartGarble(ctx, lab.Router, lab.GarbleOptions{
		Victims: []string{addr.Node(1).IPv4.String(), addr.Node(1).IPv6.String()}, Seed: 1, Rate: 2000, Duration: time.Second,
	})
	must(t, err)
	report, err := garble.Wait()
	must(t, err)
	if report.Sent < 500 || len(report.Kinds) < 20 {
		t.Errorf("garbled: %+v", report)
	}
	packets, err := heard.Stop()
	must(t, err)
	if n := slices.IndexFunc(packets, func(p lab.Packet) bool { return strings.HasPrefix(p.Malformed, "hop limit") }); n < 0 {
		t.Error("no packet with a wrong hop limit was captured")
	}

	flood, err := c.StartFlood(ctx, lab.LAN, lab.FloodOptions{Addresses: []string{"192.0.2.200-192.0.2.250"}, Rate: 20_000, Duration: time.Second})
	must(t, err)
	answers, err := c.Ask(ctx, lab.LAN, lab.AskOptions{Addresses: []string{"192.0.2.11", "192.0.2.12", "192.0.2.1", "2001:db8:2::11", "2001:db8:2::12"}, Every: 10 * time.Millisecond, Count: 10})
	must(t, err)
	for _, a := range answers {
		if a.Answered < a.Asked/2 || len(a.MACs) != 1 { // some may be late on busy cores
			t.Errorf("%+v", a)
		}
	}
	report, err = flood.Wait()
	must(t, err)
	if report.Sent < 1000 {
		t.Errorf("flooded: %+v", report)
	}
	t.Logf("sent %d requests in %s; answers while they came: %v", report.Sent, report.Took, answers[0].Latencies)
}

func (c *cluster) testInterfaces(t *testing.T, ctx context.Context) {
	plan := addr.Node(2)
	must(t, c.AddInterface(ctx, "node2", "eth1"))
	second, err := c.MAC(ctx, "node2", "eth1")
	must(t, err)
	// The addresses are known on both interfaces: Linux answers on either.
	answers, err := c.Ask(ctx, lab.LAN, lab.AskOptions{Addresses: []string{plan.SecondIPv4.String(), plan.SecondIPv6.String()}})
	must(t, err)
	for _, a := range answers {
		if !slices.Contains(a.MACs, second) {
			t.Errorf("%+v, want %s", a, second)
		}
	}
	if err := c.AddInterface(ctx, "node2", "eth2"); err == nil {
		t.Error("a third interface, for which the plan has no addresses")
	}

	before, err := c.MAC(ctx, "node1", "eth0")
	must(t, err)
	must(t, c.SetMAC(ctx, "node1", "eth0", otherMAC))
	answers, err = c.Ask(ctx, lab.LAN, lab.AskOptions{Addresses: []string{addr.Node(1).IPv4.String()}})
	must(t, err)
	if !slices.Equal(answers[0].MACs, []string{otherMAC}) {
		t.Errorf("%+v, want %s", answers[0], otherMAC)
	}
	hosts, err := c.HostsByMAC(ctx)
	must(t, err)
	if hosts[otherMAC] != "node1" || hosts[second] != "node2" || hosts[before] != "" {
		t.Errorf("hosts: %v", hosts)
	}
	must(t, c.SetMAC(ctx, "node1", "eth0", before))

	usage, err := c.ProgramUsage(ctx, "node1", "kubelet")
	must(t, err)
	if usage.CPU == 0 || usage.RSS < 1<<20 || usage.Starts == 0 {
		t.Errorf("the kubelet has taken %+v", usage)
	}
	if _, err := c.ProgramUsage(ctx, "node1", "nothing"); err == nil {
		t.Error("the usage of no program")
	}
}
