package planner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	lbclient "github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/client"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/plan"
)

const (
	// quiet is how long plans must have stopped changing before statuses are
	// written, and patience how long that may be put off: what people read
	// makes way for what carries traffic.
	quiet    = 100 * time.Millisecond
	patience = 5 * time.Second
	// turn is how long statuses are written before a newer plan is taken up:
	// where plans never stop changing, all the same something gets written.
	turn = time.Second
	// conditionRate bounds the conditions of Services written per second.
	conditionRate  = 100
	conditionBurst = 20
	// objectInterval is the least time between two writes to one AddressPool
	// or BGPPeer.
	objectInterval = time.Second
	// retryInterval is the time before a write that failed is tried again.
	retryInterval = time.Second
	// cacheLag is how long to wait for a cache that is older than our own last
	// write.
	cacheLag = 100 * time.Millisecond
)

// statusWriter writes what a plan says for people: the Announced condition of
// Services, and the status of AddressPools and BGPPeers.
type statusWriter struct {
	client  kubernetes.Interface
	lb      *lbclient.Client
	objects *objects
	limiter *rate.Limiter

	mu     sync.Mutex
	latest *plan.Plan
	newer  chan struct{} // has a token when latest was set

	// sent is the condition last sent to each Service, from before it is sent:
	// its event may arrive before the response.
	sent map[types.UID]sentCondition

	// written holds the resourceVersion after our last write: an older cache
	// would make us write again. Only run uses it.
	written map[types.UID]uint64
	// next is when an AddressPool or BGPPeer may be written again.
	next map[types.UID]time.Time
}

// sentCondition is what tells Announced conditions apart; the zero value is
// that of a condition that was removed.
type sentCondition struct {
	status          metav1.ConditionStatus
	reason, message string
}

func newStatusWriter(client kubernetes.Interface, lb *lbclient.Client, objects *objects) *statusWriter {
	w := &statusWriter{
		client:  client,
		lb:      lb,
		objects: objects,
		limiter: rate.NewLimiter(conditionRate, conditionBurst),
		newer:   make(chan struct{}, 1),
	}
	w.forget()
	return w
}

// forget starts anew: somebody else may have planned and written since.
func (w *statusWriter) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.latest = nil
	w.sent = make(map[types.UID]sentCondition)
	w.written, w.next = make(map[types.UID]uint64), make(map[types.UID]time.Time)
}

// wrote reports whether the Service's Announced condition is the one that we
// sent last.
func (w *statusWriter) wrote(svc *corev1.Service) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	sent, ok := w.sent[svc.UID]
	return ok && sent == toSend(meta.FindStatusCondition(svc.Status.Conditions, v1alpha1.ConditionAnnounced))
}

func toSend(c *metav1.Condition) sentCondition {
	if c == nil {
		return sentCondition{}
	}
	return sentCondition{status: c.Status, reason: c.Reason, message: c.Message}
}

// set hands over a plan. It never blocks; a plan that was not written yet is
// replaced.
func (w *statusWriter) set(p *plan.Plan) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.latest = p
	select {
	case w.newer <- struct{}{}:
	default:
	}
}

// run writes statuses until the context ends.
func (w *statusWriter) run(ctx context.Context) error {
	again := time.NewTimer(retryInterval)
	again.Stop() // until there is something to do again
	defer again.Stop()
	interrupted := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.newer:
			if !interrupted {
				w.settle(ctx)
			}
		case <-again.C:
		}
		w.mu.Lock()
		p := w.latest
		w.mu.Unlock()
		if p == nil {
			continue
		}
		var (
			wait time.Duration
			err  error
		)
		wait, interrupted, err = w.write(ctx, p)
		if err != nil && ctx.Err() == nil {
			klog.ErrorS(err, "Not all statuses are written; trying again")
			statusWriteErrors.Inc()
			wait = retryInterval
		}
		if wait > 0 {
			again.Reset(wait)
		}
	}
}

// settle waits until plans have stopped changing, or patience ends.
func (w *statusWriter) settle(ctx context.Context) {
	calm, end := time.NewTimer(quiet), time.NewTimer(patience)
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
		case <-w.newer:
			calm.Reset(quiet)
		}
	}
}

