package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/transport"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/speaker"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/cluster"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab"
)

const (
	managerName = "baremetal-cloud-controller-manager"
	realNode    = "node1"
	// workers bounds the requests of this program under way.
	workers = 16
)

// pool is large enough for 10,000 Services, and peer selects all nodes. The
// simulated ones have no router, but say that they do.
const pool = `
apiVersion: lb.baremetal.dev/v1alpha1
kind: AddressPool
metadata: {name: main}
spec: {addresses: ["198.19.128.0/17", "2001:db8:100::/64"]}
---` + cluster.Peer

// site is a lab with simulated nodes.
type site struct {
	*cluster.Cluster
	nodes     []string // the real one first
	dualStack bool
	audit     *audit
	watch     *nodeWatch
	manager   string // its Pod
	speaker   string // the real one's Pod
	routers   []*router
	log       func(format string, args ...any)
}

// withSite starts a site, and ends it when use returns.
func withSite(ctx context.Context, nodes int, dualStack bool, use func(context.Context, *site) error) (err error) {
	dir, err := os.MkdirTemp("", "baremetal-scale")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	audit, arguments, err := newAudit(dir)
	if err != nil {
		return err
	}
	started := time.Now()
	s := &site{dualStack: dualStack, audit: audit, log: func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, "%7.1fs  "+format+"\n", append([]any{time.Since(started).Seconds()}, args...)...)
	}}
	s.log("a lab with one real node and %d simulated ones", nodes-1)
	l, err := lab.Start(ctx, lab.Config{
		Name: "scale", Nodes: 1,
		// Simulated nodes have no kubelet that could be missed.
		NodeGrace: 12 * time.Hour, EvictionAfter: 12 * time.Hour,
		APIServerArgs: append(arguments,
			// Each Service of externalTrafficPolicy Local takes a health check node port.
			"--service-node-port-range=10000-32767",
			"--min-request-timeout=7200", // of watches
		),
		ControllerManagerArgs: []string{"--node-monitor-period=1m"},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	s.Cluster = &cluster.Cluster{Lab: l}
	config, err := l.RESTConfig()
	if err != nil {
		return err
	}
	config.QPS, config.Burst, config.UserAgent = -1, 0, agentOfUsers
	config.ContentType = "application/vnd.kubernetes.protobuf"
	if s.Client, err = kubernetes.NewForConfig(config); err != nil {
		return err
	}
	if err := s.Install(ctx); err != nil {
		return err
	}
	group, running := errgroup.WithContext(ctx)
	running, stop := context.WithCancel(running)
	group.Go(func() error {
		defer stop()
		if err := s.populate(running, group, nodes); err != nil {
			return err
		}
		if s.watch, err = watchNodes(running, config, group); err != nil {
			return err
		}
		return use(running, s)
	})
	return group.Wait()
}

// populate adds the simulated nodes, and leaves one cloud-controller-manager.
func (s *site) populate(ctx context.Context, group *errgroup.Group, nodes int) error {
	if _, err := s.KubectlStdin(ctx, strings.NewReader(pool), "apply", "-f", "-"); err != nil {
		return err
	}
	if _, err := s.Kubectl(ctx, "-n", v1alpha1.DefaultNamespace, "scale", "deployment/"+managerName, "--replicas=1"); err != nil {
		return err
	}
	s.nodes = []string{realNode}
	for i := 1; i < nodes; i++ {
		s.nodes = append(s.nodes, fmt.Sprintf("sim%04d", i))
	}
	err := parallel(ctx, len(s.nodes)-1, func(ctx context.Context, i int) error {
		_, err := s.Client.CoreV1().Nodes().Create(ctx, simulatedNode(s.nodes[i+1], i), metav1.CreateOptions{})
		return err
	})
	if err != nil {
		return err
	}
	pods, err := s.speakerPods(ctx)
	if err != nil {
		return err
	}
	if err := s.startSpeakers(ctx, group, pods); err != nil {
		return err
	}
	s.speaker = pods[realNode].Name
	s.log("%d speakers run", len(pods))
	err = s.waitFor(ctx, time.Minute, "one cloud-controller-manager", func(ctx context.Context) (bool, error) {
		pods, err := s.Client.CoreV1().Pods(v1alpha1.DefaultNamespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=" + managerName})
		if err != nil || len(pods.Items) != 1 {
			return false, fmt.Errorf("%d Pods: %w", len(pods.Items), err)
		}
		s.manager = pods.Items[0].Name
		return true, nil
	})
	if err != nil {
		return err
	}
	return s.waitFor(ctx, 2*time.Minute, "a program on each node", func(ctx context.Context) (bool, error) {
		list, err := s.Client.CoreV1().Nodes().List(ctx, metav1.ListOptions{ResourceVersion: "0"})
		if err != nil {
			return false, err
		}
		for _, n := range list.Items {
			if n.Annotations[v1alpha1.NodeAnnouncements] == "" {
				return false, fmt.Errorf("node %s has none", n.Name)
			}
		}
		return true, nil
	})
}

func (s *site) waitFor(ctx context.Context, within time.Duration, what string, condition func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	return s.WaitFor(ctx, what, condition)
}

// simulatedNode is a Node without a kubelet. Its taint keeps Pods away but those of
// the speakers' DaemonSet, which nobody starts.
func simulatedNode(name string, i int) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelOSStable: "linux", corev1.LabelHostname: name}},
		Spec:       corev1.NodeSpec{Taints: []corev1.Taint{{Key: "simulated", Effect: corev1.TaintEffectNoSchedule}}},
		Status: corev1.NodeStatus{
			Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: address(i)}, {Type: corev1.NodeHostName, Address: name}},
			Conditions: []corev1.NodeCondition{{
				Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "Simulated",
				LastHeartbeatTime: metav1.Now(), LastTransitionTime: metav1.Now(),
			}},
			Allocatable: corev1.ResourceList{
				corev1.ResourcePods: mustParse("110"), corev1.ResourceCPU: mustParse("8"), corev1.ResourceMemory: mustParse("32Gi"),
			},
		},
	}
}

