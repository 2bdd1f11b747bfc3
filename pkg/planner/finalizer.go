package planner

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/plan"
)

// writeFinalizer has the AddressPool carry our finalizer while it is in use. It
// returns how long to wait for what cannot be written yet.
func (w *objectWriter) writeFinalizer(ctx context.Context, object *v1alpha1.AddressPool, inUse bool) (time.Duration, error) {
	if carriesFinalizer(object) == inUse || inUse && object.DeletionTimestamp != nil {
		return 0, nil // the API server takes no new finalizers when the deletion has begun
	}
	// Only the way out waits: in the moment before the finalizer is there, the
	// pool may be deleted.
	if wait := w.finalizers.wait(object.UID); wait > 0 && !inUse {
		return wait, nil
	}
	w.finalizers.take(object.UID)
	if inUse {
		return w.patchFinalizers(ctx, object, func(now []string) []string { return append(now, v1alpha1.PoolInUse) })
	}
	inUse, err := w.inUseNow(ctx, object.Name)
	switch {
	case err != nil:
		return retryInterval, fmt.Errorf("AddressPool %s: reading Services before the finalizer %s goes: %w", object.Name, v1alpha1.PoolInUse, err)
	case inUse:
		return retryInterval, nil
	}
	return w.patchFinalizers(ctx, object, func(now []string) []string {
		return slices.DeleteFunc(now, func(f string) bool { return f == v1alpha1.PoolInUse })
	})
}

func carriesFinalizer(pool metav1.Object) bool {
	return slices.Contains(pool.GetFinalizers(), v1alpha1.PoolInUse)
}

// inUseNow asks the API server itself whether a Service has an address of the
// pool. A pool that is let go of does not come back, and a cache may lag: that of
// a new leader by as long as its watch was broken.
func (w *objectWriter) inUseNow(ctx context.Context, pool string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	list, err := w.client.CoreV1().Services(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
	if err != nil {
		return false, err
	}
	services := make([]*corev1.Service, len(list.Items))
	for i := range list.Items {
		services[i] = &list.Items[i]
	}
	return plan.InUse(listOf[*v1alpha1.AddressPool](w.objects.pools), services, pool), nil
}

// patchFinalizers edits the finalizers of the very version that they were read
// from: a merge patch replaces a list as a whole, so that one that others changed
// meanwhile would lose what they wrote. Where others were faster, it reads the object
// itself and tries again, some times, for a cache never is the latest while others
// write all the time.
func (w *objectWriter) patchFinalizers(ctx context.Context, cached *v1alpha1.AddressPool, edit func([]string) []string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	pools := w.metadata.Resource(v1alpha1.AddressPoolResource)
	object, had := metav1.Object(cached), carriesFinalizer(cached)
	for range finalizerTries {
		finalizers := edit(slices.Clone(object.GetFinalizers()))
		patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
			"uid":             cached.UID,
			"resourceVersion": object.GetResourceVersion(),
			"finalizers":      finalizers,
		}})
		if err != nil {
			return 0, fmt.Errorf("AddressPool %s: %w", cached.Name, err)
		}
		updated, err := pools.Patch(ctx, cached.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: fieldManager})
		switch {
		case err == nil:
			klog.V(2).InfoS("Wrote the finalizer of an AddressPool", "pool", cached.Name, "finalizers", finalizers)
			w.written.wrote(updated)
			return 0, nil
		case apierrors.IsConflict(err): // others were faster, or it is another object
		case gone(err):
			return 0, nil
		default:
			return retryInterval, fmt.Errorf("AddressPool %s: writing metadata.finalizers: %w", cached.Name, err)
		}
		now, err := pools.Get(ctx, cached.Name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err), err == nil && now.UID != cached.UID:
			return 0, nil
		case err != nil:
			return retryInterval, fmt.Errorf("AddressPool %s: reading metadata.finalizers: %w", cached.Name, err)
		case carriesFinalizer(now) != had, !now.DeletionTimestamp.Equal(cached.DeletionTimestamp):
			// The cache is about to catch up with a change that matters.
			delete(w.finalizers, cached.UID)
			return cacheLag, nil
		}
		object = now
	}
	delete(w.finalizers, cached.UID)
	return cacheLag, nil
}

// finalizerTries bounds how often one write of a finalizer is tried in a row.
const finalizerTries = 8
