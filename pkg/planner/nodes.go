package planner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"go4.org/netipx"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/plan"
)

const (
	// writeTimeout bounds one write to the API server.
	writeTimeout = 10 * time.Second
	// headStart bounds how long the first of several writes is alone.
	headStart = 20 * time.Millisecond
	// losersPatience bounds how long nodes that only lose addresses wait while
	// nodes that gain some cannot be written.
	losersPatience = time.Second
	// parallelNodeWrites bounds the writes to Nodes under way.
	parallelNodeWrites = 16
)

// nodeWriter writes programs into Node annotations, and remembers them: a
// cache may be older than our own last write.
type nodeWriter struct {
	client kubernetes.Interface
	// gainersFail is since when writes to nodes that gain addresses fail; zero
	// while they do not. Only write uses it.
	gainersFail time.Time
	// handovers holds back losers of addresses on the LAN. Only write uses it.
	handovers handovers
	// cleanups holds back withdrawals that nobody waits for. Only write uses it.
	cleanups *cleanups

	mu    sync.Mutex
	known map[string]knownProgram // by node name
	// failing is since when writes to nodes fail, by node name.
	failing map[string]time.Time
	// sent is the value of the last write to each node, from before it is sent:
	// its event may arrive before the response.
	sent map[string]string
}

type knownProgram struct {
	value   string
	program announce.Program
	// floor is the greatest epoch that the node has had: its epochs grow,
	// whatever others write and whatever our clock does.
	floor int64
	// resourceVersion is that of the Node after our own write, else 0.
	resourceVersion uint64
	// refused is what had no room beside the program.
	refused refused
}

// refused is what a program leaves out of another one.
type refused struct {
	hash string // of the program as it should be
	left []announce.Range
}

func newNodeWriter(client kubernetes.Interface) *nodeWriter {
	w := &nodeWriter{client: client, cleanups: newCleanups()}
	w.forget()
	return w
}

// forget starts anew: somebody else may have written since.
func (w *nodeWriter) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.known, w.sent = make(map[string]knownProgram), make(map[string]string)
	w.failing = make(map[string]time.Time)
	w.gainersFail, w.handovers = time.Time{}, handovers{}
}

// wrote reports whether the node's announcements are those that we wrote last.
func (w *nodeWriter) wrote(n *corev1.Node) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	value, ok := w.sent[n.Name]
	return ok && value == n.Annotations[v1alpha1.NodeAnnouncements]
}

// programs are those that the nodes have now, by node name. An annotation that
// cannot be read counts as none and is written anew.
func (w *nodeWriter) programs(nodes []*corev1.Node) map[string]announce.Program {
	w.mu.Lock()
	defer w.mu.Unlock()
	programs := make(map[string]announce.Program, len(nodes))
	present := make(map[string]bool, len(nodes))
	for _, n := range nodes {
		present[n.Name] = true
		known, ok := w.known[n.Name]
		value, annotated := n.Annotations[v1alpha1.NodeAnnouncements]
		if ours := ok && version(n.ResourceVersion) < known.resourceVersion; !ours && value != known.value {
			known = knownProgram{value: value, floor: max(known.floor, known.program.Epoch)}
			if annotated {
				program, err := announce.Decode(value)
				if err != nil {
					klog.ErrorS(err, "Replacing announcements that cannot be read", "node", n.Name)
				}
				known.program = program
			}
			w.known[n.Name] = known
		} else if !ours {
			known.value = value // one text in one place compares at a glance
			w.known[n.Name] = known
		}
		if known.program.Hash != "" {
			programs[n.Name] = known.program
		}
	}
	for name := range w.known {
		if !present[name] {
			delete(w.known, name)
			delete(w.sent, name)
			delete(w.failing, name)
		}
	}
	return programs
}

func version(resourceVersion string) uint64 {
	v, err := strconv.ParseUint(resourceVersion, 10, 64)
	if err != nil {
		return 0 // not comparable: the cache wins, and a stale plan is repaired by the next event
	}
	return v
}

