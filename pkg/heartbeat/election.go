package heartbeat

import (
	"slices"
	"time"

	"go4.org/netipx"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

const (
	// witnessMargin is by how much a sign of life of others has to be later than
	// the owner's last one, to show that it is the owner who is cut off: before the
	// cut it could not be later by more than the heartbeats that got lost.
	witnessMargin = 250 * time.Millisecond
	// returnTime is by when a fellow that is there again is to have heard the others.
	returnTime = interval + 50*time.Millisecond
	// witnessTime is how long such a sign of life counts.
	witnessTime = 300 * time.Millisecond
	// followTime is how long the candidate that is to claim an address has to do so before
	// others do, coverTime the same for one that is to cover, which they cannot see.
	followTime = 500 * time.Millisecond
	coverTime  = 15 * time.Second
	// loudTime is how long who has claimed an address may make that known, though nobody
	// is heard any more.
	loudTime = 5 * time.Second
	// barTime is doubled with each time, up to maxYields, that an address was given up
	// again to an owner of which there was no sign of life: as long it is not claimed
	// from such.
	barTime   = 10 * time.Second
	maxYields = 8
	// relayTime is how long what others tell of the owner's life counts.
	relayTime = deadTime
	// longRelayTime is the same for an owner that this node has not had a sign of life
	// of for longTime: whoever depends on what others tell is to bear that some of it
	// gets lost.
	longRelayTime = 800 * time.Millisecond
	longTime      = time.Second
	// relayGap is after how long without a sign of life of a fellow the next one is told
	// at once.
	relayGap = 150 * time.Millisecond
)

// decideAll decides about all addresses.
func (c *core) decideAll(now time.Time) {
	c.dirty, c.unsettled, c.awaited, c.news = false, false, time.Time{}, true
	for _, e := range c.sorted {
		role := c.decide(e, now)
		if role != e.role {
			e.role = role
			c.changed, c.untold = true, true
		}
		if deaf := role == Own && c.ownsDeaf(e, now); deaf != e.deaf {
			e.deaf, c.changed = deaf, true
		}
	}
	for _, a := range c.adjacencies {
		a.sample = c.sample(a)
	}
}

// decide decides about an address; see docs/concepts/layer2-failover.md, whose
// table has a row for each case.
func (c *core) decide(e *entry, now time.Time) Role {
	if e.decided != e.best.owner {
		e.decided, e.known = e.best.owner, now
	}
	if e.best.owner == c.self {
		if len(e.group.links) == 0 {
			return Standby // there is nowhere to announce it
		}
		if e.role != Own && e.best == e.group.program() && c.waiting(e, now) {
			c.unsettled = true
			return Undecided
		}
		return Own
	}
	owner := c.peers[e.best.owner]
	if owner == nil {
		return Standby // the programs of the others will tell
	}
	l := c.liveness(owner, e.group, now)
	switch {
	case l > Unheard:
		e.yields, e.barred = 0, time.Time{}
	case e.role == Own:
		c.yield(e, now)
	}
	deaf := l == Up && c.deaf(owner, e.group, now)
	if l >= Serving && !deaf || l == Unheard {
		e.vacant = time.Time{}
	}
	switch l {
	case Up:
		switch {
		case c.gives(e, owner) && c.follows(e, owner, false, now), deaf && c.deafened(e, owner, now) && c.succeeds(e, owner, now):
			return c.claim(e)
		case (owner.restarting() || owner.starting()) && e.seen == owner.id && c.covers(e, owner, now):
			return Cover // until it owns the address again
		}
	case Silent:
		return c.decideSilent(e, owner, now)
	case Dead:
		return c.decideDead(e, owner, now)
	case Unheard:
		if e.role == Cover {
			return Cover // until it is known
		}
	}
	return Standby
}

// gives reports whether an owner that lives gives the address to this node, if that is
// willing.
func (c *core) gives(e *entry, owner *peer) bool {
	return owner.releasing() || owner.unfit[e.addr] && !e.group.unsure || owner.restarting() && !c.mayCover(e, owner)
}

// deafened reports whether an owner that says so is the one that is cut off.
func (c *core) deafened(e *entry, owner *peer, now time.Time) bool {
	// It may be this node that nobody hears, the owner included; and where a cut has just
	// ended, the owner is about to hear somebody.
	if c.answeredTo(e, owner, now) && now.Sub(owner.back()) >= returnTime {
		return true
	}
	c.unsettled = true
	return false
}

// deaf reports whether nothing arrives at the node on any link that the addresses are
// announced on, though it sends: by its own account it has asked everybody and nobody
// has answered, and nor has its kernel this node. Of a link on which it is not heard others
// may know better.
func (c *core) deaf(p *peer, g *group, now time.Time) (deaf bool) {
	for _, a := range p.adjacencies {
		if !slices.Contains(g.links, a.link) {
			continue
		}
		switch l := a.liveness(now); {
		case l == Up && a.deaf:
			if end := a.answered.Add(deadTime); now.Before(end) {
				c.await(end)
				return false
			}
			deaf = true
		case l > Unheard || c.told(a, now):
			return false
		}
	}
	return deaf
}

// answeredTo reports whether somebody else on the owner's link has just answered this
// node: what it sends arrives, and what is sent to it.
func (c *core) answeredTo(e *entry, owner *peer, now time.Time) bool {
	return slices.ContainsFunc(owner.adjacencies, func(a *adjacency) bool {
		if !slices.Contains(e.group.links, a.link) {
			return false
		}
		at := c.links[a.link].replied
		if c.state.APILink == a.link {
			at = latest(at, c.apiAnswered)
		}
		for _, other := range c.adjacencies {
			if other.peer != owner && other.link == a.link {
				at = latest(at, other.answered)
			}
		}
		return now.Sub(at) < witnessTime
	})
}

// ownsDeaf reports whether this node, which owns the address, hears nobody on any link
// that it is announced on, so that it would not hear either that it is replaced.
func (c *core) ownsDeaf(e *entry, now time.Time) bool {
	if len(e.group.links) == 0 || slices.ContainsFunc(e.group.links, func(index int) bool {
		l := c.links[index]
		return l == nil || !l.deaf
	}) {
		return false
	}
	if end := e.known.Add(loudTime); e.best != e.group.program() && now.Before(end) {
		c.await(end)
		return false
	}
	return true
}

// decideDead is decide for an owner that is not there.
func (c *core) decideDead(e *entry, owner *peer, now time.Time) Role {
	switch {
	case c.relayed(e, owner, now):
		e.vacant, c.unsettled = time.Time{}, true
	case now.Before(e.barred):
		c.await(e.barred)
	case !c.connected(e, owner, now) || !c.asked(e, owner, now) || c.returning(e, owner, now):
		c.unsettled = true
	case c.succeeds(e, owner, now):
		return c.claim(e)
	}
	return Standby
}

// succeeds reports whether it is this node's turn to claim the address.
func (c *core) succeeds(e *entry, owner *peer, now time.Time) bool {
	return c.follows(e, owner, true, now) || c.waited(e, followTime, now)
}

// waited reports whether the candidate whose turn it is has had that time. It may see
// that otherwise, by another program say.
func (c *core) waited(e *entry, patience time.Duration, now time.Time) bool {
	if e.vacant.IsZero() {
		e.vacant = now
	}
	end := e.vacant.Add(patience)
	if now.Before(end) {
		c.await(end)
		return false
	}
	return len(e.group.links) > 0 && !c.state.Restarting
}

// await has decisions looked at again at that time.
func (c *core) await(at time.Time) {
	if c.awaited.IsZero() || at.Before(c.awaited) {
		c.awaited = at
	}
}

// yield is that the node gives the address up to an owner that it does not see. The
// owner took it, so it lives, and the two are cut off from each other. That they take
// the address from each other in turn helps nobody. Only a node that hears other
// candidates claims it back at once, and once, for it is the owner that is alone then.
func (c *core) yield(e *entry, now time.Time) {
	alone := !slices.ContainsFunc(e.group.candidates, func(candidate id) bool {
		p := c.peers[candidate]
		return p != nil && c.liveness(p, e.group, now) == Up
	})
	if alone || e.yields > 0 {
		e.barred = now.Add(barTime << min(e.yields, maxYields))
	}
	e.yields++
}

// decideSilent is decide for an owner whose kernel answers and whose speaker does
// not.
func (c *core) decideSilent(e *entry, owner *peer, now time.Time) Role {
	if e.seen != owner.id {
		// A speaker that was never heard may be one that cannot be: of an older
		// version, without the key, or behind a filter. It may have its reasons not
		// to answer, too.
		return Standby
	}
	end := owner.heard().Add(c.state.Grace)
	if !c.mayCover(e, owner) {
		end = owner.heard().Add(silence) // what a host says by ICMP is no reason to take over
	}
	// That its kernel answers again may mean that heartbeats are to come, and one whose
	// address this was not before may answer for it.
	end = latest(end, owner.back().Add(silence), e.known.Add(silence))
	if now.Before(end) {
		c.await(end)
	} else if now.Sub(owner.evidence()) < witnessTime && c.succeeds(e, owner, now) {
		return c.claim(e) // this node is not cut off: it hears the owner's kernel
	}
	if c.covers(e, owner, now) {
		return Cover
	}
	return Standby
}

// claim takes the address over.
func (c *core) claim(e *entry) Role {
	e.best = holding{rank{e.best.epoch, e.best.term + 1}, c.self}
	c.takeovers++
	c.changed, c.untold = true, true
	return Own
}

// waiting reports whether another candidate may still say that it owns the
// address.
func (c *core) waiting(e *entry, now time.Time) bool {
	return slices.ContainsFunc(c.adjacencies, func(a *adjacency) bool {
		return c.early(a, now) && slices.Contains(e.group.links, a.link) && slices.Contains(e.group.candidates, a.peer.id)
	})
}

// liveness is the best one on the links that the addresses are announced on.
func (c *core) liveness(p *peer, g *group, now time.Time) Liveness {
	best, found := Dead, false
	for _, a := range p.adjacencies {
		if slices.Contains(g.links, a.link) {
			best, found = max(best, a.liveness(now)), true
		}
	}
	if !found {
		return Unheard
	}
	return best
}

// follows reports whether this node is the one to follow the owner: the first
// candidate that lives, does not give its own addresses away and has somebody to serve
// this one, or, where there is none and somebody has to, the first one that lives.
func (c *core) follows(e *entry, owner *peer, somebody bool, now time.Time) bool {
	next := c.first(e, owner, now, func(p *peer) bool {
		if p == nil {
			return !c.state.Releasing && !e.group.unfit
		}
		return !p.releasing() && !p.unfit[e.addr]
	})
	if next == 0 && somebody {
		next = c.first(e, owner, now, anybody)
	}
	return next == c.self
}

func anybody(*peer) bool { return true }

// covers reports whether this node is the one to cover the owner. Traffic goes to that
// one, so it matters neither who gives addresses away, nor whether another candidate
// covers it, too; that none does would.
func (c *core) covers(e *entry, owner *peer, now time.Time) bool {
	if !c.mayCover(e, owner) {
		return false
	}
	patience := coverTime
	if e.group.epoch < e.best.epoch {
		patience = followTime // the order of candidates is one of before
	}
	return c.first(e, owner, now, anybody) == c.self || c.waited(e, patience, now)
}

// mayCover reports whether it is allowed to answer in the owner's place, and such
// answers arrive.
func (c *core) mayCover(e *entry, owner *peer) bool {
	return !c.state.NoCover && owner.coverable(e.group)
}

// first is the first candidate besides the owner that lives, hears and fits, or 0. This
// node itself is the nil one.
func (c *core) first(e *entry, owner *peer, now time.Time, fits func(*peer) bool) id {
	for _, candidate := range e.group.candidates {
		switch p := c.peers[candidate]; {
		case candidate == c.self:
			if len(e.group.links) > 0 && !c.state.Restarting && fits(nil) {
				return c.self
			}
		case candidate == owner.id || p == nil || p.restarting() || p.starting():
		case c.liveness(p, e.group, now) == Up && !c.deaf(p, e.group, now) && fits(p):
			return candidate
		}
	}
	return 0
}

// relayed reports whether another candidate has a sign of life of the owner: then
// it is the way to it that is broken, and not the owner.
func (c *core) relayed(e *entry, owner *peer, now time.Time) bool {
	return slices.ContainsFunc(owner.adjacencies, func(a *adjacency) bool {
		return slices.Contains(e.group.links, a.link) && c.told(a, now)
	})
}

// told reports whether others have told of a sign of life of the fellow on that link.
func (c *core) told(a *adjacency, now time.Time) bool {
	counts := relayTime
	if now.Sub(a.evidence()) > longTime {
		counts = longRelayTime
	}
	return now.Sub(c.viewed[viewKey{a.peer.id, a.segment}]) < counts
}

// connected reports whether somebody else on the owner's link has been heard since
// the owner was, by this node or another candidate, and just now: this node is not the
// one that is cut off.
func (c *core) connected(e *entry, owner *peer, now time.Time) bool {
	return slices.ContainsFunc(owner.adjacencies, func(a *adjacency) bool {
		if !slices.Contains(e.group.links, a.link) {
			return false
		}
		w := c.witness(a)
		return w.After(latest(a.evidence(), c.viewed[viewKey{owner.id, a.segment}]).Add(witnessMargin)) && now.Sub(w) < witnessTime
	})
}

// asked reports whether the owner's kernel has been asked since there is anybody on the
// link: the end of a cut looks like the death of those who answer last.
func (c *core) asked(e *entry, owner *peer, now time.Time) bool {
	return !slices.ContainsFunc(owner.adjacencies, func(a *adjacency) bool {
		return slices.Contains(e.group.links, a.link) && (a.tried.Before(c.links[a.link].back) || now.Sub(a.tried) < answerTime)
	})
}

// returning reports whether there is a fellow that is new, or of which there are signs of
// life again, and that is to be heard, and to hear others, yet: it may know better of
// the owner.
func (c *core) returning(e *entry, owner *peer, now time.Time) bool {
	return slices.ContainsFunc(c.adjacencies, func(a *adjacency) bool {
		return a.peer != owner && slices.Contains(e.group.links, a.link) &&
			(now.Sub(latest(a.since, a.back)) < returnTime || a.liveness(now) == Up && a.peer.unread())
	})
}

// witness is the last sign of life on the adjacency's link of anybody but its fellow.
func (c *core) witness(than *adjacency) time.Time {
	at := c.links[than.link].answered
	for _, a := range c.adjacencies {
		if a.peer != than.peer && a.link == than.link {
			at = latest(at, a.heard, a.answered)
		}
	}
	if c.apiWitnesses(than) {
		at = latest(at, c.apiAnswered)
	}
	return at
}

// apiWitnesses reports whether the API server is a witness against the fellow: if it is
// reached through the adjacency's link, or if nobody else is there to be heard.
func (c *core) apiWitnesses(than *adjacency) bool {
	return c.state.APILink == than.link || len(c.links[than.link].witnesses()) == 0 &&
		!slices.ContainsFunc(c.adjacencies, func(a *adjacency) bool { return a.peer != than.peer && a.link == than.link })
}

// tabulate finds out what each fellow has to be told: what this node owns or
// covers, and what it knows that the program does not say.
func (c *core) tabulate() {
	version := uint32(0)
	for _, p := range c.peers {
		var table []claimed
		for _, e := range c.sorted {
			if !slices.Contains(e.group.candidates, p.id) {
				continue
			}
			if told := c.tells(p, e); told || e.group.unfit {
				table = extend(table, e, told)
			}
		}
		if slices.Equal(table, p.table) {
			continue
		}
		p.table = table
		chunks, left := chunksOf(table)
		c.news = c.news || len(left) != p.untold
		p.chunks, p.untold = chunks, len(left)
		if version == 0 {
			version = c.newTable()
		}
		p.version = version
		for _, a := range p.adjacencies {
			a.hurried = true
		}
	}
}

// tells reports whether the fellow may not know who owns the address.
func (c *core) tells(p *peer, e *entry) bool {
	if e.best.owner == c.self {
		return e.role == Own
	}
	// Its program may be an old one.
	if said, any := p.says[e.addr]; any && said != e.best || !any && e.best.owner == p.id {
		return true
	}
	if e.best.owner != p.id && e.best != e.group.program() || e.role == Cover {
		return true
	}
	// Whoever becomes a candidate while the owner is silent cannot know that it has
	// answered, and is to cover for it all the same.
	owner := c.peers[e.best.owner]
	return owner != nil && e.seen == owner.id && !owner.decidedUp()
}

// extend adds the address to the table, whose addresses ascend; with its owner, if that
// is told.
func extend(table []claimed, e *entry, told bool) []claimed {
	c := claimed{addresses: announce.Single(e.addr), unfit: e.group.unfit}
	if told {
		c.owner, c.rank = e.best.owner, e.best.rank
	}
	if last := len(table) - 1; last >= 0 {
		before := &table[last]
		if before.joins(&c) && before.addresses.To().Next() == e.addr {
			before.addresses = announce.Range(netipx.IPRangeFrom(before.addresses.From(), e.addr))
			return table
		}
	}
	return append(table, c)
}
