package speaker

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/klog/v2"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

const (
	// reportInterval is the least time between two writes of the report: each
	// one reaches all that watch Nodes.
	reportInterval = 10 * time.Second
	// reportSettle is how long a change waits to be written, but for the first
	// report: a session takes about two seconds to come up, and its state on
	// the way there would stand in the report for the whole interval.
	reportSettle = 3 * time.Second
	// reportRetry is the pause after a write that failed.
	reportRetry = time.Second
	// maxError and maxSessionError bound the texts in the report.
	maxError        = 1024
	maxSessionError = 256
)

// reporter writes the report into the Node's annotation: at once when it is
// another one, but not more often than every reportInterval.
type reporter struct {
	write func(ctx context.Context, key, value string) error

	mu    sync.Mutex
	value string // as it should be
	// present is the annotation's value, as far as is known; absent means that
	// there is no Node.
	present string
	absent  bool
	wake    chan struct{}
}

func newReporter(write func(ctx context.Context, key, value string) error) *reporter {
	return &reporter{write: write, wake: make(chan struct{}, 1)}
}

// set makes r the report.
func (r *reporter) set(report announce.Report) error {
	value, err := encodeReport(report)
	if err != nil {
		return err
	}
	r.change(func() { r.value = value })
	return nil
}

// observe takes notice of the Node: somebody else may have changed or removed
// the annotation, and a Node that was created anew has none.
func (r *reporter) observe(n node) {
	r.change(func() { r.present, r.absent = n.report, n.gone })
}

func (r *reporter) change(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// due is the report if it has to be written.
func (r *reporter) due() (value string, due bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.value, r.value != "" && r.value != r.present && !r.absent
}

// encodeReport writes the report as far as it fits: session states are worth
// more than their errors, and those more than interfaces.
func encodeReport(r announce.Report) (string, error) {
	r.Error = cut(r.Error, maxError)
	r.Sessions = slices.Clone(r.Sessions) // others read them
	for i := range r.Sessions {
		r.Sessions[i].Error = cut(r.Sessions[i].Error, maxSessionError)
	}
	value, err := announce.EncodeReport(r)
	if err == nil {
		return value, nil
	}
	r.Interfaces = nil
	if value, err = announce.EncodeReport(r); err == nil {
		return value, nil
	}
	for i := range r.Sessions {
		r.Sessions[i].Error = ""
	}
	return announce.EncodeReport(r)
}

// cut shortens the text to n bytes, between characters.
func cut(text string, n int) string {
	if len(text) <= n {
		return text
	}
	return strings.ToValidUTF8(text[:n], "")
}

// run writes until ctx ends.
func (r *reporter) run(ctx context.Context) error {
	logger := klog.FromContext(ctx)
	failed, wrote := false, false
	for {
		if _, due := r.due(); !due {
			select {
			case <-ctx.Done():
				return nil
			case <-r.wake:
			}
			if _, due := r.due(); due && wrote && !waited(ctx, reportSettle) {
				return nil
			}
		}
		// What came while it was waited for is in this one.
		value, due := r.due()
		if !due {
			continue
		}
		pause := reportInterval
		if err := r.write(ctx, v1alpha1.NodeSpeaker, value); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if !failed {
				logger.Error(err, "Writing the report failed")
			}
			reportWrites.WithLabelValues("error").Inc()
			pause, failed = reportRetry, true
		} else {
			reportWrites.WithLabelValues("success").Inc()
			r.change(func() { r.present = value })
			failed, wrote = false, true
		}
		if !waited(ctx, pause) {
			return nil
		}
	}
}

// waited blocks for d; it reports false when ctx ends before.
func waited(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
