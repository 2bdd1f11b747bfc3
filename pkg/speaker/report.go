package speaker

import (
	"context"
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
	// reportRetry is the pause after a write that failed.
	reportRetry = time.Second
	// maxSessionError bounds the text of a session in the report.
	maxSessionError = 256
)

// reporter writes the report into the Node's annotation: at once when it
// changed, but not more often than every reportInterval.
type reporter struct {
	write func(ctx context.Context, key, value string) error

	mu    sync.Mutex
	value string
	wake  chan struct{}
}

func newReporter(write func(ctx context.Context, key, value string) error) *reporter {
	return &reporter{write: write, wake: make(chan struct{}, 1)}
}

// set makes r the report.
func (r *reporter) set(report announce.Report) error {
	for i := range report.Sessions {
		if text := report.Sessions[i].Error; len(text) > maxSessionError {
			report.Sessions[i].Error = text[:maxSessionError]
		}
	}
	value, err := announce.EncodeReport(report)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if value == r.value {
		return nil
	}
	r.value = value
	select {
	case r.wake <- struct{}{}:
	default:
	}
	return nil
}

func (r *reporter) get() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.value
}

// run writes until ctx ends.
func (r *reporter) run(ctx context.Context) error {
	logger := klog.FromContext(ctx)
	written, failed := "", false
	for {
		if value := r.get(); value == written {
			select {
			case <-ctx.Done():
				return nil
			case <-r.wake:
				continue
			}
		}
		// What came while the last write was waited for is in this one.
		value := r.get()
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
			written, failed = value, false
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}
