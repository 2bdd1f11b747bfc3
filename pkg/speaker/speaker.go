package speaker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/klog/v2"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/bgp"
)

// withdrawTimeout bounds the withdrawal when the speaker leaves.
const withdrawTimeout = 3 * time.Second

// announcer is the part of bgp.Announcer that the loop needs.
type announcer interface {
	Set(ctx context.Context, s bgp.State) error
	Sessions() []announce.Session
	Received(ctx context.Context) map[string]uint64
}

// speaker is the loop and what it knows.
type speaker struct {
	version   string
	announcer announcer
	vault     *vault
	reporter  *reporter
	// linkTo is the index of the interface towards a router.
	linkTo func(router netip.Addr) int

	// Inbox of the loop. Of nodes and interfaces only the last one counts.
	nodes      latest[node]
	interfaces latest[[]nic]
	secrets    latest[struct{}]
	sessions   latest[struct{}]
	pings      chan chan struct{}

	// stopping is set when the loop ends.
	stopping atomic.Bool

	mu     sync.Mutex
	status status
}

// status is what the loop last did.
type status struct {
	// synced: the Node was read. abandoned: it is gone for good.
	synced, abandoned bool
	// unset: why the program is not wholly in force, nil if it is.
	unset    error
	epoch    int64
	prefixes int

	sessions []announce.Session
	received map[string]uint64
}

// latest is a box for one value: putting another one replaces it.
type latest[T any] struct{ c chan T }

func newLatest[T any]() latest[T] { return latest[T]{make(chan T, 1)} }

// put never blocks. One goroutine puts, or it does not matter whose value wins.
func (l latest[T]) put(v T) {
	for {
		select {
		case l.c <- v:
			return
		default:
		}
		select {
		case <-l.c:
		default:
		}
	}
}

// Run is the speaker. It returns nil after ctx ended and the sessions are
// closed: so that routers keep the routes, or with a withdrawal if the node is
// cordoned, draining or gone. An error means that it could not start.
func Run(ctx context.Context, config Config) error {
	if err := config.Validate(); err != nil {
		return err
	}
	logger := klog.FromContext(ctx)
	api, err := newClient(config.Kubeconfig, config.NodeName, config.Namespace, config.Version)
	if err != nil {
		return err
	}
	config.logUnused(logger)

	s := newSpeaker(config.Version)
	s.reporter = newReporter(api.annotateNode)
	s.vault = newVault(api.secret, func() { s.secrets.put(struct{}{}) })
	bgpAnnouncer := bgp.New(bgp.Config{
		ListenPort: config.BGPListenPort,
		Socket:     config.GobgpSocket,
		Logger:     gobgpLogger(logger),
		Changed:    func() { s.sessions.put(struct{}{}) },
	})
	s.announcer = bgpAnnouncer
	register(s)

	// Known before the first program is carried out: IPv6 next hops depend on
	// them. An error comes up again in watchInterfaces.
	interfaces, _ := listInterfaces()

	// The announcer outlives the others, for the withdrawal.
	background, closeSessions := context.WithCancel(context.WithoutCancel(ctx))
	defer closeSessions()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return bgpAnnouncer.Run(background) })
	group.Go(func() error {
		defer closeSessions()
		return s.loop(ctx, interfaces)
	})
	watch := &watcher{client: api, changed: s.nodes.put, wait: backoff}
	group.Go(func() error { return watch.run(ctx) })
	group.Go(func() error { return s.vault.run(ctx) })
	group.Go(func() error { return s.reporter.run(ctx) })
	group.Go(func() error { return watchInterfaces(ctx, s.interfaces.put) })
	if config.MetricsBindAddress != "" {
		group.Go(func() error { return s.serve(ctx, config.MetricsBindAddress) })
	}
	return group.Wait()
}

func newSpeaker(version string) *speaker {
	return &speaker{
		version:    version,
		nodes:      newLatest[node](),
		interfaces: newLatest[[]nic](),
		secrets:    newLatest[struct{}](),
		sessions:   newLatest[struct{}](),
		pings:      make(chan chan struct{}),
		linkTo:     linkTo,
	}
}

// logUnused says which settings have no effect yet.
func (c *Config) logUnused(logger klog.Logger) {
	if c.StateDir != "" {
		logger.Info("This version keeps no state in --state-dir: after a restart it announces when it has read its Node")
	}
	if c.KubeProxyHealthz != "" {
		logger.V(1).Info("This version does not evaluate --kube-proxy-healthz")
	}
}

