package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/cluster"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab"
)

// breaker injects faults, one at a time.
type breaker struct {
	cluster  *cluster.Cluster
	rng      *rand.Rand
	managers []corev1.Pod
	speakers []corev1.Pod
	done     tally
	told     []string // what was done, with its time
	outages  int
	stopped  *corev1.Pod // a replica that is stopped
	apiDown  bool
}

// Bounds of what is broken: the cluster has to live in between.
const (
	maxOutages    = 5
	longestOutage = 6 * time.Second
	longestStop   = 20 * time.Second
)

// fault breaks something and mends it.
type fault struct {
	name   string
	often  int
	outage bool // of the API server; their number is bounded
	inject func(*breaker, context.Context) error
}

func (f fault) weight() int { return f.often }

var faults = []fault{
	{"kill a cloud-controller-manager", 4, false, func(b *breaker, ctx context.Context) error { return b.restart(ctx, b.managers, syscall.SIGKILL) }},
	{"terminate a cloud-controller-manager", 3, false, func(b *breaker, ctx context.Context) error { return b.restart(ctx, b.managers, syscall.SIGTERM) }},
	{"stop a cloud-controller-manager", 3, false, (*breaker).stopManager},
	{"kill both cloud-controller-managers", 1, false, (*breaker).killManagers},
	{"kill a speaker", 4, false, func(b *breaker, ctx context.Context) error { return b.restart(ctx, b.speakers, syscall.SIGKILL) }},
	{"terminate a speaker", 2, false, func(b *breaker, ctx context.Context) error { return b.restart(ctx, b.speakers, syscall.SIGTERM) }},
	{"restart the API server", 1, true, (*breaker).restartAPI},
	{"take the API server away", 2, true, (*breaker).stopAPI},
}

func newBreaker(t *testing.T, c *cluster.Cluster, rng *rand.Rand) *breaker {
	t.Helper()
	return &breaker{cluster: c, rng: rng, managers: c.Pods(t, ccm), speakers: c.Pods(t, speaker), done: make(tally)}
}

// run injects faults until the context ends.
func (b *breaker) run(ctx context.Context) error {
	var errs []error
	for pause(ctx, between(b.rng, 2*time.Second, 9*time.Second)) {
		f := choose(b.rng, faults)
		if f.outage {
			if b.outages == maxOutages {
				continue
			}
			b.outages++
		}
		b.note("fault: %s", f.name)
		err := f.inject(b, ctx)
		if ctx.Err() != nil {
			break
		}
		b.done.add(f.name, err)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", f.name, err))
		}
	}
	return errors.Join(errs...)
}

// note keeps what is done, for the log and for the history of violations.
func (b *breaker) note(format string, args ...any) {
	b.cluster.Invariants.Note(format, args...)
	b.told = append(b.told, time.Now().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
}

func (b *breaker) log(t *testing.T) {
	t.Logf("faults: %s\n%s", b.done, strings.Join(b.told, "\n"))
}

// bounded is a context for a verb of the lab, which must not be given up halfway.
func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
}

func (b *breaker) restart(ctx context.Context, pods []corev1.Pod, signal syscall.Signal) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	pod := pick(b.rng, pods)
	b.note("%s: %s on %s", signal, pod.Name, pod.Spec.NodeName)
	return b.cluster.Restart(ctx, pod.Spec.NodeName, pod.Name, signal)
}

func (b *breaker) killManagers(ctx context.Context) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	var errs []error
	for _, pod := range b.managers {
		errs = append(errs, b.cluster.Restart(ctx, pod.Spec.NodeName, pod.Name, syscall.SIGKILL))
	}
	return errors.Join(errs...)
}

// stopManager stops a replica for so long that the other one may take over, or
// not.
func (b *breaker) stopManager(ctx context.Context) error {
	pod, d := pick(b.rng, b.managers), between(b.rng, time.Second, longestStop)
	b.note("%s on %s is stopped for %s", pod.Name, pod.Spec.NodeName, d)
	if err := b.signal(ctx, &pod, syscall.SIGSTOP); err != nil {
		return err
	}
	b.stopped = &pod
	if b.allocates(ctx, &pod) {
		// Nobody could act: its Lease lasts 15 s, and looks renewed for a part of that.
		defer b.cluster.Invariants.Suspend("who allocates is stopped")()
	}
	pause(ctx, d)
	return b.mend(ctx)
}

// allocates reports whether the replica holds the Lease of the allocator, as far as is
// known.
func (b *breaker) allocates(ctx context.Context, pod *corev1.Pod) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	holder, err := b.cluster.Kubectl(ctx, "-n", v1alpha1.DefaultNamespace, "get", "lease", ccm, "-o", "jsonpath={.spec.holderIdentity}")
	return err != nil || strings.HasPrefix(holder, pod.Name)
}

func (b *breaker) signal(ctx context.Context, pod *corev1.Pod, signal syscall.Signal) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	return b.cluster.Signal(ctx, pod.Spec.NodeName, pod.Name, signal)
}

func (b *breaker) restartAPI(ctx context.Context) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	return b.cluster.Restart(ctx, lab.ControlPlane, "kube-apiserver", syscall.SIGKILL)
}

func (b *breaker) stopAPI(ctx context.Context) error {
	stopping, cancel := bounded(ctx)
	defer cancel()
	if err := b.cluster.StopAPI(stopping); err != nil {
		return err
	}
	b.apiDown = true
	pause(ctx, between(b.rng, time.Second, longestOutage))
	return b.mend(ctx)
}

// mend ends what a fault that was interrupted left behind.
func (b *breaker) mend(ctx context.Context) error {
	var errs []error
	if b.stopped != nil {
		errs = append(errs, b.signal(ctx, b.stopped, syscall.SIGCONT))
		b.stopped = nil
	}
	if b.apiDown {
		starting, cancel := bounded(ctx)
		defer cancel()
		errs = append(errs, b.cluster.StartAPI(starting))
		b.apiDown = false
	}
	return errors.Join(errs...)
}

// heal waits until everything runs.
func (b *breaker) heal(t *testing.T) {
	t.Helper()
	if err := b.mend(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.cluster.Invariants.Note("no more faults")
	for component, n := range map[string]int{ccm: len(b.managers), speaker: len(b.speakers)} {
		err := b.cluster.WaitPodsReady(cluster.Context(t), v1alpha1.DefaultNamespace, v1alpha1.SpeakerPodLabel+"="+component, n)
		if err != nil {
			t.Error(err)
		}
	}
}
