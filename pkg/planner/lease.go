package planner

import (
	"context"
	"fmt"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/klog/v2"
)

// LeaseName is the name of the planner's Lease.
const LeaseName = "baremetal-planner"

// Times of the Lease. It is released on exit, so that an upgrade stops
// planning for a second; after a crash the next planner waits for its end.
const (
	leaseDuration = 6 * time.Second
	renewDeadline = 4 * time.Second
	retryPeriod   = time.Second
)

// lead works while it holds the Lease, again and again, until the context ends.
func (p *planner) lead(ctx context.Context) error {
	if !p.config.LeaderElect {
		return p.work(ctx)
	}
	for ctx.Err() == nil {
		if err := p.leadOnce(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (p *planner) leadOnce(ctx context.Context) error {
	// The Lease outlives ctx until the work has ended: only then may another
	// planner start.
	electing, release := context.WithCancel(context.WithoutCancel(ctx))
	defer release()
	var (
		working sync.Mutex
		workErr error
	)
	stop := context.AfterFunc(ctx, func() {
		working.Lock()
		defer working.Unlock()
		release()
	})
	defer stop()

	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Name: LeaseName,
		Lock: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: p.config.LeaseNamespace, Name: LeaseName},
			Client:     p.client.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: p.config.Identity},
		},
		LeaseDuration:   leaseDuration,
		RenewDeadline:   renewDeadline,
		RetryPeriod:     retryPeriod,
		ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(leading context.Context) {
				working.Lock()
				defer working.Unlock()
				both, cancel := context.WithCancel(leading)
				defer cancel()
				defer context.AfterFunc(ctx, cancel)()
				workErr = p.work(both)
				release()
			},
			OnStoppedLeading: func() { klog.InfoS("No longer planning: the Lease is given up or lost") },
		},
	})
	if err != nil {
		return fmt.Errorf("planner: Lease %s/%s: %w", p.config.LeaseNamespace, LeaseName, err)
	}
	elector.Run(electing)
	working.Lock() // the work has seen that it ended
	defer working.Unlock()
	return workErr
}
