package main

import (
	"context"
	"errors"
	"time"
)

// disturbance is something that users should not notice.
type disturbance struct {
	// flush empties the clients' neighbour caches meanwhile. Where the address
	// is to move, it does not: what is to be measured there is also how clients
	// learn of it.
	flush bool
	// cause does it, and returns when it is over, or is as it will stay.
	cause func(context.Context, *site, target) error
	// mend takes back what the site does not mend by itself. Nothing is measured
	// any more.
	mend func(context.Context, *site, target) error
}

// disturb measures the outage of a disturbance, as requests find it.
func disturb(d disturbance) func(context.Context, *site, int) (sample, error) {
	return func(ctx context.Context, s *site, run int) (sample, error) {
		t, err := s.target(ctx, run)
		if err != nil {
			return sample{}, err
		}
		result, err := s.disturbed(ctx, d, t)
		if d.mend != nil {
			err = errors.Join(err, d.mend(ctx, s, t))
		}
		return result, errors.Join(err, s.recover(ctx))
	}
}

func (s *site) disturbed(ctx context.Context, d disturbance, t target) (result sample, err error) {
	tr, err := s.startTraffic(ctx, t)
	if err != nil {
		return sample{}, err
	}
	cause := func(ctx context.Context) error {
		began := time.Now()
		if err := d.cause(ctx, s, t); err != nil {
			return err
		}
		// What comes late is part of it, be it only the answer of the planner.
		if err := pause(ctx, quiet); err != nil {
			return err
		}
		result.Unended = !tr.settle(ctx, began, s.options.patience)
		return nil
	}
	if d.flush {
		err = s.flushed(ctx, s.options.flush, cause)
	} else {
		err = cause(ctx)
	}
	reports, stopped := tr.stop()
	if err := errors.Join(err, stopped); err != nil {
		return sample{}, err
	}
	result.add(t, reports)
	if result.Unended {
		return result, nil
	}
	owner, err := s.waitOwner(ctx, t.address.String(), s.nodes...)
	result.Moved = owner != t.owner
	return result, err
}
