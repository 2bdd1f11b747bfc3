package lab_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/addr"
)

// ownerVariable makes this test program start a lab and wait to be killed.
const ownerVariable = "LAB_TEST_OWNER"

func TestMain(m *testing.M) {
	if name := os.Getenv(ownerVariable); name != "" {
		os.Exit(ownLab(name))
	}
	os.Exit(m.Run())
}

func ownLab(name string) int {
	l, err := lab.Start(context.Background(), lab.Config{Name: name, Nodes: 1})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("started", l.Name)
	select {}
}

const workloads = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 2
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: web}}}
      containers:
      - name: echo
        image: lab-echo
        args: ["--listen=:$(PORT)"]
        env:
        - {name: PORT, value: "8080"}
        - {name: NODE_NAME, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {httpGet: {path: /healthz, port: http}}
        securityContext: {runAsNonRoot: true, runAsUser: 65532, readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  ipFamilyPolicy: RequireDualStack
  selector: {app: web}
  ports: [{port: 80, targetPort: http}]
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec:
      hostNetwork: true
      terminationGracePeriodSeconds: 2
      containers:
      - name: agent
        image: lab-echo
        command: [sh, -c, "cp /var/run/secrets/kubernetes.io/serviceaccount/token /state/token && grep Cap /proc/self/status > /state/caps && exec /lab-echo --listen 127.0.0.1:9090"]
        readinessProbe: {exec: {command: [sh, -c, "curl -sSf http://127.0.0.1:9090/healthz && test -e /state/caps"]}}
        securityContext: {capabilities: {drop: [ALL], add: [NET_ADMIN, NET_RAW]}}
        volumeMounts: [{name: state, mountPath: /state}]
      volumes: [{name: state, hostPath: {path: /var/lib/agent, type: DirectoryOrCreate}}]
---
apiVersion: v1
kind: Pod
metadata: {name: unknown}
spec:
  containers: [{name: unknown, image: registry.test/unknown:v1}]
`

// TestCluster shares one lab between the tests that do not need one to
// themselves; they run in this order.
func TestCluster(t *testing.T) {
	t.Cleanup(func() {
		if left := leftGroups(t, "test-cluster"); len(left) > 0 {
			t.Errorf("control groups are left: %q", left)
		}
	})
	l := lab.StartTest(t, lab.Config{Name: "test-cluster", Nodes: 2, DNS: true})
	ctx, cancel := context.WithTimeout(t.Context(), 150*time.Second)
	defer cancel()
	client, err := l.Client()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := l.KubectlStdin(ctx, strings.NewReader(workloads), "apply", "-f", "-"); err != nil {
		t.Fatal(out, err)
	}
	must(t, l.WaitPodsReady(ctx, "default", "app=web", 2))
	must(t, l.WaitPodsReady(ctx, "default", "app=agent", 2))

	c := &cluster{l, client}
	for _, test := range []struct {
		name string
		run  func(*testing.T, context.Context)
	}{
		{"service answers", c.testService},
		{"unknown image", c.testUnknownImage},
		{"token is bound to the pod", c.testToken},
		{"capabilities", c.testCapabilities},
		{"exec and logs", c.testExec},
		{"kubelets answer the API server only", c.testKubeletEndpoint},
		{"names of Services", c.testDNS},
		{"ARP and NDP", c.testLAN},
		{"frames dropped", c.testDrop},
		{"frames lost", c.testLoss},
		{"cable of one interface", c.testCable},
		{"CPU quota", c.testQuota},
		{"busy machine", c.testSaturate},
		{"kube-proxy unhealthy", c.testProxyHealth},
		{"graceful deletion", c.testDeletion},
		{"container killed", c.testKill},
		{"kubelet killed", c.testKubelet},
		{"API away", c.testAPIAway},
		{"node cut", c.testCut},
		{"node cut off the API server", c.testPart},
		{"node shut down", c.testShutdown},
		{"node rebooted", c.testReboot},
		{"node added and removed", c.testAddNode},
	} {
		if !t.Run(test.name, func(t *testing.T) { test.run(t, ctx) }) {
			break // the state is not what the next ones expect
		}
	}
}

type cluster struct {
	*lab.Lab
	client kubernetes.Interface
}

func (c *cluster) pods(t *testing.T, ctx context.Context, selector string) []corev1.Pod {
	t.Helper()
	list, err := c.client.CoreV1().Pods("default").List(ctx, metav1.ListOptions{LabelSelector: selector})
	must(t, err)
	slices.SortFunc(list.Items, func(a, b corev1.Pod) int { return strings.Compare(a.Spec.NodeName, b.Spec.NodeName) })
	return list.Items
}

// answers waits until a host gets an answer from a URL.
func (c *cluster) answers(ctx context.Context, host, url string) error {
	return c.WaitFor(ctx, url+" answers "+host, func(ctx context.Context) (bool, error) {
		out, err := c.On(ctx, host, "curl", "-sS", "-g", "-m", "1", url)
		return strings.HasPrefix(out, "pod=web-"), err
	})
}

func (c *cluster) testService(t *testing.T, ctx context.Context) {
	service, err := c.client.CoreV1().Services("default").Get(ctx, "web", metav1.GetOptions{})
	must(t, err)
	for _, ip := range service.Spec.ClusterIPs {
		url := "http://" + netip.AddrPortFrom(netip.MustParseAddr(ip), 80).String() + "/"
		must(t, c.answers(ctx, "node1", url))
		// From a Pod: its network namespace is a file on its node.
		pod := c.pods(t, ctx, "app=web")[0]
		out, err := c.On(ctx, pod.Spec.NodeName, "nsenter", "--net=/run/netns/"+string(pod.UID), "curl", "-sS", "-g", "-m", "2", url)
		if err != nil || !strings.HasPrefix(out, "pod=web-") {
			t.Errorf("%s from a pod: %q, %v", url, out, err)
		}
	}
}

func (c *cluster) testUnknownImage(t *testing.T, ctx context.Context) {
	must(t, c.WaitFor(ctx, "ErrImageNeverPull", func(ctx context.Context) (bool, error) {
		pod, err := c.client.CoreV1().Pods("default").Get(ctx, "unknown", metav1.GetOptions{})
		if err != nil || len(pod.Status.ContainerStatuses) == 0 {
			return false, err
		}
		w := pod.Status.ContainerStatuses[0].State.Waiting
		return w != nil && w.Reason == "ErrImageNeverPull", nil
	}))
}

func (c *cluster) testToken(t *testing.T, ctx context.Context) {
	pod := c.pods(t, ctx, "app=agent")[0]
	token, err := c.On(ctx, pod.Spec.NodeName, "cat", "/var/lib/agent/token")
	must(t, err)
	review, err := c.client.AuthenticationV1().TokenReviews().Create(ctx, &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: token},
	}, metav1.CreateOptions{})
	must(t, err)
	extra := review.Status.User.Extra
	for key, want := range map[string]string{
		"authentication.kubernetes.io/node-name": pod.Spec.NodeName,
		"authentication.kubernetes.io/pod-name":  pod.Name,
		"authentication.kubernetes.io/pod-uid":   string(pod.UID),
	} {
		if got := extra[key]; len(got) != 1 || got[0] != want {
			t.Errorf("%s: got %q, want %q", key, got, want)
		}
	}
}

func (c *cluster) testCapabilities(t *testing.T, ctx context.Context) {
	caps, err := c.On(ctx, "node1", "cat", "/var/lib/agent/caps")
	must(t, err)
	for _, set := range []string{"CapEff", "CapBnd"} {
		if !strings.Contains(caps, set+":\t0000000000003000") {
			t.Errorf("want NET_ADMIN and NET_RAW only:\n%s", caps)
		}
	}
}

func (c *cluster) testDeletion(t *testing.T, ctx context.Context) {
	pod := c.pods(t, ctx, "app=web")[0]
	must(t, c.client.CoreV1().Pods("default").Delete(ctx, pod.Name, metav1.DeleteOptions{}))
	must(t, c.WaitFor(ctx, "pod gone", func(ctx context.Context) (bool, error) {
		_, err := c.client.CoreV1().Pods("default").Get(ctx, pod.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return true, nil
		}
		return false, err
	}))
	if out, err := c.On(ctx, pod.Spec.NodeName, "ls", "/run/netns", "/run/containers", "/var/lib/kubelet/pods"); err != nil || strings.Contains(out, string(pod.UID)) {
		t.Errorf("the pod has left something: %s, %v", out, err)
	}
	must(t, c.WaitPodsReady(ctx, "default", "app=web", 2))
}

func (c *cluster) testKill(t *testing.T, ctx context.Context) {
	pod := c.pods(t, ctx, "app=agent")[0]
	must(t, c.Kill(ctx, pod.Spec.NodeName, "agent", syscall.SIGKILL))
	must(t, c.WaitFor(ctx, "pod not ready", func(ctx context.Context) (bool, error) {
		p := c.pods(t, ctx, "app=agent")[0]
		return !p.Status.ContainerStatuses[0].Ready && p.Status.ContainerStatuses[0].State.Waiting != nil, nil
	}))
	must(t, c.StartProgram(ctx, pod.Spec.NodeName, "agent"))
	must(t, c.WaitPodsReady(ctx, "default", "app=agent", 2))
	if n := c.pods(t, ctx, "app=agent")[0].Status.ContainerStatuses[0].RestartCount; n != 1 {
		t.Errorf("%d restarts, want 1", n)
	}
}

func (c *cluster) testKubelet(t *testing.T, ctx context.Context) {
	before := c.pods(t, ctx, "")
	must(t, c.Kill(ctx, "node1", "kubelet", syscall.SIGKILL))
	must(t, c.StartProgram(ctx, "node1", "kubelet"))
	// A new Pod shows that the new kubelet works.
	pod := c.pods(t, ctx, "app=web")[0]
	must(t, c.client.CoreV1().Pods("default").Delete(ctx, pod.Name, metav1.DeleteOptions{}))
	must(t, c.WaitFor(ctx, "pod replaced", func(ctx context.Context) (bool, error) {
		p := c.pods(t, ctx, "app=web")
		return len(p) == 2 && p[0].Name != pod.Name && p[1].Name != pod.Name, nil
	}))
	must(t, c.WaitPodsReady(ctx, "default", "app=web", 2))
	for _, b := range before {
		for _, a := range c.pods(t, ctx, "") {
			if a.UID == b.UID && len(a.Status.ContainerStatuses) > 0 &&
				a.Status.ContainerStatuses[0].ContainerID != b.Status.ContainerStatuses[0].ContainerID {
				t.Errorf("%s was restarted", a.Name)
			}
		}
	}
}

func (c *cluster) testAPIAway(t *testing.T, ctx context.Context) {
	service, err := c.client.CoreV1().Services("default").Get(ctx, "web", metav1.GetOptions{})
	must(t, err)
	must(t, c.StopAPI(ctx))
	must(t, c.answers(ctx, "node2", "http://"+service.Spec.ClusterIP+"/"))
	must(t, c.Restart(ctx, "node2", "agent", syscall.SIGKILL))
	must(t, c.WaitFor(ctx, "container back without the API", func(ctx context.Context) (bool, error) {
		_, err := c.On(ctx, "node2", "curl", "-sS", "-m", "1", "http://127.0.0.1:9090/healthz")
		return err == nil, err
	}))
	must(t, c.StartAPI(ctx))
	must(t, c.WaitPodsReady(ctx, "default", "app=agent", 2))
}

func (c *cluster) testCut(t *testing.T, ctx context.Context) {
	must(t, c.Cut(ctx, "node2"))
	if out, err := c.On(ctx, "node2", "cat", "/sys/class/net/eth0/carrier"); err != nil || out != "1\n" {
		t.Errorf("carrier of the node: %q, %v", out, err)
	}
	must(t, c.WaitNodeNotReady(ctx, "node2"))
	must(t, c.Restore(ctx, "node2"))
	must(t, c.WaitNodeReady(ctx, "node2"))
}

func (c *cluster) testReboot(t *testing.T, ctx context.Context) {
	bootID := func() string {
		node, err := c.client.CoreV1().Nodes().Get(ctx, "node1", metav1.GetOptions{})
		must(t, err)
		return node.Status.NodeInfo.BootID
	}
	before := bootID()
	if _, err := c.On(ctx, "node1", "touch", "/run/mark", "/var/lib/mark"); err != nil {
		t.Fatal(err)
	}
	must(t, c.PowerOff(ctx, "node1"))
	must(t, c.WaitNodeNotReady(ctx, "node1"))
	must(t, c.PowerOn(ctx, "node1"))
	must(t, c.WaitNodeReady(ctx, "node1"))
	must(t, c.WaitPodsReady(ctx, "default", "app=agent", 2))
	must(t, c.WaitPodsReady(ctx, "default", "app=web", 2))
	after := bootID()
	if seen, err := c.On(ctx, "node1", "cat", "/proc/sys/kernel/random/boot_id"); err != nil || strings.TrimSpace(seen) != after || after == before {
		t.Errorf("boot id before %s, after %s, on the node %s (%v)", before, after, seen, err)
	}
	if out, _ := c.On(ctx, "node1", "sh", "-c", "ls /run/mark /var/lib/mark 2>/dev/null || true"); strings.TrimSpace(out) != "/var/lib/mark" {
		t.Errorf("after the reboot: %q, want /var/lib/mark only", out)
	}
	pod := c.pods(t, ctx, "app=web")[0]
	must(t, c.answers(ctx, "node2", "http://"+netip.AddrPortFrom(netip.MustParseAddr(pod.Status.PodIP), 8080).String()+"/"))
}

func (c *cluster) testAddNode(t *testing.T, ctx context.Context) {
	name, err := c.AddNode(ctx, lab.NodeOptions{Zone: "b"})
	must(t, err)
	if want := addr.Node(3).Name; name != want {
		t.Errorf("added %s, want %s", name, want)
	}
	must(t, c.WaitPodsReady(ctx, "default", "app=agent", 3))
	must(t, c.RemoveNode(ctx, name))
	if _, err := c.client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the node is still known: %v", err)
	}
}

// TestSideBySide kills the owner of one of two labs, and expects that nothing
// of it is left and that the other goes on.
func TestSideBySide(t *testing.T) {
	t.Parallel()
	const name = "test-owned"
	other := lab.StartTest(t, lab.Config{Name: "test-other", Nodes: 1, Router: lab.RouterConfig{Kind: lab.FRR}})
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), ownerVariable+"="+name)
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	line := make([]byte, 1000)
	n, _ := stdout.Read(line)
	if got := string(line[:n]); got != "started "+name+"\n" {
		_ = cmd.Process.Kill()
		t.Fatalf("owner: %s", got)
	}
	owned, err := lab.Attach(name)
	must(t, err)
	defer owned.Release()
	before := traces(t, owned.Dir)
	if len(before) < 10 {
		t.Errorf("found only %q of the running lab", before)
	}
	must(t, cmd.Process.Kill())
	_ = cmd.Wait()
	must(t, owned.WaitFor(t.Context(), "no trace of the lab", func(context.Context) (bool, error) {
		if left := traces(t, owned.Dir); len(left) > 0 {
			return false, fmt.Errorf("left: %q", left)
		}
		return true, nil
	}))
	if _, err := other.Kubectl(t.Context(), "get", "nodes"); err != nil {
		t.Errorf("the other lab: %v", err)
	}
	must(t, lab.Down(name))
	if _, err := os.Stat(owned.Dir); !os.IsNotExist(err) {
		t.Errorf("the directory is left: %v", err)
	}
	must(t, lab.Down(name))
}

// traces finds the processes of a lab, and through them its namespaces: those
// have no name, and live as long as a process or a mount of a process. It finds
// processes by the directory that all of them have to do with.
func traces(t *testing.T, dir string) []string {
	t.Helper()
	var found []string
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	must(t, err)
	for _, f := range files {
		cmdline, _ := os.ReadFile(f) // it may end meanwhile
		mounts, _ := os.ReadFile(filepath.Join(filepath.Dir(f), "mountinfo"))
		if strings.Contains(string(cmdline), dir+"/") || strings.Contains(string(mounts), dir+"/") {
			found = append(found, filepath.Dir(f))
		}
	}
	links, err := exec.Command("ip", "-j", "link").Output()
	must(t, err)
	var list []struct {
		Name string `json:"ifname"`
	}
	must(t, json.Unmarshal(links, &list))
	for _, l := range list {
		if strings.HasPrefix(l.Name, "p-") {
			found = append(found, l.Name)
		}
	}
	return found
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
