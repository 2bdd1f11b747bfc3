package kubelet

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/internal/control"
)

// podWorker runs one Pod from its first sight to its deletion.
type podWorker struct {
	kubelet    *kubelet
	containers []*containerWorker
	inits      []*containerWorker
	// predecessor is an earlier Pod of the same name that is still here.
	predecessor *podWorker

	terminate chan struct{} // closed when the Pod is to end
	removed   chan struct{} // closed when the API no longer has it
	done      chan struct{} // closed when nothing of it is left
	dirty     chan struct{} // the status has changed

	mu      sync.Mutex
	pod     *corev1.Pod // as last seen
	sandbox *sandbox
	ready   bool // volumes and network are there
	ending  bool
	gone    bool
	before  []corev1.PodCondition // as last reported
}

func newPodWorker(k *kubelet, pod *corev1.Pod, found []control.ProgramStatus) *podWorker {
	w := &podWorker{
		kubelet:   k,
		pod:       pod,
		terminate: make(chan struct{}),
		removed:   make(chan struct{}),
		done:      make(chan struct{}),
		dirty:     make(chan struct{}, 1),
		before:    pod.Status.Conditions,
	}
	for i := range pod.Spec.InitContainers {
		w.inits = append(w.inits, newContainerWorker(w, &pod.Spec.InitContainers[i], pod.Status.InitContainerStatuses, found))
	}
	for i := range pod.Spec.Containers {
		w.containers = append(w.containers, newContainerWorker(w, &pod.Spec.Containers[i], pod.Status.ContainerStatuses, found))
	}
	if pod.DeletionTimestamp != nil {
		w.ending = true
		close(w.terminate)
	}
	return w
}

// update tells the worker the Pod's current state.
func (w *podWorker) update(pod *corev1.Pod) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pod = pod
	if w.isOverridden(pod.Status.Conditions) {
		w.changed()
	}
	if pod.DeletionTimestamp != nil && !w.ending {
		w.ending = true
		close(w.terminate)
	}
}

// isOverridden tells whether somebody else has changed a condition that was
// reported, as the node lifecycle controller does when a node falls silent. The
// lock is held.
func (w *podWorker) isOverridden(now []corev1.PodCondition) bool {
	for _, mine := range w.before {
		for _, c := range now {
			if c.Type == mine.Type && c.Status != mine.Status {
				return true
			}
		}
	}
	return false
}

// remove tells the worker that the API no longer has the Pod.
func (w *podWorker) remove() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.ending {
		w.ending = true
		close(w.terminate)
	}
	if !w.gone {
		w.gone = true
		close(w.removed)
	}
}

func (w *podWorker) isGone() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.gone
}

func (w *podWorker) ended() bool {
	select {
	case <-w.done:
		return true
	default:
		return false
	}
}

func (w *podWorker) seen() *corev1.Pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pod
}

func (w *podWorker) changed() {
	select {
	case w.dirty <- struct{}{}:
	default:
	}
}

// run returns when the Pod is gone or ctx, the kubelet's, ends.
func (w *podWorker) run(ctx context.Context) {
	defer close(w.done)
	if !w.waitForPredecessor(ctx) {
		return
	}
	statusCtx, stopStatus := context.WithCancel(ctx)
	var reporter sync.WaitGroup
	reporter.Go(func() { w.reportStatus(statusCtx) })
	defer reporter.Wait()
	defer stopStatus()

	podCtx, endPod := context.WithCancel(ctx)
	defer endPod()
	var lives sync.WaitGroup
	if pod := w.seen(); !isTerminal(pod.Status.Phase) && pod.DeletionTimestamp == nil {
		lives.Go(func() { w.live(podCtx) })
	}

	select {
	case <-ctx.Done():
		// The containers go on; the next kubelet adopts them.
		return
	case <-w.terminate:
	}
	endPod()
	w.stopContainers(ctx)
	lives.Wait()
	if ctx.Err() != nil {
		return
	}
	stopStatus()
	reporter.Wait()
	w.cleanUp()
	w.deletePod(ctx)
}

// waitForPredecessor waits until an earlier Pod of the same name has left, whose
// containers go by the same names. It returns false if ctx ends before.
func (w *podWorker) waitForPredecessor(ctx context.Context) bool {
	if w.predecessor == nil {
		return true
	}
	select {
	case <-w.predecessor.done:
		return true
	case <-ctx.Done():
		return false
	}
}

func isTerminal(phase corev1.PodPhase) bool {
	return phase == corev1.PodSucceeded || phase == corev1.PodFailed
}

