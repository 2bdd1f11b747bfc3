package heartbeat

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"maps"
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
	// maxWitnesses bounds the hosts that are asked on a link at a time.
	maxWitnesses = 8
	// scoutPace is how often more witnesses are looked for.
	scoutPace = time.Second
	// apiPace is how often the API server is asked as a witness.
	apiPace = 50 * time.Millisecond
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

// link is one of the node's own.
type link struct {
	Link
	answered time.Time // when a witness answered
	asked    time.Time // when they were asked last
	scouted  time.Time // when others were looked for
	// heard is the last sign of life of anybody on the link, back when such came again
	// after there had been none for a while.
	heard, back time.Time
	found       []netip.Addr
	// tries are questions to the witnesses in a row since anybody was heard, tried the
	// time of the last.
	tries int
	tried time.Time
	// deaf: nobody on the link answers, though all were asked.
	deaf bool
}

// witnesses are the hosts to ask.
func (l *link) witnesses() []netip.Addr {
	all := slices.Concat(l.Witnesses, l.found)
	return all[:min(len(all), maxWitnesses)]
}

// hear notes a sign of life of anybody.
func (l *link) hear(now time.Time) {
	if now.Sub(l.heard) >= witnessMargin {
		l.back = now
	}
	l.heard, l.tries = now, 0
}

// nextTry is when the witnesses are to be asked if nobody is heard: in time for them to
// be the only ones that answer, for as long as that lasts.
func (l *link) nextTry(up time.Time) time.Time {
	switch {
	case l.tries == 0:
		return latest(up, l.heard).Add(suspicion)
	case l.tries < deadTries:
		return l.tried.Add(tryTime)
	}
	return l.tried.Add(deadPace)
}