// write writes what differs from the caches. It is interrupted when its turn is
// over and there is a newer plan, and returns how long to wait for what may not
// be written yet.
func (w *statusWriter) write(ctx context.Context, p *plan.Plan) (wait time.Duration, interrupted bool, err error) {
	started := time.Now()
	var errs []error
	note := func(d time.Duration, err error) {
		if d > 0 && (wait == 0 || d < wait) {
			wait = d
		}
		errs = append(errs, err)
	}
	late := func() bool { return len(w.newer) > 0 && time.Since(started) > turn }
	for i := range p.Pools {
		note(w.writePool(ctx, &p.Pools[i]))
	}
	for i := range p.Peers {
		note(w.writePeer(ctx, &p.Peers[i]))
	}
	planned := make(map[string]bool, len(p.Services))
	for i := range p.Services {
		s := &p.Services[i]
		planned[s.Namespace+"/"+s.Name] = true
		if late() {
			return wait, true, errors.Join(errs...) // the newer plan starts over
		}
		note(w.writeCondition(ctx, s))
	}
	for _, svc := range listOf[*corev1.Service](w.objects.services) {
		if late() {
			return wait, true, errors.Join(errs...)
		}
		if !planned[svc.Namespace+"/"+svc.Name] {
			note(w.removeCondition(ctx, svc))
		}
	}
	w.forgetGone()
	return wait, false, errors.Join(errs...)
}