// address of the i-th simulated node. No lab has so many real nodes that it would
// use these for their Pods.
func address(i int) string { return fmt.Sprintf("198.18.%d.%d", 200+i/250, 1+i%250) }

// speakerPods are the Pods that the DaemonSet has for each node, by node. Those of
// simulated nodes are made ready, as a kubelet would.
func (s *site) speakerPods(ctx context.Context) (map[string]*corev1.Pod, error) {
	pods := make(map[string]*corev1.Pod)
	client := s.Client.CoreV1().Pods(v1alpha1.DefaultNamespace)
	err := s.waitFor(ctx, 5*time.Minute, "the Pod of a speaker on each node", func(ctx context.Context) (bool, error) {
		list, err := client.List(ctx, metav1.ListOptions{LabelSelector: v1alpha1.SpeakerPodLabel + "=" + v1alpha1.SpeakerPodName, ResourceVersion: "0"})
		if err != nil {
			return false, err
		}
		for i := range list.Items {
			if pod := &list.Items[i]; pod.Spec.NodeName != "" {
				pods[pod.Spec.NodeName] = pod
			}
		}
		if len(pods) < len(s.nodes) {
			return false, fmt.Errorf("%d of %d nodes have one", len(pods), len(s.nodes))
		}
		return true, nil
	})
	if err != nil {
		return nil, err
	}
	return pods, parallel(ctx, len(s.nodes)-1, func(ctx context.Context, i int) error {
		pod := pods[s.nodes[i+1]].DeepCopy()
		pod.Status = corev1.PodStatus{
			Phase: corev1.PodRunning, PodIP: address(i), PodIPs: []corev1.PodIP{{IP: address(i)}},
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}},
		}
		_, err := client.UpdateStatus(ctx, pod, metav1.UpdateOptions{})
		return err
	})
}

// startSpeakers runs the loop of a speaker for each simulated node, with the rights
// of its Pod.
func (s *site) startSpeakers(ctx context.Context, group *errgroup.Group, pods map[string]*corev1.Pod) error {
	admin, err := s.RESTConfig()
	if err != nil {
		return err
	}
	anonymous := rest.AnonymousClientConfig(admin)
	anonymous.Dial = admin.Dial
	shared, err := rest.TransportFor(anonymous) // of few connections
	if err != nil {
		return err
	}
	for range s.nodes[1:] {
		s.routers = append(s.routers, &router{})
	}
	return parallel(ctx, len(s.nodes)-1, func(starting context.Context, i int) error {
		name := s.nodes[i+1]
		token, err := s.Client.CoreV1().ServiceAccounts(v1alpha1.DefaultNamespace).CreateToken(starting, "baremetal-speaker",
			&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
				BoundObjectRef: &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pods[name].Name, UID: pods[name].UID},
			}}, metav1.CreateOptions{})
		if err != nil {
			return err
		}
		config := &rest.Config{Host: anonymous.Host, QPS: -1, Transport: transport.NewBearerAuthRoundTripper(token.Status.Token, shared)}
		group.Go(func() error {
			return speaker.Simulate(ctx, config, v1alpha1.DefaultNamespace, simulated(name, i, s.routers[i]))
		})
		return nil
	})
}

// parallel calls f for 0 to n-1, some at a time, until one fails.
func parallel(ctx context.Context, n int, f func(ctx context.Context, i int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(workers)
	for i := range n {
		group.Go(func() error { return f(ctx, i) })
	}
	return group.Wait()
}

// simulated is a node with one interface, and with a session to each router.
func simulated(name string, i int, router *router) speaker.Simulated {
	return speaker.Simulated{
		Name: name,
		Interfaces: []announce.Interface{{
			Name: "eth0", MAC: announce.MAC{2, 0, 0, 0, byte(i >> 8), byte(i)}.String(),
		}},
		BGP: router, LAN: lan{},
	}
}

// countBody counts what is read of the bodies of responses.
type countBody struct {
	next http.RoundTripper
	read func(n int)
}

// RoundTrip implements http.RoundTripper.
func (c countBody) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := c.next.RoundTrip(r)
	if err == nil {
		response.Body = countedBody{response.Body, c.read}
	}
	return response, err
}