// desk is what the loop works on; it belongs to the loop's goroutine.
type desk struct {
	read       bool // the Node was read once
	node       node
	looked     bool                // at an annotation
	value      string              // that annotation
	program    *announce.Program   // carried out, nil at the start
	refused    error               // why the annotation is not obeyed
	unset      error               // why the program is not wholly in force
	peers      map[string]bgp.Peer // as they were set last, by name
	problems   map[string]string   // of sessions, by peer
	interfaces []nic
	nextHops   map[netip.Addr]netip.Addr // that were used, by router
	rollback   <-chan time.Time          // when an older program counts
}

// loop carries out programs until ctx ends.
func (s *speaker) loop(ctx context.Context, interfaces []nic) error {
	d := &desk{interfaces: interfaces}
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			continue
		case pong := <-s.pings:
			close(pong)
			continue
		case n := <-s.nodes.c:
			s.takeNode(ctx, d, n)
		case <-d.rollback:
			s.takeProgram(ctx, d, true)
		case <-s.secrets.c:
			s.carryOut(ctx, d)
		case i := <-s.interfaces.c:
			d.interfaces = i
			if s.nextHopMoved(d) {
				s.carryOut(ctx, d)
			}
		case <-s.sessions.c:
			// The announcer tries again by itself; this may be its success.
			if d.unset != nil {
				s.carryOut(ctx, d)
			}
		}
		if d.read {
			s.report(ctx, d)
		}
	}
	return s.stop(ctx, d)
}

// takeNode takes notice of a change of the Node.
func (s *speaker) takeNode(ctx context.Context, d *desk, n node) {
	logger := klog.FromContext(ctx)
	if n.gone && !d.node.gone {
		logger.Info("The Node is gone; announcing what was announced")
	}
	before := d.node
	// An outage of the API server does not bring the Node back.
	n.abandoned = n.abandoned || n.gone && before.abandoned
	d.node, d.read = n, true
	s.reporter.observe(n)
	s.note(func(st *status) { st.synced, st.abandoned = true, n.abandoned })
	switch {
	case n.abandoned:
		if !before.abandoned {
			s.abandon(ctx, d)
		}
	case n.gone || !n.announced:
		// An absent annotation means: keep the last state.
		d.looked, d.refused, d.rollback = false, nil, nil
	case !d.looked || n.program != d.value:
		s.takeProgram(ctx, d, false)
	}
}

// abandon withdraws everything: the node does not belong to the cluster any
// more. When it does again, its first program counts whatever its epoch.
func (s *speaker) abandon(ctx context.Context, d *desk) {
	logger := klog.FromContext(ctx)
	logger.Info("The Node has been gone for a while; withdrawing everything", "after", goneHold)
	*d = desk{read: d.read, node: d.node, interfaces: d.interfaces}
	if err := s.announcer.Set(ctx, bgp.State{}); err != nil {
		logger.Error(err, "Withdrawing failed")
	}
	s.note(func(st *status) { st.unset, st.epoch, st.prefixes = nil, 0, 0 })
}

// takeProgram obeys the annotation if it can be obeyed.
func (s *speaker) takeProgram(ctx context.Context, d *desk, rollback bool) {
	logger := klog.FromContext(ctx)
	d.looked, d.value, d.rollback = true, d.node.program, nil
	program, err := next(d.program, d.value, rollback)
	d.refused = err
	if err != nil {
		logger.Error(err, "The program in the Node's annotation is not obeyed")
		programErrors.WithLabelValues(reasonOf(err)).Inc()
		if errors.As(err, new(olderError)) {
			d.rollback = time.After(rollbackHold)
		}
		return
	}
	if program == nil {
		return
	}
	same := d.program != nil && d.program.Hash == program.Hash
	d.program = program
	if same && d.unset == nil {
		s.note(func(st *status) { st.epoch = program.Epoch })
		return
	}
	s.vault.want(program.Peers)
	s.carryOut(ctx, d)
}

