package lab_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/addr"
)

// answered counts the answers that a host gets to ARP requests for an address.
func (c *cluster) answered(t *testing.T, ctx context.Context, host, address string, count int) int {
	t.Helper()
	answers, err := c.Ask(ctx, host, lab.AskOptions{Addresses: []string{address}, Count: count, Every: 5 * time.Millisecond, Wait: 300 * time.Millisecond})
	must(t, err)
	return answers[0].Answered
}

func (c *cluster) testDrop(t *testing.T, ctx context.Context) {
	node1, node2 := addr.Node(1).IPv4.String(), addr.Node(2).IPv4.String()
	heard, err := c.StartCapture(ctx, "node2", lab.CaptureOptions{})
	must(t, err)
	must(t, c.Drop(ctx, "node2", "node1"))
	if n := c.answered(t, ctx, "node1", node2, 5); n != 0 {
		t.Errorf("%d answers came through", n)
	}
	// The requests did, and others are not concerned.
	_, err = heard.Wait(ctx, "node1 asks", func(p *lab.Packet) bool {
		return p.Kind == "arp-request" && p.SenderIP == addr.Node(1).IPv4 && p.TargetIP == addr.Node(2).IPv4
	})
	must(t, err)
	for _, address := range []string{node1, node2} {
		if n := c.answered(t, ctx, lab.LAN, address, 5); n == 0 { // some may be late on busy cores
			t.Errorf("%d of 5 answers of %s to the LAN client", n, address)
		}
	}
	must(t, c.Heal(ctx))
	if n := c.answered(t, ctx, "node1", node2, 5); n == 0 { // some may be late on busy cores
		t.Errorf("%d of 5 answers after the end", n)
	}
	if _, err := heard.Stop(); err != nil {
		t.Error(err)
	}
	if err := c.Drop(ctx, "node1", lab.Client); err == nil {
		t.Error("frames to the far client, which is not on the LAN, are dropped")
	}
}

// testPart cuts a node off the API server and from nobody else.
func (c *cluster) testPart(t *testing.T, ctx context.Context) {
	must(t, c.Part(ctx, []string{"node1"}, []string{lab.ControlPlane}))
	must(t, c.WaitNodeNotReady(ctx, "node1"))
	for _, host := range []string{"node2", lab.LAN, lab.Router} {
		if n := c.answered(t, ctx, host, addr.Node(1).IPv4.String(), 5); n == 0 { // some may be late on busy cores
			t.Errorf("%d of 5 answers to %s", n, host)
		}
	}
	must(t, c.Heal(ctx))
	must(t, c.WaitNodeReady(ctx, "node1"))
}

func (c *cluster) testLoss(t *testing.T, ctx context.Context) {
	const count = 100
	for _, test := range []struct {
		percent     float64
		least, most int // many standard deviations away, and some are late on busy cores
	}{{100, 0, 0}, {50, 5, 50}, {0, 75, count}} {
		must(t, c.SetLoss(ctx, test.percent))
		if n := c.answered(t, ctx, lab.LAN, addr.Node(1).IPv4.String(), count); n < test.least || n > test.most {
			t.Errorf("%d of %d answers with %g %% of loss", n, count, test.percent)
		}
	}
	if err := c.SetLoss(ctx, 101); err == nil {
		t.Error("a loss of 101 %")
	}
}

// testCable pulls the cable of the second interface that the node has by now.
func (c *cluster) testCable(t *testing.T, ctx context.Context) {
	carrier := func(iface string) string {
		out, err := c.On(ctx, "node2", "cat", "/sys/class/net/"+iface+"/carrier")
		must(t, err)
		return strings.TrimSpace(out)
	}
	must(t, c.CutCarrierOf(ctx, "node2", "eth1"))
	if carrier("eth0") != "1" || carrier("eth1") != "0" {
		t.Errorf("carrier of eth0 %s, of eth1 %s", carrier("eth0"), carrier("eth1"))
	}
	must(t, c.Restore(ctx, "node2"))
	must(t, c.WaitFor(ctx, "eth1 is back", func(context.Context) (bool, error) { return carrier("eth1") == "1", nil }))
	if err := c.CutCarrierOf(ctx, "node2", "eth7"); err == nil {
		t.Error("the cable of an interface that is not there")
	}
}

const busy = `
apiVersion: v1
kind: Pod
metadata: {name: busy}
spec:
  nodeName: node2
  restartPolicy: Never
  terminationGracePeriodSeconds: 2
  containers:
  - name: busy
    image: lab-echo
    command: [sh, -c, "trap 'touch /state/told; exit' TERM; while :; do :; done"]
    volumeMounts: [{name: state, mountPath: /state}]
  volumes: [{name: state, hostPath: {path: /var/lib/busy, type: DirectoryOrCreate}}]
`

