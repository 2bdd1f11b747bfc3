package planner

import (
	"context"
	"fmt"
	"maps"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	coordination "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	lbclient "github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/client"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/kubeapi"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/plan"
)

// pendingPatience is how long a change waits for a plan that is due soon.
const pendingPatience = 100 * time.Millisecond

// planner holds what lives as long as Run: clients and warm caches, so that a
// planner that gets the Lease plans at once.
type planner struct {
	config Config
	client kubernetes.Interface
	leases coordination.LeasesGetter
	// fence holds back all writes but those of the Lease while another planner
	// may lead.
	fence   *kubeapi.Fence
	objects *objects
	// nodes, conditions and statuses write, while work runs; the informers'
	// handlers ask them what they wrote.
	nodes      *nodeWriter
	conditions *conditionWriter
	statuses   *objectWriter
	// changed has a token when a plan may be out of date, and pending when it may
	// soon be, by a change that by itself announces and withdraws nothing.
	changed, pending chan struct{}
	// away is since when speakers have not been seen running, by node name. Only
	// plan uses it.
	away map[string]time.Time
	// unready is the same for nodes that are not ready.
	unready map[string]time.Time
}

// Run plans until the context ends; it returns nil then. It blocks, and may be
// called once for a Config. The error is that of a configuration or a client
// that cannot work.
func Run(ctx context.Context, config Config) error {
	if err := config.complete(); err != nil {
		return err
	}
	p, err := newPlanner(config)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, informer := range p.objects.all() {
		group.Go(func() error {
			informer.RunWithContext(ctx)
			return nil
		})
	}
	group.Go(func() error {
		if err := p.objects.sync(ctx); err != nil {
			return nil // the context ended
		}
		return p.lead(ctx, p.work)
	})
	return group.Wait()
}

func newPlanner(config Config) (*planner, error) {
	registerMetrics()
	rest := rest.CopyConfig(config.REST)
	kubeapi.Patient(rest)
	rest.UserAgent = "baremetal-planner"
	// Writes are paced by the planner itself; a client-side limit would only
	// delay a withdrawal behind a batch of conditions.
	rest.QPS, rest.Burst = -1, 0
	leases, err := coordination.NewForConfig(rest)
	if err != nil {
		return nil, fmt.Errorf("planner: %w", err)
	}
	fence := &kubeapi.Fence{}
	rest.Wrap(fence.Wrap)
	lb, err := lbclient.New(rest)
	if err != nil {
		return nil, fmt.Errorf("planner: %w", err)
	}
	metadata, err := metadata.NewForConfig(rest)
	if err != nil {
		return nil, fmt.Errorf("planner: %w", err)
	}
	rest.ContentType = runtime.ContentTypeProtobuf
	rest.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	client, err := kubernetes.NewForConfig(rest)
	if err != nil {
		return nil, fmt.Errorf("planner: %w", err)
	}
	objects := newObjects(client, lb, config.SpeakerNamespace)
	p := &planner{
		config:     config,
		client:     client,
		leases:     leases,
		fence:      fence,
		objects:    objects,
		nodes:      newNodeWriter(client),
		conditions: newConditionWriter(client, objects),
		statuses:   newObjectWriter(client, lb, metadata, objects),
		changed:    make(chan struct{}, 1),
		pending:    make(chan struct{}, 1),
	}
	if err := objects.prepare(p.wake, p.wakeSoon, ours{program: p.nodes.wrote, condition: p.conditions.wrote}); err != nil {
		return nil, err
	}
	return p, p.statuses.watch()
}

