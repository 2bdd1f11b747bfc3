package heartbeat

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

// maxWaiting are the packets, and the answers, that may wait for the loop; more are
// dropped.
const maxWaiting = 256

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
	// Changed is called after Decisions, Adjacencies or Problems may have changed. It
	// must not block.
	Changed func()
	Prober  Prober
	Checker Checker
	// API asks the API server for a sign of life.
	API func(ctx context.Context) error
	// Neighbors lists hosts on a link that the kernel knows. Like API it is called by
	// a goroutine of its own, one at a time.
	Neighbors func(link int) []netip.Addr
}

// Exchange exchanges heartbeats with the fellows, and decides by them. Its methods
// may be called from any goroutine.
//
// The goroutine in Run sends and judges. Each socket has one that reads, which passes
// on only what a key has authenticated: whoever can send on the LAN has no way to the
// loop, or to the lock.
type Exchange struct {
	config Config
	wake   chan struct{} // something has come in, or is to be done
	tally  tally
	// open opens sockets; it is replaced in tests.
	open func(ctx context.Context, name string, v4 bool) (conn, error)
	// secrets are the keys, for the readers.
	secrets atomic.Pointer[announce.HeartbeatKeys]

	// What has come in, for hear.
	packets  chan received
	refusals chan refusal
	answers  chan answer

	// Of the goroutine in Run.
	ports    map[connKey]*port
	unopened map[connKey]unopened
	reopen   time.Time
	helpers  sync.WaitGroup
	listened map[int][]netip.Addr
	buffer   []byte

	mu       sync.Mutex
	core     *core
	keys     keyring // of the goroutine in Run, but for the variable
	reset    bool    // the sockets may have to change
	asking   bool    // the API server is being asked
	scouting bool    // the kernel is, for hosts
	problems []string
	// told is what Adjacencies and Problems were when Changed was called last.
	told struct {
		adjacencies []Adjacency
		problems    []string
	}
	// parting is the number of the first packet that says farewell; parted is closed
	// when all have had it.
	parting uint64
	parted  chan struct{}
}

// received is a packet that a key has authenticated.
type received struct {
	link   int
	packet packet
	newest keyID
}

// refusal is that a host says that nobody listens there.
type refusal struct {
	link int
	host netip.Addr
}

type answer struct {
	link  int
	host  netip.Addr
	mac   announce.MAC
	reply bool
}

// New returns an Exchange that knows no fellows. It does nothing until Run.
func New(config Config) *Exchange {
	return &Exchange{
		config:   config,
		wake:     make(chan struct{}, 1),
		open:     listen,
		packets:  make(chan received, maxWaiting),
		refusals: make(chan refusal, maxWaiting),
		answers:  make(chan answer, maxWaiting),
		ports:    make(map[connKey]*port),
		unopened: make(map[connKey]unopened),
		core:     newCore(newLife()),
	}
}

// newLife names a process; it is never 0. Of two processes of a node the later one has
// the greater name, as far as the clock can tell.
func newLife() uint64 {
	var octets [8]byte
	_, _ = rand.Read(octets[:]) // never fails
	const chance = 20           // bits; there is room for milliseconds until the year 2527
	return uint64(time.Now().UnixMilli())<<chance | binary.BigEndian.Uint64(octets[:])>>(64-chance) | 1
}

// Set makes s the state. The slices in it must not be changed any more. Decisions
// are made before Set returns, or a moment later where the process is behind with
// what has come in.
func (x *Exchange) Set(s State) {
	x.mu.Lock()
	defer x.poke()
	defer x.mu.Unlock()
	x.hear()
	if !s.Keys.Equal(x.core.state.Keys) {
		x.keys = newKeyring(s.Keys)
		x.secrets.Store(&s.Keys)
	}
	now := time.Now()
	x.core.set(s, now)
	x.core.settle(now)
	x.reset = true
}

// Answered is that there is a sign of life of a host: the reply to a question of this node,
// or a packet that is none. It does not block.
func (x *Exchange) Answered(link int, host netip.Addr, mac announce.MAC, reply bool) {
	select {
	case x.answers <- answer{link, host, mac, reply}:
		x.poke()
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
	c := x.tally.read()
	x.mu.Lock()
	defer x.mu.Unlock()
	c.Takeovers = x.core.takeovers
	return c
}

// Problems say why heartbeats are not exchanged, or not wholly, and what to do.
func (x *Exchange) Problems() []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.allProblems()
}

// allProblems is Problems; the lock is held.
func (x *Exchange) allProblems() []string { return slices.Concat(x.problems, x.core.problems()) }

// Farewell tells the fellows that this process is about to end and another one to
// begin, and returns when all that can be heard know, or ctx ends. Whoever is to
// cover does so by then. It is called once, while Run runs.
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

// poke wakes the loop.
func (x *Exchange) poke() {
	select {
	case x.wake <- struct{}{}:
	default:
	}
}
