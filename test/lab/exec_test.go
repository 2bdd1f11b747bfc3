package lab_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab"
)

func (c *cluster) testExec(t *testing.T, ctx context.Context) {
	pod := c.pods(t, ctx, "app=web")[0]
	out, err := c.Kubectl(ctx, "exec", pod.Name, "--", "/bin/sh", "-c", "echo $(id -u) $(hostname) $NODE_NAME; grep CapBnd /proc/self/status; exit 3")
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Errorf("want exit status 3: %v", err)
	}
	if want := "65532 " + pod.Name + " " + pod.Spec.NodeName + "\nCapBnd:\t0000000000000000\n"; out != want {
		t.Errorf("got %q, want %q: user, names and capabilities of the container", out, want)
	}
	out, err = c.KubectlStdin(ctx, strings.NewReader("over there"), "exec", "-i", pod.Name, "--", "cat")
	if err != nil || out != "over there" {
		t.Errorf("standard input: got %q, %v", out, err)
	}
	if _, err := c.Kubectl(ctx, "exec", pod.Name, "--", "no-such-program"); err == nil || !strings.Contains(err.Error(), "no-such-program") {
		t.Errorf("an unknown program is started: %v", err)
	}

	agent := c.pods(t, ctx, "app=agent")[0]
	if _, err := c.Kubectl(ctx, "exec", agent.Name, "--", "/bin/sh", "-c", "echo one >/proc/1/fd/1; echo two >/proc/1/fd/1"); err != nil {
		t.Fatal(err)
	}
	if out, err := c.Kubectl(ctx, "logs", "--tail=1", agent.Name); err != nil || out != "two\n" {
		t.Errorf("last line of the log: got %q, %v", out, err)
	}
	if _, err := c.Kubectl(ctx, "logs", "--timestamps", agent.Name); err == nil {
		t.Error("timestamps that are not there are promised")
	}
}

// testKubeletEndpoint asks a kubelet as others than the API server may.
func (c *cluster) testKubeletEndpoint(t *testing.T, ctx context.Context) {
	pod := c.pods(t, ctx, "app=web")[0]
	node, err := c.client.CoreV1().Nodes().Get(ctx, pod.Spec.NodeName, metav1.GetOptions{})
	must(t, err)
	port := strconv.Itoa(int(node.Status.DaemonEndpoints.KubeletEndpoint.Port))
	url := "https://" + net.JoinHostPort(node.Status.Addresses[0].Address, port) + "/containerLogs/default/" + pod.Name + "/echo"

	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(c.Dir, "hosts", "node2", "kubelet.kubeconfig"))
	must(t, err)
	config.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		return c.Dial(ctx, lab.LAN, network, address)
	}
	anonymous := rest.AnonymousClientConfig(config)
	anonymous.Dial = config.Dial
	for name, test := range map[string]struct {
		config *rest.Config
		status int // 0: the connection is refused
	}{
		"another kubelet": {config, http.StatusForbidden},
		"anonymous":       {anonymous, 0},
	} {
		client, err := rest.HTTPClientFor(test.config)
		must(t, err)
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		must(t, err)
		response, err := client.Do(request)
		switch {
		case err != nil && test.status != 0:
			t.Errorf("%s: %v", name, err)
		case err == nil:
			response.Body.Close()
			if response.StatusCode != test.status {
				t.Errorf("%s: status %d, want %d", name, response.StatusCode, test.status)
			}
		}
	}
}

func (c *cluster) testDNS(t *testing.T, ctx context.Context) {
	service, err := c.client.CoreV1().Services("default").Get(ctx, "web", metav1.GetOptions{})
	must(t, err)
	pod := c.pods(t, ctx, "app=web")[0]
	for _, name := range []string{"web", "web.default", "web.default.svc.cluster.local"} {
		out, err := c.Kubectl(ctx, "exec", pod.Name, "--", "getent", "ahostsv4", name)
		if err != nil || !strings.HasPrefix(out, service.Spec.ClusterIP+" ") {
			t.Errorf("%s: got %q, %v, want %s", name, out, err, service.Spec.ClusterIP)
		}
	}
	if out, err := c.Kubectl(ctx, "exec", pod.Name, "--", "getent", "hosts", "no-such-service"); err == nil {
		t.Errorf("a Service that is not there has the address %s", out)
	}
}
