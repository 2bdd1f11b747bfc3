package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/cluster"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab"
)

const (
	timeVariable = "CHAOS_TIME"
	seedVariable = "CHAOS_SEED"

	defaultTime = 3 * time.Minute
	// healTime is how long all may take to be as it should be, after the last
	// change and the last fault.
	healTime = 30 * time.Second

	ccm     = "baremetal-cloud-controller-manager"
	speaker = v1alpha1.SpeakerPodName
)

// TestChaos changes everything and breaks everything for a while. No invariant
// may be violated meanwhile, and a Service that nobody touches must not notice;
// afterwards all heals, and when the Services go nothing is left of them.
func TestChaos(t *testing.T) {
	duration, seed := parameters(t)
	t.Logf("%s=%d %s=%s", seedVariable, seed, timeVariable, duration)
	rest.SetDefaultWarningHandler(rest.NoWarnings{}) // of deprecated fields, which users have
	// After an absence of the API server Kubernetes must not take nodes for dead:
	// that is another test's.
	c := cluster.StartTest(t, lab.Config{Name: "chaos", Nodes: 3, NodeGrace: 20 * time.Second})
	c.CheckInvariants(t)
	c.Apply(t, cluster.Peer)

	load := startStable(t, c)
	users := newUsers(t, c, rand.New(rand.NewPCG(seed, 1)))
	breaker := newBreaker(t, c, rand.New(rand.NewPCG(seed, 2)))
	ctx, cancel := context.WithTimeout(t.Context(), duration)
	defer cancel()
	var group errgroup.Group
	group.Go(func() error { return users.run(ctx) })
	group.Go(func() error { return breaker.run(ctx) })
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
	users.log(t)
	breaker.log(t)

	breaker.heal(t)
	users.heal(t)
	waitQuiet(t, c, "all heals")
	stopStable(t, c, load)
	users.deleteAll(t)
	waitQuiet(t, c, "nothing is left of the Services")
	checkEmpty(t, c)
}

func parameters(t *testing.T) (duration time.Duration, seed uint64) {
	t.Helper()
	duration, seed = defaultTime, rand.Uint64()>>32
	var err error
	if text := os.Getenv(timeVariable); text != "" {
		if duration, err = time.ParseDuration(text); err != nil {
			t.Fatalf("%s: %v", timeVariable, err)
		}
	}
	if text := os.Getenv(seedVariable); text != "" {
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("%s: %v", seedVariable, err)
		}
	}
	return duration, seed
}

const stableAddress = "203.0.113.240"

const stablePool = `
apiVersion: lb.baremetal.dev/v1alpha1
kind: AddressPool
metadata: {name: stable}
spec: {addresses: ["` + stableAddress + `"], autoAssign: false}
`

