package planner

import (
	"context"
	"time"
)

// pace spaces the plans out. A change that comes alone is planned at once; when
// changes keep coming while a plan is computed and written, each further plan
// takes in more of them. In a large cluster, where a plan takes its time, plans
// rest as long as they took: to compute them takes half of a core at most, however
// often something changes.
type pace struct{ interval time.Duration }

const (
	shortestInterval = 10 * time.Millisecond
	longestInterval  = 500 * time.Millisecond
	// failureInterval is the least time before writes that failed are tried again.
	failureInterval = 250 * time.Millisecond
)

// failed makes the next wait a longer one.
func (p *pace) failed() { p.interval = max(p.interval, failureInterval/2) }

// wait blocks as long as the next plan should wait; busy says that it is asked
// for already, and computed is how long the last one took to compute. It reports
// false when the context ends.
func (p *pace) wait(ctx context.Context, busy bool, computed time.Duration) bool {
	if busy {
		p.interval = min(max(2*p.interval, shortestInterval), longestInterval)
	} else {
		p.interval = 0
	}
	rest := max(p.interval, min(computed, longestInterval))
	if rest == 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(rest)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
