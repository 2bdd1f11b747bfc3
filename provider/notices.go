package baremetal

import (
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
	// told is what was said last about what a Service lacks.
	told map[types.UID]string
}

func newNotices() *notices {
	return &notices{told: map[types.UID]string{}}
}

// tell writes a refusal into an Event.
func (n *notices) tell(service *corev1.Service, refusal *ipam.Refusal) {
	n.events.Event(service, corev1.EventTypeWarning, string(refusal.Reason), refusal.Message)
}

// unserved tells what of the Service is not served, once per change. It is nil
// where all is.
func (n *notices) unserved(service *corev1.Service, refusal *ipam.Refusal) {
	if refusal == nil {
		n.forget(service.UID)
		return
	}
	n.mu.Lock()
	known := n.told[service.UID] == refusal.Message
	n.told[service.UID] = refusal.Message
	n.mu.Unlock()
	if !known {
		n.tell(service, refusal)
	}
}

// forget drops what was said about a Service that is gone.
func (n *notices) forget(uid types.UID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.told, uid)
}
