package baremetal

import (
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	coreinformers "k8s.io/client-go/informers/core/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
)

// View is the ServiceInformer that the upstream service controller is given. It
// differs from the real one in three ways:
//
//   - Services of our loadBalancerClass appear without a class, for upstream
//     ignores all that have one. Nothing of this is written back: upstream's
//     patches are differences of metadata and status.
//   - Services that are not ours do not appear at all, neither in events nor in
//     the lister, so that upstream never cleans up after another controller.
//   - It is synced only when the provider is ready, so that no worker starts
//     before recorded addresses are adopted.
//
// Requeue puts a Service into upstream's queue at once, without a write to the
// API and past any back-off.
type View struct {
	informer coreinformers.ServiceInformer
	classes  *classes
	ready    func() bool

	mu       sync.Mutex
	handlers []cache.ResourceEventHandler
}

var _ coreinformers.ServiceInformer = (*View)(nil)

func newView(informer coreinformers.ServiceInformer, classes *classes, ready func() bool) *View {
	return &View{informer: informer, classes: classes, ready: ready}
}

// Informer is the real informer but for the handlers, which see the View, and
// for HasSynced.
func (v *View) Informer() cache.SharedIndexInformer {
	return viewInformer{SharedIndexInformer: v.informer.Informer(), view: v}
}

// Lister lists the Services of the View.
func (v *View) Lister() corelisters.ServiceLister {
	return viewLister{ServiceLister: v.informer.Lister(), view: v}
}

// Requeue hands the Service to the handlers as if it were new. The upstream
// handler compares nothing then and enqueues it.
func (v *View) Requeue(service *corev1.Service) {
	if !v.classes.ours(service) {
		return
	}
	v.mu.Lock()
	handlers := v.handlers
	v.mu.Unlock()
	for _, handler := range handlers {
		handler.OnAdd(present(service), false)
	}
}

func (v *View) register(handler cache.ResourceEventHandler) cache.ResourceEventHandler {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.handlers = append(v.handlers, handler)
	return viewHandler{next: handler, classes: v.classes}
}

// present is the Service without its class. The original is not changed.
func present(service *corev1.Service) *corev1.Service {
	if service.Spec.LoadBalancerClass == nil {
		return service
	}
	presented := *service
	presented.Spec.LoadBalancerClass = nil
	return &presented
}

// viewInformer changes how handlers are added; all else is the real informer's.
type viewInformer struct {
	cache.SharedIndexInformer
	view *View
}

func (i viewInformer) AddEventHandler(handler cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error) {
	return i.SharedIndexInformer.AddEventHandler(i.view.register(handler))
}

func (i viewInformer) AddEventHandlerWithResyncPeriod(handler cache.ResourceEventHandler, resync time.Duration) (cache.ResourceEventHandlerRegistration, error) {
	return i.SharedIndexInformer.AddEventHandlerWithResyncPeriod(i.view.register(handler), resync)
}

func (i viewInformer) AddEventHandlerWithOptions(handler cache.ResourceEventHandler, options cache.HandlerOptions) (cache.ResourceEventHandlerRegistration, error) {
	return i.SharedIndexInformer.AddEventHandlerWithOptions(i.view.register(handler), options)
}

func (i viewInformer) HasSynced() bool {
	return i.view.ready() && i.SharedIndexInformer.HasSynced()
}

// viewHandler passes on the events of Services that are ours.
type viewHandler struct {
	next    cache.ResourceEventHandler
	classes *classes
}

// OnAdd implements cache.ResourceEventHandler.
func (h viewHandler) OnAdd(object any, isInInitialList bool) {
	if service, ok := object.(*corev1.Service); ok {
		h.classes.note(service)
		if h.classes.ours(service) {
			h.next.OnAdd(present(service), isInInitialList)
		}
	}
}

// OnUpdate implements cache.ResourceEventHandler. A Service that has become ours
// is new to the controller.
func (h viewHandler) OnUpdate(oldObject, newObject any) {
	before, ok := oldObject.(*corev1.Service)
	if !ok {
		return
	}
	now, ok := newObject.(*corev1.Service)
	if !ok {
		return
	}
	h.classes.note(now)
	if before.UID != now.UID {
		h.classes.forget(before.UID)
	}
	switch {
	case !h.classes.ours(now):
	case h.classes.ours(before):
		h.next.OnUpdate(present(before), present(now))
	default:
		h.next.OnAdd(present(now), false)
	}
}

// OnDelete implements cache.ResourceEventHandler.
func (h viewHandler) OnDelete(object any) {
	if service, ok := deleted(object); ok {
		h.classes.forget(service.UID)
	}
	h.next.OnDelete(object)
}

// deleted is the Service of a deletion event, whose last state may be unknown.
func deleted(object any) (*corev1.Service, bool) {
	if tombstone, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = tombstone.Obj
	}
	service, ok := object.(*corev1.Service)
	return service, ok
}

// viewLister lists Services that are ours.
type viewLister struct {
	corelisters.ServiceLister
	view *View
}

func (l viewLister) List(selector labels.Selector) ([]*corev1.Service, error) {
	return l.view.list(l.ServiceLister.List(selector))
}

func (l viewLister) Services(namespace string) corelisters.ServiceNamespaceLister {
	return viewNamespaceLister{ServiceNamespaceLister: l.ServiceLister.Services(namespace), view: l.view}
}

type viewNamespaceLister struct {
	corelisters.ServiceNamespaceLister
	view *View
}

func (l viewNamespaceLister) List(selector labels.Selector) ([]*corev1.Service, error) {
	return l.view.list(l.ServiceNamespaceLister.List(selector))
}

func (l viewNamespaceLister) Get(name string) (*corev1.Service, error) {
	service, err := l.ServiceNamespaceLister.Get(name)
	if err != nil {
		return nil, err
	}
	if !l.view.classes.ours(service) {
		return nil, apierrors.NewNotFound(corev1.Resource("services"), name)
	}
	return present(service), nil
}

func (v *View) list(services []*corev1.Service, err error) ([]*corev1.Service, error) {
	var ours []*corev1.Service
	for _, service := range services {
		if v.classes.ours(service) {
			ours = append(ours, present(service))
		}
	}
	return ours, err
}
