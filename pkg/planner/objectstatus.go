package planner

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"

	lbclient "github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/client"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/plan"
)

const (
	// objectQuiet and objectPatience are the statusLoop's. They are short, for
	// objectInterval bounds the writes: the first tells soon what a change does, and
	// the next ones, a second apart, how it goes on.
	objectQuiet    = 25 * time.Millisecond
	objectPatience = 100 * time.Millisecond
	// objectInterval is the least time between two writes of one status, and
	// between two writes of one finalizer.
	objectInterval = time.Second
)

// objectWriter writes the statuses of AddressPools and BGPPeers, and the
// finalizer of AddressPools. It does so by itself, for there are few of them, and
// they must not wait for the conditions of thousands of Services.
type objectWriter struct {
	statusLoop
	// client reads Services before a pool is let go of, lb patches statuses, and
	// metadata the finalizer.
	client   kubernetes.Interface
	lb       *lbclient.Client
	metadata metadata.Interface
	objects  *objects

	// The rest is used by write only.

	// written is what the caches have to catch up with.
	written versions
	// statuses and finalizers are when they may be written again.
	statuses, finalizers turns
}

func newObjectWriter(client kubernetes.Interface, lb *lbclient.Client, metadata metadata.Interface, objects *objects) *objectWriter {
	w := &objectWriter{client: client, lb: lb, metadata: metadata, objects: objects}
	w.statusLoop = statusLoop{quiet: objectQuiet, patience: objectPatience, punctual: true, write: w.write, news: make(chan struct{}, 1)}
	w.forget()
	return w
}

// forget starts anew: somebody else may have planned and written since.
func (w *objectWriter) forget() {
	w.statusLoop.forget()
	w.written, w.statuses, w.finalizers = make(versions), make(turns), make(turns)
}

// watch has changes of AddressPools and BGPPeers that no plan depends on, those
// of their statuses and finalizers, compared with the latest plan: what a deposed
// planner or a person wrote there does not stay.
func (w *objectWriter) watch() error {
	handler := cache.ResourceEventHandlerFuncs{UpdateFunc: func(any, any) { w.wake() }}
	for kind, informer := range map[string]cache.SharedIndexInformer{"AddressPools": w.objects.pools, "BGPPeers": w.objects.peers} {
		if _, err := informer.AddEventHandler(handler); err != nil {
			return fmt.Errorf("watching %s: %w", kind, err)
		}
	}
	return nil
}

// turns says when each object may be written again.
type turns map[types.UID]time.Time

// wait is how long it takes until it is the object's turn.
func (t turns) wait(uid types.UID) time.Duration { return max(0, time.Until(t[uid])) }

// take uses the object's turn.
func (t turns) take(uid types.UID) { t[uid] = time.Now().Add(objectInterval) }

// write writes what differs from the caches, as far as it is its turn.
func (w *objectWriter) write(ctx context.Context, p *plan.Plan) (came outcome) {
	for i := range p.Pools {
		w.writePool(ctx, &p.Pools[i], &came)
	}
	for i := range p.Peers {
		came.note(w.writePeer(ctx, &p.Peers[i]))
	}
	w.forgetGone()
	return came
}

// forgetGone drops what is known of objects that are no more.
func (w *objectWriter) forgetGone() {
	present := uids(w.objects.pools, w.objects.peers)
	maps.DeleteFunc(w.written, func(uid types.UID, _ uint64) bool { return !present[uid] })
	for _, t := range []turns{w.statuses, w.finalizers} {
		maps.DeleteFunc(t, func(uid types.UID, _ time.Time) bool { return !present[uid] })
	}
}

// writePool writes the finalizer first: it is what keeps addresses.
func (w *objectWriter) writePool(ctx context.Context, p *plan.Pool, came *outcome) {
	object, ok := cached[*v1alpha1.AddressPool](w.objects.pools, p.Name)
	switch {
	case !ok:
		return // gone
	case w.written.stale(object):
		came.note(cacheLag, nil)
		return
	}
	came.note(w.writeFinalizer(ctx, object, p.InUse))
	if object.DeletionTimestamp != nil && !p.InUse && carriesFinalizer(object) {
		return // most likely it is no more; else its update wakes us
	}
	came.note(w.writePoolStatus(ctx, object, p))
}

func (w *objectWriter) writePoolStatus(ctx context.Context, object *v1alpha1.AddressPool, p *plan.Pool) (time.Duration, error) {
	desired := v1alpha1.AddressPoolStatus{
		Capacity: p.Capacity, Allocated: p.Allocated, Available: p.Available,
		Conditions: slices.Clone(object.Status.Conditions),
	}
	changed := setReady(&desired.Conditions, p.Problems, object.Generation)
	if !changed && desired.Capacity == object.Status.Capacity && desired.Allocated == object.Status.Allocated && desired.Available == object.Status.Available {
		return 0, nil
	}
	return w.writeStatus("AddressPool", object, desired, func(patch []byte, o metav1.PatchOptions) (metav1.Object, error) {
		ctx, cancel := context.WithTimeout(ctx, writeTimeout)
		defer cancel()
		return w.lb.PatchAddressPoolStatus(ctx, p.Name, types.MergePatchType, patch, o)
	})
}

func (w *objectWriter) writePeer(ctx context.Context, p *plan.Peer) (time.Duration, error) {
	object, ok := cached[*v1alpha1.BGPPeer](w.objects.peers, p.Name)
	switch {
	case !ok:
		return 0, nil // gone
	case w.written.stale(object):
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
	return w.writeStatus("BGPPeer", object, desired, func(patch []byte, o metav1.PatchOptions) (metav1.Object, error) {
		ctx, cancel := context.WithTimeout(ctx, writeTimeout)
		defer cancel()
		return w.lb.PatchBGPPeerStatus(ctx, p.Name, types.MergePatchType, patch, o)
	})
}

// writeStatus writes a status as a whole, for all of it is ours. It returns how
// long to wait when it was written a moment ago.
func (w *objectWriter) writeStatus(kind string, object metav1.Object, desired any, send func([]byte, metav1.PatchOptions) (metav1.Object, error)) (time.Duration, error) {
	if wait := w.statuses.wait(object.GetUID()); wait > 0 {
		return wait, nil
	}
	w.statuses.take(object.GetUID())
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": object.GetUID()},
		"status":   desired,
	})
	if err != nil {
		return 0, fmt.Errorf("%s %s: %w", kind, object.GetName(), err)
	}
	updated, err := send(patch, metav1.PatchOptions{FieldManager: fieldManager})
	switch {
	case gone(err):
		return 0, nil
	case err != nil:
		return retryInterval, fmt.Errorf("%s %s: writing the status: %w", kind, object.GetName(), err)
	}
	w.written.wrote(updated)
	return 0, nil
}

func setReady(conditions *[]metav1.Condition, problems []plan.Problem, generation int64) (changed bool) {
	ready, reason, message := plan.Summary(problems)
	return meta.SetStatusCondition(conditions, metav1.Condition{
		Type: v1alpha1.ConditionReady, Status: status(ready), Reason: reason, Message: message, ObservedGeneration: generation,
	})
}
