package bgp

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/osrg/gobgp/v4/pkg/apiutil"
	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

const (
	// retryInterval is how long after a failure the state is set again.
	retryInterval = 5 * time.Second
	// settleTime is how long after a session came up it is looked at again; see
	// settle. It is longer than deferral.
	settleTime = 1500 * time.Millisecond
	// countInterval is how often the prefixes that routers send are counted.
	countInterval = 30 * time.Second
	// inspectInterval is how often at most a peer's prefixes are looked at one
	// by one.
	inspectInterval = 10 * time.Second
	// raceTime is how far from that moment a change may have been lost.
	raceTime = 250 * time.Millisecond
)

// Config is what an Announcer does not change while it runs.
type Config struct {
	// ListenPort is the TCP port for routers that connect to us; 0 is 179, and
	// -1 does not listen.
	ListenPort int
	// Socket is the path of a Unix socket for the gobgp command line tool, for
	// the process's user only; empty means none. It sets the process's umask.
	Socket string
	// Logger takes gobgp's messages. Nil discards them.
	Logger *slog.Logger
	// Changed, if set, is called after Sessions changed. It must not block.
	Changed func()
}

// Announcer holds BGP sessions and announces prefixes through them. Its methods
// may be called from any goroutine.
type Announcer struct {
	config   Config
	requests chan request
	queries  chan query
	events   chan *apiutil.WatchEventMessage_PeerEvent
	hints    chan hint

	// Of the goroutine in Run.
	server  *server // nil while there are no peers
	desired State
	retry   <-chan time.Time
	// dues are things to do later, by peer address.
	dues chan due
	done chan struct{}
	// edits are the recent changes of the RIB or the policy.
	edits []edit

	mu       sync.Mutex
	sessions map[string]announce.Session // by peer name
}

type request struct {
	state State
	err   chan error
}

type query struct {
	ctx   context.Context
	reply chan map[string]uint64
}

// due is a job for a peer whose time has come.
type due struct {
	server *server
	peer   Peer
	job    func(context.Context, Peer) error
}

// edit is a change of the RIB or the policy.
type edit struct {
	at      time.Time
	removed []netip.Prefix
}

// New returns an Announcer that holds no session. It does nothing until Run.
func New(config Config) *Announcer {
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	if config.Changed == nil {
		config.Changed = func() {}
	}
	return &Announcer{
		config:   config,
		requests: make(chan request),
		queries:  make(chan query),
		events:   make(chan *apiutil.WatchEventMessage_PeerEvent),
		hints:    make(chan hint, 64),
		dues:     make(chan due),
		done:     make(chan struct{}),
		sessions: make(map[string]announce.Session),
	}
}

// Run carries out what Set asks for until ctx ends. It then closes the sessions
// so that routers keep the routes for the restart time, and returns nil. It may
// be called once.
func (a *Announcer) Run(ctx context.Context) error {
	defer func() {
		close(a.done)
		if a.server != nil {
			a.server.close(true)
		}
	}()
	count := time.NewTicker(countInterval)
	defer count.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-count.C:
			a.count(ctx)
		case r := <-a.requests:
			a.desired = r.state
			r.err <- a.apply(ctx)
		case <-a.retry:
			// Its error has been reported where it came up first.
			if err := a.apply(ctx); err != nil {
				a.config.Logger.Warn("BGP state not wholly set", "error", err)
			}
		case e := <-a.events:
			a.observe(e)
		case h := <-a.hints:
			a.noteHint(h)
		case d := <-a.dues:
			if d.server != a.server || a.server.peers[d.peer.Name] != d.peer {
				continue
			}
			if err := d.job(ctx, d.peer); err != nil {
				a.config.Logger.Warn("BGP peer", "peer", d.peer.Name, "error", err)
			}
		case q := <-a.queries:
			counts := map[string]uint64{}
			if a.server != nil {
				received, _ := a.server.received(q.ctx) // fails with q.ctx only
				for name, n := range received {
					counts[name] = n.all
				}
			}
			q.reply <- counts
		}
	}
}

