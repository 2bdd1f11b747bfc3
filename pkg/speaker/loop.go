package speaker

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"go4.org/netipx"
	"k8s.io/klog/v2"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/bgp"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/heartbeat"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/layer2"
)

// withdrawTimeout bounds the withdrawal when the speaker leaves.
const withdrawTimeout = 5 * time.Second

// handoverTimeout bounds how long a leaving speaker waits for other owners of
// its addresses. The planner takes a second at most.
const handoverTimeout = 2 * time.Second

// hesitationTime bounds how long other candidates cover for a speaker that has begun and
// asks the LAN first.
const hesitationTime = 500 * time.Millisecond

// origin is where the program comes from that is carried out.
type origin int

const (
	fromNowhere origin = iota
	fromFile           // the state file: the API server has not confirmed it
	fromNode           // the Node's annotation
)

// desk is what the loop works on; it belongs to the loop's goroutine.
type desk struct {
	read       bool // the Node was read once
	online     bool // the API server answers
	node       node
	looked     bool              // at an annotation
	value      string            // that annotation
	program    *announce.Program // carried out, nil at the start
	origin     origin
	refused    error               // why the annotation is not obeyed
	unset      error               // why the program is not wholly in force
	onLAN      error               // the same, on the LAN
	peers      map[string]bgp.Peer // as they were set last, by name
	problems   map[string]string   // of sessions, by peer
	interfaces inventory
	ways       ways
	keys       heartbeatKeys
	agenda     heartbeat.State // that the candidates were asked about last
	// hesitant: the LAN, or the API server, is being asked about addresses that were this
	// node's before it was restarted; hesitation is when that is no reason any more for
	// others to cover.
	hesitant   bool
	hesitation <-chan time.Time
	accord     accord
	takeovers  []announce.Takeover
	hears      []string                  // that were reported last
	nextHops   map[netip.Addr]netip.Addr // that were used, by router
	stranded   map[session]string        // interfaces, as they were found
	unfit      map[uint16]bool           // health check ports, when routers were told last
	conflicts  []announce.Conflict       // that were reported last
	rollback   <-chan time.Time          // when an older program counts

	urgency urgency // of the next report
	// leaving: the speaker is about to stop, and the node to be emptied.
	leaving bool

	memory   memory
	before   *netipx.IPSet    // see announcedBefore
	fallback <-chan time.Time // when memory counts
	// booting: it is not known yet whether the node forwards. hold is when that
	// is no reason any more to wait, for the API server confirmed the program.
	booting bool
	hold    <-chan time.Time
}

// session is the two ends of one.
type session struct{ source, router netip.Addr }

// hurry has the next report written as early as u says.
func (d *desk) hurry(u urgency) { d.urgency = max(d.urgency, u) }

