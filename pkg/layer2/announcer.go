package layer2

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"k8s.io/klog/v2"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

// Config is what an Announcer does not change while it runs.
type Config struct {
	// Changed, if set, is called after Status may have changed in more than its
	// counters. It must not block.
	Changed func()
	// ARPIgnore reads the kernel's setting net.ipv4.conf.NAME.arp_ignore, for an
	// interface or "all". Nil reads /proc.
	ARPIgnore func(name string) (int, error)
}

// Announcer answers ARP and NDP, stands by and covers. Its methods may be called from any goroutine.
type Announcer struct {
	config Config
	wake   chan struct{}
	// Of the goroutine in Run: the sockets, and when to look whether the kernel has
	// kept their groups.
	ports   ports
	renewal time.Time

	// setting is held while a state is carried out, so that the last one wins.
	setting sync.Mutex
	state   State
	order   *order

	mu       sync.Mutex
	book     *book
	refused  []string // problems of the state
	trapped  []string // problems of the kernel's settings
	unopened []string // problems of the sockets
	retry    time.Time
}

// New returns an Announcer that announces nothing. It does nothing until Run.
func New(config Config) *Announcer {
	if config.Changed == nil {
		config.Changed = func() {}
	}
	if config.ARPIgnore == nil {
		config.ARPIgnore = readARPIgnore
	}
	a := &Announcer{config: config, wake: make(chan struct{}, 1), book: newBook(), order: new(order)}
	a.ports = ports{
		open:     openSocket,
		dead:     make(chan *port),
		heard:    make(chan heard, maxHeard),
		poke:     a.poke,
		counters: a.book.counters,
		byKey:    make(map[portKey]*port),
		unopened: make(map[portKey]string),
	}
	return a
}

// Run announces what Set asks for until ctx ends, and returns nil then: nothing
// is answered any more. It may be called once.
func (a *Announcer) Run(ctx context.Context) error {
	defer a.ports.closeAll()
	logger := klog.FromContext(ctx)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.wake:
		case <-timer.C:
		case h := <-a.ports.heard:
			a.hear(h)
		case p := <-a.ports.dead:
			a.lose(logger, p)
		}
		if next := a.turn(logger); next.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(next))
		}
	}
}

// Set makes s the state. The slices and maps in it must not be changed any more.
// An address that is not in it is answered no longer when Set returns; what is
// new is on its way then, or waits for Run. What cannot be carried out is told
// by Status.
func (a *Announcer) Set(s State) {
	a.setting.Lock()
	defer a.setting.Unlock()
	if !s.equal(&a.state) {
		order := compile(&s)
		a.mu.Lock()
		a.book.apply(order, time.Now())
		if !slices.Equal(a.refused, order.problems) {
			a.refused, a.book.changed = order.problems, true
		}
		a.mu.Unlock()
		a.state, a.order = s, order
	}
	// The kernel's settings may have changed without the state.
	trapped := traps(a.order, a.config.ARPIgnore)
	a.mu.Lock()
	if !slices.Equal(a.trapped, trapped) {
		a.trapped, a.book.changed = trapped, true
	}
	a.mu.Unlock()
	a.poke()
	a.tell()
}

// Status is what the Announcer does.
func (a *Announcer) Status() Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.book.status()
	s.Problems = slices.Concat(a.unopened, a.book.mutes(), a.trapped, a.refused)
	s.Problems = s.Problems[:min(len(s.Problems), maxProblems)]
	return s
}

// Check sends the owner of an address a frame like those that cover for it, to see
// whether the network lets them through: the owner counts those that arrive (see
// Status.Checks). Nobody else hears of it, and nobody learns from it. This node
// must stand by for the address, or cover it, on the interface of that index.
func (a *Announcer) Check(index int, addr netip.Addr, owner announce.MAC) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.book.check(index, addr.Unmap().WithZone(""), owner); err != nil {
		return err
	}
	a.poke()
	return nil
}

// poke wakes the goroutine in Run.
func (a *Announcer) poke() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// tell calls Changed if the status has changed.
func (a *Announcer) tell() {
	a.mu.Lock()
	changed := a.book.changed
	a.book.changed = false
	a.mu.Unlock()
	if changed {
		a.config.Changed()
	}
}

// hear tells the book this message and those that wait.
func (a *Announcer) hear(h heard) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	for range maxHeard / 8 {
		a.book.hear(h.link, &h.message, now)
		select {
		case h = <-a.ports.heard:
		default:
			return
		}
	}
	a.book.hear(h.link, &h.message, now)
}

// lose closes a port whose interface has gone down. It comes again with the next
// state, or after a while.
func (a *Announcer) lose(logger klog.Logger, p *port) {
	if a.ports.byKey[p.portKey] != p {
		return
	}
	logger.V(2).Info("Socket lost", "interface", p.link.index, "protocol", p.family)
	a.ports.close(p)
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	a.book.closed(p.link, p.family, now)
	a.retry = now.Add(reopenTime)
}

// turn does what is to be done now, and returns when there is more.
func (a *Announcer) turn(logger klog.Logger) (next time.Time) {
	defer a.tell()
	for _, p := range a.ports.byKey {
		if p.failed.Load() {
			a.lose(logger, p)
		}
	}
	a.adjust(logger)
	joining := a.join(logger)

	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	if a.book.dirty {
		return now // first the sockets, lest answers to what is sent be missed
	}
	// The lock is held while at most slotFrames are sent on each interface, so
	// that no announcement of an address leaves after the Set that removed it.
	next = a.book.turn(now, func(l *link, f family, frame []byte) error {
		return a.ports.send(a.ports.byKey[portKey{l, f}], frame)
	})
	if a.book.dirty || joining {
		return now
	}
	return earlier(earlier(next, a.retry), a.renewal)
}

// adjust opens, closes and adjusts the sockets if something has changed.
func (a *Announcer) adjust(logger klog.Logger) {
	a.mu.Lock()
	if !a.book.dirty && (a.retry.IsZero() || time.Now().Before(a.retry)) {
		a.mu.Unlock()
		return
	}
	a.book.dirty, a.retry = false, time.Time{}
	wanted := a.book.wanted()
	a.mu.Unlock()

	opened, closed, again := a.ports.set(wanted)

	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	for _, key := range closed {
		a.book.closed(key.link, key.family, now)
	}
	for _, key := range opened {
		a.book.opened(key.link, key.family, now)
	}
	if again > 0 {
		a.retry = now.Add(again)
	}
	a.complain(logger)
}

// join goes on to join multicast groups, and reports whether there are more. From
// time to time it looks whether the kernel has kept them.
func (a *Announcer) join(logger klog.Logger) (more bool) {
	now := time.Now()
	if a.renewal.IsZero() || !now.Before(a.renewal) {
		a.renewal = time.Time{}
		if a.ports.renew() {
			a.renewal = now.Add(renewTime)
		}
	}
	more, done := a.ports.join()
	if len(done) > 0 {
		a.mu.Lock()
		defer a.mu.Unlock()
		if slices.ContainsFunc(done, func(p *port) bool { return p.groupErr != nil }) {
			a.retry = earlier(a.retry, now.Add(adjustTime))
		}
		a.complain(logger)
	}
	return more
}

// complain takes over the problems of the sockets. The lock is held.
func (a *Announcer) complain(logger klog.Logger) {
	if unopened := a.ports.problems(); !slices.Equal(a.unopened, unopened) {
		for _, text := range unopened {
			if !slices.Contains(a.unopened, text) {
				logger.Info("Layer 2 problem", "problem", text)
			}
		}
		a.unopened, a.book.changed = unopened, true
	}
}
