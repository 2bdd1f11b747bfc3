package planner

import (
	"time"

	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/plan"
)

const (
	// settling is how long an address must not have been announced before an Event
	// says so: that the Pods of a new Service are starting is no news.
	settling = 2 * time.Second
	// eventBurst and eventRate (per second) bound the Events. When much fails at
	// once, a few Events say what, and the conditions of the Services the rest.
	eventBurst = 100
	eventRate  = 1
)

// notices tells, by Events of the Services, what is wrong with their addresses:
// each thing once, when it begins.
type notices struct {
	recorder record.EventRecorder
	budget   *rate.Limiter
	// known are the things that held in the last plan.
	known map[notice]standing
}

// notice tells things apart. message is empty where the reason is enough: of an
// address that is not announced, the message names each node, and changes.
type notice struct{ namespace, name, reason, message string }

// standing is since when a thing holds, and whether that was told.
type standing struct {
	since time.Time
	told  bool
}

func newNotices(recorder record.EventRecorder) *notices {
	return &notices{recorder: recorder, budget: rate.NewLimiter(eventRate, eventBurst)}
}

// recordEvents returns a recorder and what ends it.
func recordEvents(client kubernetes.Interface) (record.EventRecorder, func()) {
	broadcaster := record.NewBroadcaster()
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events("")})
	return broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: fieldManager}), broadcaster.Shutdown
}

// tell sends what is new in the plan, which was made of the state. next is when
// more will be due if nothing changes; zero if nothing will.
func (n *notices) tell(p *plan.Plan, state *plan.State) (next time.Time) {
	if n.known == nil {
		n.known = toldBefore(state)
	}
	r := review{before: n.known, known: make(map[notice]standing), now: state.Now, due: make(map[[2]string][]event)}
	for i := range p.Services {
		r.look(&p.Services[i])
	}
	n.known = r.known
	n.send(&r, state.Services)
	return r.next
}

// toldBefore is what a new leader need not tell: what the conditions of the
// Services said long enough.
func toldBefore(state *plan.State) map[notice]standing {
	told := make(map[notice]standing)
	for _, svc := range state.Services {
		c := meta.FindStatusCondition(svc.Status.Conditions, v1alpha1.ConditionAnnounced)
		if c != nil && c.Status == metav1.ConditionFalse && state.Now.Sub(c.LastTransitionTime.Time) > settling {
			told[notice{namespace: svc.Namespace, name: svc.Name, reason: c.Reason}] = standing{told: true}
		}
	}
	return told
}

// send sends what is due, as far as the budget goes.
func (n *notices) send(r *review, services []*corev1.Service) {
	if len(r.due) == 0 {
		return
	}
	left := 0
	for _, svc := range services {
		for _, e := range r.due[[2]string{svc.Namespace, svc.Name}] {
			if !n.budget.AllowN(r.now, 1) {
				left++
				continue
			}
			n.recorder.Event(svc, corev1.EventTypeWarning, e.reason, e.message)
		}
	}
	if left > 0 {
		klog.InfoS("Too much is wrong for Events of all Services; their conditions tell", "left", left)
	}
}

// review goes through one plan.
type review struct {
	before, known map[notice]standing
	now           time.Time
	next          time.Time
	due           map[[2]string][]event // by namespace and name of the Service
}

// event is an Event that is due.
type event struct{ reason, message string }

// look finds what is wrong with the Service's addresses.
func (r *review) look(s *plan.Service) {
	warned := make(map[string]bool)
	for _, w := range s.Warnings() {
		warned[w.Reason] = true
		r.hold(notice{s.Namespace, s.Name, w.Reason, w.Message}, w.Message, 0)
	}
	if len(s.Addresses) == 0 || s.Announced() {
		return // what a Service waits for is told by those who assign
	}
	if _, reason, message := s.Condition(); !warned[reason] {
		r.hold(notice{namespace: s.Namespace, name: s.Name, reason: reason}, message, settling)
	}
}

// hold notes a thing that holds, and has it told when it has lasted.
func (r *review) hold(this notice, message string, lasting time.Duration) {
	held, ok := r.before[this]
	if !ok {
		held.since = r.now
	}
	if !held.told {
		if due := held.since.Add(lasting); due.After(r.now) {
			if r.next.IsZero() || due.Before(r.next) {
				r.next = due
			}
		} else {
			id := [2]string{this.namespace, this.name}
			r.due[id] = append(r.due[id], event{this.reason, message})
			held.told = true
		}
	}
	r.known[this] = held
}
