package layer2

import (
	"net/netip"
	"slices"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/layer2/internal/wire"
)

const (
	// defendInterval is DEFEND_INTERVAL of RFC 5227 section 1.1.
	defendInterval = 10 * time.Second
	// assertDelay is how long after a fellow's claim the address is announced
	// once more. In a handover the old owner hears the new one before it is told
	// to stop: it must not steal the address back.
	assertDelay = time.Second
	// conflictTime is how long a conflict is reported after the last claim.
	conflictTime = 5 * time.Minute
	// conflictPace is how often another MAC address is noted for the same one.
	conflictPace = time.Second
	// maxConflicts bounds what a hostile host can make the report hold.
	maxConflicts = 1024

	// checkTime is how long a suspect may take to answer, and checkGrace how
	// long the question may wait to be sent.
	checkTime  = 200 * time.Millisecond
	checkGrace = 2 * time.Second
	// proxyTime and hostTime are how long the answer counts.
	proxyTime = time.Minute
	hostTime  = 5 * time.Second
	// maxSuspects bounds those of a link, maxAnswers those of an entry. One that
	// finds no room is taken for the host that it says it is.
	maxSuspects = 64
	maxAnswers  = 8
)

// conflict is an announce.Conflict with its times.
type conflict struct {
	announce.Conflict
	noted, at time.Time // first and last claim
}

// suspect is a MAC address that claimed one of our addresses and is asked
// whether it claims one of the node's own, too.
type suspect struct {
	link        *link
	family      family
	mac         announce.MAC
	sent, proxy bool
	until       time.Time
	expires     time.Time
}

type suspectKey struct {
	family family
	mac    announce.MAC
}

// decided reports whether proxy is known to be true or false.
func (s *suspect) decided(now time.Time) bool {
	return s.proxy || s.sent && !now.Before(s.until) || !now.Before(s.until.Add(checkGrace))
}

// hear takes what a station passed on.
func (b *book) hear(l *link, m *wire.Message, now time.Time) {
	if b.links[l.index] != l {
		return
	}
	if addr, mac, claims := m.Claims(); claims {
		f := familyOf(addr)
		if addr == l.watched[f] {
			b.unmask(l.suspects[suspectKey{f, mac}], now)
		} else if p := l.places[addr]; p != nil {
			if b.fellows.has(mac) {
				b.claimedByFellow(p, mac, now)
			} else {
				b.counters.claims.Add(1)
				b.claimed(p, mac, now)
			}
			b.schedule(p.entry)
		}
	}
	if m.Probe() {
		if p := l.places[m.Target]; p != nil && p.entry.asking {
			b.probed(p, m.SenderMAC, now)
			b.schedule(p.entry)
		}
	}
}

// claimed is that a host which is no node claims the address.
func (b *book) claimed(p *place, mac announce.MAC, now time.Time) {
	e := p.entry
	if wire.IsVirtualRouter(mac) {
		b.note(e, p.link, mac, false, true, now)
		return
	}
	switch {
	case e.phase == announced:
		s := b.suspect(p.link, familyOf(e.addr), mac, now)
		proxy := s != nil && s.proxy
		b.note(e, p.link, mac, false, proxy, now)
		if !proxy && (e.defended.IsZero() || now.Sub(e.defended) >= defendInterval) {
			e.defended = now
			p.assert(atOnce)
		}
	case e.asking:
		s := b.suspect(p.link, familyOf(e.addr), mac, now)
		switch {
		case s != nil && s.proxy:
			b.note(e, p.link, mac, false, true, now)
		case s == nil || s.decided(now) || len(e.suspects) >= maxAnswers:
			b.dispute(e, p.link, mac, true, now)
			b.hold(e, now, recheckInterval)
		case !slices.Contains(e.suspects, s):
			e.suspects = append(e.suspects, s)
		}
	}
}

// claimedByFellow is that another node claims the address.
func (b *book) claimedByFellow(p *place, mac announce.MAC, now time.Time) {
	e := p.entry
	switch {
	case e.caution == Doubtful && (e.asking || e.phase == announced):
		b.dispute(e, p.link, mac, true, now)
		b.hold(e, now, recheckInterval)
	case e.phase == announced && e.assertAt.IsZero():
		e.assertAt = now.Add(assertDelay)
		if next := e.asserted.Add(defendInterval); !e.asserted.IsZero() && next.After(e.assertAt) {
			e.assertAt = next
		}
	}
}

