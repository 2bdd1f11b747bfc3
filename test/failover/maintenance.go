package main

import (
	"context"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

// What people and their tools do to nodes on purpose.
var (
	drained     = disturbance{flush: true, cause: drain, mend: undrain}
	rebooted    = disturbance{flush: true, cause: reboot, mend: uncordon}
	proxyFailed = disturbance{flush: true, cause: failProxy, mend: restoreProxy}
)

func drain(ctx context.Context, s *site, t target) error {
	_, err := s.Kubectl(ctx, "annotate", "node", t.owner, v1alpha1.NodeDrain+"=true")
	return err
}

func undrain(ctx context.Context, s *site, t target) error {
	_, err := s.Kubectl(ctx, "annotate", "node", t.owner, v1alpha1.NodeDrain+"-")
	return err
}

// reboot is what kured does: cordon, and reboot the machine.
func reboot(ctx context.Context, s *site, t target) error {
	if _, err := s.Kubectl(ctx, "cordon", t.owner); err != nil {
		return err
	}
	if err := s.Shutdown(ctx, t.owner); err != nil {
		return err
	}
	if err := pause(ctx, s.options.off); err != nil {
		return err
	}
	if err := s.PowerOn(ctx, t.owner); err != nil {
		return err
	}
	if err := s.WaitNodeReady(ctx, t.owner); err != nil {
		return err
	}
	return s.waitSpeakers(ctx)
}

func uncordon(ctx context.Context, s *site, t target) error {
	_, err := s.Kubectl(ctx, "uncordon", t.owner)
	return err
}

func failProxy(ctx context.Context, s *site, t target) error { return s.FailProxyHealth(ctx, t.owner) }

func restoreProxy(ctx context.Context, s *site, t target) error {
	return s.RestoreProxyHealth(ctx, t.owner)
}
