package planner

import (
	"time"

	"golang.org/x/time/rate"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/plan"
)

const (
	// cleanupRate (per second) and cleanupBurst bound the writes that do nothing but
	// withdraw addresses of deleted Services.
	cleanupRate  = 50
	cleanupBurst = 100
	// cleanupInterval is when those that exceed it are looked at again, if no other
	// plan does before.
	cleanupInterval = time.Second
)

// cleanups paces the withdrawal of addresses that no Service has any more. Nobody
// waits for it: a few are written at once; where Services come and go all the time,
// most go along with what else their nodes are to be told. A node has to wait for
// twenty seconds if a thousand do.
type cleanups struct{ budget *rate.Limiter }

func newCleanups() *cleanups {
	return &cleanups{budget: rate.NewLimiter(cleanupRate, cleanupBurst)}
}

// hold reports whether next, the program that the plan has for a node, can wait. If it
// is only a withdrawal, and cannot, it takes from the budget.
func (c *cleanups) hold(previous, next *announce.Program, p *plan.Plan) bool {
	if previous.Hash == "" {
		return false
	}
	lost, only := previous.Shed(next)
	return only && !p.Serves(lost) && !c.budget.Allow()
}
