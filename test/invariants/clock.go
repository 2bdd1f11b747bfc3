package invariants

import (
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/utils/ptr"
)

// actor is a program that has to mend what a finding tells of.
type actor int

const (
	allocator actor = iota // writes the status of Services
	planner                // writes the programs of nodes, and the status of pools
	actors
)

// leaseNames are those of manifests/base, by actor.
var leaseNames = [actors]string{"baremetal-cloud-controller-manager", "baremetal-planner"}

// longestStep bounds what a clock advances at once: when the watcher itself got
// no time to run, nobody else may have got any.
const longestStep = 300 * time.Millisecond

// clocks measure the time in which each actor could act.
type clocks struct {
	options   Options
	last      time.Time
	active    [actors]time.Duration
	leases    [actors]lease
	connected bool
	since     time.Time // since when it is connected
	suspended map[int]string
	next      int
}

// lease is what is known of a Lease. Times are of this process: clocks differ.
type lease struct {
	term     string // tells terms apart
	holder   string
	renewal  time.Time // what the Lease says
	seen     time.Time // when that was seen first
	began    time.Time // since when it has been held without a gap
	lifetime time.Duration
}

func newClocks(o Options, now time.Time) *clocks {
	return &clocks{options: o, last: now, suspended: make(map[int]string)}
}

// advance lets the clocks run until now.
func (c *clocks) advance(now time.Time) {
	step := min(max(now.Sub(c.last), 0), longestStep)
	c.last = now
	for a := range actors {
		if c.running(a, now) {
			c.active[a] += step
		}
	}
}

// running reports whether the actor can act.
func (c *clocks) running(a actor, now time.Time) bool {
	if !c.connected || now.Sub(c.since) < c.options.AfterOutage || len(c.suspended) > 0 {
		return false
	}
	return c.options.NoLeases || c.leases[a].held(now) && now.Sub(c.leases[a].began) >= c.options.AfterElection
}

// held reports whether the holder renews the Lease. Holders do so five times and
// more in its lifetime, so one that missed a third of it does not work.
func (l *lease) held(now time.Time) bool {
	return l.holder != "" && now.Sub(l.seen) <= l.lifetime/3
}

// see takes note of a Lease, and reports whether it has changed hands.
func (c *clocks) see(now time.Time, object *coordinationv1.Lease) (changed bool) {
	for a, name := range leaseNames {
		if object.Name != name || object.Namespace != c.options.Namespace {
			continue
		}
		l := &c.leases[a]
		holder, renewal := ptr.Deref(object.Spec.HolderIdentity, ""), time.Time{}
		if object.Spec.RenewTime != nil {
			renewal = object.Spec.RenewTime.Time
		}
		acquired := ""
		if object.Spec.AcquireTime != nil {
			acquired = object.Spec.AcquireTime.String()
		}
		term := fmt.Sprintf("%s since %s", holder, acquired)
		changed = term != l.term
		if changed || !l.held(now) {
			l.began = now
		}
		if changed || !renewal.Equal(l.renewal) {
			l.seen = now
		}
		l.term, l.holder, l.renewal = term, holder, renewal
		l.lifetime = time.Duration(ptr.Deref(object.Spec.LeaseDurationSeconds, 15)) * time.Second
	}
	return changed
}

func (c *clocks) connect(now time.Time, up bool) {
	if up && !c.connected {
		c.since = now
	}
	c.connected = up
}

func (c *clocks) suspend(why string) (id int) {
	c.next++
	c.suspended[c.next] = why
	return c.next
}

func (c *clocks) resume(id int) { delete(c.suspended, id) }
