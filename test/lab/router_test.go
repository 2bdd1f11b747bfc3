package lab_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/addr"
)

// speakerConfig is what a node announces the service address with.
const speakerConfig = `
router id %s;
protocol device {}
protocol static { ipv4; route 203.0.113.1/32 blackhole; }
protocol static { ipv6; route 2001:db8:100::1/128 blackhole; }
protocol bgp uplink {
	local as %d;
	neighbor %s as %d;
	password "secret";
	hold time 3;
	connect delay time 1;
	connect retry time 1;
	ipv4 { import none; export all; next hop address %[1]s; };
	ipv6 { import none; export all; next hop address %[5]s; };
}
`

// TestRouter announces an address of two nodes to the router, loads it from
// behind the router, and cuts one of them off.
func TestRouter(t *testing.T) {
	for _, kind := range []string{lab.BIRD, lab.FRR} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			testRouter(t, kind)
		})
	}
}

func testRouter(t *testing.T, kind string) {
	l := lab.StartTest(t, lab.Config{
		Name: "test-" + kind, Nodes: 2,
		Router: lab.RouterConfig{Kind: kind, HoldTime: 3 * time.Second, Password: "secret"},
	})
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	var nodes []netip.Addr
	for n := 1; n <= 2; n++ {
		plan := addr.Node(n)
		nodes = append(nodes, plan.IPv4)
		file := filepath.Join(t.TempDir(), "bird.conf")
		config := fmt.Sprintf(speakerConfig, plan.IPv4, addr.NodeASN, addr.Router, addr.RouterASN, plan.IPv6)
		must(t, os.WriteFile(file, []byte(config), 0o644))
		for _, address := range []string{"203.0.113.1/32", "2001:db8:100::1/128"} {
			if _, err := l.On(ctx, plan.Name, "ip", "address", "add", address, "dev", "lo"); err != nil {
				t.Fatal(err)
			}
		}
		echo := lab.Command(ctx, filepath.Join(l.Dir, "labctl"), "echo", "--listen=:8080")
		echo.Env = append(os.Environ(), "NODE_NAME="+plan.Name)
		must(t, l.StartOn(ctx, plan.Name, echo))
		t.Cleanup(func() { _ = echo.Wait() })
		bird := lab.Command(ctx, "/usr/sbin/bird", "-f", "-c", file, "-s", "/run/speaker.ctl")
		must(t, l.StartOn(ctx, plan.Name, bird))
		t.Cleanup(func() { _ = bird.Wait() })
	}
	t.Cleanup(cancel)
	must(t, waitNextHops(ctx, l, "203.0.113.1", nodes))
	// The session names a link-local next hop too, which some routers prefer.
	must(t, l.WaitFor(ctx, "IPv6 routes", func(ctx context.Context) (bool, error) {
		got, err := l.NextHops(ctx, "2001:db8:100::1")
		return len(got) == len(nodes), err
	}))

	stream, err := l.StartLoad(ctx, lab.LAN, "http://203.0.113.1:8080/stream", lab.LoadOptions{Stream: true, Timeout: 10 * time.Second})
	must(t, err)
	load, err := l.StartLoad(ctx, lab.Client, "http://203.0.113.1:8080/", lab.LoadOptions{Rate: 100})
	must(t, err)
	must(t, load.Wait(ctx, func(r lab.LoadReport) bool { return r.OK >= 100 }))
	if r := load.Report(); r.Failed > 0 || len(r.Nodes) != 2 {
		t.Errorf("before the cut: %s", r)
	}
	must(t, l.Cut(ctx, "node2"))
	must(t, waitNextHops(ctx, l, "203.0.113.1", nodes[:1]))
	cutOff := load.Report()
	must(t, load.Wait(ctx, func(r lab.LoadReport) bool { return r.OK >= cutOff.OK+200 }))
	report, err := load.Stop()
	must(t, err)
	t.Logf("%s: %s", kind, report)
	if report.Failed == 0 {
		t.Error("the cut has cost nothing")
	}
	streamed, err := stream.Stop()
	must(t, err)
	if streamed.OK < 10 {
		t.Errorf("stream: %s", streamed)
	}
}

func waitNextHops(ctx context.Context, l *lab.Lab, address string, want []netip.Addr) error {
	return l.WaitFor(ctx, "routes to "+address, func(ctx context.Context) (bool, error) {
		got, err := l.NextHops(ctx, address)
		if err == nil && !slices.Equal(got, want) {
			err = fmt.Errorf("next hops are %v, want %v", got, want)
		}
		return err == nil, err
	})
}
