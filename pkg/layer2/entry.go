package layer2

import (
	"net/netip"
	"slices"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

const (
	// probeCount and probeInterval make 300 ms from the first probe to the
	// decision. RFC 5227 section 1.1 has four to seven seconds, which a Service
	// would be late by.
	probeCount    = 3
	probeInterval = 100 * time.Millisecond
	// recheckInterval is how often a held address is probed again.
	recheckInterval = 10 * time.Second
	// yieldTime is how long the loser of two simultaneous probes waits, and who
	// has asked for what another node still answers for.
	yieldTime = time.Second
	// lateTime is how long after the decision an answer to the probes still
	// counts (like ANNOUNCE_WAIT of RFC 5227 section 1.1, which comes before it),
	// and lateWait how long it is waited for when there was one before.
	lateTime = 3 * time.Second
	lateWait = time.Second
)

// phase is how far an address is.
type phase int

const (
	// waiting: no interface has been found yet.
	waiting phase = iota
	// probing: the LAN is asked for the first time.
	probing
	// held: another host has the address.
	held
	// announced: the node answers for the address.
	announced
	// aside: another node announces the address, and this one covers for it or
	// stands by.
	aside
)

// entry is an address that the node is to announce, or may have to soon.
type entry struct {
	addr    netip.Addr
	caution Caution
	role    Role
	bound   bool // see want
	phase   phase
	// asking means that probes are sent: in the phase probing, and in held from
	// time to time.
	asking bool
	places []*place
	round  uint32 // of the Group
	quiet  bool   // the same
	// home are the names of the interfaces that the address was announced on
	// last; it does not forget an interface that has lost its carrier.
	home []string
	// recheckAt is when a held address is probed again.
	recheckAt time.Time
	// suspects have answered the probes and may be proxies.
	suspects []*suspect
	conflict *conflict
	// concluded is when the probes ended with nobody's answer, or zero; late means
	// that there was one after that.
	concluded time.Time
	late      bool
	// asserted is when the address was announced after a fellow's claim, assertAt
	// when it is to be again.
	asserted, assertAt time.Time

	wake  time.Time
	index int    // in wakes; -1 if it is not there
	used  uint64 // generation
}

// want makes the entry what the state wants it to be.
func (b *book) want(e *entry, w want, interfaces []Interface, now time.Time) {
	before, role := e.caution, e.role
	loud := e.quiet && !w.quiet
	e.caution, e.bound, e.role, e.quiet = w.caution, w.bound, w.role, w.quiet
	moved := b.move(e, w.links, interfaces, now)
	if e.role != Own {
		b.stepAside(e, w.owner, now)
		return
	}
	renewed := role == Own && e.phase == announced && (e.round != w.round || loud)
	e.round = w.round
	if renewed {
		for _, p := range e.places {
			p.begin(now)
		}
	}
	if !moved && before == w.caution && role == Own && !renewed {
		return
	}
	switch {
	case len(e.places) == 0:
	case e.caution == Certain && e.phase != announced:
		b.announce(e, now, false)
	case e.phase == aside:
		b.ask(e, now)
	case e.phase == held && !e.asking && before != e.caution:
		e.recheckAt = now
	case e.asking:
		b.conclude(e, now) // if it waited for an interface that is gone
	}
	b.schedule(e)
}

// move puts the entry on the interfaces, and reports whether anything changed.
func (b *book) move(e *entry, chosen []int, interfaces []Interface, now time.Time) bool {
	same := len(chosen) == len(e.places)
	for i := 0; same && i < len(chosen); i++ {
		same = e.places[i].link == b.links[interfaces[chosen[i]].Index]
	}
	if same {
		return false
	}
	b.changed, b.dirty = true, true
	places := make([]*place, 0, len(chosen))
	var gained []*place
	for _, i := range chosen {
		l := b.links[interfaces[i].Index]
		at := slices.IndexFunc(e.places, func(p *place) bool { return p.link == l })
		if at >= 0 {
			places = append(places, e.places[at])
			continue
		}
		p := &place{entry: e, link: l}
		l.places[e.addr] = p
		l.station.set(e.addr, p.duty, now)
		places = append(places, p)
		gained = append(gained, p)
	}
	for _, p := range e.places {
		if !slices.Contains(places, p) {
			b.leave(p)
		}
	}
	silent := len(e.places) == 0
	e.places = places
	e.suspects = slices.DeleteFunc(e.suspects, func(s *suspect) bool {
		return !slices.ContainsFunc(places, func(p *place) bool { return p.link == s.link })
	})
	if len(places) == 0 {
		b.setConflict(e, nil) // there is no LAN to have it on
		return true
	}
	if e.role != Own {
		return true
	}
	// Where the address was announced it may be announced again: the link was
	// down, or another one of several joins in. Elsewhere it is a new one, and
	// so it is when a fellow may have taken it over meanwhile.
	again := slices.ContainsFunc(places, func(p *place) bool { return slices.Contains(e.home, p.link.name) })
	if e.phase == announced && again && (!silent || e.caution != Doubtful) {
		e.home = names(places)
		for _, p := range gained {
			p.begin(now)
			p.do(duty{stance: answers}, now)
		}
		return true
	}
	if len(gained) > 0 {
		if e.caution == Certain {
			b.announce(e, now, false)
		} else {
			b.ask(e, now)
		}
	}
	return true
}

func names(places []*place) []string {
	if len(places) == 1 {
		return places[0].link.names // shared by the many addresses of a link
	}
	out := make([]string, 0, len(places))
	for _, p := range places {
		out = append(out, p.link.name)
	}
	return out
}

// announce begins to answer. If free, nobody else has the address.
func (b *book) announce(e *entry, now time.Time, free bool) {
	b.changed = true
	e.phase, e.asking, e.suspects, e.recheckAt = announced, false, nil, time.Time{}
	e.late, e.concluded = false, time.Time{}
	if free {
		e.concluded = now
	}
	e.home = names(e.places)
	for _, p := range e.places {
		p.begin(now)
		p.do(duty{stance: answers}, now)
	}
	if c := e.conflict; c != nil && c.Held {
		var left *conflict
		if !free && !b.fellows.has(c.MAC) {
			defended := *c
			defended.Held, defended.at = false, now
			left = &defended
		}
		b.setConflict(e, left)
	}
}

// ask begins to probe. Until nobody has answered, the address is not answered
// for.
func (b *book) ask(e *entry, now time.Time) {
	if e.phase != held {
		e.phase = probing
	}
	b.changed = true
	e.asking, e.suspects, e.recheckAt, e.assertAt = true, nil, time.Time{}, time.Time{}
	for _, p := range e.places {
		p.begin(now)
		p.do(duty{stance: listens}, now)
	}
}

// hold stops to answer, and asks again after some time.
func (b *book) hold(e *entry, now time.Time, again time.Duration) {
	b.changed = true
	e.phase, e.asking, e.suspects, e.assertAt = held, false, nil, time.Time{}
	e.recheckAt = now.Add(again)
	for _, p := range e.places {
		p.cancel()
		p.do(duty{stance: listens}, now)
	}
}

// stepAside leaves the address to another node: what was to be sent is taken back,
// and what was heard is forgotten.
func (b *book) stepAside(e *entry, owner map[string]announce.MAC, now time.Time) {
	if e.phase != aside {
		b.changed = true
		b.setConflict(e, nil)
		e.phase, e.asking, e.suspects, e.recheckAt = aside, false, nil, time.Time{}
		e.late, e.concluded, e.asserted, e.assertAt = false, time.Time{}, time.Time{}, time.Time{}
	}
	for _, p := range e.places {
		d := duty{stance: waits}
		if mac := owner[p.link.name]; e.role == Cover && mac != (announce.MAC{}) {
			d = duty{stance: covers, owner: mac}
		}
		if p.duty != d {
			b.changed = true
			p.cancel()
			p.do(d, now)
		}
	}
	b.schedule(e)
}

// yield holds the address because of what another host answered. A fellow may
// soon be told to stop.
func (b *book) yield(e *entry, l *link, mac announce.MAC, now time.Time) {
	again := recheckInterval
	if e.caution == Fresh && b.fellows.has(mac) {
		again = yieldTime
	}
	b.dispute(e, l, mac, now)
	b.hold(e, now, again)
}

// step does what is due.
func (b *book) step(e *entry, now time.Time) {
	if c := e.conflict; c != nil && !c.Held && !now.Before(c.at.Add(conflictTime)) {
		b.setConflict(e, nil)
	}
	if len(e.places) == 0 {
		return
	}
	if e.phase == held && !e.asking && !now.Before(e.recheckAt) {
		b.ask(e, now)
	}
	if e.asking {
		for _, p := range e.places {
			if p.round == probeCount && p.ripe(now) {
				p.done, p.due = true, time.Time{}
			}
		}
		b.conclude(e, now)
	}
	for _, p := range e.places {
		if p.ripe(now) {
			p.queue()
		}
	}
	if !e.assertAt.IsZero() && !now.Before(e.assertAt) {
		e.assertAt = time.Time{}
		if e.phase == announced {
			e.asserted = now
			for _, p := range e.places {
				p.assert(laterRound)
			}
		}
	}
}

// conclude ends the asking if it is over: on all interfaces that can be used,
// and there is one.
func (b *book) conclude(e *entry, now time.Time) {
	for _, s := range e.suspects {
		if s.decided(now) && !s.proxy {
			b.yield(e, s.link, s.mac, now)
			return
		}
	}
	pending := func(s *suspect) bool { return !s.decided(now) }
	if _, asked := e.progress(); asked && !slices.ContainsFunc(e.suspects, pending) {
		b.announce(e, now, true)
	}
}

// progress reports whether probes can be sent anywhere, and whether all that can
// be have been.
func (e *entry) progress() (begun, asked bool) {
	left := false
	for _, p := range e.places {
		if p.open() && (p.done || !p.lane().mute) {
			begun = true
			left = left || !p.done
		}
	}
	return begun, begun && !left
}

// deadline is when the entry has something to do next; zero is never.
func (e *entry) deadline() (at time.Time) {
	if c := e.conflict; c != nil && !c.Held {
		at = c.at.Add(conflictTime)
	}
	if len(e.places) == 0 {
		return at
	}
	if e.phase == held && !e.asking {
		at = earlier(at, e.recheckAt)
	}
	for _, p := range e.places {
		if p.open() && !p.queued {
			at = earlier(at, p.due)
		}
	}
	begun, asked := e.progress()
	for _, s := range e.suspects {
		if asked || begun && !s.proxy {
			at = earlier(at, s.until)
		}
	}
	return earlier(at, e.assertAt)
}