// loop carries out programs until ctx ends.
func (s *speaker) loop(ctx context.Context, interfaces inventory, before memory) error {
	d := &desk{interfaces: interfaces, memory: before, booting: before.booted && s.gate.state() != gateHealthy}
	s.setLinks(interfaces.links)
	select {
	case d.keys = <-s.heartbeatKeys.c: // those of before
	default:
	}
	if before.program != nil {
		d.fallback = time.After(apiPatience)
		d.hesitant, d.hesitation = true, time.After(hesitationTime)
		s.askLAN(d)
	}
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			continue
		case pong := <-s.pings:
			close(pong)
			continue
		case n := <-s.nodes.c:
			s.takeNode(ctx, d, n)
		case <-d.fallback:
			s.fallBack(ctx, d)
		case <-d.hesitation:
			d.hesitation = nil
			s.carryOutLAN(d)
		case <-d.rollback:
			s.takeProgram(ctx, d, true)
		case <-s.secrets.c:
			s.carryOut(ctx, d)
		case i := <-s.interfaces.c:
			switch {
			case lost(d.interfaces.nics, i.nics):
				d.hurry(reportFast)
			case lost(i.nics, d.interfaces.nics): // there is more than before
				d.hurry(reportSoon)
			}
			d.interfaces = i
			s.setLinks(i.links)
			s.carryOutLAN(d)
			if s.nextHopsMoved(d) {
				s.carryOut(ctx, d)
			}
		case <-s.routes.c:
			if d.program != nil && !s.ways(d.program).equal(d.ways) {
				s.carryOutLAN(d)
			}
		case <-s.claims.c:
		case d.keys = <-s.heartbeatKeys.c:
			s.carryOutLAN(d)
		case <-s.fellowship.c:
			s.carryOutLAN(d)
		case <-s.gates.c:
			if d.booting && s.gate.state() == gateHealthy {
				s.booted(ctx, d)
			} else {
				s.carryOut(ctx, d)
			}
		case <-s.fitness.c:
			if maps.Equal(s.endpoints.unfit(), d.unfit) {
				s.carryOutLAN(d) // candidates are to know, and routers are not concerned
			} else {
				s.carryOut(ctx, d)
			}
		case <-d.hold:
			// A bad answer, unlike none, shows that there is a kube-proxy.
			if d.hold = nil; d.booting && s.gate.state() == gateUnknown {
				klog.FromContext(ctx).Info("Announcing though kube-proxy is not known to forward", "problem", s.gate.problem())
				s.booted(ctx, d)
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

// takeNode takes notice of a change of the Node, or of the API server's absence:
// from then on the program may be out of date, until the Node is read again.
func (s *speaker) takeNode(ctx context.Context, d *desk, n node) {
	logger := klog.FromContext(ctx)
	if !n.read {
		s.fallBack(ctx, d)
		return
	}
	if n.gone && !d.node.gone {
		logger.Info("The Node is gone; announcing what was announced")
	}
	before, wasOnline := d.node, d.online
	// An outage of the API server does not bring the Node back.
	n.abandoned = n.abandoned || n.gone && before.abandoned
	d.node, d.read, d.online = n, true, !n.offline
	s.reporter.observe(n)
	if !n.gone && d.memory.program != nil && n.uid != d.memory.nodeUID {
		s.disown(ctx, d)
	}
	s.note(func(st *status) { st.synced, st.abandoned = true, n.abandoned })
	// What was doubtful may be certain now, or the reverse.
	recheck := d.online != wasOnline || n.gone != before.gone
	switch {
	case n.abandoned:
		if !before.abandoned {
			s.abandon(ctx, d)
		}
	case n.gone || !n.announced:
		// An absent annotation means: keep the last state.
		d.looked, d.refused, d.rollback = false, nil, nil
		s.fallBack(ctx, d)
	case !d.looked || n.program != d.value:
		recheck = false
		s.takeProgram(ctx, d, false)
	}
	if recheck {
		s.carryOutLAN(d)
	}
}

// abandon withdraws everything: the node does not belong to the cluster any
// more. When it does again, its first program counts whatever its epoch.
func (s *speaker) abandon(ctx context.Context, d *desk) {
	logger := klog.FromContext(ctx)
	logger.Info("The Node has been gone for a while; withdrawing everything", "after", goneHold)
	*d = desk{read: d.read, online: d.online, node: d.node, interfaces: d.interfaces, booting: d.booting, memory: memory{bootID: d.memory.bootID}}
	s.keeper.Forget()
	s.withdraw(ctx)
	s.note(func(st *status) { st.unset, st.epoch, st.prefixes = nil, 0, 0 })
}

// withdraw announces nothing any more, to nobody.
func (s *speaker) withdraw(ctx context.Context) {
	s.lan.Set(layer2.State{})
	s.fellows.Set(heartbeat.State{})
	s.endpoints.want(nil, nil)
	if err := s.announcer.Set(ctx, bgp.State{}); err != nil {
		klog.FromContext(ctx).Error(err, "Withdrawing failed")
	}
}

// takeProgram obeys the annotation if it can be obeyed.
func (s *speaker) takeProgram(ctx context.Context, d *desk, rollback bool) {
	logger := klog.FromContext(ctx)
	d.looked, d.value, d.rollback = true, d.node.program, nil
	program, err := next(d.program, d.value, rollback)
	d.refused = err
	if err != nil {
		s.fallBack(ctx, d)
		s.carryOutLAN(d) // the one in force is doubtful
		logger.Error(err, "The program in the Node's annotation is not obeyed")
		programErrors.WithLabelValues(reasonOf(err)).Inc()
		if errors.As(err, new(olderError)) {
			d.rollback = time.After(rollbackHold)
		}
		return
	}
	if program == nil {
		program = d.program // confirmed
	}
	same := d.program != nil && d.program.Hash == program.Hash
	before := d.program
	if before == nil {
		before = d.memory.program
	}
	if before == nil {
		before = &announce.Program{}
	}
	if takesOver(program, before, s.nodeName) || !slices.Equal(program.Reach, before.Reach) {
		d.hurry(reportNow)
	}
	if d.origin != fromNode {
		d.before = s.announcedBefore(d)
	}
	d.program, d.origin, d.fallback = program, fromNode, nil
	if d.booting && d.hold == nil {
		d.hold = time.After(gatePatience)
	}
	s.keep(d)
	if same && d.unset == nil {
		s.carryOutLAN(d) // what was doubtful is certain now
		s.settled(d)
		s.note(func(st *status) { st.epoch = program.Epoch })
		return
	}
	s.vault.want(program.Peers)
	s.carryOut(ctx, d)
}

// booted carries out what has waited for kube-proxy.
func (s *speaker) booted(ctx context.Context, d *desk) {
	d.booting = false
	s.keep(d)
	s.carryOut(ctx, d)
}

// settled forgets what was before, if the program in force is the Node's.
func (s *speaker) settled(d *desk) {
	if d.origin == fromNode {
		d.before, d.memory.program = nil, nil
	}
}

// notForwardingError keeps a program from being carried out after a boot.
type notForwardingError struct{ problem string }

func (e notForwardingError) Error() string {
	return "after a boot, nothing is announced before the node forwards: " + e.problem
}

// carryOutLAN carries out the part of the program that concerns the LAN.
func (s *speaker) carryOutLAN(d *desk) {
	if d.program == nil || d.booting {
		return
	}
	s.setLAN(d, d.program, d.origin != fromNode || !d.online || d.node.gone || d.refused != nil)
}

// setLAN has the candidates agree on the addresses of a program, and then does what
// that means for this node.
func (s *speaker) setLAN(d *desk, p *announce.Program, doubtful bool) {
	d.ways = s.ways(p)
	s.endpoints.want(healthPortsOf(p, s.nodeName), ownAddresses(d.interfaces))
	agenda := compileFellows(p, s.nodeName, d.interfaces, d.ways, s.endpoints.unfit(), s.endpoints.unsure())
	agenda.Keys = d.keys.HeartbeatKeys
	agenda.Grace, agenda.NoCover = s.grace, !s.cover
	agenda.Starting = d.hesitant
	agenda.Releasing = d.leaving || s.gate.state() == gateUnhealthy
	if s.apiHost.IsValid() {
		agenda.APILink = s.linkTo(s.apiHost)
	}
	if !reflect.DeepEqual(agenda, d.agenda) {
		d.agenda = agenda
		s.fellows.Set(agenda)
	}
	d.accord = newAccord(s.fellows)
	state, err := compileLAN(p, standing{
		node: s.nodeName, doubtful: doubtful, before: d.before, accord: d.accord,
	}, d.interfaces, d.ways)
	if d.onLAN = err; err == nil {
		s.lan.Set(state)
	}
	if d.hesitant = d.hesitation != nil && asks(&state); d.hesitant != d.agenda.Starting {
		d.agenda.Starting = d.hesitant
		s.fellows.Set(d.agenda)
	}
	if taken := d.accord.takeovers(); !slices.EqualFunc(taken, d.takeovers, equalTakeovers) {
		d.takeovers = taken
		d.hurry(reportNow)
	}
}

// ways are what matters of the node's routes for the program.
func (s *speaker) ways(p *announce.Program) ways {
	return ways{reached: s.reach(targets(p)), gateways: s.gateways()}
}

// carryOut compiles the program with what is known now, and sets the result.
func (s *speaker) carryOut(ctx context.Context, d *desk) {
	if d.program == nil {
		return
	}
	logger := klog.FromContext(ctx)
	if d.booting {
		d.unset = notForwardingError{s.gate.problem()}
		s.note(func(st *status) { st.unset = d.unset })
		return
	}
	s.carryOutLAN(d) // first, for it takes no time
	known, problems := s.vault.passwords()
	d.unfit = s.endpoints.unfit()
	d.nextHops, d.stranded = make(map[netip.Addr]netip.Addr), make(map[session]string)
	state, peers, err := compile(d.program, surroundings{
		passwords: known,
		problems:  problems,
		nextHop6: func(router netip.Addr) netip.Addr {
			hop := nextHop6(d.interfaces.nics, router, s.linkTo(router))
			d.nextHops[router] = hop
			return hop
		},
		stranded: func(source, router netip.Addr) string {
			name := strandedOn(d.interfaces.links, source, s.linkTo(router))
			d.stranded[session{source, router}] = name
			return name
		},
		held:    d.peers,
		demoted: s.gate.state() == gateUnhealthy,
		unfit:   d.unfit,
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
	err = errors.Join(d.onLAN, err)
	s.settled(d)
	prefixes := 0
	for _, g := range state.Groups {
		prefixes += len(g.Prefixes)
	}
	s.tidy.note(prefixes)
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
		Leaving:    d.leaving,
		Interfaces: reported(d.interfaces.nics),
		Reach:      d.ways.reached,
		Sessions:   sessions(s.announcer.Sessions(), d.problems),
	}
	if s.gate.state() == gateUnhealthy {
		r.NotForwarding = s.gate.problem()
	}
	r.Hears, r.Takeovers = hears(s.fellows.Adjacencies()), d.takeovers
	if !slices.Equal(r.Hears, d.hears) {
		// Until the planner knows, it takes a fellow whose speaker is away for lost.
		d.hears = r.Hears
		d.hurry(reportSoon)
	}
	lan := s.lan.Status()
	r.Conflicts = lan.Conflicts
	if !slices.Equal(r.Conflicts, d.conflicts) {
		d.conflicts = r.Conflicts
		d.hurry(reportSoon)
	}
	r.Problems = lan.Problems
	for _, reached := range d.ways.reached {
		if reached.Error != "" {
			r.Problems = append(r.Problems, reached.Error)
		}
	}
	r.Problems = append(r.Problems, s.fellows.Problems()...)
	if d.program != nil {
		if problem := unfitProblem(d.program, s.nodeName, s.endpoints.unfit()); problem != "" {
			r.Problems = append(r.Problems, problem)
		}
	}
	if d.keys.problem != "" && len(r.Hears) > 0 {
		r.Problems = append(r.Problems, "heartbeats: "+d.keys.problem)
	}
	for _, err := range []error{d.memory.refused, s.keeper.Err()} {
		if err != nil {
			r.Problems = append(r.Problems, err.Error())
		}
	}
	if d.program != nil && d.unset == nil && d.onLAN == nil && !d.accord.undecided() {
		r.Epoch, r.Hash = d.program.Epoch, d.program.Hash
	}
	if err := errors.Join(d.refused, d.onLAN, d.unset); err != nil {
		r.Error = err.Error()
	}
	s.note(func(st *status) { st.sessions = r.Sessions })
	if err := s.reporter.set(r, d.urgency); err != nil {
		klog.FromContext(ctx).Error(err, "No report")
	}
	d.urgency = reportLater
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

// nextHopsMoved reports whether a next hop that is in use is another one now, or is not
// where it was.
func (s *speaker) nextHopsMoved(d *desk) bool {
	for at, name := range d.stranded {
		if strandedOn(d.interfaces.links, at.source, s.linkTo(at.router)) != name {
			return true
		}
	}
	for router, hop := range d.nextHops {
		if nextHop6(d.interfaces.nics, router, s.linkTo(router)) != hop {
			return true
		}
	}
	return false
}

// stop withdraws everything if this is no restart.
func (s *speaker) stop(ctx context.Context, d *desk) error {
	logger := klog.FromContext(ctx)
	s.stopping.Store(true)
	select {
	case n := <-s.nodes.c: // it may be why we are stopped
		s.takeNode(context.WithoutCancel(ctx), d, n)
	default:
	}
	if !d.node.leaving() {
		logger.Info("Stopping; routers keep the routes until the speaker is back")
		// Who covers on the LAN does so before this node ceases to answer.
		farewell, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewellTime)
		defer cancel()
		s.fellows.Farewell(farewell)
		return nil
	}
	logger.Info("Stopping and withdrawing everything", "cordoned", d.node.cordoned,
		"draining", d.node.draining, "shuttingDown", d.node.shuttingDown, "gone", d.node.gone)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), withdrawTimeout)
	defer cancel()
	s.handOver(ctx, d)
	s.withdraw(ctx)
	return nil
}

// handOver has the other candidates, or the planner, give the node's addresses on
// the LAN to other nodes, and answers for them until they have, but not for long.
func (s *speaker) handOver(ctx context.Context, d *desk) {
	d.leaving = true
	s.carryOutLAN(d)
	if d.online && !d.node.gone {
		d.hurry(reportNow)
		s.report(ctx, d)
	}
	timeout := time.NewTimer(handoverTimeout)
	defer timeout.Stop()
	for d.accord.owns(d.program, s.nodeName) {
		select {
		case <-ctx.Done():
			return
		case <-timeout.C:
			klog.FromContext(ctx).Info("Addresses on the LAN have no other owner yet")
			return
		case pong := <-s.pings:
			close(pong)
		case n := <-s.nodes.c:
			s.takeNode(ctx, d, n)
		case <-s.fellowship.c:
			s.carryOutLAN(d)
		}
	}
}
