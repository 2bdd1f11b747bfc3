package planner

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/klog/v2"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/kubeapi"
)

// LeaseName is the name of the planner's Lease.
const LeaseName = "baremetal-planner"

// Times of the Lease. It is released on exit, so that an upgrade stops
// planning for a second; after a crash the next planner waits for its end. It is
// short because the node that dies may be the one with the planner: the addresses
// that it answered for wait for both to be noticed.
const (
	leaseDuration = 3 * time.Second
	renewDeadline = 2 * time.Second
	// retryPeriod is that of the holder; others look after 1 to 2.2 times as long.
	retryPeriod = 500 * time.Millisecond
	// term is how long the work goes on after the last renewal: it has ended
	// when another planner may take the Lease, even if giving it up hangs.
	term = leaseDuration - 500*time.Millisecond
)

// lead works while it holds the Lease, again and again, until the context ends.
func (p *planner) lead(ctx context.Context, work func(context.Context) error) error {
	if !p.config.LeaderElect {
		p.fence.Open()
		return work(ctx)
	}
	for ctx.Err() == nil {
		if err := p.leadOnce(ctx, work); err != nil {
			return err
		}
	}
	return nil
}

// leadOnce waits for the Lease and works until the context ends or the Lease is
// lost. The Lease outlives ctx until the work has ended: only then may another
// planner start.
func (p *planner) leadOnce(ctx context.Context, work func(context.Context) error) error {
	electing, release := context.WithCancel(context.WithoutCancel(ctx))
	defer release()
	working, stop := context.WithCancel(ctx)
	defer stop()
	expiry := time.AfterFunc(term, stop)
	expiry.Stop() // until the Lease is ours
	defer expiry.Stop()

	elected := make(chan context.Context, 1)
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Name: LeaseName,
		Lock: &termLock{expiry: expiry, fence: p.fence, Interface: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: p.config.LeaseNamespace, Name: LeaseName},
			Client:     p.leases,
			LockConfig: resourcelock.ResourceLockConfig{Identity: p.config.Identity},
		}},
		LeaseDuration:   leaseDuration,
		RenewDeadline:   renewDeadline,
		RetryPeriod:     retryPeriod,
		ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(leading context.Context) { elected <- leading },
			OnStoppedLeading: func() {},
		},
	})
	if err != nil {
		return fmt.Errorf("planner: Lease %s/%s: %w", p.config.LeaseNamespace, LeaseName, err)
	}
	var group errgroup.Group
	group.Go(func() error {
		defer release()
		select {
		case leading := <-elected:
			defer context.AfterFunc(leading, stop)()
			p.fence.Open()
			defer klog.InfoS("No longer planning: the Lease is given up or lost")
			defer p.fence.Pause()
			return work(working)
		case <-working.Done():
		case <-electing.Done():
		}
		return nil
	})
	elector.Run(electing)
	release()
	return group.Wait()
}

// termLock is the Lease. It ends the work in time when renewals stay away, for
// the elector first tries to give the Lease up, which may hang; and it gives up
// nobody else's Lease.
type termLock struct {
	resourcelock.Interface
	expiry *time.Timer
	fence  *kubeapi.Fence
	holder string // as last read; only the elector's goroutine uses it
}

// Get, Create and Update have the meaning that resourcelock.Interface gives them.
func (l *termLock) Get(ctx context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	record, raw, err := l.Interface.Get(ctx)
	if err == nil {
		l.holder = record.HolderIdentity
	}
	return record, raw, err
}

func (l *termLock) Create(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	return l.renew(record, func() error { return l.Interface.Create(ctx, record) })
}

func (l *termLock) Update(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	if record.HolderIdentity == "" && l.holder != l.Identity() {
		return fmt.Errorf("the Lease is held by %q", l.holder)
	}
	return l.renew(record, func() error { return l.Interface.Update(ctx, record) })
}

// renew prolongs the work from before the write: others count from after it.
func (l *termLock) renew(record resourcelock.LeaderElectionRecord, write func() error) error {
	end := time.Now().Add(term)
	err := write()
	if err == nil && record.HolderIdentity != "" {
		l.fence.Renewed(end)
		l.expiry.Reset(time.Until(end))
	}
	return err
}