// unanswered reports whether they have been asked often enough.
func (l *link) unanswered(now time.Time) bool {
	return l.tries > deadTries || l.tries == deadTries && now.Sub(l.tried) >= answerTime
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

// segmentOf identifies the LAN by its subnet.
func segmentOf(p netip.Prefix) linkID {
	sum := sha256.Sum256([]byte(p.Masked().String()))
	return linkID(binary.BigEndian.Uint32(sum[:]))
}

// set makes s the state.
func (c *core) set(s State, now time.Time) {
	if len(s.Keys.Current) == 0 {
		s.Fellows = nil // nobody to exchange anything with
	}
	c.state = s
	c.self = idOf(s.Cluster, s.Node)
	c.dirty, c.untold, c.changed, c.news = true, true, true, true

	used, present := make(map[int]bool), make(map[int]bool) // links
	shared := make(map[id]bool)                             // peers
	groups := make([]*group, len(s.Groups))
	for i, g := range s.Groups {
		groups[i] = &group{epoch: g.Epoch, links: g.Links, unfit: g.Unfit, unsure: g.Unsure}
		for _, name := range g.Candidates {
			candidate := idOf(s.Cluster, name)
			groups[i].candidates = append(groups[i].candidates, candidate)
			shared[candidate] = true
		}
		for _, index := range g.Links {
			used[index] = true
		}
	}
	for _, l := range s.Links {
		present[l.Index] = true
		if _, known := c.up[l.Index]; !known {
			c.up[l.Index] = now
		}
		if !used[l.Index] {
			continue
		}
		if c.links[l.Index] == nil {
			c.links[l.Index] = &link{}
		}
		c.links[l.Index].Link = l
	}
	maps.DeleteFunc(c.links, func(index int, _ *link) bool { return !used[index] || !present[index] })
	maps.DeleteFunc(c.up, func(index int, _ time.Time) bool { return !present[index] })
	c.setPeers(shared, now)
	c.setEntries(groups)
}

// setPeers makes an adjacency of each fellow and link on which both have an
// address of the same subnet.
func (c *core) setPeers(shared map[id]bool, now time.Time) {
	peers := make(map[id]*peer)
	byKey := make(map[adjacencyKey]*adjacency)
	for _, f := range c.state.Fellows {
		node := idOf(c.state.Cluster, f.Name)
		if node == c.self || !shared[node] || peers[node] != nil {
			continue
		}
		p := c.peers[node]
		if p == nil {
			p = &peer{id: node, chunks: [][]claimed{nil}}
			if c.tables > 0 {
				p.version = c.newTable() // it may know one of before
			}
		}
		p.name, p.adjacencies = f.Name, nil
		for _, l := range c.links {
			from, to, ok := meet(l, f.Links)
			if !ok {
				continue
			}
			key := adjacencyKey{node, l.Index}
			a := c.byKey[key]
			if a == nil || a.to != to.addr || a.segment != segmentOf(from) {
				a = &adjacency{peer: p, link: l.Index, since: now, seq: p.seq}
			}
			a.segment, a.from, a.to, a.mac = segmentOf(from), from.Addr(), to.addr, to.mac
			byKey[key] = a
			p.adjacencies = append(p.adjacencies, a)
		}
		if len(p.adjacencies) > 0 {
			slices.SortFunc(p.adjacencies, func(a, b *adjacency) int { return cmp.Compare(a.link, b.link) })
			peers[node] = p
		}
	}
	c.peers, c.byKey, c.adjacencies = peers, byKey, nil
	maps.DeleteFunc(c.viewed, func(key viewKey, _ time.Time) bool { return peers[key.of] == nil })
	for _, a := range byKey {
		c.adjacencies = append(c.adjacencies, a)
	}
	slices.SortFunc(c.adjacencies, func(a, b *adjacency) int {
		return cmp.Or(cmp.Compare(a.peer.name, b.peer.name), cmp.Compare(a.link, b.link))
	})
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

type station struct {
	addr netip.Addr
	mac  announce.MAC
}

// meet finds a subnet that both have an address in: of IPv4 if there is one, for
// it needs no duplicate address detection before it works, and on the fellow's
// interface of the same name if that is in it. On an interface without a global
// address it is the link itself, to the fellow's interface of that name.
func meet(own *link, links []announce.Link) (from netip.Prefix, to station, ok bool) {
	global4 := func(p netip.Prefix) bool { return p.Addr().Is4() && !p.Addr().IsLinkLocalUnicast() }
	global6 := func(p netip.Prefix) bool { return p.Addr().Is6() && !p.Addr().IsLinkLocalUnicast() }
	local6 := func(p netip.Prefix) bool { return p.Addr().Is6() }
	for _, pass := range []struct {
		suits    func(netip.Prefix) bool
		anyNames bool
	}{{global4, false}, {global4, true}, {global6, false}, {global6, true}, {local6, false}} {
		for _, mine := range own.Prefixes {
			if !pass.suits(mine) || mine.IsSingleIP() {
				continue
			}
			for _, l := range links {
				if l.Name != own.Name && !pass.anyNames {
					continue
				}
				for _, theirs := range l.Prefixes {
					if theirs.Masked() == mine.Masked() && theirs.Addr() != mine.Addr() {
						return mine, station{theirs.Addr(), l.MAC}, true
					}
				}
			}
		}
	}
	return netip.Prefix{}, station{}, false
}

// setEntries makes the groups' addresses the entries. What is known of an address
// that stays is kept.
func (c *core) setEntries(groups []*group) {
	entries := make(map[netip.Addr]*entry, len(c.entries))
	c.sorted = c.sorted[:0]
	for i, g := range c.state.Groups {
		if len(groups[i].candidates) == 0 {
			continue
		}
		for _, addr := range g.Addresses {
			if entries[addr] != nil {
				continue
			}
			e := c.entries[addr]
			if e == nil {
				e = &entry{addr: addr}
			}
			e.group = groups[i]
			entries[addr] = e
			if !slices.Contains(e.group.candidates, e.best.owner) {
				e.best = e.group.program()
			}
			c.raise(e, e.group.program())
			c.sorted = append(c.sorted, e)
		}
	}
	c.entries = entries
	slices.SortFunc(c.sorted, func(a, b *entry) int { return a.addr.Compare(b.addr) })
	for _, p := range c.peers {
		c.merge(p, p.claims)
	}
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

// answered is that a host answered a question on a link: a fellow's kernel, its
// speaker, for an address that it owns, or a witness.
func (c *core) answered(index int, host netip.Addr, mac announce.MAC, now time.Time) {
	if l := c.links[index]; l != nil && slices.Contains(l.witnesses(), host) {
		l.answered = now
		l.hear(now)
		c.dirty = c.dirty || c.unsettled
	}
	for _, a := range c.adjacencies {
		if a.link != index || a.mac != mac {
			continue
		}
		before := a.liveness(now)
		switch e := c.entries[host]; {
		case host == a.to:
			c.live(a, now)
			a.answered, a.tries = now, 0
			if before == Dead {
				a.hurried = true
			}
		case e != nil && e.best.owner == a.peer.id:
			c.live(a, now)
			a.served = now
		default:
			continue
		}
		c.dirty = c.dirty || a.liveness(now) != before
		c.links[index].hear(now)
	}
}

// unasked is that a question could not be sent: nothing follows from its answer's
// absence.
func (c *core) unasked(q ask) {
	for _, a := range c.adjacencies {
		if a.link == q.link && a.to == q.host {
			a.tries = max(a.tries-1, 0)
		}
	}
}

// found is what hosts there are on a link, besides those that it was told of.
func (c *core) found(index int, hosts []netip.Addr) {
	l := c.links[index]
	if l == nil {
		return
	}
	l.found = slices.DeleteFunc(hosts, func(host netip.Addr) bool {
		return slices.Contains(l.Witnesses, host) || c.entries[host] != nil ||
			slices.ContainsFunc(c.adjacencies, func(a *adjacency) bool { return a.to == host })
	})
}

// listens are the hosts whose answers are wanted, by link.
func (c *core) listens() map[int][]netip.Addr {
	hosts := make(map[int][]netip.Addr)
	for _, a := range c.adjacencies {
		hosts[a.link] = append(hosts[a.link], a.to)
		if a.sample.IsValid() {
			hosts[a.link] = append(hosts[a.link], a.sample)
		}
	}
	for index, all := range hosts {
		all = append(all, c.links[index].witnesses()...)
		slices.SortFunc(all, netip.Addr.Compare)
		hosts[index] = slices.Compact(all)
	}
	return hosts
}

// acknowledged reports whether all fellows that are up have had the packets up to
// a number.
func (c *core) acknowledged(seq uint64, now time.Time) bool {
	return !slices.ContainsFunc(c.adjacencies, func(a *adjacency) bool { return a.liveness(now) == Up && a.had < seq })
}

// refused is that a fellow's kernel says that nobody listens for heartbeats. Whoever
// can send on the link can say so; all that follows is that the fellow is covered
// until it is heard again.
func (c *core) refused(index int, host netip.Addr, now time.Time) {
	for _, a := range c.adjacencies {
		if a.link == index && a.to == host {
			a.refused = now
		}
	}
}

// apiAnswer is that the API server answered a question that was asked at that
// time.
func (c *core) apiAnswer(asked, now time.Time) {
	c.apiAnswered = latest(c.apiAnswered, asked)
	if l := c.links[c.state.APILink]; l != nil {
		l.hear(now)
	}
	c.dirty = true
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
	if !now.Before(c.embargo) {
		c.listen(now)
	}
	var out actions
	c.probe(now, &out)
	c.inspect(now, &out)
	c.send(now, &out)
	out.next = c.nextTurn(now)
	c.due = out.next
	return out
}

// listen notes on which links nobody is heard, and has fellows told.
func (c *core) listen(now time.Time) {
	for index, l := range c.links {
		deaf := c.isDeaf(index, now)
		if deaf == l.deaf {
			continue
		}
		l.deaf, c.changed = deaf, true
		for _, a := range c.adjacencies {
			a.hurried = a.hurried || a.link == index
		}
	}
}

// isDeaf reports whether everybody on the link was asked and nobody has answered. The
// fellows that hear of it know that it is only one way that is broken.
func (c *core) isDeaf(index int, now time.Time) (deaf bool) {
	if l := c.links[index]; !l.unanswered(now) || now.Sub(l.heard) < deadTime {
		return false
	}
	for _, a := range c.adjacencies {
		if a.link != index {
			continue
		}
		if deaf = a.liveness(now) == Dead; !deaf {
			return false
		}
	}
	return deaf
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

// probe asks the kernels of fellows that are not heard, and witnesses.
func (c *core) probe(now time.Time, out *actions) {
	for _, a := range c.adjacencies {
		if !a.suspect(now) {
			a.tries, a.tried = 0, time.Time{}
			if a.deaf && c.unsettled {
				c.askOthers(a, now, out)
			}
			continue
		}
		if now.Before(c.nextTry(a)) {
			continue
		}
		a.tries, a.tried = min(a.tries+1, deadTries+1), now
		out.asks = append(out.asks, ask{a.link, a.to, a.mac})
		if a.sample.IsValid() {
			out.asks = append(out.asks, ask{a.link, a.sample, a.mac})
		}
		l := c.links[a.link]
		if now.Sub(l.scouted) >= scoutPace {
			l.scouted = now
			out.scouts = append(out.scouts, a.link)
		}
		if now.Sub(a.evidence()) < witnessMargin || l.asked.Equal(now) || a.liveness(now) == Dead && !c.unsettled {
			continue
		}
		c.askWitnesses(a, now, out)
	}
	for _, a := range c.adjacencies {
		l := c.links[a.link]
		if now.Before(l.nextTry(c.up[a.link])) {
			continue
		}
		l.tries, l.tried = min(l.tries+1, deadTries+1), now
		if !l.asked.Equal(now) {
			c.askWitnesses(a, now, out)
		}
	}
}

// askWitnesses asks those against the fellow.
func (c *core) askWitnesses(than *adjacency, now time.Time, out *actions) {
	l := c.links[than.link]
	l.asked = now
	for _, host := range l.witnesses() {
		out.asks = append(out.asks, ask{link: than.link, host: host})
	}
	if c.apiWitnesses(than) && now.Sub(c.apiAsked) >= apiPace {
		c.apiAsked, out.api = now, true
	}
}

// askOthers asks all but a fellow that hears nobody, lest it is this node that is not
// heard.
func (c *core) askOthers(than *adjacency, now time.Time, out *actions) {
	if now.Sub(c.links[than.link].asked) < tryTime {
		return
	}
	c.askWitnesses(than, now, out)
	for _, a := range c.adjacencies {
		if a.link == than.link && a.peer != than.peer {
			out.asks = append(out.asks, ask{a.link, a.to, a.mac})
		}
	}
}

// nextTry is when to ask the fellow's kernel the next time: soon, if it was asked when
// nobody on the link was there.
func (c *core) nextTry(a *adjacency) time.Time {
	if a.tries >= deadTries && a.tried.Before(c.links[a.link].back) {
		return a.tried.Add(tryTime)
	}
	return a.nextTry()
}

// sample is an address that the fellow owns, of the family of its own address.
func (c *core) sample(a *adjacency) netip.Addr {
	for _, e := range c.sorted {
		if e.best.owner == a.peer.id && e.addr.Is4() == a.to.Is4() && slices.Contains(e.group.links, a.link) {
			return e.addr
		}
	}
	return netip.Addr{}
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
	if slices.ContainsFunc(c.adjacencies, func(a *adjacency) bool { return c.early(a, now) }) {
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
