package kubelet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/internal/control"
)

// containerWorker runs one container of a Pod.
type containerWorker struct {
	pod  *podWorker
	spec *corev1.Container
	id   string

	mu         sync.Mutex
	state      corev1.ContainerState
	last       corev1.ContainerState
	pid        int
	restarts   int32
	everRan    bool
	started    bool // the startup probe has succeeded
	ready      bool
	unhealthy  bool // a probe has asked this run to end
	terminated bool // nothing of it is to run any more
}

func newContainerWorker(pod *podWorker, spec *corev1.Container, statuses []corev1.ContainerStatus, found []control.ProgramStatus) *containerWorker {
	c := &containerWorker{pod: pod, spec: spec, id: containerID(pod.pod, spec.Name)}
	c.state.Waiting = &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}
	for _, s := range statuses {
		if s.Name != spec.Name {
			continue
		}
		c.restarts, c.last, c.everRan = s.RestartCount, s.LastTerminationState, s.ContainerID != ""
		if s.State.Running != nil {
			// Unless it is adopted, it ended with the host.
			c.last = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
				ExitCode: 137, Reason: "Unknown", StartedAt: s.State.Running.StartedAt, FinishedAt: metav1.Now(),
			}}
			c.ready = s.Ready
		}
	}
	adopted := false
	for _, f := range found {
		if f.Name == c.id && f.Running {
			adopted = true
		}
	}
	if adopted {
		// The start will find it running and is not a restart.
		c.everRan = false
	} else {
		c.ready = false
	}
	return c
}

// runToCompletion runs an init container until it has succeeded. It returns
// false if ctx ended before.
func (c *containerWorker) runToCompletion(ctx context.Context) bool {
	for attempt := 0; ctx.Err() == nil; attempt++ {
		if status, err := c.runOnce(ctx); err == nil && status.ExitCode == 0 {
			return ctx.Err() == nil
		}
		if !pause(ctx, backOff(attempt)) {
			return false
		}
	}
	return false
}

// run runs the container, again and again as the Pod's restart policy says.
func (c *containerWorker) run(ctx context.Context) {
	defer func() {
		c.mu.Lock()
		c.terminated = true
		c.mu.Unlock()
		c.pod.changed()
	}()
	attempt := 0
	for ctx.Err() == nil {
		status, err := c.runOnce(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			// Held by a person, an image that is missing, a Secret that is
			// not there yet: nothing tells when that changes.
			if !pause(ctx, 200*time.Millisecond) {
				return
			}
			continue
		}
		policy := c.pod.seen().Spec.RestartPolicy
		if policy == corev1.RestartPolicyNever || policy == corev1.RestartPolicyOnFailure && status.ExitCode == 0 {
			return
		}
		if status.EndedAt.Sub(status.StartedAt) > 10*time.Second {
			attempt = 0
		}
		if delay := backOff(attempt); delay > 0 {
			c.setWaiting("CrashLoopBackOff", fmt.Sprintf("back-off %s restarting failed container", delay))
			if !pause(ctx, delay) {
				return
			}
		}
		attempt++
	}
}

// backOff is how long to wait before a restart. The first one is immediate.
func backOff(attempt int) time.Duration {
	if attempt == 0 {
		return 0
	}
	return min(time.Second<<min(attempt-1, 4), 10*time.Second)
}

// runOnce starts the container, or adopts it if it runs, and returns how it
// ended.
func (c *containerWorker) runOnce(ctx context.Context) (control.ProgramStatus, error) {
	var status control.ProgramStatus
	program, err := c.program(ctx)
	if err == nil {
		err = c.pod.kubelet.runtime.Call(control.HostService+".StartContainer", program, &status)
	}
	if err != nil {
		c.failedToStart(err)
		return status, err
	}
	c.setRunning(&status)

	probeCtx, stopProbes := context.WithCancel(ctx)
	var probes sync.WaitGroup
	probes.Go(func() { c.probe(probeCtx) })
	err = c.pod.kubelet.runtime.Call(control.HostService+".WaitContainer", c.id, &status)
	stopProbes()
	probes.Wait()
	if err != nil {
		return status, fmt.Errorf("wait for %s: %w", c.id, err)
	}
	c.setTerminated(&status)
	return status, nil
}

