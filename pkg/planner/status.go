package planner

import (
	"context"
	"errors"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/plan"
)

const (
	// retryInterval is the time before a write that failed is tried again.
	retryInterval = time.Second
	// cacheLag is how long to wait for a cache that is older than our own last
	// write.
	cacheLag = 100 * time.Millisecond
)

// statusLoop writes what the latest plan says for people. It makes way for what
// carries traffic: it begins when plans have stopped changing for a moment.
type statusLoop struct {
	// quiet is how long plans must have stopped changing before they are written,
	// and patience how long that may be put off.
	quiet, patience time.Duration
	// punctual means that what an earlier write left for later is written at its
	// time, though plans keep changing.
	punctual bool
	// write writes what differs from the caches. Only run calls it.
	write func(context.Context, *plan.Plan) outcome

	// news has a token when there may be something to write.
	news chan struct{}

	mu     sync.Mutex
	latest *plan.Plan
}

// outcome is what came of one write.
type outcome struct {
	// again is how long to wait for what could not be written yet; 0 if there is
	// nothing left.
	again time.Duration
	// interrupted means that a newer plan is to be taken up at once.
	interrupted bool
	errs        []error
}

// note adds what came of one object.
func (o *outcome) note(wait time.Duration, err error) {
	if wait > 0 && (o.again == 0 || wait < o.again) {
		o.again = wait
	}
	if err != nil {
		o.errs = append(o.errs, err)
	}
}

// set hands over a plan. It never blocks; a plan that was not written yet is
// replaced.
func (l *statusLoop) set(p *plan.Plan) {
	l.mu.Lock()
	l.latest = p
	l.mu.Unlock()
	l.wake()
}

// wake has the latest plan compared with the caches once more. It never blocks.
func (l *statusLoop) wake() {
	select {
	case l.news <- struct{}{}:
	default:
	}
}

func (l *statusLoop) plan() *plan.Plan {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.latest
}

// forget drops the plan: somebody else may have planned since.
func (l *statusLoop) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.latest = nil
}

// run writes statuses until the context ends.
func (l *statusLoop) run(ctx context.Context) {
	again := time.NewTimer(retryInterval)
	again.Stop() // until there is something to do again
	defer again.Stop()
	var due <-chan time.Time
	if l.punctual {
		due = again.C
	}
	interrupted := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.news:
			if !interrupted {
				l.settle(ctx, due)
			}
		case <-again.C:
		}
		p := l.plan()
		if p == nil {
			continue
		}
		came := l.write(ctx, p)
		interrupted = came.interrupted
		if len(came.errs) > 0 && ctx.Err() == nil {
			klog.ErrorS(errors.Join(came.errs...), "Not all statuses are written; trying again")
			statusWriteErrors.Inc()
		}
		if came.again > 0 {
			again.Reset(came.again)
		}
	}
}

// settle waits until plans have stopped changing, patience ends, or something
// is due.
func (l *statusLoop) settle(ctx context.Context, due <-chan time.Time) {
	calm, end := time.NewTimer(l.quiet), time.NewTimer(l.patience)
	defer calm.Stop()
	defer end.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-calm.C:
			return
		case <-end.C:
			return
		case <-due:
			return
		case <-l.news:
			calm.Reset(l.quiet)
		}
	}
}

// versions are the resourceVersions after our last writes: an older cache would
// make us write again.
type versions map[types.UID]uint64

func (v versions) wrote(updated metav1.Object) {
	v[updated.GetUID()] = version(updated.GetResourceVersion())
}

// stale reports whether the cached object is older than our last write to it.
func (v versions) stale(cached metav1.Object) bool {
	at, ok := v[cached.GetUID()]
	if ok && version(cached.GetResourceVersion()) < at {
		return true
	}
	delete(v, cached.GetUID()) // the cache has caught up
	return false
}

// uids are those of the objects that the informers hold.
func uids(informers ...cache.SharedIndexInformer) map[types.UID]bool {
	present := make(map[types.UID]bool)
	for _, informer := range informers {
		for _, object := range listOf[metav1.Object](informer) {
			present[object.GetUID()] = true
		}
	}
	return present
}

func cached[T any](informer cache.SharedIndexInformer, key string) (T, bool) {
	var none T
	object, ok, err := informer.GetStore().GetByKey(key)
	if err != nil || !ok {
		return none, false
	}
	typed, ok := object.(T)
	return typed, ok
}

func status(b bool) metav1.ConditionStatus {
	if b {
		return metav1.ConditionTrue
	}
	return metav1.ConditionFalse
}
