package heartbeat

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

const (
	// lateness is by how much a turn may be late before nothing is judged until the
	// next one, lateWait later: what has come in meanwhile has to be heard first.
	lateness = 30 * time.Millisecond
	lateWait = 10 * time.Millisecond
	// unsettledPace is how often decisions are looked at again that wait for time.
	unsettledPace = 20 * time.Millisecond
	// recentTime is how old a packet may be whose echo introduces a new process.
	recentTime = time.Second
)

// core decides, and has neither clock nor socket: time is an argument that never
// decreases, what is received comes by receive, answered and witnessed, and turn
// says what to send.
type core struct {
	state State
	self  id
	life  uint64
	seq   uint64
	// tables is the number of the last one for a fellow.
	tables uint32
	// past are the sequence numbers of the last recentTime, oldest first.
	past []mark

	peers       map[id]*peer
	adjacencies []*adjacency
	byKey       map[adjacencyKey]*adjacency
	// viewed are the last signs of life of fellows that other ones told of. They count
	// when those are no fellows any more, too.
	viewed  map[viewKey]time.Time
	links   map[int]*link
	up      map[int]time.Time // since when links are there, used or not
	entries map[netip.Addr]*entry
	sorted  []*entry // by address

	// due is when the next turn was to be, embargo until when nothing is judged.
	due, embargo time.Time
	late         bool // the turn before was
	decided      time.Time
	// dirty: decisions have to be looked at; unsettled: some wait for time;
	// untold: fellows have to be told; changed: roles are other ones; news: so may
	// be what is known of fellows.
	dirty, unsettled, untold, changed, news bool
	// awaited is the first time that some decision waits for.
	awaited time.Time

	apiAsked, apiAnswered time.Time
	arrived               map[announce.MAC]uint8 // checks, by the MAC of who sent them
	takeovers             uint64                 // so far
}

type mark struct {
	at  time.Time
	seq uint64
}

type viewKey struct {
	of   id
	link linkID
}

type adjacencyKey struct {
	peer id
	link int
}

// entry is an address.
type entry struct {
	addr  netip.Addr
	group *group
	best  holding
	role  Role
	round uint32
	// seen is the fellow that is known to have answered for the address.
	seen id
	// yields is how often this node gave the address up to owners that it had no sign
	// of life of; from such it does not claim it before barred.
	yields int
	barred time.Time
	// vacant is since when the owner is dead and another candidate is to claim.
	vacant time.Time
	// known is since when this node knows that the owner is the one that it was decided
	// by.
	known   time.Time
	decided id
	// deaf is that of the Decision.
	deaf bool
}

// group is what addresses have in common.
type group struct {
	candidates []id
	epoch      uint32
	links      []int
	unfit      bool
	unsure     bool
}

func (g *group) program() holding {
	return holding{rank{epoch: g.epoch}, g.candidates[0]}
}

// actions are what a turn asks for.
type actions struct {
	packets []outgoing
	asks    []ask
	// scouts are links on which more witnesses are wanted.
	scouts []int
	checks []Check
	// api asks the API server for a sign of life.
	api bool
	// next is when the next turn is due.
	next time.Time
}

// outgoing is a packet for a fellow.
type outgoing struct {
	route
	newest keyID
	packet packet
}

// ask is a question to a host on a link: without a MAC, to all.
type ask struct {
	link int
	host netip.Addr
	mac  announce.MAC
}

func newCore(life uint64) *core {
	return &core{
		life:    life,
		peers:   make(map[id]*peer),
		byKey:   make(map[adjacencyKey]*adjacency),
		links:   make(map[int]*link),
		up:      make(map[int]time.Time),
		entries: make(map[netip.Addr]*entry),
		viewed:  make(map[viewKey]time.Time),
	}
}

func idOf(cluster, node string) id {
	sum := sha256.Sum256([]byte(cluster + "\x00" + node))
	return id(binary.BigEndian.Uint64(sum[:]))
}

// live is that there is a sign of life of the fellow. If there was none for a while,
// others are told soon: they may be about to take it for dead.
func (c *core) live(than *adjacency, now time.Time) {
	gap := now.Sub(than.evidence())
	if gap >= deadTime {
		than.back = now
	}
	for _, a := range c.adjacencies {
		a.hurried = a.hurried || gap > relayGap && a.peer != than.peer
	}
}

// newTable numbers a table for a fellow. A fellow that is told tables by this process
// again after a while must not take them for those of before. An empty one of a new
// process has the number 0, and need not be told.
func (c *core) newTable() uint32 {
	c.tables++
	return c.tables
}

// raise notes a claim if it is greater than what is known. Equal ones are ordered by
// something that all nodes agree on, whatever programs they have. That of a node that
// is no candidate does not count.
func (c *core) raise(e *entry, h holding) {
	greater := cmp.Or(h.rank.compare(e.best.rank), cmp.Compare(h.owner, e.best.owner)) > 0
	if greater && slices.Contains(e.group.candidates, h.owner) {
		e.best, e.vacant = h, time.Time{}
	}
}

