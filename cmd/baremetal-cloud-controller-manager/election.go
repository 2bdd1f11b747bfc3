package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/kubernetes"
	coordination "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	componentbase "k8s.io/component-base/config"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/kubeapi"
)

const (
	// resignTimeout bounds what giving up the Lease may take; after it the Lease
	// runs out by itself.
	resignTimeout = 3 * time.Second
	// reacquirePeriod is the time between two attempts to get back a Lease that
	// an absent API server took away.
	reacquirePeriod = 500 * time.Millisecond
)

// errDeposed ends a process that lost the Lease to another one: what it knows
// of assignments may be out of date.
var errDeposed = errors.New("another process held the Lease meanwhile; starting over")

// election holds the Lease in place of upstream, which ends the process when the
// Lease cannot be renewed: after each longer absence of the API server all
// replicas would start anew, and wait for a Lease that a dead process holds.
// Here a process that loses the Lease stops writing, by the fence, and goes on
// if it gets the Lease back before anybody else had it.
type election struct {
	config componentbase.LeaderElectionConfiguration
	leases coordination.LeaseInterface
	lock   resourcelock.Interface
	fence  *kubeapi.Fence

	// elected is closed when the Lease is held for the first time.
	elected chan struct{}
	once    sync.Once

	mu sync.Mutex // orders lead and pause, which may overlap
	// term is what the Lease said when it was first held.
	term *term
}

// term tells whether a Lease has changed hands.
type term struct {
	transitions int32
	acquired    metav1.MicroTime
}

func newElection(cluster *rest.Config, config componentbase.LeaderElectionConfiguration, events resourcelock.EventRecorder, fence *kubeapi.Fence) (*election, error) {
	cluster = rest.CopyConfig(cluster)
	cluster.Timeout = config.RenewDeadline.Duration
	client, err := kubernetes.NewForConfig(rest.AddUserAgent(cluster, "leader-election"))
	if err != nil {
		return nil, fmt.Errorf("leader election: %w", err)
	}
	lock, err := resourcelock.New(config.ResourceLock, config.ResourceNamespace, config.ResourceName,
		client.CoreV1(), client.CoordinationV1(), resourcelock.ResourceLockConfig{Identity: identity(), EventRecorder: events})
	if err != nil {
		return nil, fmt.Errorf("leader election: %w", err)
	}
	return &election{
		config:  config,
		leases:  client.CoordinationV1().Leases(config.ResourceNamespace),
		lock:    renewals{Interface: lock, lasts: config.LeaseDuration.Duration, fence: fence},
		fence:   fence,
		elected: make(chan struct{}),
	}, nil
}

// renewals tells the fence until when the Lease is ours: counted from before it
// is asked for, as others count from after.
type renewals struct {
	resourcelock.Interface
	lasts time.Duration
	fence *kubeapi.Fence
}

// Create implements resourcelock.Interface.
func (r renewals) Create(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	until := time.Now().Add(r.lasts)
	err := r.Interface.Create(ctx, record)
	if err == nil {
		r.fence.Renewed(until)
	}
	return err
}

// Update implements resourcelock.Interface.
func (r renewals) Update(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	until := time.Now().Add(r.lasts)
	err := r.Interface.Update(ctx, record)
	if err == nil {
		r.fence.Renewed(until)
	}
	return err
}

// run takes part in the election until the context ends, and gives up the Lease
// then, so that the next leader need not wait until it runs out. It returns
// errDeposed when somebody else led after this process did.
func (e *election) run(ctx context.Context) error {
	// The Lease outlives ctx until no write is under way.
	electing, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	defer context.AfterFunc(ctx, func() {
		e.resign()
		stop(nil)
	})()

	retry := e.config.RetryPeriod.Duration
	for electing.Err() == nil {
		elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
			// ReleaseOnCancel would also give up a Lease that could not be renewed,
			// and so invite others; see release.
			Name:          e.config.ResourceName,
			Lock:          e.lock,
			LeaseDuration: e.config.LeaseDuration.Duration,
			RenewDeadline: e.config.RenewDeadline.Duration,
			RetryPeriod:   retry,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: func(leading context.Context) {
					if err := e.lead(leading); err != nil {
						stop(err)
					}
				},
				OnStoppedLeading: e.pause,
			},
		})
		if err != nil {
			return fmt.Errorf("leader election: %w", err)
		}
		elector.Run(electing)
		retry = min(retry, reacquirePeriod)
	}
	if cause := context.Cause(electing); !errors.Is(cause, context.Canceled) {
		return cause
	}
	if err := e.release(); err != nil {
		klog.ErrorS(err, "The Lease is left to run out")
	}
	return nil
}

// lead opens the fence, unless somebody else led since this process did. ctx
// ends when the Lease is lost, before pause is called.
func (e *election) lead(ctx context.Context) error {
	lease, err := e.leases.Get(ctx, e.config.ResourceName, metav1.GetOptions{})
	e.mu.Lock()
	defer e.mu.Unlock()
	if ctx.Err() != nil {
		return nil // lost again already
	}
	if err != nil {
		return fmt.Errorf("reading the Lease %s: %w", e.lock.Describe(), err)
	}
	now := term{transitions: ptr.Deref(lease.Spec.LeaseTransitions, 0), acquired: ptr.Deref(lease.Spec.AcquireTime, metav1.MicroTime{})}
	if e.term == nil {
		e.term = &now
	}
	if ptr.Deref(lease.Spec.HolderIdentity, "") != e.lock.Identity() ||
		e.term.transitions != now.transitions || !e.term.acquired.Equal(&now.acquired) {
		return errDeposed
	}
	e.fence.Open()
	e.once.Do(func() { close(e.elected) })
	return nil
}

// pause holds writes back until the Lease is there again.
func (e *election) pause() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.fence.Pause()
}

// resign stops all writes and waits for those that have begun. Where that takes
// too long it ends the process: the Lease must run out by itself then.
func (e *election) resign() {
	ctx, cancel := context.WithTimeout(context.Background(), resignTimeout)
	defer cancel()
	if err := e.fence.Close(ctx); err != nil {
		klog.ErrorS(err, "Writes are still under way; the Lease is left to run out")
		klog.FlushAndExit(klog.ExitFlushTimeout, 1)
	}
}

// release empties the Lease as client-go's leaderelection does, if it is ours.
// The elector must have ended.
func (e *election) release() error {
	ctx, cancel := context.WithTimeout(context.Background(), resignTimeout)
	defer cancel()
	lease, err := e.leases.Get(ctx, e.config.ResourceName, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("giving up the Lease %s: %w", e.lock.Describe(), err)
	}
	if ptr.Deref(lease.Spec.HolderIdentity, "") != e.lock.Identity() {
		return nil
	}
	now := metav1.NowMicro()
	lease.Spec.HolderIdentity = ptr.To("")
	lease.Spec.LeaseDurationSeconds = ptr.To[int32](1)
	lease.Spec.AcquireTime, lease.Spec.RenewTime = &now, &now
	if _, err := e.leases.Update(ctx, lease, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("giving up the Lease %s: %w", e.lock.Describe(), err)
	}
	klog.InfoS("Gave up the Lease", "lease", e.lock.Describe())
	return nil
}

// identity names this process in Leases. A container that is started again in
// its Pod has the name of its dead predecessor, and so takes over the Lease at
// once: the kubelet runs one of them at a time.
func identity() string {
	if pod := os.Getenv("POD_NAME"); pod != "" {
		return pod
	}
	name, err := os.Hostname()
	if err != nil {
		name = programName
	}
	return name + "_" + string(uuid.NewUUID())
}
