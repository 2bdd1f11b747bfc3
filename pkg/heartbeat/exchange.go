package heartbeat

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"k8s.io/klog/v2"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

const (
	// maxWaiting are the packets, and the answers, that may wait for the loop; more
	// are dropped.
	maxWaiting = 256
	// reopenTime is how long after a socket could not be opened, or failed, it is
	// tried again.
	reopenTime = time.Second
	// apiTimeout bounds the question to the API server.
	apiTimeout = 300 * time.Millisecond
)

// Prober asks hosts whether they are there, by ARP or Neighbor Solicitation. Its
// methods do not block. Answers come by Exchange.Answered.
type Prober interface {
	// Listen says whose answers are wanted, by index of the interface.
	Listen(hosts map[int][]netip.Addr)
	// Ask sends a question to the host with the MAC address, or to all if it is
	// zero. An error means that the host has not been asked.
	Ask(link int, host netip.Addr, mac announce.MAC) error
}

// Checker sends answers in place of fellows, to these fellows alone, to find out
// whether the network lets them through.
type Checker interface {
	// Check does not block. An error means that nothing is sent.
	Check(link int, addr netip.Addr, owner announce.MAC) error
	// Arrived counts those of others, by the MAC address of the sender.
	Arrived() map[announce.MAC]uint8
}

// Config is what an Exchange does not change while it runs.
type Config struct {
	// Changed is called after Decisions or Adjacencies may have changed. It must not
	// block.
	Changed func()
	Prober  Prober
	Checker Checker
	// API asks the API server for a sign of life.
	API func(ctx context.Context) error
	// Neighbors lists hosts on a link that the kernel knows.
	Neighbors func(link int) []netip.Addr
}

// Exchange exchanges heartbeats with the fellows, and decides by them. Its methods
// may be called from any goroutine.
type Exchange struct {
	config  Config
	wake    chan struct{}
	packets chan received
	answers chan answer
	api     chan time.Time
	// open opens sockets; it is replaced in tests.
	open func(ctx context.Context, name string, v4 bool) (conn, error)

	// Of the goroutine in Run.
	conns    map[connKey]*port
	unopened map[connKey]string
	reopen   time.Time
	readers  sync.WaitGroup
	asking   bool // the API server is being asked
	listened map[int][]netip.Addr
	buffer   []byte

	mu       sync.Mutex
	core     *core
	keys     keyring
	reset    bool // the sockets may have to change
	counters Counters
	problems []string
	told     []Adjacency
	// parting is the number of the first packet that says farewell; parted is closed
	// when all have had it.
	parting uint64
	parted  chan struct{}
}

// Counters count since New.
type Counters struct {
	// Sent are heartbeats that were sent, Received those that were accepted.
	Sent, Received uint64
	// Rejected are those that were not, by reason.
	Rejected map[string]uint64
	// Dropped are those that nobody had time for.
	Dropped uint64
	// Takeovers are addresses that were claimed.
	Takeovers uint64
}

type connKey struct {
	link int
	v4   bool
}

// port is a socket with the goroutine that reads it.
type port struct {
	conn
	failed chan struct{} // closed by the reader
}

// received is a packet, or who has refused one.
type received struct {
	link int
	event
	data []byte
}

type answer struct {
	link int
	host netip.Addr
	mac  announce.MAC
}

// New returns an Exchange that knows no fellows. It does nothing until Run.
func New(config Config) *Exchange {
	return &Exchange{
		config:   config,
		wake:     make(chan struct{}, 1),
		packets:  make(chan received, maxWaiting),
		answers:  make(chan answer, maxWaiting),
		api:      make(chan time.Time, 1),
		open:     listen,
		conns:    make(map[connKey]*port),
		unopened: make(map[connKey]string),
		core:     newCore(randomLife()),
		counters: Counters{Rejected: make(map[string]uint64)},
	}
}

// randomLife names a process; it is never 0.
func randomLife() uint64 {
	var octets [8]byte
	_, _ = rand.Read(octets[:]) // never fails
	return binary.BigEndian.Uint64(octets[:]) | 1
}

// Set makes s the state. The slices in it must not be changed any more. Decisions
// are made before Set returns.
func (x *Exchange) Set(s State) {
	x.mu.Lock()
	if !s.Keys.Equal(x.core.state.Keys) {
		x.keys = newKeyring(s.Keys)
	}
	x.core.set(s, time.Now())
	x.core.decideAll(time.Now())
	x.reset = true
	x.mu.Unlock()
	x.poke()
}

// Answered is that a host answered a question. It does not block.
func (x *Exchange) Answered(link int, host netip.Addr, mac announce.MAC) {
	select {
	case x.answers <- answer{link, host, mac}:
	default: // the next one does it
	}
}