// entriesIn are those whose address is in the range.
func (c *core) entriesIn(r announce.Range) []*entry {
	begin, _ := slices.BinarySearchFunc(c.sorted, r.From(), func(e *entry, addr netip.Addr) int { return e.addr.Compare(addr) })
	end := begin
	for end < len(c.sorted) && !r.To().Less(c.sorted[end].addr) {
		end++
	}
	return c.sorted[begin:end]
}

// merge takes over what a peer claims, of itself and of others.
func (c *core) merge(p *peer, table []claimed) {
	before := p.says
	p.claims, p.says, p.unfit = table, make(map[netip.Addr]holding), make(map[netip.Addr]bool)
	for _, claim := range table {
		for _, e := range c.entriesIn(claim.addresses) {
			if claim.unfit {
				p.unfit[e.addr] = true
			}
			if claim.owner == 0 {
				continue
			}
			c.raise(e, holding{claim.rank, claim.owner})
			p.says[e.addr] = holding{claim.rank, claim.owner}
			if e.best.owner == claim.owner {
				e.seen = claim.owner
			}
		}
	}
	for addr, said := range before {
		// Who learnt of the peer's address while there were two owners must learn
		// of this one's.
		if e := c.entries[addr]; e != nil && said.owner == p.id && p.says[addr].owner != p.id && e.best.owner == c.self {
			e.round++
			c.changed = true
		}
	}
	c.dirty, c.untold = true, true
}

// receive takes a packet that a key has authenticated, from the link it came in
// on. newest is the newest key of the sender. It reports why it is not accepted.
func (c *core) receive(index int, m *packet, newest keyID, now time.Time) rejection {
	if m.to != c.self {
		return rejectReceiver
	}
	a := c.byKey[adjacencyKey{m.from, index}]
	if a == nil || a.segment != m.link {
		return rejectSender
	}
	c.remember(now)
	p, first := a.peer, a.liveness(now) != Up
	switch {
	case m.life == p.life && m.seq <= a.seq, slices.Contains(p.former, m.life):
		return rejectReplay
	case m.life == p.life:
	case m.echoLife == c.life && c.recent(m.echoSeq):
		p.begin(stamp{m.life, m.seq})
		a.greeting = stamp{}
		c.dirty, c.untold = true, true
	default:
		// A process that has not heard of this one, or a packet of long ago: only
		// the echo of what follows tells.
		a.greet(stamp{m.life, m.seq})
		if first {
			a.newest = newest // or it could not read the answer
		}
		return rejectIntroduction
	}
	c.links[index].hear(now)
	c.live(a, now)
	a.seq, a.heard, a.newest = m.seq, now, newest
	if deaf := m.flags&flagDeaf != 0; deaf != a.deaf {
		a.deaf, c.dirty = deaf, true
	}
	a.echo = stamp{m.life, m.seq}
	a.tries, a.checked = 0, m.checks
	if first || m.echoLife != c.life {
		a.hurried = true
	}
	if m.echoLife == c.life {
		a.had = max(a.had, m.echoSeq)
	}
	c.dirty = c.dirty || first
	if m.seq > p.seq {
		p.seq = m.seq
		c.learn(a, m, now)
	}
	return accepted
}

// learn takes what the latest packet of a fellow says.
func (c *core) learn(a *adjacency, m *packet, now time.Time) {
	p := a.peer
	flags := m.flags &^ flagDeaf // which is the link's
	c.dirty = c.dirty || p.flags != flags
	p.flags = flags
	for _, v := range m.views {
		if c.peers[v.of] == nil {
			continue
		}
		key := viewKey{v.of, v.link}
		c.viewed[key] = latest(c.viewed[key], now.Add(-v.age))
	}
	if m.echoLife == c.life {
		p.has = m.ack
	}
	synced := p.synced()
	if table, complete := p.collect(m); complete {
		c.merge(p, table)
		a.hurried = true // acknowledges it
	}
	if p.synced() != synced {
		c.dirty = true
	}
}

// recent reports whether this process sent the packet of that number within
// recentTime.
func (c *core) recent(seq uint64) bool {
	return seq <= c.seq && len(c.past) > 0 && seq >= c.past[0].seq
}

// acknowledged reports whether all fellows that are up have had the packets up to
// a number.
func (c *core) acknowledged(seq uint64, now time.Time) bool {
	return !slices.ContainsFunc(c.adjacencies, func(a *adjacency) bool { return a.liveness(now) == Up && a.had < seq })
}

// settle decides at once what can be, unless the next turn is so late that what has
// come in meanwhile has to be heard first.
func (c *core) settle(now time.Time) {
	if now.Before(c.embargo) || !c.due.IsZero() && now.Sub(c.due) > lateness {
		return
	}
	c.decided = now
	c.decideAll(now)
}

