package lab

import (
	"context"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/internal/keeper"
)

// Kubeconfig returns the path of the administrator's kubeconfig. The address in
// it is one of the lab, so it is of use on the hosts of the lab only.
func (l *Lab) Kubeconfig() string { return filepath.Join(l.Dir, keeper.AdminFile) }

// RESTConfig returns an administrator's client configuration that works in this
// process: connections are opened from the control plane's network.
func (l *Lab) RESTConfig() (*rest.Config, error) {
	config, err := l.rest()
	if err != nil {
		return nil, err
	}
	return rest.CopyConfig(config), nil
}

func (l *Lab) makeRESTConfig() (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", l.Kubeconfig())
	if err != nil {
		return nil, fmt.Errorf("kubeconfig of lab %s: %w", l.Name, err)
	}
	config.QPS = -1 // no limit
	config.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		return l.Dial(ctx, ControlPlane, network, address)
	}
	return config, nil
}

// Client returns an administrator's client.
func (l *Lab) Client() (kubernetes.Interface, error) { return l.clients() }

func (l *Lab) makeClient() (kubernetes.Interface, error) {
	config, err := l.RESTConfig()
	if err != nil {
		return nil, err
	}
	return kubernetes.NewForConfig(config)
}

// KubectlArgs returns the command line of kubectl on the control plane.
func (l *Lab) KubectlArgs(args ...string) []string {
	return append([]string{filepath.Join(l.binDir, "kubectl"), "--kubeconfig", l.Kubeconfig(), "--cache-dir", "/run/kubectl-cache"}, args...)
}

// Kubectl runs kubectl as administrator and returns its output.
func (l *Lab) Kubectl(ctx context.Context, args ...string) (string, error) {
	return l.On(ctx, ControlPlane, l.KubectlArgs(args...)...)
}

// KubectlStdin runs kubectl with an input, as for apply -f -.
func (l *Lab) KubectlStdin(ctx context.Context, stdin io.Reader, args ...string) (string, error) {
	return l.OnStdin(ctx, stdin, ControlPlane, l.KubectlArgs(args...)...)
}

// waitReady waits for the API and for the nodes.
func (l *Lab) waitReady(ctx context.Context, nodes int) error {
	if err := l.waitAPI(ctx); err != nil {
		return err
	}
	client, err := l.Client()
	if err != nil {
		return err
	}
	return l.WaitFor(ctx, fmt.Sprintf("%d nodes ready", nodes), func(ctx context.Context) (bool, error) {
		list, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		if err != nil {
			return false, err
		}
		ready := 0
		for i := range list.Items {
			if NodeReady(&list.Items[i]) && schedulable(&list.Items[i]) {
				ready++
			}
		}
		if ready < nodes {
			return false, fmt.Errorf("%d are", ready)
		}
		// Without it no Pod can be created.
		_, err = client.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
		return err == nil, err
	})
}

func (l *Lab) waitAPI(ctx context.Context) error {
	client, err := l.Client()
	if err != nil {
		return err
	}
	return l.WaitFor(ctx, "API server ready", func(ctx context.Context) (bool, error) {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		_, err := client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
		return err == nil, err
	})
}

// NodeReady tells whether a node's Ready condition is true.
func NodeReady(node *corev1.Node) bool {
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// schedulable tells whether the node lifecycle controller has seen that the
// node is ready.
func schedulable(node *corev1.Node) bool {
	for _, t := range node.Spec.Taints {
		if t.Key == corev1.TaintNodeNotReady || t.Key == corev1.TaintNodeUnreachable {
			return false
		}
	}
	return true
}

// WaitNodeReady waits until a node is ready for Pods.
func (l *Lab) WaitNodeReady(ctx context.Context, name string) error {
	return l.waitNode(ctx, name, "ready", func(n *corev1.Node) bool { return NodeReady(n) && schedulable(n) })
}

// WaitNodeNotReady waits until the cluster has noticed that a node is gone.
func (l *Lab) WaitNodeNotReady(ctx context.Context, name string) error {
	return l.waitNode(ctx, name, "not ready", func(n *corev1.Node) bool { return !NodeReady(n) })
}

func (l *Lab) waitNode(ctx context.Context, name, what string, condition func(*corev1.Node) bool) error {
	client, err := l.Client()
	if err != nil {
		return err
	}
	return l.WaitFor(ctx, "node "+name+" "+what, func(ctx context.Context) (bool, error) {
		node, err := client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		return condition(node), nil
	})
}

// WaitPodsReady waits until at least n Pods match a label selector and all that
// match are ready.
func (l *Lab) WaitPodsReady(ctx context.Context, namespace, selector string, n int) error {
	client, err := l.Client()
	if err != nil {
		return err
	}
	return l.WaitFor(ctx, fmt.Sprintf("%d pods %s ready", n, selector), func(ctx context.Context) (bool, error) {
		list, err := client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
		if err != nil {
			return false, err
		}
		ready, state := 0, ""
		for i := range list.Items {
			p := &list.Items[i]
			if podReady(p) {
				ready++
				continue
			}
			state += fmt.Sprintf(" %s is %s%s", p.Name, p.Status.Phase, waitingReason(p))
		}
		if ready < n || ready < len(list.Items) {
			return false, fmt.Errorf("%d of %d are:%s", ready, len(list.Items), state)
		}
		return true, nil
	})
}

func podReady(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue && p.DeletionTimestamp == nil
		}
	}
	return false
}

func waitingReason(p *corev1.Pod) string {
	for _, s := range p.Status.ContainerStatuses {
		if w := s.State.Waiting; w != nil {
			return fmt.Sprintf(" (%s: %s)", w.Reason, w.Message)
		}
	}
	return ""
}
