package planner

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/plan"
)

// notices tells, by Events of the Services, what other hosts on the LAN do to
// their addresses: each thing once, when it begins.
type notices struct {
	recorder record.EventRecorder
	present  map[notice]bool
}

type notice struct{ namespace, name, reason, message string }

func newNotices(recorder record.EventRecorder) *notices {
	return &notices{recorder: recorder}
}

// recordEvents returns a recorder and what ends it.
func recordEvents(client kubernetes.Interface) (record.EventRecorder, func()) {
	broadcaster := record.NewBroadcaster()
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events("")})
	return broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: fieldManager}), broadcaster.Shutdown
}

// tell sends what is new in the plan. The Services are those that the plan was
// made of.
func (n *notices) tell(p *plan.Plan, services []*corev1.Service) {
	now := make(map[notice]bool)
	concerned := make(map[[2]string][]notice) // by namespace and name of the Service
	for i := range p.Services {
		s := &p.Services[i]
		for _, warning := range s.Warnings() {
			this := notice{s.Namespace, s.Name, warning.Reason, warning.Message}
			now[this] = true
			concerned[[2]string{s.Namespace, s.Name}] = append(concerned[[2]string{s.Namespace, s.Name}], this)
		}
	}
	if len(now) == 0 {
		n.present = nil
		return
	}
	for _, svc := range services {
		for _, this := range concerned[[2]string{svc.Namespace, svc.Name}] {
			if !n.present[this] {
				n.recorder.Event(svc, corev1.EventTypeWarning, this.reason, this.message)
			}
		}
	}
	n.present = now
}