// Decisions are what to do about each address of the state.
func (x *Exchange) Decisions() map[netip.Addr]Decision {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.core.decisions(time.Now())
}

// Adjacencies are the fellows on each link, by name.
func (x *Exchange) Adjacencies() []Adjacency {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.core.status(time.Now())
}

// Counters are those since New.
func (x *Exchange) Counters() Counters {
	x.mu.Lock()
	defer x.mu.Unlock()
	c := x.counters
	c.Rejected = maps.Clone(c.Rejected)
	c.Takeovers = x.core.takeovers
	return c
}

// Problems say why heartbeats are not exchanged, and what to do.
func (x *Exchange) Problems() []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.Concat(x.problems, x.core.problems())
}

// Farewell tells the fellows that this process is about to end and another one to
// begin, and returns when all that can be heard know, or ctx ends. Whoever is to
// cover does so by then.
func (x *Exchange) Farewell(ctx context.Context) {
	x.mu.Lock()
	s := x.core.state
	s.Restarting = true
	x.core.set(s, time.Now())
	x.parting, x.parted = x.core.seq+1, make(chan struct{})
	for _, a := range x.core.adjacencies {
		a.hurried = true
	}
	parted := x.parted
	x.mu.Unlock()
	x.poke()
	select {
	case <-parted:
	case <-ctx.Done():
	}
}

func (x *Exchange) poke() {
	select {
	case x.wake <- struct{}{}:
	default:
	}
}

// Run exchanges heartbeats until ctx ends, and returns nil then. It may be called
// once.
func (x *Exchange) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer x.readers.Wait()
	defer x.closeAll()
	defer cancel()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-x.wake:
		case <-timer.C:
		case p := <-x.packets:
			x.receive(p)
		case a := <-x.answers:
			x.answered(a)
		case asked := <-x.api:
			x.apiAnswered(asked)
		}
		next := x.turn(ctx)
		if next.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(next))
		}
	}
}

// receive takes a packet, and those that wait.
func (x *Exchange) receive(p received) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for range maxWaiting {
		switch why := x.accept(&p); {
		case why != accepted:
			x.counters.Rejected[string(why)]++
		case !p.refused.IsValid():
			x.counters.Received++
		}
		select {
		case p = <-x.packets:
		default:
			return
		}
	}
}

// accept is about one packet. The cheapest checks come first, for whoever is on the
// LAN can send any.
func (x *Exchange) accept(p *received) rejection {
	if p.refused.IsValid() {
		x.core.refused(p.link, p.refused, time.Now())
		return accepted
	}
	if p.hops != hops {
		return rejectHops
	}
	if len(p.data) < headerLength+trailerLength || id(binary.BigEndian.Uint64(p.data[12:])) != x.core.self {
		return rejectReceiver
	}
	if x.core.byKey[adjacencyKey{id(binary.BigEndian.Uint64(p.data[4:])), p.link}] == nil {
		return rejectSender
	}
	data, newest, err := x.keys.verify(p.data)
	switch {
	case errors.Is(err, errNoKey):
		return rejectKey
	case err != nil:
		return rejectSignature
	}
	m, err := parsePacket(data)
	if err != nil {
		return rejectMalformed
	}
	return x.core.receive(p.link, &m, newest, time.Now())
}

func (x *Exchange) answered(a answer) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for range maxWaiting {
		x.core.answered(a.link, a.host, a.mac, time.Now())
		select {
		case a = <-x.answers:
		default:
			return
		}
	}
}

func (x *Exchange) apiAnswered(asked time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.asking = false
	if !asked.IsZero() {
		x.core.apiAnswer(asked)
	}
}

// turn does what is due, and returns when there is more.
func (x *Exchange) turn(ctx context.Context) (next time.Time) {
	x.adjust(ctx)
	// What waits is heard before anything is judged.
	select {
	case p := <-x.packets:
		x.receive(p)
	default:
	}
	select {
	case a := <-x.answers:
		x.answered(a)
	default:
	}
	x.mu.Lock()
	now := time.Now()
	x.core.arrived = x.config.Checker.Arrived()
	out := x.core.turn(now)
	changed, hosts := x.core.changed, x.listened
	if x.core.news {
		x.core.news = false
		changed = x.livenessChanged(now) || changed
		hosts = x.core.listens()
	}
	for _, o := range out.packets {
		x.send(&o)
	}
	if x.parted != nil && x.core.acknowledged(x.parting, now) && x.core.seq >= x.parting {
		close(x.parted)
		x.parted = nil
	}
	x.mu.Unlock()

	if changed {
		x.config.Changed()
	}
	x.ask(ctx, &out, hosts)
	if next = out.next; !x.reopen.IsZero() && (next.IsZero() || x.reopen.Before(next)) {
		next = x.reopen
	}
	return next
}

