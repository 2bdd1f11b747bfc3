package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/cluster"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/addr"
)

const (
	speaker = v1alpha1.SpeakerPodName
	manager = "baremetal-cloud-controller-manager"
	// secondNIC announces where nodes have two.
	secondNIC = "eth1"
)

// site is a lab with the project, a pool of addresses of the LAN, and an echo
// server on each node.
type site struct {
	*cluster.Cluster
	options options
	nodes   []string
}

// withSite starts a site for a scenario, and ends it when use returns.
func withSite(ctx context.Context, of scenario, o options, use func(context.Context, *site) error) (err error) {
	config := lab.Config{Name: "failover", Nodes: of.nodeCount(o), NodeGrace: o.nodeGrace}
	if of.nodes == 0 {
		config.NodeGrace = soakNodeGrace
	}
	l, err := lab.Start(ctx, config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	client, err := l.Client()
	if err != nil {
		return err
	}
	s, err := newSite(ctx, &cluster.Cluster{Lab: l, Client: client}, o, config.Nodes, of.twoNICs)
	if err != nil {
		return err
	}
	return use(ctx, s)
}

// newSite installs what the scenarios need in a lab.
func newSite(ctx context.Context, c *cluster.Cluster, o options, nodes int, twoNICs bool) (*site, error) {
	s := &site{Cluster: c, options: o}
	announcing := "layer2: {interfaces: [eth0]}"
	for n := range nodes {
		node := addr.Node(n + 1).Name
		s.nodes = append(s.nodes, node)
		if twoNICs {
			announcing = "layer2: {interfaces: [" + secondNIC + "]}"
			if err := s.AddInterface(ctx, node, secondNIC); err != nil {
				return nil, err
			}
		}
	}
	if err := s.Install(ctx); err != nil {
		return nil, err
	}
	manifest := cluster.Layer2Pool("lan", addr.Layer2Pool+`, "`+addr.Layer2PoolV6+`"`, announcing) +
		"---" + cluster.Layer2Pool("many", addr.ScalePool, announcing, "autoAssign: false")
	for _, node := range s.nodes {
		manifest += "---" + echo(node)
	}
	if err := s.apply(ctx, manifest); err != nil {
		return nil, err
	}
	return s, s.WaitPodsReady(ctx, "default", "app=echo", nodes)
}

// echo is a server on one node, which stays there whatever becomes of the node.
func echo(node string) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata:
  name: echo-%[1]s
  labels: {app: echo, runs-on: %[1]s}
spec:
  nodeName: %[1]s
  terminationGracePeriodSeconds: 2
  tolerations: [{operator: Exists}]
  containers:
  - name: echo
    image: lab-echo
    imagePullPolicy: Never
    env: [{name: NODE_NAME, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}]
    readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
`, node)
}

func (s *site) apply(ctx context.Context, manifest string) error {
	if _, err := s.KubectlStdin(ctx, strings.NewReader(manifest), "apply", "-f", "-"); err != nil {
		return fmt.Errorf("%w\n%s", err, manifest)
	}
	return nil
}

// recover mends everything that a run may have left broken, and waits until the
// cluster is as it was before.
func (s *site) recover(ctx context.Context) error {
	if err := errors.Join(s.Heal(ctx), s.SetLoss(ctx, 0)); err != nil {
		return err
	}
	if err := s.StartAPI(ctx); err != nil {
		return err
	}
	status, err := s.Status(ctx)
	if err != nil {
		return err
	}
	for _, h := range status.Hosts {
		if !h.Up {
			if err := s.PowerOn(ctx, h.Name); err != nil {
				return err
			}
		}
		if err := s.Restore(ctx, h.Name); err != nil {
			return err
		}
	}
	for _, node := range s.nodes {
		if err := s.WaitNodeReady(ctx, node); err != nil {
			return err
		}
	}
	return errors.Join(
		s.WaitPodsReady(ctx, v1alpha1.DefaultNamespace, v1alpha1.SpeakerPodLabel+"="+speaker, len(s.nodes)),
		s.WaitPodsReady(ctx, v1alpha1.DefaultNamespace, "app.kubernetes.io/name="+manager, 2),
		s.WaitPodsReady(ctx, "default", "app=echo", len(s.nodes)),
	)
}

// pod is the only Pod of a component on a node.
func (s *site) pod(ctx context.Context, component, node string) (*corev1.Pod, error) {
	pods, err := s.Client.CoreV1().Pods(v1alpha1.DefaultNamespace).List(ctx, metav1.ListOptions{
		LabelSelector: "app.kubernetes.io/name=" + component,
		FieldSelector: "spec.nodeName=" + node,
	})
	if err != nil {
		return nil, err
	}
	if len(pods.Items) != 1 {
		return nil, fmt.Errorf("%d Pods of %s on %s, want one", len(pods.Items), component, node)
	}
	return &pods.Items[0], nil
}