// turn decides what can be decided at now, and says what to send.
func (c *core) turn(now time.Time) actions {
	if c.late = !c.late && !c.due.IsZero() && now.Sub(c.due) > lateness; c.late {
		c.embargo = now.Add(lateWait)
	}
	c.remember(now)
	for _, a := range c.adjacencies {
		if l := a.liveness(now); l != a.last {
			a.last, c.dirty, c.untold = l, true, true
		}
	}
	if !now.Before(c.embargo) {
		c.listen(now)
	}
	if !c.awaited.IsZero() && !now.Before(c.awaited) {
		c.dirty = true
	}
	if due := c.dirty || c.unsettled && now.Sub(c.decided) >= unsettledPace; due && !now.Before(c.embargo) {
		c.decided = now
		c.decideAll(now)
	}
	if c.untold {
		c.untold = false
		c.tabulate()
	}
	var out actions
	c.probe(now, &out)
	c.inspect(now, &out)
	c.send(now, &out)
	out.next = c.nextTurn(now)
	c.due = out.next
	return out
}

// remember notes which number this process has come to.
func (c *core) remember(now time.Time) {
	for len(c.past) > 1 && now.Sub(c.past[1].at) >= recentTime {
		c.past = c.past[1:]
	}
	if len(c.past) == 0 || now.Sub(c.past[len(c.past)-1].at) >= interval {
		c.past = append(c.past, mark{now, c.seq + 1})
	}
}

// send composes the packets that are due.
func (c *core) send(now time.Time, out *actions) {
	for _, a := range c.adjacencies {
		if now.Before(a.nextSend()) {
			continue
		}
		echo := a.echoed()
		a.sent, a.hurried = now, a.greeting.life != 0
		part, parts := 0, 1
		telling := a.peer.life != 0 && a.peer.has != a.peer.version
		if telling {
			part, parts = a.nextParts()
		}
		views := c.views(a, now)
		for range parts {
			c.seq++
			m := packet{
				flags: c.flags(a.link, now), from: c.self, to: a.peer.id, link: a.segment,
				life: c.life, seq: c.seq, echoLife: echo.life, echoSeq: echo.seq,
				table: a.peer.version, ack: a.peer.known, views: views, checks: c.arrived[a.mac],
			}
			if chunks := a.peer.chunks; telling {
				m.claims, m.chunk, m.chunks = chunks[part], uint8(part), uint8(len(chunks))
				part = (part + 1) % len(chunks)
			}
			out.packets = append(out.packets, outgoing{a.route(), a.newest, m})
		}
	}
}

// views are this node's signs of life of others than the adjacency's fellow, the
// latest ones first. That of one that hears nobody is no reason not to replace it.
func (c *core) views(than *adjacency, now time.Time) []view {
	var views []view
	for _, a := range c.adjacencies {
		if a.peer != than.peer && a.lived() && !a.deaf {
			views = append(views, view{a.peer.id, a.segment, now.Sub(a.evidence())})
		}
	}
	slices.SortFunc(views, func(a, b view) int { return cmp.Compare(a.age, b.age) })
	return views[:min(len(views), maxViews)]
}

// early reports whether the fellow is still waited for: it may say that it owns
// what this node, or its link, that has just come up, owns by the program.
func (c *core) early(a *adjacency, now time.Time) bool {
	began := c.up[a.link]
	return a.since.Sub(began) < youth && now.Sub(latest(began, a.since)) < freshTime && !(a.liveness(now) == Up && a.peer.synced())
}

func (c *core) flags(link int, now time.Time) (flags uint8) {
	if c.links[link].deaf && !now.Before(c.embargo) { // else something may have come in
		flags |= flagDeaf
	}
	if c.state.Starting || slices.ContainsFunc(c.adjacencies, func(a *adjacency) bool { return c.early(a, now) }) {
		flags |= flagStarting
	}
	if c.state.Restarting {
		flags |= flagRestarting
	}
	if c.state.Releasing {
		flags |= flagReleasing
	}
	return flags
}

// nextTurn is when something is to be done if nothing comes in.
func (c *core) nextTurn(now time.Time) time.Time {
	if len(c.adjacencies) == 0 && !c.dirty {
		return time.Time{}
	}
	next := now.Add(interval)
	sooner := func(at time.Time) {
		if !at.IsZero() && at.Before(next) {
			next = at
		}
	}
	for _, a := range c.adjacencies {
		sooner(a.nextSend())
		sooner(c.nextTry(a))
		sooner(a.nextChange(now))
		sooner(c.links[a.link].nextTry(c.up[a.link]))
	}
	if c.unsettled {
		sooner(now.Add(unsettledPace))
	}
	sooner(c.awaited)
	if c.dirty && !c.embargo.IsZero() {
		sooner(c.embargo)
	}
	return latest(next, now.Add(time.Millisecond))
}
