package baremetal

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/client-go/kubernetes"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"
)

// writes knows which of upstream's writes the caches do not show yet. A cached
// Service that is older than the last write says nothing about the addresses
// that the API shows: it must not free one. It is safe for concurrent use.
type writes struct {
	// ended is called when a write has come to its end.
	ended func()
	// reader is set by watch.
	reader typedcorev1.ServicesGetter

	mu sync.Mutex
	// unseen are the last writes of Services, by namespaced name, until a cache
	// has caught up with them.
	unseen map[cache.ObjectName]write
}

// write is the last one of a Service.
type write struct {
	// version is the resourceVersion that the last one which succeeded led to.
	version string
	// open is true while one is under way, and when it is not known what became of
	// it: the connection broke.
	open bool
}

func newWrites(ended func()) *writes {
	return &writes{ended: ended, unseen: map[cache.ObjectName]write{}}
}

// shownBy reports whether the cached Service is not older than upstream's last
// write of it.
func (w *writes) shownBy(cached *corev1.Service) bool {
	name := cache.MetaObjectToName(cached)
	w.mu.Lock()
	defer w.mu.Unlock()
	last, ok := w.unseen[name]
	if !ok {
		return true
	}
	if last.open {
		return false
	}
	if order, err := resourceversion.CompareResourceVersion(cached.ResourceVersion, last.version); err != nil || order < 0 {
		return false
	}
	delete(w.unseen, name)
	return true
}

// forget drops what is known of a Service that is gone.
func (w *writes) forget(name cache.ObjectName) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.unseen, name)
}

func (w *writes) begin(name cache.ObjectName) {
	w.mu.Lock()
	defer w.mu.Unlock()
	last := w.unseen[name]
	last.open = true
	w.unseen[name] = last
}

func (w *writes) end(name cache.ObjectName, written *corev1.Service, err error) {
	defer w.ended()
	w.mu.Lock()
	defer w.mu.Unlock()
	last, ok := w.unseen[name]
	switch {
	case !ok: // The Service was gone before.
	case err == nil:
		w.unseen[name] = write{version: written.ResourceVersion}
	case !rejected(err): // It may have been done, or may still be.
	case last.version == "":
		delete(w.unseen, name)
	default:
		w.unseen[name] = write{version: last.version}
	}
}

// settle finds out what became of the last write of the Service, where that is
// not known. Upstream, who calls, has none under way.
func (w *writes) settle(ctx context.Context, name cache.ObjectName) error {
	w.mu.Lock()
	open := w.unseen[name].open
	w.mu.Unlock()
	if !open {
		return nil
	}
	now, err := w.reader.Services(name.Namespace).Get(ctx, name.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		w.forget(name)
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading Service %s, whose last write may have been lost: %w", name, err)
	}
	w.end(name, now, nil)
	return nil
}

// rejected reports whether the error says that nothing was written.
func rejected(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return false
	}
	code := status.Status().Code
	return code >= http.StatusBadRequest && code < http.StatusInternalServerError
}

// watch returns the client, with its writes of Services watched, before anything
// is written. Upstream writes by Patch only.
func (w *writes) watch(client kubernetes.Interface) kubernetes.Interface {
	w.reader = client.CoreV1()
	return watchedClient{Interface: client, writes: w}
}

type watchedClient struct {
	kubernetes.Interface
	writes *writes
}

func (c watchedClient) CoreV1() typedcorev1.CoreV1Interface {
	return watchedCore{CoreV1Interface: c.Interface.CoreV1(), writes: c.writes}
}

type watchedCore struct {
	typedcorev1.CoreV1Interface
	writes *writes
}

func (c watchedCore) Services(namespace string) typedcorev1.ServiceInterface {
	return watchedServices{ServiceInterface: c.CoreV1Interface.Services(namespace), namespace: namespace, writes: c.writes}
}

type watchedServices struct {
	typedcorev1.ServiceInterface
	namespace string
	writes    *writes
}

func (s watchedServices) Patch(ctx context.Context, name string, kind types.PatchType, data []byte, options metav1.PatchOptions, subresources ...string) (*corev1.Service, error) {
	object := cache.NewObjectName(s.namespace, name)
	s.writes.begin(object)
	written, err := s.ServiceInterface.Patch(ctx, name, kind, data, options, subresources...)
	s.writes.end(object, written, err)
	return written, err
}
