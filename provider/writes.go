package baremetal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
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
	// subjects are the Services that upstream was given an answer about last.
	subjects map[cache.ObjectName]types.UID
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
	return &writes{ended: ended, unseen: map[cache.ObjectName]write{}, subjects: map[cache.ObjectName]types.UID{}}
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
	delete(w.subjects, name)
}

// answer notes whom the answer is about that upstream will write into a status. It
// works on one Service of a name at a time.
func (w *writes) answer(name cache.ObjectName, uid types.UID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.subjects[name] = uid
}

func (w *writes) subject(name cache.ObjectName) types.UID {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.subjects[name]
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
	if uid := s.writes.subject(object); uid != "" {
		var err error
		if data, err = meantFor(uid, data); err != nil {
			return nil, fmt.Errorf("patch of Service %s: %w", object, err)
		}
	}
	s.writes.begin(object)
	written, err := s.ServiceInterface.Patch(ctx, name, kind, data, options, subresources...)
	s.writes.end(object, written, err)
	if changesUID(err) {
		// The Service that it was meant for is gone, which upstream knows to bear.
		return written, apierrors.NewNotFound(corev1.Resource("services"), name)
	}
	return written, err
}

// meantFor adds the UID to a patch that writes addresses. Upstream patches by name:
// the addresses of a Service would get into the status of the next one of that name.
// A finalizer is written before upstream has an answer about the Service.
func meantFor(uid types.UID, patch []byte) ([]byte, error) {
	var fields map[string]any
	if err := json.Unmarshal(patch, &fields); err != nil {
		return nil, err
	}
	if fields["status"] == nil {
		return patch, nil
	}
	metadata, _ := fields["metadata"].(map[string]any)
	if metadata == nil {
		metadata = map[string]any{}
	}
	metadata["uid"] = uid
	fields["metadata"] = metadata
	return json.Marshal(fields)
}

// changesUID reports whether the API server refused a patch because it was meant
// for another object of that name: it takes it for a change of an immutable field.
func changesUID(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) || status.Status().Details == nil {
		return false
	}
	return slices.ContainsFunc(status.Status().Details.Causes, func(c metav1.StatusCause) bool { return c.Field == "metadata.uid" }) ||
		apierrors.IsConflict(err) && strings.Contains(err.Error(), "UID")
}