// live prepares the Pod and runs its containers until ctx ends or none is to
// run any more.
func (w *podWorker) live(ctx context.Context) {
	w.changed()
	for {
		err := w.prepare(ctx)
		if err == nil {
			break
		}
		w.setWaiting("ContainerCreating", err.Error())
		klog.ErrorS(err, "Cannot prepare", "pod", klog.KObj(w.seen()))
		if !pause(ctx, 250*time.Millisecond) {
			return
		}
	}
	var refresher sync.WaitGroup
	refreshCtx, stop := context.WithCancel(ctx)
	refresher.Go(func() { w.refreshVolumes(refreshCtx) })
	defer refresher.Wait()
	defer stop()

	for _, c := range w.inits {
		if !c.runToCompletion(ctx) {
			return
		}
	}
	var running sync.WaitGroup
	for _, c := range w.containers {
		running.Go(func() { c.run(ctx) })
	}
	running.Wait()
}

// prepare makes the Pod's network and volumes.
func (w *podWorker) prepare(ctx context.Context) error {
	pod := w.seen()
	s, err := w.kubelet.network.setUp(pod.UID, pod.Spec.HostNetwork)
	if err != nil {
		return err
	}
	w.mu.Lock()
	w.sandbox = s
	w.mu.Unlock()
	if err := w.kubelet.writeVolumes(ctx, pod, s); err != nil {
		return err
	}
	w.mu.Lock()
	w.ready = true
	w.mu.Unlock()
	w.changed()
	return nil
}

func (w *podWorker) setWaiting(reason, message string) {
	for _, c := range w.containers {
		c.setWaiting(reason, message)
	}
}

// refreshVolumes keeps tokens, Secrets and ConfigMaps current.
func (w *podWorker) refreshVolumes(ctx context.Context) {
	const interval = 15 * time.Second
	for pause(ctx, interval) {
		if err := w.kubelet.writeVolumes(ctx, w.seen(), w.sandbox); err != nil && ctx.Err() == nil {
			klog.ErrorS(err, "Cannot refresh volumes", "pod", klog.KObj(w.seen()))
		}
	}
}

// stopContainers ends the containers: politely, and after the grace period for
// sure.
func (w *podWorker) stopContainers(ctx context.Context) {
	pod := w.seen()
	grace := 30 * time.Second
	if s := ptr.Deref(pod.Spec.TerminationGracePeriodSeconds, 30); s >= 0 {
		grace = time.Duration(s) * time.Second
	}
	if pod.DeletionGracePeriodSeconds != nil {
		grace = time.Duration(*pod.DeletionGracePeriodSeconds) * time.Second
	}
	var stopping sync.WaitGroup
	for _, c := range append(w.inits, w.containers...) {
		stopping.Go(func() { c.stop(ctx, grace) })
	}
	stopping.Wait()
}

// cleanUp removes what the Pod had on the host.
func (w *podWorker) cleanUp() {
	pod := w.seen()
	for _, c := range append(w.inits, w.containers...) {
		if err := w.kubelet.forgetContainer(c.id); err != nil {
			klog.ErrorS(err, "Cannot remove", "container", c.id)
		}
	}
	if err := w.kubelet.network.tearDown(pod.UID); err != nil {
		klog.ErrorS(err, "Cannot remove the network", "pod", klog.KObj(pod))
	}
	if err := os.RemoveAll(podDir(pod)); err != nil {
		klog.ErrorS(err, "Cannot remove the volumes", "pod", klog.KObj(pod))
	}
}

// deletePod reports the end, and lets the API forget the Pod.
func (w *podWorker) deletePod(ctx context.Context) {
	for {
		select {
		case <-w.removed:
			return
		default:
		}
		attempt, cancel := context.WithTimeout(ctx, requestTimeout)
		err := w.sendStatus(attempt)
		if err == nil {
			pod := w.seen()
			err = w.kubelet.client.CoreV1().Pods(pod.Namespace).Delete(attempt, pod.Name, metav1.DeleteOptions{
				GracePeriodSeconds: ptr.To(int64(0)),
				Preconditions:      metav1.NewUIDPreconditions(string(pod.UID)),
			})
		}
		cancel()
		if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			w.mu.Lock()
			w.gone = true
			w.mu.Unlock()
			return
		}
		if !pause(ctx, 500*time.Millisecond) {
			return
		}
	}
}

func podDir(pod *corev1.Pod) string {
	return filepath.Join(persistentDir, "pods", string(pod.UID))
}
