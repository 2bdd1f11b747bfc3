package baremetal

import (
	"sync"

	"k8s.io/apimachinery/pkg/types"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/ipam"
)

// changes are what event handlers note for run. Several changes of one object
// are one. It is safe for concurrent use.
type changes struct {
	mu    sync.Mutex
	batch batch
	// noted holds one element while there may be something to take.
	noted chan struct{}
}

// batch is what changed since the last batch was taken.
type batch struct {
	pools, nodes, namespaces bool
	// hope is true when somebody who waits may be served, for another reason.
	hope     bool
	services map[types.UID]change
}

// change is a Service that has to be examined.
type change struct {
	owner ipam.Owner
	// status is true when the addresses in its status changed.
	status bool
}

func newChanges() *changes {
	return &changes{noted: make(chan struct{}, 1)}
}

// note changes the batch by f and tells run.
func (c *changes) note(f func(*batch)) {
	c.mu.Lock()
	f(&c.batch)
	c.mu.Unlock()
	c.wake()
}

// wake has run look at the batch.
func (c *changes) wake() {
	select {
	case c.noted <- struct{}{}:
	default:
	}
}

// postpone puts a change into the next batch, whenever run is told of that one.
func (c *changes) postpone(postponed change) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.batch.service(postponed)
}

// take returns the batch and begins another one.
func (c *changes) take() batch {
	c.mu.Lock()
	defer c.mu.Unlock()
	taken := c.batch
	c.batch = batch{}
	return taken
}

// service adds a change to what is known of the Service.
func (b *batch) service(c change) {
	if b.services == nil {
		b.services = map[types.UID]change{}
	}
	c.status = c.status || b.services[c.owner.UID].status
	b.services[c.owner.UID] = c
}