// probed is that another host probes for the address at the same time.
func (b *book) probed(p *place, mac announce.MAC, now time.Time) {
	e := p.entry
	switch {
	case !b.fellows.has(mac):
		// RFC 5227 section 2.1.1. Two such hosts hold the address both; which of
		// them is right, people have to say.
		b.counters.claims.Add(1)
		b.dispute(e, p.link, mac, true, now)
		b.hold(e, now, recheckInterval)
	case e.caution == Doubtful && p.link.mac.Compare(mac) > 0:
		b.dispute(e, p.link, mac, true, now)
		b.hold(e, now, yieldTime)
	}
}

// suspect is the record of a MAC address, which is asked if that is new. It is
// nil if there is no way to ask.
func (b *book) suspect(l *link, f family, mac announce.MAC, now time.Time) *suspect {
	key := suspectKey{f, mac}
	if s := l.suspects[key]; s != nil && now.Before(s.expires) {
		return s
	}
	if len(l.suspects) >= maxSuspects {
		for k, s := range l.suspects {
			if !now.Before(s.expires) {
				delete(l.suspects, k)
			}
		}
	}
	self := l.self[f]
	if !self.IsValid() || !l.open[f] || len(l.suspects) >= maxSuspects || l.places[self] != nil {
		return nil
	}
	if l.watched[f].IsValid() && l.watched[f] != self {
		return nil // the node's address has just changed
	}
	s := &suspect{link: l, family: f, mac: mac, until: now.Add(checkTime)}
	s.expires = s.until.Add(hostTime)
	l.suspects[key] = s
	if !l.watched[f].IsValid() {
		l.watched[f] = self
		l.station.set(self, false)
		b.dirty = true // the filter has to let the answer through
	}
	l.ready[atOnce].push(job{suspect: s})
	return s
}

// unmask marks a suspect that claims the node's own address as a proxy.
func (b *book) unmask(s *suspect, now time.Time) {
	if s == nil || s.proxy {
		return
	}
	s.proxy = true
	s.expires = now.Add(proxyTime)
	for _, p := range s.link.places {
		if c := p.entry.conflict; c != nil && c.MAC == s.mac && c.Interface == s.link.name && !c.Held {
			c.Proxy = true
			b.changed = true
		}
	}
}

// unwatch ends the check of a link's suspects when all are decided. Otherwise it
// returns when they will be.
func (b *book) unwatch(l *link, now time.Time) (next time.Time) {
	for f := range families {
		if !l.watched[f].IsValid() {
			continue
		}
		var until time.Time
		for _, s := range l.suspects {
			if s.family == f && !s.decided(now) {
				until = s.until
				if !until.After(now) {
					until = now.Add(slotTime) // it has not been asked yet
				}
				break
			}
		}
		if until.IsZero() {
			l.station.forget(l.watched[f])
			l.watched[f] = netip.Addr{}
			b.dirty = true
		}
		next = earlier(next, until)
	}
	return next
}

// dispute notes the claim of a host that may rightly have the address.
func (b *book) dispute(e *entry, l *link, mac announce.MAC, held bool, now time.Time) {
	b.note(e, l, mac, held, false, now)
}

// note records a claim for the report: one for each address, the last one, but
// hosts before proxies.
func (b *book) note(e *entry, l *link, mac announce.MAC, held, proxy bool, now time.Time) {
	c := conflict{noted: now, at: now, Conflict: announce.Conflict{
		Address: e.addr, Interface: l.name, MAC: mac, Held: held, Proxy: proxy,
	}}
	if old := e.conflict; old != nil {
		switch {
		case old.Conflict == c.Conflict, old.Held == held && now.Sub(old.noted) < conflictPace:
			old.at = now
			return
		case proxy && !old.Proxy && old.MAC != mac:
			return
		}
	}
	b.setConflict(e, &c)
}

func (b *book) setConflict(e *entry, c *conflict) {
	if e.conflict == nil && c != nil {
		if b.conflicts >= maxConflicts {
			return
		}
		b.conflicts++
	}
	if e.conflict != nil && c == nil {
		b.conflicts--
	}
	if e.conflict != c {
		e.conflict = c
		b.changed = true
	}
}

// forgive is that the fellows have changed: what was a foreign host may be a
// node that is new.
func (b *book) forgive(e *entry, now time.Time) {
	c := e.conflict
	if c == nil || !b.fellows.has(c.MAC) {
		return
	}
	switch {
	case e.phase == announced:
		b.setConflict(e, nil)
	case e.phase == held && !e.asking && e.caution != Doubtful:
		e.recheckAt = now
	}
	b.schedule(e)
}
