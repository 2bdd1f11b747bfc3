package main

import (
	"context"
	"fmt"
	"syscall"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

// Programs that end and come back, while the kernels forward all the time.
var (
	speakerKilled   = disturbance{flush: true, cause: killSpeaker}
	speakerUpgraded = disturbance{flush: true, cause: replaceSpeaker}
	speakersRolled  = disturbance{flush: true, cause: rollSpeakers}
	managersKilled  = disturbance{flush: true, cause: killManagers}
	apiStopped      = disturbance{flush: true, cause: stopAPI}
)

// killSpeaker keeps the owner's speaker down for a while.
func killSpeaker(ctx context.Context, s *site, t target) error {
	if err := s.Kill(ctx, t.owner, speaker, syscall.SIGKILL); err != nil {
		return err
	}
	if err := pause(ctx, s.options.speakerDown); err != nil {
		return err
	}
	if err := s.StartProgram(ctx, t.owner, speaker); err != nil {
		return err
	}
	return s.waitSpeakers(ctx)
}

// replaceSpeaker is what an upgrade does on one node.
func replaceSpeaker(ctx context.Context, s *site, t target) error {
	pod, err := s.pod(ctx, speaker, t.owner)
	if err != nil {
		return err
	}
	if err := s.Client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{}); err != nil {
		return err
	}
	err = s.WaitFor(ctx, "another speaker on "+t.owner, func(ctx context.Context) (bool, error) {
		next, err := s.pod(ctx, speaker, t.owner)
		return err == nil && next.UID != pod.UID, err
	})
	if err != nil {
		return err
	}
	return s.waitSpeakers(ctx)
}

// rollSpeakers is what an upgrade does on all nodes.
func rollSpeakers(ctx context.Context, s *site, _ target) error {
	for _, command := range []string{"restart", "status"} {
		if _, err := s.Kubectl(ctx, "-n", v1alpha1.DefaultNamespace, "rollout", command, "daemonset/"+speaker); err != nil {
			return err
		}
	}
	return s.waitSpeakers(ctx)
}

func killManagers(ctx context.Context, s *site, _ target) error {
	pods, err := s.Client.CoreV1().Pods(v1alpha1.DefaultNamespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=" + manager})
	if err != nil {
		return err
	}
	for _, pod := range pods.Items {
		if err := s.Restart(ctx, pod.Spec.NodeName, pod.Name, syscall.SIGKILL); err != nil {
			return fmt.Errorf("kill %s: %w", pod.Name, err)
		}
	}
	return s.WaitPodsReady(ctx, v1alpha1.DefaultNamespace, "app.kubernetes.io/name="+manager, 2)
}

func stopAPI(ctx context.Context, s *site, _ target) error {
	if err := s.StopAPI(ctx); err != nil {
		return err
	}
	if err := pause(ctx, s.options.apiDown); err != nil {
		return err
	}
	return s.StartAPI(ctx)
}

func (s *site) waitSpeakers(ctx context.Context) error {
	return s.WaitPodsReady(ctx, v1alpha1.DefaultNamespace, v1alpha1.SpeakerPodLabel+"="+speaker, len(s.nodes))
}