// write brings the plan's programs into the Nodes: first to those that gain
// addresses, then to those that only lose some, so that an address that moves
// is announced all the time. Failures of one node do not hold up the others for
// long. again is how long writes wait that are to follow even if nothing else
// changes; 0 if there are none.
func (w *nodeWriter) write(ctx context.Context, nodes []*corev1.Node, result *plan.Plan) (again time.Duration, err error) {
	var (
		gainers, losers []pendingWrite
		errs            []error
	)
	byName := make(map[string]*corev1.Node, len(nodes))
	for _, n := range nodes {
		byName[n.Name] = n
		program, ok := result.Programs[n.Name]
		if !ok {
			continue
		}
		known := w.knownOf(n.Name)
		previous := known.program
		switch program.Hash {
		case previous.Hash:
			continue
		case known.refused.hash: // what has no room was found out before
			result.LeaveOut(n.Name, known.refused.left)
			continue
		}
		gaining := gains(n.Name, &program, &previous)
		if !gaining && w.cleanups.hold(&previous, &program, result) {
			again = cleanupInterval
			continue
		}
		program.Epoch = announce.NextEpoch(time.Now(), max(known.floor, previous.Epoch))
		had := sync.OnceValue(func() *netipx.IPSet { return previous.Addresses(func(*announce.Group) bool { return true }) })
		value, fitted, left, err := announce.EncodeFitting(program, func(addr netip.Addr) bool { return had().Contains(addr) })
		if err != nil {
			errs = append(errs, fmt.Errorf("node %s: %w", n.Name, err))
			continue
		}
		pending := pendingWrite{node: n, value: value, program: fitted, previous: previous}
		if len(left) > 0 {
			pending.refused = refused{hash: program.Hash, left: left}
			for _, s := range result.LeaveOut(n.Name, left) {
				klog.InfoS("No room for the addresses of a Service in the announcements of a node", "node", n.Name, "service", s.Namespace+"/"+s.Name)
			}
			if fitted.Hash == previous.Hash {
				w.refuse(n.Name, pending.refused)
				continue
			}
			gaining = gains(n.Name, &fitted, &previous)
		}
		if gaining {
			gainers = append(gainers, pending)
		} else {
			losers = append(losers, pending)
		}
	}
	err = w.writeAll(ctx, gainers)
	errs = append(errs, err)
	if err == nil {
		w.gainersFail = time.Time{}
	} else if w.gainersFail.IsZero() {
		w.gainersFail = time.Now()
	}
	// A withdrawal waits for the announcement elsewhere, but not for long: one
	// node that cannot be written must not keep the others from withdrawing.
	if err == nil || time.Since(w.gainersFail) > losersPatience {
		due, wait := w.handovers.hold(losers, &round{next: result.Programs, known: w.written, nodes: byName})
		if wait > 0 && (again == 0 || wait < again) {
			again = wait
		}
		errs = append(errs, w.writeAll(ctx, due))
	}
	return again, errors.Join(errs...)
}

// knownOf is what is known of the node's program.
func (w *nodeWriter) knownOf(node string) knownProgram {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.known[node]
}

// written is the program that was written to the node last.
func (w *nodeWriter) written(node string) announce.Program { return w.knownOf(node).program }

// made are the moves of the plan that the new owners have been told. The others
// are in the next plan again.
func (w *nodeWriter) made(p *plan.Plan) []plan.Move {
	return slices.DeleteFunc(slices.Clone(p.Moves), func(m plan.Move) bool {
		return w.written(m.To).Hash != p.Programs[m.To].Hash
	})
}

// refuse remembers what has no room beside the node's program.
func (w *nodeWriter) refuse(node string, r refused) {
	w.mu.Lock()
	defer w.mu.Unlock()
	known := w.known[node]
	known.refused = r
	w.known[node] = known
}

