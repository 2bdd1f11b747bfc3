package speaker

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/klog/v2"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

const (
	// minBackoff and maxBackoff bound the pause before the Node is read again
	// after a failure. client-go's reflector waits for 30 s and more, and then a
	// Service that is created after an outage would wait as well.
	minBackoff = 50 * time.Millisecond
	maxBackoff = 800 * time.Millisecond

	// goneHold is how long there has to be no Node before nothing is announced
	// any more, and goneRelist how often that is asked meanwhile.
	goneHold   = 30 * time.Second
	goneRelist = 10 * time.Second
)

// shutdownMessage is part of the message of a Node's Ready condition while the
// kubelet shuts the node down gracefully.
const shutdownMessage = "node is shutting down"

// errDeleted ends a watch: lists have to confirm it.
var errDeleted = errors.New("the Node was deleted")

// node is what matters of the speaker's Node.
type node struct {
	// read: the rest was read once. offline: the API server does not answer
	// now, so that the rest may be out of date.
	read, offline bool
	// gone means that there is no such Node; abandoned, that for goneHold the
	// API server has said nothing else.
	gone, abandoned bool
	// uid is the Node's.
	uid string
	// program is the annotation with the program; announced is false if there
	// is none.
	program   string
	announced bool
	// report is the annotation with the speaker's report.
	report string
	// cordoned and draining: someone wants the node empty. shuttingDown: the
	// kubelet is emptying it.
	cordoned, draining, shuttingDown bool
}

func nodeOf(n *corev1.Node) node {
	program, announced := n.Annotations[v1alpha1.NodeAnnouncements]
	return node{
		read:         true,
		uid:          string(n.UID),
		program:      program,
		announced:    announced,
		report:       n.Annotations[v1alpha1.NodeSpeaker],
		cordoned:     n.Spec.Unschedulable,
		draining:     n.Annotations[v1alpha1.NodeDrain] == "true",
		shuttingDown: shuttingDown(n.Status.Conditions),
	}
}

func shuttingDown(conditions []corev1.NodeCondition) bool {
	return slices.ContainsFunc(conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionFalse && strings.Contains(c.Message, shutdownMessage)
	})
}

// leaving reports whether the node is being emptied, so that a stop of the
// speaker is no restart.
func (n node) leaving() bool { return n.gone || n.cordoned || n.draining || n.shuttingDown }

// watcher tells of each change of the Node.
type watcher struct {
	client  nodeSource
	changed func(node)
	// wait pauses after the given number of failures in a row.
	wait func(ctx context.Context, failures int)

	// missing is since when the API server has said, without a failure, that
	// there is no Node; zero if there is one.
	missing time.Time
	// last is what was told last.
	last node
}

// nodeSource is the part of client that a watcher needs.
type nodeSource interface {
	listNode(ctx context.Context) (*corev1.NodeList, error)
	watchNode(ctx context.Context, resourceVersion string) (watch.Interface, error)
}

// run lists and watches until ctx ends.
func (w *watcher) run(ctx context.Context) error {
	logger := klog.FromContext(ctx)
	for failures := 0; ctx.Err() == nil; {
		progress, err := w.once(ctx)
		if progress {
			failures = 0
		}
		if err != nil && ctx.Err() == nil {
			failures++
			// A watch that breaks is no outage, but a list that fails is.
			if !progress {
				w.offline()
			}
			// The first failures of an outage, and then some.
			if failures&(failures-1) == 0 {
				logger.Info("Watching the Node failed", "error", err, "failures", failures)
			}
			w.wait(ctx, failures)
		}
	}
	return nil
}

// once lists and watches until the watch ends, which it does in the normal
// course of events after some minutes, and after goneRelist if there is no Node.
// It reports whether it read the Node.
func (w *watcher) once(ctx context.Context) (progress bool, err error) {
	list, err := w.client.listNode(ctx)
	if err != nil {
		w.missing = time.Time{}
		return false, fmt.Errorf("listing: %w", err)
	}
	if len(list.Items) == 0 {
		if w.missing.IsZero() {
			w.missing = time.Now()
		}
		w.tell(node{read: true, gone: true, abandoned: time.Since(w.missing) >= goneHold})
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, goneRelist)
		defer cancel()
	}
	for i := range list.Items {
		w.found(&list.Items[i])
	}
	for version := list.ResourceVersion; ; {
		began := time.Now()
		version, err = w.follow(ctx, version)
		switch {
		case ctx.Err() != nil || errors.Is(err, errDeleted):
			return true, nil
		case apierrors.IsResourceExpired(err) || apierrors.IsGone(err):
			return true, nil // list again, at once
		case err != nil:
			return true, fmt.Errorf("watching: %w", err)
		case time.Since(began) < time.Second:
			return true, errors.New("watching: closed at once")
		}
	}
}

// follow watches from version on until the watch ends, and returns the last
// version that it has seen.
func (w *watcher) follow(ctx context.Context, version string) (string, error) {
	watching, err := w.client.watchNode(ctx, version)
	if err != nil {
		return version, err
	}
	defer watching.Stop()
	for e := range watching.ResultChan() {
		n, ok := e.Object.(*corev1.Node)
		if !ok {
			return version, apierrors.FromObject(e.Object)
		}
		version = n.ResourceVersion
		switch e.Type {
		case watch.Added, watch.Modified:
			w.found(n)
		case watch.Deleted:
			w.tell(node{read: true, gone: true})
			return version, errDeleted
		case watch.Bookmark:
		}
	}
	return version, nil
}

func (w *watcher) found(n *corev1.Node) {
	w.missing = time.Time{}
	w.tell(nodeOf(n))
}

func (w *watcher) tell(n node) {
	w.last = n
	w.changed(n)
}

// offline tells that the API server does not answer.
func (w *watcher) offline() {
	if w.last.offline {
		return
	}
	n := w.last
	n.offline = true
	w.tell(n)
}

// backoff is the pause of a watcher.
func backoff(ctx context.Context, failures int) { pause(ctx, failures, maxBackoff) }

// pause waits longer after each failure, from minBackoff up to a limit, with jitter
// so that the speakers of a cluster do not come all at once.
func pause(ctx context.Context, failures int, limit time.Duration) {
	d := min(limit, minBackoff<<min(failures-1, 10))
	d += rand.N(d / 4)
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
