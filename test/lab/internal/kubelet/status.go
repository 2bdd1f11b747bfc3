package kubelet

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
)

// reportStatus sends the Pod's status whenever it has changed, until ctx ends.
func (w *podWorker) reportStatus(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.dirty:
		}
		for {
			attempt, cancel := context.WithTimeout(ctx, requestTimeout)
			err := w.sendStatus(attempt)
			cancel()
			if err == nil || apierrors.IsNotFound(err) {
				break
			}
			if ctx.Err() == nil {
				klog.ErrorS(err, "Cannot report", "pod", klog.KObj(w.seen()))
			}
			if !pause(ctx, 300*time.Millisecond) {
				return
			}
		}
	}
}

// sendStatus patches what a kubelet owns of a Pod's status, and leaves the
// conditions of others alone.
func (w *podWorker) sendStatus(ctx context.Context) error {
	pod := w.seen()
	status := w.status()
	text, err := json.Marshal(status)
	if err != nil {
		return err
	}
	var fields map[string]any
	if err := json.Unmarshal(text, &fields); err != nil {
		return err
	}
	delete(fields, "qosClass")
	if ips, ok := fields["podIPs"].([]any); ok {
		// Merged by default, which would keep the addresses of an earlier
		// boot.
		fields["podIPs"] = append([]any{map[string]any{"$patch": "replace"}}, ips...)
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": pod.UID}, "status": fields})
	if err != nil {
		return err
	}
	_, err = w.kubelet.client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, patch,
		metav1.PatchOptions{}, "status")
	if apierrors.IsConflict(err) {
		return nil // another Pod of the same name by now
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("status of pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	return err
}

// status is the Pod's status now.
func (w *podWorker) status() corev1.PodStatus {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := metav1.Now()
	status := corev1.PodStatus{StartTime: w.pod.Status.StartTime, HostIP: w.kubelet.config.IPs[0]}
	if status.StartTime == nil {
		status.StartTime = &now
	}
	for _, ip := range w.kubelet.config.IPs {
		status.HostIPs = append(status.HostIPs, corev1.HostIP{IP: ip})
	}
	if w.sandbox != nil {
		status.PodIP = w.sandbox.IPs[0].String()
		for _, ip := range w.sandbox.IPs {
			status.PodIPs = append(status.PodIPs, corev1.PodIP{IP: ip.String()})
		}
	}
	initialized := true
	for _, c := range w.inits {
		s := c.status()
		initialized = initialized && s.State.Terminated != nil && s.State.Terminated.ExitCode == 0
		status.InitContainerStatuses = append(status.InitContainerStatuses, s)
	}
	ready := w.ready && initialized
	for _, c := range w.containers {
		s := c.status()
		ready = ready && s.Ready
		status.ContainerStatuses = append(status.ContainerStatuses, s)
	}
	status.Phase = w.phase(status.ContainerStatuses)
	if isTerminal(w.pod.Status.Phase) {
		status.Phase = w.pod.Status.Phase
	}
	w.setConditions(&status, now, initialized, ready)
	return status
}

// phase sums the containers up. The lock is held.
func (w *podWorker) phase(containers []corev1.ContainerStatus) corev1.PodPhase {
	ran, over, failed := 0, 0, 0
	for i, c := range containers {
		if c.State.Running != nil || c.State.Terminated != nil || c.LastTerminationState.Terminated != nil {
			ran++
		}
		if t := c.State.Terminated; t != nil && (w.ending || w.containers[i].isTerminated()) {
			over++
			if t.ExitCode != 0 {
				failed++
			}
		}
	}
	policy := w.pod.Spec.RestartPolicy
	switch {
	case over == len(containers) && !(policy == corev1.RestartPolicyAlways && !w.ending):
		if failed > 0 {
			return corev1.PodFailed
		}
		return corev1.PodSucceeded
	case ran == len(containers):
		return corev1.PodRunning
	}
	return corev1.PodPending
}

// setConditions sets the kubelet's conditions, each with the time of its last
// transition. The lock is held.
func (w *podWorker) setConditions(status *corev1.PodStatus, now metav1.Time, initialized, ready bool) {
	reason := ""
	if !ready {
		reason = "ContainersNotReady"
		if isTerminal(status.Phase) {
			reason = "PodCompleted"
		}
	}
	gates := ready
	for _, g := range w.pod.Spec.ReadinessGates {
		met := false
		for _, c := range w.pod.Status.Conditions {
			met = met || c.Type == g.ConditionType && c.Status == corev1.ConditionTrue
		}
		gates = gates && met
	}
	set := func(t corev1.PodConditionType, value bool, reason string) {
		c := corev1.PodCondition{Type: t, Status: corev1.ConditionFalse, Reason: reason, LastTransitionTime: now}
		if value {
			c.Status, c.Reason = corev1.ConditionTrue, ""
		}
		for _, b := range w.before {
			if b.Type == t && b.Status == c.Status {
				c.LastTransitionTime = b.LastTransitionTime
			}
		}
		status.Conditions = append(status.Conditions, c)
	}
	set(corev1.PodScheduled, true, "")
	set(corev1.PodReadyToStartContainers, w.ready, "")
	set(corev1.PodInitialized, initialized, "ContainersNotInitialized")
	set(corev1.ContainersReady, ready, reason)
	set(corev1.PodReady, gates, reason)
	w.before = status.Conditions
}

func (c *containerWorker) isTerminated() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.terminated
}

func (c *containerWorker) status() corev1.ContainerStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	started := c.started
	s := corev1.ContainerStatus{
		Name:                 c.spec.Name,
		State:                c.state,
		LastTerminationState: c.last,
		Ready:                c.ready && c.state.Running != nil,
		RestartCount:         c.restarts,
		Image:                c.spec.Image,
		ImageID:              imageName(c.spec.Image),
		Started:              &started,
	}
	if c.everRan {
		s.ContainerID = fmt.Sprintf("lab://%s/%d", c.id, c.pid)
	}
	return s
}
