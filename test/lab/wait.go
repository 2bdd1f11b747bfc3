package lab

import (
	"context"
	"fmt"
	"time"
)

const (
	pollInterval   = 50 * time.Millisecond
	defaultTimeout = 60 * time.Second
)

// WaitFor waits until a condition is true. An error of the condition is not the
// end: it is what the condition is waiting on, and part of the error if the
// time runs out. That is when ctx ends, or after a minute if it has no deadline.
func (l *Lab) WaitFor(ctx context.Context, what string, condition func(context.Context) (bool, error)) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, defaultTimeout)
		defer cancel()
	}
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	start := time.Now()
	var last error
	for {
		done, err := condition(ctx)
		if done && err == nil {
			return nil
		}
		if ctx.Err() == nil || last == nil {
			last = err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			if last == nil {
				return fmt.Errorf("%s: not within %s: %w", what, time.Since(start).Round(time.Millisecond), ctx.Err())
			}
			return fmt.Errorf("%s: not within %s: %w", what, time.Since(start).Round(time.Millisecond), last)
		}
	}
}