// testQuota bounds a program that takes all it can get.
func (c *cluster) testQuota(t *testing.T, ctx context.Context) {
	_, err := c.KubectlStdin(ctx, strings.NewReader(busy), "apply", "-f", "-")
	must(t, err)
	const node, program, quota = "node2", "busy", 0.05
	cpu := func(ctx context.Context) (time.Duration, error) {
		usage, err := c.ProgramUsage(ctx, node, program)
		return usage.CPU, err
	}
	must(t, c.WaitFor(ctx, "it takes what it can get", func(ctx context.Context) (bool, error) {
		used, err := cpu(ctx)
		return used > 300*time.Millisecond, err
	}))
	must(t, c.SetQuota(ctx, node, program, quota))
	periods := func(n int) time.Duration {
		var used time.Duration
		must(t, c.WaitFor(ctx, fmt.Sprintf("%d periods", n), func(ctx context.Context) (bool, error) {
			text, err := c.On(ctx, node, "sh", "-c", "cat /sys/fs/cgroup/baremetal-lab."+c.Name+".*/cpu.stat /sys/fs/cgroup/cpu/baremetal-lab."+c.Name+".*/cpu.stat 2>/dev/null; true")
			if err != nil {
				return false, err
			}
			_, rest, _ := strings.Cut(text, "nr_throttled ")
			line, _, _ := strings.Cut(rest, "\n")
			throttled, err := strconv.Atoi(line)
			if err != nil || throttled < n {
				return false, fmt.Errorf("%q, %w", text, err)
			}
			used, err = cpu(ctx)
			return err == nil, err
		}))
		return used
	}
	first, began := periods(2), time.Now()
	last, took := periods(12), time.Since(began)
	// Times are read in hundredths of a second, and a period earlier or later.
	if used, most := last-first, time.Duration(2*quota*float64(took))+20*time.Millisecond; used > most {
		t.Errorf("it took %s of CPU in %s", used, took)
	}
	must(t, c.SetQuota(ctx, node, program, 0))
	before, err := cpu(ctx)
	must(t, err)
	must(t, c.WaitFor(ctx, "it takes what it can get again", func(ctx context.Context) (bool, error) {
		used, err := cpu(ctx)
		return used > before+300*time.Millisecond, err
	}))
}

// testShutdown tells the containers, and takes the power away.
func (c *cluster) testShutdown(t *testing.T, ctx context.Context) {
	must(t, c.Shutdown(ctx, "node2"))
	if _, err := c.On(ctx, "node2", "true"); !errors.Is(err, lab.ErrHostOff) {
		t.Errorf("the node: %v", err)
	}
	must(t, c.PowerOn(ctx, "node2"))
	if _, err := c.On(ctx, "node2", "test", "-e", "/var/lib/busy/told"); err != nil {
		t.Errorf("its containers were not told: %v", err)
	}
	must(t, c.client.CoreV1().Pods("default").Delete(ctx, "busy", metav1.DeleteOptions{}))
	must(t, c.WaitNodeReady(ctx, "node2"))
	must(t, c.WaitPodsReady(ctx, "default", "app=agent", 2))
	must(t, c.WaitPodsReady(ctx, "default", "app=web", 2))
}

func (c *cluster) testProxyHealth(t *testing.T, ctx context.Context) {
	status := func(node string) string {
		out, err := c.On(ctx, node, "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "http://127.0.0.1:10256/healthz")
		must(t, err)
		return out
	}
	must(t, c.FailProxyHealth(ctx, "node1"))
	if one, two := status("node1"), status("node2"); one != "503" || two != "200" {
		t.Errorf("node1 answers %s, node2 %s", one, two)
	}
	must(t, c.RestoreProxyHealth(ctx, "node1"))
	if one := status("node1"); one != "200" {
		t.Errorf("node1 answers %s afterwards", one)
	}
}

// testSaturate keeps the machine busy for a moment.
func (c *cluster) testSaturate(t *testing.T, ctx context.Context) {
	stop, err := c.Saturate(ctx, lab.LAN)
	must(t, err)
	loops := func() int {
		out, _ := c.On(ctx, lab.LAN, "pgrep", "-c", "-f", "while :; do :; done") // no match is an error
		n, err := strconv.Atoi(strings.TrimSpace(out))
		must(t, err)
		return n
	}
	if n := loops(); n == 0 {
		t.Error("nothing runs")
	}
	stop()
	if n := loops(); n != 0 {
		t.Errorf("%d run after the end", n)
	}
}

// leftGroups are the control groups that labs of a name have left.
func leftGroups(t *testing.T, name string) []string {
	t.Helper()
	var all []string
	for _, dir := range []string{"", "cpu"} {
		found, err := filepath.Glob(filepath.Join("/sys/fs/cgroup", dir, "baremetal-lab."+name+".*"))
		must(t, err)
		all = append(all, found...)
	}
	return all
}