// program builds what the runtime is to start, and leaves the container's
// specification where it finds it.
func (c *containerWorker) program(ctx context.Context) (control.Program, error) {
	k, pod := c.pod.kubelet, c.pod.seen()
	spec, err := k.containerSpec(ctx, pod, c.spec, c.pod.sandbox)
	if err != nil {
		return control.Program{}, err
	}
	text, err := json.Marshal(spec)
	if err != nil {
		return control.Program{}, err
	}
	dir := specDir(c.id)
	if err := writeFile(filepath.Join(dir, "spec.json"), text, 0o600); err != nil {
		return control.Program{}, err
	}
	if err := writeFile(filepath.Join(dir, "owner"), []byte(pod.UID), 0o600); err != nil {
		return control.Program{}, err
	}
	if err := os.MkdirAll(k.config.LogDir, 0o755); err != nil {
		return control.Program{}, err
	}
	return control.Program{
		Name:      c.id,
		Aliases:   []string{spec.ImageName},
		Argv:      []string{k.config.Command, "container", filepath.Join(dir, "spec.json")},
		Log:       k.logFile(c.id),
		Container: true,
	}, nil
}

// logFile is where a container writes, over all its runs.
func (k *kubelet) logFile(id string) string {
	return filepath.Join(k.config.LogDir, strings.ReplaceAll(id, "/", "_")+".log")
}

func specDir(id string) string {
	return filepath.Join(containerDir, strings.ReplaceAll(id, "/", "_"))
}

// readOwner returns the UID of the Pod that a container was started for.
func (k *kubelet) readOwner(id string) (types.UID, bool) {
	uid, err := os.ReadFile(filepath.Join(specDir(id), "owner"))
	return types.UID(uid), err == nil
}

// stop ends the container, and returns when it has.
func (c *containerWorker) stop(ctx context.Context, grace time.Duration) {
	k := c.pod.kubelet
	if h := c.spec.Lifecycle; h != nil && h.PreStop != nil && h.PreStop.Sleep != nil {
		sleep := min(grace, time.Duration(h.PreStop.Sleep.Seconds)*time.Second)
		grace -= sleep
		if !pause(ctx, sleep) {
			return
		}
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended) // ends with the container, which is killed below
		var status control.ProgramStatus
		if err := k.runtime.Call(control.HostService+".WaitContainer", c.id, &status); err == nil {
			c.setTerminated(&status)
		}
	}()
	if grace > 0 {
		k.signalContainer(c.id, syscall.SIGTERM)
		t := time.NewTimer(grace)
		defer t.Stop()
		select {
		case <-ended:
			return
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
	k.signalContainer(c.id, syscall.SIGKILL)
	<-ended
}

func (k *kubelet) signalContainer(id string, sig syscall.Signal) {
	request := control.SignalRequest{Program: id, Signal: sig}
	if err := k.runtime.Call(control.HostService+".SignalContainer", request, &control.None{}); err != nil {
		klog.ErrorS(err, "Cannot signal", "container", id)
	}
}

func (k *kubelet) endContainer(id string) error {
	k.signalContainer(id, syscall.SIGKILL)
	var status control.ProgramStatus
	if err := k.runtime.Call(control.HostService+".WaitContainer", id, &status); err != nil {
		return err
	}
	return k.forgetContainer(id)
}

func (k *kubelet) forgetContainer(id string) error {
	err := k.runtime.Call(control.HostService+".RemoveContainer", id, &control.None{})
	return errors.Join(err, os.RemoveAll(specDir(id)))
}

func (c *containerWorker) setWaiting(reason, message string) {
	c.mu.Lock()
	c.state = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
	c.ready, c.started = false, false
	c.mu.Unlock()
	c.pod.changed()
}

func (c *containerWorker) failedToStart(err error) {
	reason, message := "CreateContainerError", err.Error()
	var known *startError
	switch {
	case errors.As(err, &known):
		reason = known.reason
	case message == control.Held:
		reason = "CrashLoopBackOff"
	}
	c.setWaiting(reason, message)
}

func (c *containerWorker) setRunning(status *control.ProgramStatus) {
	c.mu.Lock()
	c.state = corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(status.StartedAt)}}
	c.pid, c.unhealthy = status.PID, false
	if c.everRan {
		c.restarts++
	}
	c.everRan = true
	c.started = c.spec.StartupProbe == nil
	c.ready = c.started && (c.spec.ReadinessProbe == nil || c.ready)
	c.mu.Unlock()
	c.pod.changed()
}

func (c *containerWorker) setTerminated(status *control.ProgramStatus) {
	c.mu.Lock()
	defer c.pod.changed()
	defer c.mu.Unlock()
	if status.Starts == 0 {
		return // it never ran
	}
	reason := "Error"
	if status.ExitCode == 0 {
		reason = "Completed"
	}
	c.state = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
		ExitCode:   int32(status.ExitCode),
		Signal:     int32(status.Signal),
		Reason:     reason,
		StartedAt:  metav1.NewTime(status.StartedAt),
		FinishedAt: metav1.NewTime(status.EndedAt),
	}}
	c.last = c.state
	c.ready, c.started = false, false
}
