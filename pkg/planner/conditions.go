package planner

import (
	"context"
	"encoding/json"
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

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/plan"
)

const (
	// conditionQuiet and conditionPatience are the statusLoop's. There may be
	// thousands of conditions, so that they wait for real calm.
	conditionQuiet    = 100 * time.Millisecond
	conditionPatience = 5 * time.Second
	// turn is how long conditions are written before a newer plan is taken up:
	// where plans never stop changing, all the same something gets written.
	turn = time.Second
	// servingPatience is how long after its creation a Service is expected to get
	// its address, or to be refused: until then the lack of both is no news.
	servingPatience = 3 * time.Second
	// conditionRate bounds the conditions written per second.
	conditionRate  = 200
	conditionBurst = 20
)

// conditionWriter writes the Announced conditions of Services.
type conditionWriter struct {
	statusLoop
	client  kubernetes.Interface
	objects *objects
	limiter *rate.Limiter

	// written is what the cache has to catch up with. Only write uses it.
	written versions

	// sent is the condition last sent to each Service, from before it is sent:
	// its event may arrive before the response.
	sentMu sync.Mutex
	sent   map[types.UID]sentCondition
}

// sentCondition is what tells Announced conditions apart; the zero value is
// that of a condition that was removed.
type sentCondition struct {
	status          metav1.ConditionStatus
	reason, message string
}

func newConditionWriter(client kubernetes.Interface, objects *objects) *conditionWriter {
	w := &conditionWriter{
		client:  client,
		objects: objects,
		limiter: rate.NewLimiter(conditionRate, conditionBurst),
	}
	w.statusLoop = statusLoop{quiet: conditionQuiet, patience: conditionPatience, write: w.write, news: make(chan struct{}, 1)}
	w.forget()
	return w
}

// forget starts anew: somebody else may have planned and written since.
func (w *conditionWriter) forget() {
	w.statusLoop.forget()
	w.written = make(versions)
	w.sentMu.Lock()
	defer w.sentMu.Unlock()
	w.sent = make(map[types.UID]sentCondition)
}

// wrote reports whether the Service's Announced condition is the one that we
// sent last.
func (w *conditionWriter) wrote(svc *corev1.Service) bool {
	w.sentMu.Lock()
	defer w.sentMu.Unlock()
	sent, ok := w.sent[svc.UID]
	return ok && sent == toSend(meta.FindStatusCondition(svc.Status.Conditions, v1alpha1.ConditionAnnounced))
}

func toSend(c *metav1.Condition) sentCondition {
	if c == nil {
		return sentCondition{}
	}
	return sentCondition{status: c.Status, reason: c.Reason, message: c.Message}
}

// write writes what differs from the caches. It is interrupted when its turn is
// over and there is a newer plan.
func (w *conditionWriter) write(ctx context.Context, p *plan.Plan) (came outcome) {
	started := time.Now()
	defer func() {
		if len(came.errs) > 0 {
			came.again = retryInterval
		}
	}()
	late := func() bool { return len(w.news) > 0 && time.Since(started) > turn }
	planned := make(map[string]bool, len(p.Services))
	for i := range p.Services {
		s := &p.Services[i]
		planned[s.Namespace+"/"+s.Name] = true
		if late() {
			came.interrupted = true // the newer plan starts over
			return came
		}
		came.note(w.writeCondition(ctx, s))
	}
	for _, svc := range listOf[*corev1.Service](w.objects.services) {
		if late() {
			came.interrupted = true
			return came
		}
		if !planned[svc.Namespace+"/"+svc.Name] {
			came.note(w.removeCondition(ctx, svc))
		}
	}
	w.forgetGone()
	return came
}

// forgetGone drops what is known of Services that are no more.
func (w *conditionWriter) forgetGone() {
	present := uids(w.objects.services)
	maps.DeleteFunc(w.written, func(uid types.UID, _ uint64) bool { return !present[uid] })
	w.sentMu.Lock()
	defer w.sentMu.Unlock()
	maps.DeleteFunc(w.sent, func(uid types.UID, _ sentCondition) bool { return !present[uid] })
}

func (w *conditionWriter) writeCondition(ctx context.Context, s *plan.Service) (time.Duration, error) {
	svc, ok := cached[*corev1.Service](w.objects.services, s.Namespace+"/"+s.Name)
	switch {
	case !ok:
		return 0, nil // gone
	case w.written.stale(svc):
		return cacheLag, nil
	}
	if s.Waiting() && meta.FindStatusCondition(svc.Status.Conditions, v1alpha1.ConditionAnnounced) == nil {
		// The API server's clock may be ahead of ours.
		if age := time.Since(svc.CreationTimestamp.Time); age >= 0 && age < servingPatience {
			return servingPatience - age, nil
		}
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
func (w *conditionWriter) removeCondition(ctx context.Context, svc *corev1.Service) (time.Duration, error) {
	switch {
	case svc.DeletionTimestamp != nil:
		return 0, nil
	case w.written.stale(svc):
		return cacheLag, nil
	case meta.FindStatusCondition(svc.Status.Conditions, v1alpha1.ConditionAnnounced) == nil:
		return 0, nil
	}
	return 0, w.patchConditions(ctx, svc, toSend(nil), map[string]string{"$patch": "delete", "type": v1alpha1.ConditionAnnounced})
}

// patchConditions changes one condition: conditions merge by type, so that
// those of others stay.
func (w *conditionWriter) patchConditions(ctx context.Context, svc *corev1.Service, sent sentCondition, entry any) error {
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
	w.sentMu.Lock()
	w.sent[svc.UID] = sent
	w.sentMu.Unlock()
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
