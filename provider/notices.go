package baremetal

import (
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/ipam"
)

// notices are Events that upstream does not write: an error is not to be had
// where a Service is served. It is safe for concurrent use.
type notices struct {
	events record.EventRecorder

	mu sync.Mutex
	// told is what was said last about what a Service that is served lacks.
	told map[types.UID][]string
}

func newNotices() *notices {
	return &notices{told: map[types.UID][]string{}}
}

// tell writes a refusal into an Event.
func (n *notices) tell(service *corev1.Service, refusal *ipam.Refusal) {
	n.events.Event(service, corev1.EventTypeWarning, string(refusal.Reason), refusal.Message)
}

// about tells what a Service lacks though it is served, each once until it
// changes. Refusals that are nil say nothing.
func (n *notices) about(service *corev1.Service, refusals ...*ipam.Refusal) {
	// run and upstream's workers may be about one Service at a time.
	n.mu.Lock()
	defer n.mu.Unlock()
	var messages []string
	for _, refusal := range refusals {
		if refusal == nil {
			continue
		}
		messages = append(messages, refusal.Message)
		if !slices.Contains(n.told[service.UID], refusal.Message) {
			n.tell(service, refusal)
		}
	}
	if len(messages) == 0 {
		delete(n.told, service.UID)
	} else {
		n.told[service.UID] = messages
	}
}

// forget drops what was said about a Service that is gone.
func (n *notices) forget(uid types.UID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.told, uid)
}
