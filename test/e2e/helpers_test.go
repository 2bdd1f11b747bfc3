package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/cluster"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab"
)

// get fails the test unless the address answers from behind the router, with
// the client's own address kept or not.
func get(t *testing.T, c *cluster.Cluster, address string) string {
	t.Helper()
	settle(t, c, address)
	var answer string
	err := c.WaitFor(cluster.Context(t), address+" answers behind the router", func(ctx context.Context) (bool, error) {
		out, err := c.On(ctx, lab.Client, "curl", "-sS", "--max-time", "1", "http://"+address+"/")
		answer = out
		return err == nil, err
	})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(answer, "pod=") {
		t.Errorf("answer %q", answer)
	}
	return answer
}

// loads are requests and open connections, from behind the router.
type loads map[string]*lab.Load

func startLoads(t *testing.T, c *cluster.Cluster, addresses ...string) loads {
	t.Helper()
	l := make(loads)
	for _, address := range addresses {
		settle(t, c, address)
		for kind, options := range map[string]lab.LoadOptions{
			"/":       {Rate: 50, Timeout: 2 * time.Second},
			"/stream": {Stream: true, Timeout: 2 * time.Second},
		} {
			url := "http://" + address + kind
			load, err := c.StartLoad(cluster.Context(t), lab.Client, url, options)
			if err != nil {
				t.Fatal(err)
			}
			l[url] = load
		}
	}
	for url, load := range l {
		if err := load.Wait(cluster.Context(t), func(r lab.LoadReport) bool { return r.OK >= 5 }); err != nil {
			t.Fatalf("%s: %v", url, err)
		}
	}
	return l
}

// settle waits until kube-proxy has its rules for the address on all nodes.
// Routes come faster. It sends nothing: what arrives before the rules loops
// between router and node, and leaves connection-tracking entries behind that
// break later connections from the same port.
func settle(t *testing.T, c *cluster.Cluster, address string) {
	t.Helper()
	nodes, err := c.Client.CoreV1().Nodes().List(cluster.Context(t), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, node := range nodes.Items {
		err := c.WaitFor(cluster.Context(t), "kube-proxy on "+node.Name+" forwards "+address, func(ctx context.Context) (bool, error) {
			rules, err := c.On(ctx, node.Name, "nft", "list", "map", "ip", "kube-proxy", "service-ips")
			return strings.Contains(rules, address+" . tcp . 80"), err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// observe lets the loads run for a while; it ends early when one fails.
func observe(t *testing.T, l loads, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	for _, load := range l {
		_ = load.Wait(ctx, func(r lab.LoadReport) bool { return r.Failed > 0 }) // the end of ctx is what we want
	}
}

// stop ends the loads, and fails the test if any request failed.
func (l loads) stop(t *testing.T) {
	t.Helper()
	for url, load := range l {
		report, err := load.Stop()
		if err != nil {
			t.Errorf("%s: %v", url, err)
		}
		if report.Failed > 0 || report.OK == 0 {
			t.Errorf("%s: %s", url, report)
		}
		t.Logf("%s: %s", url, report)
	}
}

// waitPool waits until the pool "main" says how many addresses are allocated.
func waitPool(t *testing.T, c *cluster.Cluster, allocated string) {
	t.Helper()
	err := c.WaitFor(cluster.Context(t), "pool main has allocated "+allocated, func(ctx context.Context) (bool, error) {
		got, err := c.Kubectl(ctx, "get", "addresspool", "main", "-o", "jsonpath={.status.allocated}")
		if err != nil {
			return false, err
		}
		if got != allocated {
			return false, fmt.Errorf("it says %q", got)
		}
		return true, nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// waitEvent waits for a warning about a Service that has the text.
func waitEvent(t *testing.T, c *cluster.Cluster, service, text string) {
	t.Helper()
	err := c.WaitFor(cluster.Context(t), fmt.Sprintf("an Event of %s says %q", service, text), func(ctx context.Context) (bool, error) {
		events, err := c.Client.CoreV1().Events("default").List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=" + service})
		if err != nil {
			return false, err
		}
		var said []string
		for _, e := range events.Items {
			if e.Type == corev1.EventTypeWarning && strings.Contains(e.Message, text) {
				return true, nil
			}
			said = append(said, e.Message)
		}
		return false, fmt.Errorf("they say %q", said)
	})
	if err != nil {
		t.Error(err)
	}
}

// waitEstablished waits until n sessions of the peer "tor" are established, as
// the router sees it.
func waitEstablished(t *testing.T, c *cluster.Cluster, n int) {
	t.Helper()
	err := c.WaitFor(cluster.Context(t), fmt.Sprintf("%d sessions are established", n), func(ctx context.Context) (bool, error) {
		out, err := c.Birdc(ctx, "show", "protocols")
		if err != nil {
			return false, err
		}
		if got := strings.Count(out, "Established"); got != n {
			return false, fmt.Errorf("%d are:\n%s", got, out)
		}
		return true, nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func waitPodReady(t *testing.T, c *cluster.Cluster, name string) {
	t.Helper()
	err := c.WaitFor(cluster.Context(t), "Pod "+name+" is ready", func(ctx context.Context) (bool, error) {
		pod, err := c.Client.CoreV1().Pods(v1alpha1.DefaultNamespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		for _, condition := range pod.Status.Conditions {
			if condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue {
				return true, nil
			}
		}
		return false, fmt.Errorf("it is %s", pod.Status.Phase)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// waitPeer waits until the Ready condition of the peer "tor" says the text.
func waitPeer(t *testing.T, c *cluster.Cluster, text string) {
	t.Helper()
	err := c.WaitFor(cluster.Context(t), fmt.Sprintf("BGPPeer tor says %q", text), func(ctx context.Context) (bool, error) {
		says, err := c.Kubectl(ctx, "get", "bgppeer", "tor", "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].message}`)
		if err != nil {
			return false, err
		}
		if !strings.Contains(says, text) {
			return false, fmt.Errorf("it says %q", says)
		}
		return true, nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