// unwritable are the nodes that could not be written for some time, though others
// could: they are no places for addresses to move to.
func (w *nodeWriter) unwritable() map[string]bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out map[string]bool
	if len(w.failing) == 0 || len(w.failing) == len(w.known) {
		return nil
	}
	for name, since := range w.failing {
		if time.Since(since) < losersPatience {
			continue
		}
		if out == nil {
			out = make(map[string]bool)
		}
		out[name] = true
	}
	return out
}

// pendingWrite is a program on its way into a Node.
type pendingWrite struct {
	node              *corev1.Node
	value             string
	program, previous announce.Program
	refused           refused
}

// gains reports whether next makes the node announce an address, by BGP or on
// the LAN, that previous does not.
func gains(node string, next, previous *announce.Program) bool {
	return !previous.Includes(next, func(g *announce.Group) bool { return g.BGP != nil }) ||
		!previous.Includes(next, func(g *announce.Group) bool { return g.Layer2.OwnedBy(node) })
}

// writeAll writes to all of the nodes. The first write has a head start: an
// address answers as soon as one node announces it, and writes that are sent
// together delay each other.
func (w *nodeWriter) writeAll(ctx context.Context, all []pendingWrite) error {
	errs := make([]error, len(all))
	var group errgroup.Group
	group.SetLimit(parallelNodeWrites)
	first := make(chan struct{})
	for i, pending := range all {
		if i == 1 {
			waitFor(first, headStart)
		}
		group.Go(func() error {
			errs[i] = w.writeOne(ctx, pending)
			if i == 0 {
				close(first)
			}
			return nil
		})
	}
	_ = group.Wait() // the errors are in errs
	return errors.Join(errs...)
}

// waitFor waits until done is closed, but no longer than d.
func waitFor(done <-chan struct{}, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}

func (w *nodeWriter) writeOne(ctx context.Context, pending pendingWrite) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		// Another Node of the same name is not the one that was planned for.
		"uid":         pending.node.UID,
		"annotations": map[string]string{v1alpha1.NodeAnnouncements: pending.value},
	}})
	if err != nil {
		return fmt.Errorf("node %s: %w", pending.node.Name, err)
	}
	w.mu.Lock()
	w.sent[pending.node.Name] = pending.value
	w.mu.Unlock()
	updated, err := w.client.CoreV1().Nodes().Patch(ctx, pending.node.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: fieldManager})
	switch {
	case gone(err):
		return nil // the event is on its way
	case err != nil:
		w.mu.Lock()
		defer w.mu.Unlock()
		if _, known := w.failing[pending.node.Name]; !known && ctx.Err() == nil {
			w.failing[pending.node.Name] = time.Now()
		}
		return fmt.Errorf("node %s: writing the annotation %s: %w", pending.node.Name, v1alpha1.NodeAnnouncements, err)
	}
	nodeWrites.Inc()
	klog.V(2).InfoS("Wrote announcements", "node", pending.node.Name, "epoch", pending.program.Epoch, "hash", pending.program.Hash, "bytes", len(pending.value))
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.failing, pending.node.Name)
	w.known[pending.node.Name] = knownProgram{value: pending.value, program: pending.program, resourceVersion: version(updated.ResourceVersion), refused: pending.refused}
	return nil
}

// gone reports whether an object was deleted, or replaced by another one of
// that name, before it could be patched. A patch is checked like an update, so
// that another UID is a change of an immutable field.
func gone(err error) bool {
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return true
	}
	status := apierrors.APIStatus(nil)
	if !apierrors.IsInvalid(err) || !errors.As(err, &status) || status.Status().Details == nil {
		return false
	}
	return slices.ContainsFunc(status.Status().Details.Causes, func(c metav1.StatusCause) bool { return c.Field == "metadata.uid" })
}

// fieldManager names the planner in managedFields.
const fieldManager = "baremetal-planner"