// Set makes s the state and returns when gobgp has taken it: the UPDATEs are on
// their way. An error means that some of it is not in force; the rest is, and
// it is tried again every five seconds until it succeeds or another Set comes.
// A State that is refused as a whole leaves the state before in force.
//
// Set waits for Run.
func (a *Announcer) Set(ctx context.Context, s State) error {
	if err := s.validate(); err != nil {
		return err
	}
	r := request{state: s, err: make(chan error, 1)}
	select {
	case a.requests <- r:
	case <-ctx.Done():
		return ctx.Err()
	case <-a.done:
		return errors.New("the BGP announcer has stopped")
	}
	select {
	case err := <-r.err:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Received counts the prefixes that routers have sent, by peer. None is used.
func (a *Announcer) Received(ctx context.Context) map[string]uint64 {
	q := query{ctx: ctx, reply: make(chan map[string]uint64, 1)}
	select {
	case a.queries <- q:
	case <-ctx.Done():
		return nil
	case <-a.done:
		return nil
	}
	return <-q.reply
}

// Sessions are the states of the peers' sessions, by name.
func (a *Announcer) Sessions() []announce.Session {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.SortedFunc(maps.Values(a.sessions), func(x, y announce.Session) int {
		return cmp.Compare(x.Peer, y.Peer)
	})
}

// apply brings gobgp to the desired state.
func (a *Announcer) apply(ctx context.Context) error {
	a.retry = nil
	err := a.reconcile(ctx)
	if err != nil && ctx.Err() == nil {
		a.retry = time.After(retryInterval)
	}
	return err
}

func (a *Announcer) reconcile(ctx context.Context) error {
	defer a.forgetSessions()
	s := &a.desired
	if a.server != nil && len(s.Peers) == 0 {
		defer func() {
			a.server.close(false)
			a.server = nil
		}()
		return a.server.deletePaths(prefixes(a.server.routes))
	}
	if len(s.Peers) == 0 {
		return nil
	}
	if a.server != nil && a.server.routerID != s.RouterID {
		a.server.close(true)
		a.server = nil
	}
	if a.server == nil {
		var err error
		var server *server
		config := a.config
		config.Logger = slog.New(&listener{Handler: a.config.Logger.Handler(), tell: a.hear})
		server, err = startServer(config, s.RouterID, s.Peers[0].LocalASN, func(e *apiutil.WatchEventMessage_PeerEvent) {
			select {
			case a.events <- e:
			case <-a.done:
			}
		})
		if err != nil {
			a.failSessions(err)
			return err
		}
		a.server = server
	}
	return errors.Join(a.removePeers(ctx), a.setPaths(ctx), a.setPeers(ctx))
}

// hear takes a hint without blocking gobgp. One that is lost comes again with the
// next attempt to connect.
func (a *Announcer) hear(h hint) {
	select {
	case a.hints <- h:
	default:
	}
}

// removePeers ends the sessions that are not wanted, or not at that address.
func (a *Announcer) removePeers(ctx context.Context) error {
	wanted := make(map[string]netip.Addr, len(a.desired.Peers))
	for _, p := range a.desired.Peers {
		wanted[p.Name] = p.Address
	}
	var errs []error
	for name, p := range a.server.peers {
		if wanted[name] != p.Address {
			errs = append(errs, a.server.removePeer(ctx, p))
		}
	}
	return errors.Join(errs...)
}

// setPaths brings policy and RIB to the desired state. At any time, what a peer
// has been sent is what the policy makes of the RIB: the policy learns of new
// groups, the peers for whom a known group changed are sent everything again,
// and then come the paths.
func (a *Announcer) setPaths(ctx context.Context) error {
	s := &a.desired
	markers := a.server.classes.assign(s.Groups, a.server.routes.class)
	after, err := newRoutes(s.Groups, markers)
	if err != nil {
		return err
	}
	peers := make(map[string]Peer, len(s.Peers))
	for _, p := range s.Peers {
		peers[p.Name] = p
	}
	before := a.server.classes
	during := before.with(s.Groups, markers)
	concerned, unknown := a.changedPeers()
	if !during.equal(before) || unknown || len(concerned) > 0 {
		if err := a.server.setPolicy(ctx, during, peers); err != nil {
			return err
		}
		concerned = append(concerned, before.concerned(during)...)
		slices.Sort(concerned)
		for _, name := range slices.Compact(concerned) {
			if p, present := a.server.peers[name]; present {
				if err := a.server.refresh(ctx, p); err != nil {
					return err
				}
			}
		}
		a.edits = append(a.edits, edit{at: time.Now()})
	}
	removed, changed, err := a.server.setRoutes(after)
	if changed {
		a.edits = append(a.edits, edit{at: time.Now(), removed: removed})
	}
	if err != nil {
		return err
	}
	// Classes without a path are of no consequence: take them out of the policy
	// when it is changed the next time.
	a.server.classes = during.only(markers)
	a.forgetEdits()
	return nil
}

// changedPeers are the peers for whom the policy has to change, and whether
// there are peers that it does not know.
func (a *Announcer) changedPeers() (changed []string, unknown bool) {
	for _, p := range a.desired.Peers {
		before, present := a.server.peers[p.Name]
		unknown = unknown || !present
		if present && before.NextHop6 != p.NextHop6 {
			changed = append(changed, p.Name)
		}
	}
	return changed, unknown
}

// setPeers adds the sessions that are new and changes the others.
func (a *Announcer) setPeers(ctx context.Context) error {
	var errs []error
	for _, p := range a.desired.Peers {
		before, present := a.server.peers[p.Name]
		var err error
		switch {
		case !present:
			a.expectSession(p)
			err = a.server.addPeer(ctx, p)
		case compare(before, p) != none:
			err = a.server.updatePeer(ctx, p)
		}
		if err != nil {
			a.failSession(p.Name, err)
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// later does the job for the peer after d, unless the peer has changed.
func (a *Announcer) later(d time.Duration, peer Peer, job func(context.Context, Peer) error) {
	j := due{server: a.server, peer: peer, job: job}
	time.AfterFunc(d, func() {
		select {
		case a.dues <- j:
		case <-a.done:
		}
	})
}

// observe notes a session's new state and does what gobgp does not do.
func (a *Announcer) observe(e *apiutil.WatchEventMessage_PeerEvent) {
	peer, known := a.peerAt(e.Peer.State.NeighborAddress)
	if !known || a.server == nil {
		return
	}
	up, lost := a.noteSession(peer, e)
	switch {
	case up:
		at := time.Now()
		a.later(settleTime, peer, func(ctx context.Context, p Peer) error {
			a.count(ctx)
			return a.settle(ctx, p, at)
		})
	case e.Peer.State.AdminState == adminPrefixLimit && e.Peer.State.SessionState == packet.BGP_FSM_IDLE:
		a.later(prefixLimitHold, peer, a.server.enablePeer)
	case lost && peer.RestartTime > 0:
		a.later(0, peer, a.server.renewPeer)
	}
}

func (a *Announcer) peerAt(addr netip.Addr) (Peer, bool) {
	if a.server != nil {
		for _, p := range a.server.peers {
			if p.Address == addr {
				return p, true
			}
		}
	}
	return Peer{}, false
}

// settle makes up for a race in gobgp: between the moment that it has composed
// the first UPDATEs of a session and the moment that it counts the session as
// established, it sends the peer no change of the RIB. If there was a change
// around the time at which the session came up, the peer is sent everything
// again, and all are sent the withdrawals.
func (a *Announcer) settle(ctx context.Context, peer Peer, at time.Time) error {
	var removed []netip.Prefix
	raced := false
	for _, e := range a.edits {
		if e.at.Sub(at).Abs() < raceTime {
			raced = true
			removed = append(removed, e.removed...)
		}
	}
	if !raced {
		return nil
	}
	return errors.Join(a.server.refresh(ctx, peer), a.server.withdrawAgain(removed))
}

// count looks for routers that send too much, not counting echoes. Most echoes
// are known as such by their number alone; only when the rest is still too much
// are prefixes looked at.
func (a *Announcer) count(ctx context.Context) {
	if a.server == nil {
		return
	}
	received, err := a.server.received(ctx)
	if err != nil {
		return
	}
	counts := make(map[string]uint64, len(received))
	for name, n := range received {
		if n.unlooped <= PrefixLimit {
			counts[name] = n.unlooped
			continue
		}
		if time.Since(a.server.inspected[name]) < inspectInterval {
			continue
		}
		a.server.inspected[name] = time.Now()
		if counts[name], err = a.server.foreign(a.server.peers[name]); err != nil {
			a.config.Logger.Warn("BGP peer", "peer", name, "error", err)
			delete(counts, name)
		}
	}
	a.noteReceived(counts)
}

// forgetEdits forgets the changes that settle does not ask for any more.
func (a *Announcer) forgetEdits() {
	since := time.Now().Add(-2 * settleTime)
	a.edits = slices.DeleteFunc(a.edits, func(e edit) bool { return e.at.Before(since) })
}

func prefixes(r routes) []netip.Prefix {
	out := make([]netip.Prefix, 0, len(r))
	for _, e := range r {
		out = append(out, e.prefix)
	}
	return out
}
