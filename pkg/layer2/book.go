package layer2

import (
	"container/heap"
	"maps"
	"net/netip"
	"time"
)

// book knows what to send when. It has neither a clock nor sockets: the time is
// an argument that never decreases, what was received comes by hear, and flush
// says what to send. Only its stations may be used by several goroutines.
type book struct {
	counters *counters
	own      *ownMACs
	checks   *checks
	// clock is for the stations only.
	clock func() time.Time

	links   map[int]*link // by index of the interface
	entries map[netip.Addr]*entry
	// wakes are the entries that have something to do, the next one first.
	wakes wakes
	// fellows are the MAC addresses of the cluster's nodes.
	fellows macs
	// conflicts counts the entries that have one and are not held.
	conflicts  int
	generation uint64

	// changed means that the status may have changed, dirty that the sockets may
	// have to.
	changed, dirty bool
}

func newBook() *book {
	return &book{
		counters: new(counters),
		own:      new(ownMACs),
		checks:   new(checks),
		clock:    time.Now,
		links:    make(map[int]*link),
		entries:  make(map[netip.Addr]*entry),
	}
}

// apply carries out a state.
func (b *book) apply(o *order, now time.Time) {
	b.generation++
	b.own.Store(&o.own)
	refellowed := !maps.Equal(b.fellows, o.fellows)
	if b.fellows = o.fellows; refellowed {
		b.checks.admit(o.fellows)
	}
	for _, w := range o.wants {
		for _, i := range w.links {
			b.use(&o.interfaces[i])
		}
	}
	for index, l := range b.links {
		if l.used != b.generation {
			// Its places are taken from the entries below.
			delete(b.links, index)
			b.dirty = true
		}
	}
	for _, w := range o.wants {
		e := b.entries[w.addr]
		if e == nil {
			e = &entry{addr: w.addr, phase: waiting, index: -1}
			b.entries[w.addr] = e
			b.changed = true
		}
		if e.used != b.generation { // else it is in several groups
			e.used = b.generation
			b.want(e, w, o.interfaces, now)
		}
	}
	for _, e := range b.entries {
		switch {
		case e.used != b.generation:
			b.forget(e)
		case refellowed:
			b.forgive(e, now)
		}
	}
	for _, l := range b.links {
		if l.moved {
			l.moved = false
			b.restart(l, now, ipv4, ipv6)
		}
	}
}

// forget takes an address out of the book.
func (b *book) forget(e *entry) {
	for _, p := range e.places {
		b.leave(p)
	}
	b.setConflict(e, nil)
	if e.index >= 0 {
		heap.Remove(&b.wakes, e.index)
	}
	delete(b.entries, e.addr)
	b.changed = true
}

// turn does what is due at now and sends what is ready, and returns when there is
// more to do, if ever.
func (b *book) turn(now time.Time, send sender) (next time.Time) {
	b.advance(now)
	next = b.flush(now, send)
	if len(b.wakes) > 0 {
		next = earlier(next, b.wakes[0].wake)
	}
	for _, l := range b.links {
		next = earlier(next, b.watch(l, now))
	}
	return next
}

// advance does what is due.
func (b *book) advance(now time.Time) {
	for len(b.wakes) > 0 && !b.wakes[0].wake.After(now) {
		e := b.wakes[0]
		b.step(e, now)
		b.schedule(e)
		if !e.wake.IsZero() && !e.wake.After(now) {
			// Every step ends what made it due; should one not, it costs a
			// little time and no loop.
			e.wake = now.Add(slotTime)
			heap.Fix(&b.wakes, e.index)
		}
	}
}

// schedule computes anew when the entry has something to do.
func (b *book) schedule(e *entry) {
	at := e.deadline()
	switch {
	case at.IsZero() && e.index < 0 || at.Equal(e.wake):
	case at.IsZero():
		heap.Remove(&b.wakes, e.index)
		e.wake = at
	case e.index < 0:
		e.wake = at
		heap.Push(&b.wakes, e)
	default:
		e.wake = at
		heap.Fix(&b.wakes, e.index)
	}
}

// earlier is the earlier of two times, of which the zero Time is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
