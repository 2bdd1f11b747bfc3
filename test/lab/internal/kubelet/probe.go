package kubelet

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/klog/v2"
)

// probe runs the probes of a running container until ctx ends: the startup
// probe until it succeeds, then the others.
func (c *containerWorker) probe(ctx context.Context) {
	if c.spec.StartupProbe != nil {
		if !c.watchProbe(ctx, c.spec.StartupProbe, c.onStartup) {
			return
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if c.spec.LivenessProbe != nil {
			c.watchProbe(ctx, c.spec.LivenessProbe, c.onLiveness)
		}
	}()
	if c.spec.ReadinessProbe != nil {
		c.watchProbe(ctx, c.spec.ReadinessProbe, c.onReadiness)
	}
	<-done
}

// onStartup, onLiveness and onReadiness act on a probe that has crossed its
// threshold. They return true when the probe has done its work.
func (c *containerWorker) onStartup(good bool) bool {
	if !good {
		c.restartUnhealthy("startup")
		return false
	}
	c.mu.Lock()
	c.started = true
	c.ready = c.spec.ReadinessProbe == nil
	c.mu.Unlock()
	c.pod.changed()
	return true
}

func (c *containerWorker) onLiveness(good bool) bool {
	if !good {
		c.restartUnhealthy("liveness")
	}
	return false
}

func (c *containerWorker) onReadiness(good bool) bool {
	c.mu.Lock()
	changed := c.ready != good
	c.ready = good
	c.mu.Unlock()
	if changed {
		c.pod.changed()
	}
	return false
}

func (c *containerWorker) restartUnhealthy(probe string) {
	klog.InfoS("Probe failed, ending the container", "container", c.id, "probe", probe)
	sig := syscall.SIGTERM
	c.mu.Lock()
	if c.unhealthy {
		sig = syscall.SIGKILL // it was asked before
	}
	c.unhealthy = true
	c.mu.Unlock()
	c.pod.kubelet.signalContainer(c.id, sig)
}

// watchProbe repeats a probe and tells act each time a threshold is reached.
// It returns whether act said that the probe is done.
func (c *containerWorker) watchProbe(ctx context.Context, p *corev1.Probe, act func(good bool) bool) bool {
	period := time.Duration(max(p.PeriodSeconds, 1)) * time.Second
	if !pause(ctx, time.Duration(p.InitialDelaySeconds)*time.Second) {
		return false
	}
	successes, failures := int32(0), int32(0)
	for ctx.Err() == nil {
		err := c.tryProbe(ctx, p)
		if ctx.Err() != nil {
			return false
		}
		if err == nil {
			successes, failures = successes+1, 0
		} else {
			successes, failures = 0, failures+1
		}
		if successes >= max(p.SuccessThreshold, 1) && act(true) {
			return true
		}
		if failures >= max(p.FailureThreshold, 1) {
			act(false)
			failures = 0
		}
		wait := period
		if successes == 0 && !c.isReady() {
			// What starts is asked more often, so that tests need not wait.
			wait = min(period, 200*time.Millisecond)
			if p == c.spec.LivenessProbe || p == c.spec.StartupProbe {
				wait = period
			}
		}
		if !pause(ctx, wait) {
			return false
		}
	}
	return false
}

func (c *containerWorker) isReady() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ready
}

// tryProbe probes once.
func (c *containerWorker) tryProbe(ctx context.Context, p *corev1.Probe) error {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(max(p.TimeoutSeconds, 1))*time.Second)
	defer cancel()
	switch {
	case p.Exec != nil:
		return c.pod.kubelet.exec(ctx, c.id, p.Exec.Command, nil, nil, nil)
	case p.HTTPGet != nil:
		return c.probeHTTP(ctx, p.HTTPGet)
	case p.TCPSocket != nil:
		address, err := c.probeAddress(p.TCPSocket.Host, p.TCPSocket.Port)
		if err != nil {
			return err
		}
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
		return conn.Close()
	}
	return errors.New("the lab does not know this kind of probe")
}

func (c *containerWorker) probeHTTP(ctx context.Context, get *corev1.HTTPGetAction) error {
	address, err := c.probeAddress(get.Host, get.Port)
	if err != nil {
		return err
	}
	scheme := strings.ToLower(string(get.Scheme))
	if scheme == "" {
		scheme = "http"
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+address+get.Path, nil)
	if err != nil {
		return err
	}
	for _, h := range get.HTTPHeaders {
		request.Header.Set(h.Name, h.Value)
	}
	// Like a real kubelet's, probes do not ask whom they talk to.
	transport := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return err
	}
	response.Body.Close()
	if response.StatusCode < 200 || response.StatusCode >= 400 {
		return fmt.Errorf("status %d", response.StatusCode)
	}
	return nil
}

func (c *containerWorker) probeAddress(host string, port intstr.IntOrString) (string, error) {
	if host == "" {
		host = c.pod.sandbox.IPs[0].String()
	}
	number := port.IntValue()
	if port.Type == intstr.String {
		number = 0
		for _, p := range c.spec.Ports {
			if p.Name == port.StrVal {
				number = int(p.ContainerPort)
			}
		}
		if number == 0 {
			return "", fmt.Errorf("container %s has no port %q", c.spec.Name, port.StrVal)
		}
	}
	return net.JoinHostPort(host, strconv.Itoa(number)), nil
}
