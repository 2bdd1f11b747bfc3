package baremetal

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
)

// quietClient keeps upstream's Events of progress to itself. They say that
// something is about to be done, or was, which a Service's status and its Announced
// condition say, too. And upstream sends two for each Service when a leader starts:
// 20,000 writes in a cluster of 10,000 Services, in front of those that carry
// traffic. Warnings, and what people changed, are sent as ever.
type quietClient struct{ kubernetes.Interface }

// CoreV1 implements kubernetes.Interface.
func (c quietClient) CoreV1() typedcorev1.CoreV1Interface {
	return quietCore{c.Interface.CoreV1()}
}

type quietCore struct{ typedcorev1.CoreV1Interface }

// Events implements typedcorev1.EventsGetter.
func (c quietCore) Events(namespace string) typedcorev1.EventInterface {
	return quietEvents{c.CoreV1Interface.Events(namespace)}
}

// quietEvents does not send Events of progress. Upstream's sink of Events
// (typedcorev1.EventSinkImpl) uses the two methods; it never updates.
type quietEvents struct{ typedcorev1.EventInterface }

// CreateWithEventNamespace implements typedcorev1.EventExpansion.
func (e quietEvents) CreateWithEventNamespace(event *corev1.Event) (*corev1.Event, error) {
	if progress(event) {
		return event, nil
	}
	return e.EventInterface.CreateWithEventNamespaceWithContext(context.Background(), event)
}

// PatchWithEventNamespace implements typedcorev1.EventExpansion.
func (e quietEvents) PatchWithEventNamespace(event *corev1.Event, patch []byte) (*corev1.Event, error) {
	if progress(event) {
		return event, nil
	}
	return e.EventInterface.PatchWithEventNamespaceWithContext(context.Background(), event, patch)
}

// progress reports whether an Event only says what upstream is about to do, or did.
func progress(event *corev1.Event) bool {
	return event.Type == corev1.EventTypeNormal && slices.Contains([]string{
		"EnsuringLoadBalancer", "EnsuredLoadBalancer", "DeletingLoadBalancer", "DeletedLoadBalancer",
	}, event.Reason)
}
