package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab"
)

// flushed runs f while the neighbour caches of the LAN client and of the router
// are emptied at an interval, so that somebody asks for the address all the
// time.
func (s *site) flushed(ctx context.Context, every time.Duration, f func(context.Context) error) error {
	flushing, cancel := context.WithCancel(ctx)
	failed := make(chan error, 1)
	go func() { failed <- s.flush(flushing, every) }()
	err := f(ctx)
	cancel()
	return errors.Join(err, <-failed)
}

func (s *site) flush(ctx context.Context, every time.Duration) error {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		for _, host := range []string{lab.LAN, lab.Router} {
			if err := s.FlushNeighbors(ctx, host); err != nil && ctx.Err() == nil {
				return fmt.Errorf("flush: %w", err)
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// pause waits, unless ctx ends first.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
