package layer2

import (
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
)

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