// wake asks for a new plan. It never blocks.
func (p *planner) wake() {
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// wakeSoon asks for a new plan after a moment. It never blocks.
func (p *planner) wakeSoon() {
	select {
	case p.pending <- struct{}{}:
	default:
	}
}

// work plans and writes until the context ends.
func (p *planner) work(ctx context.Context) error {
	cluster, err := p.clusterUID(ctx)
	if err != nil {
		return nil // the context ended
	}
	klog.InfoS("Planning", "cluster", cluster)
	p.nodes.forget()
	p.conditions.forget()
	p.statuses.forget()
	recorder, stopEvents := recordEvents(p.client)
	defer stopEvents()
	group, ctx := errgroup.WithContext(ctx)
	keys := newKeyWriter(p.client, p.config.SpeakerNamespace, recorder)
	for _, run := range []func(context.Context){p.conditions.run, p.statuses.run, keys.run} {
		group.Go(func() error {
			run(ctx)
			return nil
		})
	}
	group.Go(func() error {
		p.wake()
		p.plan(ctx, cluster, newNotices(recorder))
		return nil
	})
	return group.Wait()
}

// plan computes and writes a plan for each change, until the context ends.
func (p *planner) plan(ctx context.Context, cluster string, notices *notices) {
	var pace pace
	// A new leader has patience with all speakers from now on.
	p.away, p.unready = make(map[string]time.Time), make(map[string]time.Time)
	later, soon := time.NewTimer(time.Hour), time.NewTimer(time.Hour)
	defer later.Stop()
	defer soon.Stop()
	waiting := false // soon is running
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.pending:
			if !waiting { // from the first one on: others may follow all the time
				waiting = true
				soon.Reset(pendingPatience)
			}
			continue
		case <-p.changed:
		case <-later.C:
		case <-soon.C:
		}
		later.Stop()
		soon.Stop()
		waiting = false
		computed, again, err := p.planOnce(ctx, cluster, notices)
		if err != nil && ctx.Err() == nil {
			klog.ErrorS(err, "Not all nodes have their announcements; trying again")
			nodeWriteErrors.Inc()
			p.wake()
			pace.failed()
		}
		if again > 0 {
			later.Reset(again)
		}
		if !pace.wait(ctx, len(p.changed) > 0, computed) {
			return
		}
	}
}

// planOnce computes a plan and writes it to the Nodes; what is for people it hands
// over. computed is how long it took but for the writes, and again when another
// plan is due if nothing changes; 0 if none is.
func (p *planner) planOnce(ctx context.Context, cluster string, notices *notices) (computed, again time.Duration, err error) {
	started := time.Now()
	state := p.objects.state()
	state.Cluster = cluster
	state.LoadBalancerClass, state.RequireClass = p.config.LoadBalancerClass, p.config.RequireClass
	state.Previous = p.nodes.programs(state.Nodes)
	state.Unwritable = p.nodes.unwritable()
	p.lookAtNodes(state)
	result := plan.Compute(state)
	computed = time.Since(started)
	planDuration.Observe(computed.Seconds())

	again, err = p.nodes.write(ctx, state.Nodes, result)
	p.conditions.set(result)
	p.statuses.set(result)
	again = sooner(again, result.Next)
	started = time.Now()
	notices.tellMoves(p.nodes.made(result), state)
	again = sooner(again, notices.tell(result, state))
	return computed + time.Since(started), again, err
}

// sooner is the shorter of a wait, where 0 is none, and that for a time, where
// zero is none.
func sooner(wait time.Duration, at time.Time) time.Duration {
	if at.IsZero() {
		return wait
	}
	if until := max(time.Until(at), time.Millisecond); wait == 0 || until < wait {
		return until
	}
	return wait
}

// lookAtNodes tells the state the time, since when speakers are away, and since
// when nodes are not ready.
func (p *planner) lookAtNodes(state *plan.State) {
	state.Now = time.Now()
	alive := state.AliveSpeakers()
	present, ready := make(map[string]bool, len(state.Nodes)), make(map[string]bool, len(state.Nodes))
	for _, n := range state.Nodes {
		present[n.Name] = true
		if _, known := p.away[n.Name]; !known && !alive[n.Name] {
			p.away[n.Name] = state.Now
		}
		isReady, since := readySince(n)
		ready[n.Name] = isReady
		if _, known := p.unready[n.Name]; !known && !isReady {
			// A new leader does not begin anew. The condition has whole seconds.
			p.unready[n.Name] = state.Now
			if told := since.Add(time.Second); !since.IsZero() && told.Before(state.Now) {
				p.unready[n.Name] = told
			}
		}
	}
	maps.DeleteFunc(p.away, func(name string, _ time.Time) bool { return alive[name] || !present[name] })
	maps.DeleteFunc(p.unready, func(name string, _ time.Time) bool { return ready[name] || !present[name] })
	state.SpeakersAway, state.NotReadySince = p.away, p.unready
}

// readySince is whether the node is ready, and since when it has been so or not.
func readySince(n *corev1.Node) (ready bool, since time.Time) {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue, c.LastTransitionTime.Time
		}
	}
	return false, time.Time{}
}

// clusterUID is the UID of the namespace kube-system, which names the cluster.
// It fails only when the context ends.
func (p *planner) clusterUID(ctx context.Context) (string, error) {
	retry := time.NewTicker(time.Second)
	defer retry.Stop()
	for {
		namespace, err := p.client.CoreV1().Namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
		if err == nil {
			return string(namespace.UID), nil
		}
		if ctx.Err() == nil {
			klog.ErrorS(err, "Reading the namespace kube-system, whose UID names the cluster")
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-retry.C:
		}
	}
}
