package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/cluster"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/addr"
)

// foreignMAC is that of a host that is not of the cluster: one of the addresses
// for documentation (RFC 7042 section 2.1.2).
const foreignMAC = "00:00:5e:00:53:01"

// lanPool has addresses of the LAN itself.
var lanPool = cluster.Layer2Pool("lan", addr.Layer2Pool+", "+`"`+addr.Layer2PoolV6+`"`)

// scalePool is outside of the LAN's subnet: clients need a route to it that
// says it is on their link.
var scalePool = cluster.Layer2Pool("scale", addr.ScalePool, "layer2: {interfaces: [eth0]}")

// getLAN fails the test unless the address answers to a host, when kube-proxy
// has its rules for it.
func getLAN(t *testing.T, c *cluster.Cluster, host, address string) {
	t.Helper()
	settleLAN(t, c, address)
	err := c.WaitFor(cluster.Context(t), address+" answers "+host, func(ctx context.Context) (bool, error) {
		out, err := c.On(ctx, host, "curl", "-sS", "-g", "--max-time", "1", lanURL(address))
		if err == nil && !strings.Contains(out, "pod=") {
			err = fmt.Errorf("it answers %q", out)
		}
		return err == nil, err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func lanURL(address string) string {
	return "http://" + netip.AddrPortFrom(netip.MustParseAddr(address), 80).String() + "/"
}

// settleLAN is settle for addresses of both families.
func settleLAN(t *testing.T, c *cluster.Cluster, address string) {
	t.Helper()
	family := "ip"
	if netip.MustParseAddr(address).Is6() {
		family = "ip6"
	}
	for _, node := range []string{"node1", "node2", "node3"} {
		err := c.WaitFor(cluster.Context(t), "kube-proxy on "+node+" forwards "+address, func(ctx context.Context) (bool, error) {
			rules, err := c.On(ctx, node, "nft", "list", "map", family, "kube-proxy", "service-ips")
			return strings.Contains(rules, address+" . "), err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// lanLoad starts a load from the LAN client, and waits until it works.
func lanLoad(t *testing.T, c *cluster.Cluster, url string, options lab.LoadOptions) *lab.Load {
	t.Helper()
	load, err := c.StartLoad(cluster.Context(t), lab.LAN, url, options)
	if err != nil {
		t.Fatal(err)
	}
	if err := load.Wait(cluster.Context(t), func(r lab.LoadReport) bool { return r.OK >= 2 }); err != nil {
		t.Fatalf("%s: %v", url, err)
	}
	return load
}

// bulk creates Services from number first to before end in a pool and returns
// the addresses of all up to end. They have no node ports, of which there are
// too few for thousands, and no endpoints.
func bulk(t *testing.T, c *cluster.Cluster, pool string, first, end int) []string {
	t.Helper()
	group, ctx := errgroup.WithContext(cluster.Context(t))
	group.SetLimit(16)
	for i := first; i < end; i++ {
		group.Go(func() error {
			_, err := c.Client.CoreV1().Services("default").Create(ctx, &corev1.Service{
				ObjectMeta: metav1.ObjectMeta{
					Name: fmt.Sprintf("bulk-%05d", i), Namespace: "default",
					Labels:      map[string]string{"app": "bulk"},
					Annotations: map[string]string{v1alpha1.ServicePool: pool},
				},
				Spec: corev1.ServiceSpec{
					Type: corev1.ServiceTypeLoadBalancer, AllocateLoadBalancerNodePorts: ptr.To(false),
					Ports: []corev1.ServicePort{{Port: 80}},
				},
			}, metav1.CreateOptions{})
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	var addresses []string
	err := c.WaitFor(cluster.Context(t), fmt.Sprintf("%d Services have addresses", end), func(ctx context.Context) (bool, error) {
		services, err := c.Client.CoreV1().Services("default").List(ctx, metav1.ListOptions{LabelSelector: "app=bulk"})
		if err != nil {
			return false, err
		}
		addresses = nil
		for _, svc := range services.Items {
			for _, ingress := range svc.Status.LoadBalancer.Ingress {
				addresses = append(addresses, ingress.IP)
			}
		}
		if len(addresses) != end {
			return false, fmt.Errorf("%d have", len(addresses))
		}
		return true, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(addresses)
	return addresses
}

// spread is bulk in the pool lan, with owners on all three nodes. After an outage of
// the API server Kubernetes takes a node for NotReady now and then; what is
// created meanwhile goes to the others, and stays there.
func spread(t *testing.T, c *cluster.Cluster, n int) (addresses []string, owners map[string]string) {
	t.Helper()
	for range 5 {
		for _, node := range []string{"node1", "node2", "node3"} {
			if err := c.WaitNodeReady(cluster.Context(t), node); err != nil {
				t.Fatal(err)
			}
			waitPodReady(t, c, c.Pod(t, speaker, node))
		}
		addresses = bulk(t, c, "lan", 0, n)
		owners = c.WaitOwners(t, addresses, nil)
		if even(3)(owners) == nil {
			return addresses, owners
		}
		deleteBulk(t, c)
	}
	t.Fatalf("the owners are not spread: %v", cluster.CountByNode(owners))
	return nil, nil
}

// deleteBulk deletes what bulk created and waits until it is gone. kubectl would
// take its time.
// deleteBulk deletes them, many at a time, which kubectl cannot, and waits until
// they are gone.
func deleteBulk(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	ctx, services := cluster.Context(t), c.Client.CoreV1().Services("default")
	list, err := services.List(ctx, metav1.ListOptions{LabelSelector: "app=bulk"})
	if err != nil {
		t.Fatal(err)
	}
	group, deleting := errgroup.WithContext(ctx)
	group.SetLimit(16)
	for _, svc := range list.Items {
		group.Go(func() error { return services.Delete(deleting, svc.Name, metav1.DeleteOptions{}) })
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	err = c.WaitFor(ctx, "the Services are gone", func(ctx context.Context) (bool, error) {
		list, err := services.List(ctx, metav1.ListOptions{LabelSelector: "app=bulk"})
		if err != nil {
			return false, err
		}
		if n := len(list.Items); n > 0 {
			return false, fmt.Errorf("%d are left", n)
		}
		return true, nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// even is against owners unless they are n nodes with equal numbers of addresses,
// but for one more or less.
func even(n int) func(map[string]string) error {
	return func(owners map[string]string) error {
		counts := cluster.CountByNode(owners)
		for _, count := range counts {
			if len(counts) != n || count < len(owners)/n-1 || count > (len(owners)+n-1)/n+1 {
				return fmt.Errorf("%v is not even over %d nodes", counts, n)
			}
		}
		return nil
	}
}

// ownedBy are the addresses of one owner, sorted.
func ownedBy(owners map[string]string, node string) []string {
	var addresses []string
	for address, owner := range owners {
		if owner == node {
			addresses = append(addresses, address)
		}
	}
	slices.Sort(addresses)
	return addresses
}

// never fails the test if a packet that is not wanted is captured within d.
func never(t *testing.T, heard *lab.Capture, d time.Duration, what string, unwanted func(*lab.Packet) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	p, err := heard.Wait(ctx, what, unwanted)
	switch {
	case err == nil:
		t.Errorf("%s: %s", what, p)
	case !errors.Is(err, context.DeadlineExceeded):
		t.Error(err)
	}
}

// capture listens on the LAN client for claims until the test ends.
func capture(t *testing.T, c *cluster.Cluster) *lab.Capture {
	t.Helper()
	heard, err := c.StartCapture(cluster.Context(t), lab.LAN, lab.CaptureOptions{Claims: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := heard.Stop(); err != nil {
			t.Error(err)
		}
	})
	return heard
}

// claimOf tells whether a packet claims one of these addresses for a MAC
// address.
func claimOf(mac string, addresses ...string) func(*lab.Packet) bool {
	return func(p *lab.Packet) bool {
		address, claimed, ok := p.Claim()
		return ok && claimed == mac && slices.Contains(addresses, address.String())
	}
}

// respond makes a foreign host on the router's port of the LAN use addresses.
func respond(t *testing.T, c *cluster.Cluster, addresses ...string) *lab.Traffic {
	t.Helper()
	foreign, err := c.StartResponder(cluster.Context(t), lab.Router, lab.RespondOptions{Addresses: addresses, MAC: foreignMAC})
	if err != nil {
		t.Fatal(err)
	}
	return foreign
}

// waitEnd waits until traffic has ended, and logs what came of it.
func waitEnd(t *testing.T, what string, traffic *lab.Traffic) {
	t.Helper()
	report, err := traffic.Wait()
	if err != nil || report.Sent == 0 {
		t.Errorf("%s: %+v, %v", what, report, err)
	}
	t.Logf("%s: sent %d frames in %s", what, report.Sent, report.Took.Round(time.Millisecond))
}

// speakerRestarts counts the restarts of all speakers.
func speakerRestarts(t *testing.T, c *cluster.Cluster) int {
	t.Helper()
	restarts := 0
	for _, pod := range c.Pods(t, speaker) {
		for _, s := range pod.Status.ContainerStatuses {
			restarts += int(s.RestartCount)
		}
	}
	return restarts
}

// waitRunning waits until the speaker's process is there; its Pod cannot tell
// while the API server is away.
func waitRunning(t *testing.T, c *cluster.Cluster, node string) {
	t.Helper()
	err := c.WaitFor(cluster.Context(t), "the speaker on "+node+" runs", func(ctx context.Context) (bool, error) {
		_, err := c.ProgramUsage(ctx, node, speaker)
		return err == nil, err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// powerOn boots a node and waits for its speaker.
func powerOn(t *testing.T, c *cluster.Cluster, node string) {
	t.Helper()
	if err := c.PowerOn(cluster.Context(t), node); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitNodeReady(cluster.Context(t), node); err != nil {
		t.Fatal(err)
	}
	waitPodReady(t, c, c.Pod(t, speaker, node))
}