// startStable starts the Service that nobody touches, with a load from behind
// the router. Its traffic goes to one node, so that changes of other nodes do not
// make the router spread it anew.
func startStable(t *testing.T, c *cluster.Cluster) *lab.Load {
	t.Helper()
	c.Apply(t, stablePool)
	c.Deploy(t, "stable", 1, stableNode)
	c.Apply(t, strings.Replace(cluster.Service("stable", "externalTrafficPolicy: Local"), "metadata: {name: stable}",
		"metadata: {name: stable, annotations: {lb.baremetal.dev/pool: stable}}", 1))
	address := c.Address(t, "stable")
	c.WaitNextHops(t, address, stableNode)
	settle(t, c, address)
	url := "http://" + address + "/"
	err := c.WaitFor(cluster.Context(t), url+" answers", func(ctx context.Context) (bool, error) {
		out, err := c.On(ctx, lab.Client, "curl", "-sS", "--max-time", "1", url)
		return strings.Contains(out, "pod="), err
	})
	if err != nil {
		t.Fatal(err)
	}
	load, err := c.StartLoad(cluster.Context(t), lab.Client, url, lab.LoadOptions{Rate: 20, Timeout: 3 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return load
}

// settle waits until kube-proxy has its rules for the address on all nodes. A
// request that comes before them loops between router and node, and leaves entries
// of connection tracking behind that break a later one from the same port.
func settle(t *testing.T, c *cluster.Cluster, address string) {
	t.Helper()
	for _, node := range append(otherNodes, stableNode) {
		err := c.WaitFor(cluster.Context(t), "kube-proxy on "+node+" forwards "+address, func(ctx context.Context) (bool, error) {
			rules, err := c.On(ctx, node, "nft", "list", "map", "ip", "kube-proxy", "service-ips")
			return strings.Contains(rules, address+" . tcp . 80"), err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func stopStable(t *testing.T, c *cluster.Cluster, load *lab.Load) {
	t.Helper()
	report, err := load.Stop()
	if err != nil {
		t.Error(err)
	}
	if report.Failed > 0 || report.OK == 0 {
		t.Errorf("requests to the Service that nobody touched: %s", report)
		for _, e := range c.Invariants.History("Service default/stable", "address "+stableAddress, "Node "+stableNode) {
			t.Log(e)
		}
		return
	}
	t.Logf("requests to the Service that nobody touched: %s", report)
}

// waitQuiet waits until no invariant is violated, not even for a moment, for a
// second.
func waitQuiet(t *testing.T, c *cluster.Cluster, what string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), healTime)
	defer cancel()
	began, since := time.Now(), time.Time{}
	err := c.WaitFor(ctx, what, func(context.Context) (bool, error) {
		open := c.Invariants.Open()
		if len(open) > 0 {
			since = time.Time{}
			return false, fmt.Errorf("%d findings are left: %v", len(open), open)
		}
		if since.IsZero() {
			since = time.Now()
		}
		return time.Since(since) > time.Second, nil
	})
	if err != nil {
		t.Error(err)
		return
	}
	t.Logf("%s: %s", what, time.Since(began).Round(100*time.Millisecond))
}

// checkEmpty asks the API once more, and not the checker, that nothing is left.
func checkEmpty(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	ctx := cluster.Context(t)
	nodes, err := c.Client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes.Items {
		program, err := announce.Decode(n.Annotations[v1alpha1.NodeAnnouncements])
		if err != nil {
			t.Errorf("program of %s: %v", n.Name, err)
		}
		if len(program.Groups) > 0 {
			t.Errorf("the program of %s has %d groups left", n.Name, len(program.Groups))
		}
	}
	allocated, err := c.Kubectl(ctx, "get", "addresspools", "-o", `jsonpath={range .items[*]}{.metadata.name}={.status.allocated} {end}`)
	if err != nil {
		t.Fatal(err)
	}
	for entry := range strings.FieldsSeq(allocated) {
		if !strings.HasSuffix(entry, "=0") {
			t.Errorf("allocated addresses: %s", entry)
		}
	}
	routes, err := c.Birdc(ctx, "show", "route", "where", "source", "=", "RTS_BGP")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(routes) {
		if strings.Contains(line, "203.0.113.") || strings.Contains(line, "2001:db8:100:") {
			t.Errorf("the router has a route left: %s", line)
		}
	}
}

// pause waits, and reports false when the context ends first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// between is a random duration.
func between(rng *rand.Rand, from, to time.Duration) time.Duration {
	return from + time.Duration(rng.Int64N(int64(to-from)))
}

// pick is a random element.
func pick[T any](rng *rand.Rand, values []T) T { return values[rng.IntN(len(values))] }

// weighted is an entry of a table of things to do.
type weighted interface{ weight() int }

// choose picks an entry by its weight.
func choose[T weighted](rng *rand.Rand, table []T) T {
	sum := 0
	for _, entry := range table {
		sum += entry.weight()
	}
	at := rng.IntN(sum)
	for _, entry := range table {
		if at -= entry.weight(); at < 0 {
			return entry
		}
	}
	panic("weights do not sum up")
}

// tally counts what was done, and how often it failed.
type tally map[string]*[2]int

func (c tally) add(name string, err error) {
	if c[name] == nil {
		c[name] = new([2]int)
	}
	c[name][0]++
	if err != nil {
		c[name][1]++
	}
}

func (c tally) String() string {
	var parts []string
	for name, n := range c {
		part := fmt.Sprintf("%s %d", name, n[0])
		if n[1] > 0 {
			part += fmt.Sprintf(" (%d failed)", n[1])
		}
		parts = append(parts, part)
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}