// carryOut compiles the program with what is known now, and sets the result.
func (s *speaker) carryOut(ctx context.Context, d *desk) {
	if d.program == nil {
		return
	}
	logger := klog.FromContext(ctx)
	known, problems := s.vault.passwords()
	d.nextHops = make(map[netip.Addr]netip.Addr)
	state, peers, err := compile(d.program, surroundings{
		passwords: known,
		problems:  problems,
		nextHop6: func(router netip.Addr) netip.Addr {
			hop := nextHop6(d.interfaces, router, s.linkTo(router))
			d.nextHops[router] = hop
			return hop
		},
		held: d.peers,
	})
	if err == nil {
		err = s.announcer.Set(ctx, state)
		d.problems = peers
		d.peers = make(map[string]bgp.Peer, len(state.Peers))
		for _, p := range state.Peers {
			d.peers[p.Name] = p
		}
	}
	if ctx.Err() != nil {
		return
	}
	d.unset = err
	prefixes := 0
	for _, g := range state.Groups {
		prefixes += len(g.Prefixes)
	}
	if err != nil {
		logger.Error(err, "The program is not wholly in force", "epoch", d.program.Epoch, "hash", d.program.Hash)
		programErrors.WithLabelValues("failed").Inc()
	} else {
		logger.V(2).Info("Program carried out", "epoch", d.program.Epoch, "hash", d.program.Hash,
			"prefixes", prefixes, "peers", len(state.Peers))
	}
	s.note(func(st *status) {
		st.unset, st.epoch, st.prefixes = err, d.program.Epoch, prefixes
	})
}

// report tells the planner and people.
func (s *speaker) report(ctx context.Context, d *desk) {
	r := announce.Report{
		Version:    s.version,
		Formats:    []int{announce.FormatVersion},
		Interfaces: reported(d.interfaces),
		Sessions:   sessions(s.announcer.Sessions(), d.problems),
	}
	if d.program != nil && d.unset == nil {
		r.Epoch, r.Hash = d.program.Epoch, d.program.Hash
	}
	if err := errors.Join(d.refused, d.unset); err != nil {
		r.Error = err.Error()
	}
	s.note(func(st *status) { st.sessions = r.Sessions })
	if err := s.reporter.set(r); err != nil {
		klog.FromContext(ctx).Error(err, "No report")
	}
}

// sessions are those of the announcer, and those that it does not even hold.
func sessions(held []announce.Session, problems map[string]string) []announce.Session {
	out := slices.Clone(held)
	for i, s := range out {
		if problem, ok := problems[s.Peer]; ok {
			out[i].Error = problem
			if s.Error != "" {
				out[i].Error += "; " + s.Error
			}
		}
	}
	for peer, problem := range problems {
		if !slices.ContainsFunc(held, func(s announce.Session) bool { return s.Peer == peer }) {
			out = append(out, announce.Session{Peer: peer, State: "idle", Error: problem})
		}
	}
	slices.SortFunc(out, func(a, b announce.Session) int { return cmp.Compare(a.Peer, b.Peer) })
	return out
}

// nextHopMoved reports whether a next hop that is in use is another one now.
func (s *speaker) nextHopMoved(d *desk) bool {
	for router, hop := range d.nextHops {
		if nextHop6(d.interfaces, router, s.linkTo(router)) != hop {
			return true
		}
	}
	return false
}

// stop withdraws everything if this is no restart.
func (s *speaker) stop(ctx context.Context, d *desk) error {
	logger := klog.FromContext(ctx)
	s.stopping.Store(true)
	if !d.node.leaving() {
		logger.Info("Stopping; routers keep the routes until the speaker is back")
		return nil
	}
	logger.Info("Stopping and withdrawing everything", "cordoned", d.node.cordoned,
		"draining", d.node.draining, "shuttingDown", d.node.shuttingDown, "gone", d.node.gone)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), withdrawTimeout)
	defer cancel()
	if err := s.announcer.Set(ctx, bgp.State{}); err != nil {
		logger.Error(err, "Withdrawing failed")
	}
	return nil
}

func (s *speaker) note(change func(*status)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.status)
}

// snapshot is the status, with what is counted on demand.
func (s *speaker) snapshot() status {
	ctx, cancel := context.WithTimeout(context.Background(), checkTimeout)
	defer cancel()
	received := s.announcer.Received(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.status
	out.received = received
	return out
}

// alive reports whether the loop answers.
func (s *speaker) alive(ctx context.Context) error {
	pong := make(chan struct{})
	select {
	case s.pings <- pong:
		return nil
	case <-ctx.Done():
		if s.stopping.Load() {
			return nil
		}
		return fmt.Errorf("the loop does not answer: %w", ctx.Err())
	}
}

// ready reports whether the speaker does what it is asked to.
func (s *speaker) ready(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.stopping.Load():
		return errors.New("stopping")
	case !s.status.synced:
		return errors.New("the Node has not been read yet")
	case s.status.abandoned:
		return errors.New("there is no Node; nothing is announced")
	case s.status.unset != nil:
		return fmt.Errorf("the program is not wholly in force: %w", s.status.unset)
	}
	return nil
}