// livenessChanged reports whether fellows are to be reported otherwise. The lock is
// held.
func (x *Exchange) livenessChanged(now time.Time) bool {
	told := x.core.status(now)
	if slices.Equal(told, x.told) {
		return false
	}
	x.told = told
	return true
}

// send signs and sends a packet. What the kernel refuses is like what gets lost.
// The lock is held.
func (x *Exchange) send(o *outgoing) {
	p := x.conns[connKey{o.link, o.to.Is4()}]
	if p == nil || !x.keys.ready() {
		return
	}
	x.buffer = x.keys.sign(o.packet.append(x.buffer[:0]), o.newest)
	if p.Send(x.buffer, o.to) == nil {
		x.counters.Sent++
	}
}

// ask asks hosts, and the API server.
func (x *Exchange) ask(ctx context.Context, out *actions, hosts map[int][]netip.Addr) {
	for _, index := range out.scouts {
		found := x.config.Neighbors(index)
		x.mu.Lock()
		x.core.found(index, found)
		hosts = x.core.listens()
		x.mu.Unlock()
	}
	if !maps.EqualFunc(hosts, x.listened, slices.Equal) {
		x.listened = hosts
		x.config.Prober.Listen(hosts)
	}
	for _, q := range out.asks {
		if err := x.config.Prober.Ask(q.link, q.host, q.mac); err != nil {
			x.mu.Lock()
			x.core.unasked(q)
			x.mu.Unlock()
		}
	}
	for _, c := range out.checks {
		if err := x.config.Checker.Check(c.Link, c.Address, c.Owner); err != nil {
			klog.FromContext(ctx).V(2).Info("No check for ARP inspection", "reason", err.Error())
			x.mu.Lock()
			x.core.unchecked(c)
			x.mu.Unlock()
		}
	}
	if out.api && !x.asking {
		x.asking = true
		x.readers.Go(func() {
			asked := time.Now()
			ctx, cancel := context.WithTimeout(ctx, apiTimeout)
			defer cancel()
			if x.config.API(ctx) != nil {
				asked = time.Time{}
			}
			x.api <- asked // there is room for one, and one is asked at a time
		})
	}
}

// adjust opens and closes sockets if the state has changed, or one has failed.
func (x *Exchange) adjust(ctx context.Context) {
	x.mu.Lock()
	due := x.reset || !x.reopen.IsZero() && !time.Now().Before(x.reopen)
	x.reset = false
	wanted := make(map[connKey]string)
	for _, a := range x.core.adjacencies {
		wanted[connKey{a.link, a.to.Is4()}] = x.core.links[a.link].Name
	}
	x.mu.Unlock()
	for key, p := range x.conns {
		select {
		case <-p.failed:
			x.close(key)
			due = true
		default:
		}
	}
	if !due {
		return
	}
	for key := range x.conns {
		if wanted[key] == "" {
			x.close(key)
		}
	}
	clear(x.unopened)
	x.reopen = time.Time{}
	for key, name := range wanted {
		if x.conns[key] != nil {
			continue
		}
		if err := x.listen(ctx, key, name); err != nil {
			x.unopened[key] = fmt.Sprintf("interface %s: no heartbeats, tried again each second: %v", name, err)
			x.reopen = time.Now().Add(reopenTime)
		}
	}
	problems := slices.Sorted(maps.Values(x.unopened))
	x.mu.Lock()
	defer x.mu.Unlock()
	if !slices.Equal(problems, x.problems) {
		for _, p := range problems {
			klog.FromContext(ctx).Info("Heartbeat problem", "problem", p)
		}
		x.problems = problems
	}
}

// listen opens a socket and begins to read it.
func (x *Exchange) listen(ctx context.Context, key connKey, name string) error {
	c, err := x.open(ctx, name, key.v4)
	if err != nil {
		return err
	}
	p := &port{conn: c, failed: make(chan struct{})}
	x.mu.Lock()
	x.conns[key] = p
	x.mu.Unlock()
	x.readers.Go(func() { x.read(p, key.link) })
	return nil
}

// read passes on what comes in until the socket ends.
func (x *Exchange) read(p *port, link int) {
	defer x.poke()
	defer close(p.failed)
	buffer := make([]byte, 2*maxPacket)
	for {
		e, err := p.Receive(buffer)
		if err != nil {
			return
		}
		select {
		case x.packets <- received{link, e, slices.Clone(buffer[:e.n])}:
		default:
			x.mu.Lock()
			x.counters.Dropped++
			x.mu.Unlock()
		}
	}
}

func (x *Exchange) close(key connKey) {
	x.mu.Lock()
	defer x.mu.Unlock()
	_ = x.conns[key].Close() // it is not used any more either way
	delete(x.conns, key)
}

func (x *Exchange) closeAll() {
	for key := range x.conns {
		x.close(key)
	}
}