// forgetGone drops what is known of objects that are no more.
func (w *statusWriter) forgetGone() {
	present := make(map[types.UID]bool)
	for _, informer := range []cache.SharedIndexInformer{w.objects.services, w.objects.pools, w.objects.peers} {
		for _, object := range listOf[metav1.Object](informer) {
			present[object.GetUID()] = true
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	maps.DeleteFunc(w.sent, func(uid types.UID, _ sentCondition) bool { return !present[uid] })
	maps.DeleteFunc(w.written, func(uid types.UID, _ uint64) bool { return !present[uid] })
	maps.DeleteFunc(w.next, func(uid types.UID, _ time.Time) bool { return !present[uid] })
}

func (w *statusWriter) writeCondition(ctx context.Context, s *plan.Service) (time.Duration, error) {
	svc, ok := cached[*corev1.Service](w.objects.services, s.Namespace+"/"+s.Name)
	switch {
	case !ok:
		return 0, nil // gone
	case w.stale(svc):
		return cacheLag, nil
	}
	announced, reason, message := s.Condition()
	condition := metav1.Condition{
		Type: v1alpha1.ConditionAnnounced, Status: status(announced), Reason: reason, Message: message,
	}
	conditions := slices.Clone(svc.Status.Conditions)
	if !meta.SetStatusCondition(&conditions, condition) {
		return 0, nil
	}
	full := meta.FindStatusCondition(conditions, condition.Type)
	return 0, w.patchConditions(ctx, svc, toSend(full), *full)
}

// removeCondition takes the condition off a Service that is no longer ours.
func (w *statusWriter) removeCondition(ctx context.Context, svc *corev1.Service) (time.Duration, error) {
	switch {
	case svc.DeletionTimestamp != nil:
		return 0, nil
	case w.stale(svc):
		return cacheLag, nil
	case meta.FindStatusCondition(svc.Status.Conditions, v1alpha1.ConditionAnnounced) == nil:
		return 0, nil
	}
	return 0, w.patchConditions(ctx, svc, toSend(nil), map[string]string{"$patch": "delete", "type": v1alpha1.ConditionAnnounced})
}

// patchConditions changes one condition: conditions merge by type, so that
// those of others stay.
func (w *statusWriter) patchConditions(ctx context.Context, svc *corev1.Service, sent sentCondition, entry any) error {
	if err := w.limiter.Wait(ctx); err != nil {
		return nil // the context ended
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": svc.UID},
		"status":   map[string]any{"conditions": []any{entry}},
	})
	if err != nil {
		return fmt.Errorf("service %s/%s: %w", svc.Namespace, svc.Name, err)
	}
	w.mu.Lock()
	w.sent[svc.UID] = sent
	w.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	updated, err := w.client.CoreV1().Services(svc.Namespace).Patch(ctx, svc.Name, types.StrategicMergePatchType, patch,
		metav1.PatchOptions{FieldManager: fieldManager}, "status")
	switch {
	case gone(err):
		return nil
	case err != nil:
		return fmt.Errorf("service %s/%s: writing the condition %s: %w", svc.Namespace, svc.Name, v1alpha1.ConditionAnnounced, err)
	}
	w.written[svc.UID] = version(updated.ResourceVersion)
	return nil
}

func (w *statusWriter) writePool(ctx context.Context, p *plan.Pool) (time.Duration, error) {
	object, ok := cached[*v1alpha1.AddressPool](w.objects.pools, p.Name)
	switch {
	case !ok:
		return 0, nil
	case w.stale(object):
		return cacheLag, nil
	}
	desired := v1alpha1.AddressPoolStatus{
		Capacity: p.Capacity, Allocated: p.Allocated, Available: p.Available,
		Conditions: slices.Clone(object.Status.Conditions),
	}
	changed := setReady(&desired.Conditions, p.Problems, object.Generation)
	if !changed && desired.Capacity == object.Status.Capacity && desired.Allocated == object.Status.Allocated && desired.Available == object.Status.Available {
		return 0, nil
	}
	return w.writeObject(ctx, "pool", object, desired, func(ctx context.Context, patch []byte, o metav1.PatchOptions) (metav1.Object, error) {
		return w.lb.PatchAddressPoolStatus(ctx, p.Name, types.MergePatchType, patch, o)
	})
}

func (w *statusWriter) writePeer(ctx context.Context, p *plan.Peer) (time.Duration, error) {
	object, ok := cached[*v1alpha1.BGPPeer](w.objects.peers, p.Name)
	switch {
	case !ok:
		return 0, nil
	case w.stale(object):
		return cacheLag, nil
	}
	desired := v1alpha1.BGPPeerStatus{
		Desired: int32(p.Desired), Established: int32(p.Established),
		Conditions: slices.Clone(object.Status.Conditions),
	}
	changed := setReady(&desired.Conditions, p.Problems, object.Generation)
	if !changed && desired.Desired == object.Status.Desired && desired.Established == object.Status.Established {
		return 0, nil
	}
	return w.writeObject(ctx, "peer", object, desired, func(ctx context.Context, patch []byte, o metav1.PatchOptions) (metav1.Object, error) {
		return w.lb.PatchBGPPeerStatus(ctx, p.Name, types.MergePatchType, patch, o)
	})
}

// writeObject writes a status as a whole, for all of it is ours. It returns
// how long to wait when the object was written a moment ago.
func (w *statusWriter) writeObject(ctx context.Context, kind string, object metav1.Object, desired any, patchStatus func(context.Context, []byte, metav1.PatchOptions) (metav1.Object, error)) (time.Duration, error) {
	if wait := time.Until(w.next[object.GetUID()]); wait > 0 {
		return wait, nil
	}
	w.next[object.GetUID()] = time.Now().Add(objectInterval)
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": object.GetUID()},
		"status":   desired,
	})
	if err != nil {
		return 0, fmt.Errorf("%s %s: %w", kind, object.GetName(), err)
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	updated, err := patchStatus(ctx, patch, metav1.PatchOptions{FieldManager: fieldManager})
	switch {
	case gone(err):
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("%s %s: writing the status: %w", kind, object.GetName(), err)
	}
	w.written[object.GetUID()] = version(updated.GetResourceVersion())
	return 0, nil
}

// stale reports whether the cached object is older than our last write to it.
func (w *statusWriter) stale(object metav1.Object) bool {
	at, ok := w.written[object.GetUID()]
	if ok && version(object.GetResourceVersion()) < at {
		return true
	}
	delete(w.written, object.GetUID()) // the cache has caught up
	return false
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

func setReady(conditions *[]metav1.Condition, problems []plan.Problem, generation int64) (changed bool) {
	ready, reason, message := plan.Summary(problems)
	return meta.SetStatusCondition(conditions, metav1.Condition{
		Type: v1alpha1.ConditionReady, Status: status(ready), Reason: reason, Message: message, ObservedGeneration: generation,
	})
}

func status(b bool) metav1.ConditionStatus {
	if b {
		return metav1.ConditionTrue
	}
	return metav1.ConditionFalse
}
