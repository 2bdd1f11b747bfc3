package layer2

import (
	"container/heap"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/layer2/internal/wire"
)

// family is IPv4 or IPv6, which differ in protocol and socket.
type family int

const (
	ipv4 family = iota
	ipv6
	families // how many there are
)

func familyOf(addr netip.Addr) family {
	if addr.Is4() {
		return ipv4
	}
	return ipv6
}

// String is the name of the protocol by which addresses of the family are
// resolved.
func (f family) String() string {
	if f == ipv4 {
		return "ARP"
	}
	return "NDP"
}

// book knows what to send when. It has neither a clock nor sockets: the time is
// an argument that never decreases, what was received comes by hear, and flush
// says what to send. Only its stations may be used by several goroutines.
type book struct {
	counters *counters
	own      *ownMACs

	links   map[int]*link // by index of the interface
	entries map[netip.Addr]*entry
	// wakes are the entries that have something to do, the next one first.
	wakes wakes
	// fellows are the MAC addresses of the cluster's nodes.
	fellows macs
	// conflicts counts the entries that have one.
	conflicts  int
	generation uint64

	// changed means that the status may have changed, dirty that the sockets may
	// have to.
	changed, dirty bool
}

// link is an interface that announces.
type link struct {
	index int
	name  string
	names []string // name alone
	mac   announce.MAC
	// self are addresses of the node on the interface.
	self    [families]netip.Addr
	station *station
	places  map[netip.Addr]*place
	// open are the families with a socket. Nothing is queued for others.
	open     [families]bool
	suspects map[suspectKey]*suspect
	// watched are those of self that suspects are being asked for.
	watched [families]netip.Addr
	// ready are the jobs whose time has come, by urgency.
	ready [urgencies]fifo
	// slot is when the next frames may be sent.
	slot time.Time
	used uint64 // generation
	// moved means that the MAC address has changed.
	moved bool
}

// place is an address on a link.
type place struct {
	entry *entry
	link  *link
	// round is the number of probes or gratuitous announcements sent, start the
	// time of the first of the latter, due that of the next; zero is never.
	round int
	start time.Time
	due   time.Time
	// done means that no answer to the probes is awaited any more.
	done bool
	// queued and asserting mean that such a job is in the link's queue; ticket
	// tells a job that still counts.
	queued, asserting bool
	ticket            uint32
}

func newBook() *book {
	return &book{
		counters: new(counters),
		own:      new(ownMACs),
		links:    make(map[int]*link),
		entries:  make(map[netip.Addr]*entry),
	}
}

// apply carries out a state.
func (b *book) apply(o *order, now time.Time) {
	b.generation++
	b.own.Store(&o.own)
	refellowed := !maps.Equal(b.fellows, o.fellows)
	b.fellows = o.fellows
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

// use makes the interface a link, or brings the link up to date.
func (b *book) use(i *Interface) {
	l := b.links[i.Index]
	if l != nil && l.used == b.generation {
		return
	}
	if l == nil {
		l = &link{
			index: i.Index,
			mac:   i.MAC,
			station: &station{
				own: b.own, counters: b.counters, mac: i.MAC, known: make(map[netip.Addr]bool),
			},
			places:   make(map[netip.Addr]*place),
			suspects: make(map[suspectKey]*suspect),
		}
		b.links[i.Index] = l
		b.dirty = true
	}
	l.used = b.generation
	if l.name != i.Name {
		l.name, l.names = i.Name, []string{i.Name}
	}
	if l.mac != i.MAC {
		l.mac, l.moved = i.MAC, true
		l.station.setMAC(i.MAC)
	}
	l.self = [families]netip.Addr{}
	for _, p := range i.Prefixes {
		addr := p.Addr().WithZone("")
		if f := familyOf(addr); !l.self[f].IsValid() || l.self[f].IsLinkLocalUnicast() {
			l.self[f] = addr
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

// leave takes an address from a link.
func (b *book) leave(p *place) {
	p.cancel()
	if p.link.places[p.entry.addr] == p {
		delete(p.link.places, p.entry.addr)
		p.link.station.forget(p.entry.addr)
	}
	b.dirty = true
}

// opened says that the link has a socket for the family: it came up, and so did
// the switch's port, whose table may be empty.
func (b *book) opened(l *link, f family, now time.Time) {
	if b.links[l.index] != l {
		return
	}
	l.open[f] = true
	b.changed = true
	b.restart(l, now, f)
}

// closed says that the link has no socket for the family any more.
func (b *book) closed(l *link, f family, now time.Time) {
	l.open[f] = false
	b.changed = true
	for addr, p := range l.places {
		if familyOf(addr) == f {
			p.cancel()
			if p.entry.asking {
				b.conclude(p.entry, now) // the other interfaces may be done
			}
			b.schedule(p.entry)
		}
	}
}

// restart begins the bursts and probes on a link again, in the order of the
// addresses.
func (b *book) restart(l *link, now time.Time, which ...family) {
	for _, addr := range slices.SortedFunc(maps.Keys(l.places), netip.Addr.Compare) {
		if slices.Contains(which, familyOf(addr)) {
			p := l.places[addr]
			if p.entry.asking || p.entry.phase == announced {
				p.begin(now)
			}
			b.schedule(p.entry)
		}
	}
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
		next = earlier(next, b.unwatch(l, now))
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

// ears is what a socket has to let through.
type ears struct {
	link      *link
	name      string // of the link, which may change it
	family    family
	addresses []netip.Addr
	// groups are the solicited-node multicast groups of the addresses.
	groups map[netip.Addr]announce.MAC
}

// wanted are the sockets that are needed now.
func (b *book) wanted() []ears {
	var out []ears
	for _, l := range b.links {
		for f := range families {
			e := ears{link: l, name: l.name, family: f, groups: make(map[netip.Addr]announce.MAC)}
			for addr := range l.places {
				if familyOf(addr) != f {
					continue
				}
				e.addresses = append(e.addresses, addr)
				if f == ipv6 {
					group, mac := wire.SolicitedNode(addr)
					e.groups[group] = mac
				}
			}
			if len(e.addresses) == 0 {
				continue
			}
			if l.watched[f].IsValid() {
				e.addresses = append(e.addresses, l.watched[f])
			}
			out = append(out, e)
		}
	}
	return out
}

// wakes is a heap of entries.
type wakes []*entry

func (w wakes) Len() int { return len(w) }
func (w wakes) Less(i, j int) bool {
	if c := w[i].wake.Compare(w[j].wake); c != 0 {
		return c < 0
	}
	return w[i].addr.Less(w[j].addr)
}
func (w wakes) Swap(i, j int) {
	w[i], w[j] = w[j], w[i]
	w[i].index, w[j].index = i, j
}

// Push is of heap.Interface.
func (w *wakes) Push(x any) {
	e := x.(*entry)
	e.index = len(*w)
	*w = append(*w, e)
}

// Pop is of heap.Interface.
func (w *wakes) Pop() any {
	last := len(*w) - 1
	e := (*w)[last]
	(*w)[last] = nil
	*w = (*w)[:last]
	e.index = -1
	return e
}

// earlier is the earlier of two times, of which the zero Time is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
