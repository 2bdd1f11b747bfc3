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
		} else if p := l.places[addr]; p != nil && p.entry.phase != aside {
			if b.fellows.has(mac) {
				b.claimedByFellow(p, mac, now)
			} else {
				b.counters.claims.Add(1)
				b.claimed(p, m, now)
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
func (b *book) claimed(p *place, m *wire.Message, now time.Time) {
	e, mac := p.entry, m.SenderMAC
	switch {
	case wire.IsVirtualRouter(mac):
		b.note(e, p.link, mac, false, true, now)
	case e.asking:
		b.answered(p, mac, now)
	case e.phase == announced && e.isLate(m, now):
		b.answeredLate(p, mac, now)
	case e.phase == announced:
		s := b.suspect(p.link, familyOf(e.addr), mac, now)
		proxy := s != nil && s.proxy
		b.note(e, p.link, mac, false, proxy, now)
		if !proxy && (p.defended.IsZero() || now.Sub(p.defended) >= defendInterval) {
			p.defended = now
			p.assert(atOnce)
		}
	}
}

// claimedByFellow is that another node claims the address.
func (b *book) claimedByFellow(p *place, mac announce.MAC, now time.Time) {
	e := p.entry
	switch {
	case e.asking && (e.caution == Doubtful || e.caution == Fresh && !e.bound):
		b.answered(p, mac, now)
	case e.phase == announced && e.caution == Doubtful:
		// Two owners are worse than none, hence no wait for the check.
		if s := b.suspect(p.link, familyOf(e.addr), mac, now); s != nil && s.proxy {
			b.note(e, p.link, mac, false, true, now)
		} else {
			b.yield(e, p.link, mac, now)
		}
	case e.phase == announced && e.assertAt.IsZero():
		e.assertAt = now.Add(assertDelay)
		if next := e.asserted.Add(defendInterval); !e.asserted.IsZero() && next.After(e.assertAt) {
			e.assertAt = next
		}
	}
}

// answered is that another host claims what the LAN is asked for. It may be a
// proxy.
func (b *book) answered(p *place, mac announce.MAC, now time.Time) {
	e := p.entry
	s := b.suspect(p.link, familyOf(e.addr), mac, now)
	switch {
	case s != nil && s.proxy:
		b.note(e, p.link, mac, false, true, now)
	case s == nil || s.decided(now) || len(e.suspects) >= maxAnswers:
		b.yield(e, p.link, mac, now)
	case !slices.Contains(e.suspects, s):
		e.suspects = append(e.suspects, s)
	}
}

// isLate reports whether the claim is an answer to the last probes, rather than
// to the announcements since. Probes by NDP have no sender, so that their answers
// go to all nodes (RFC 4861 section 7.2.4).
func (e *entry) isLate(m *wire.Message, now time.Time) bool {
	if e.caution == Certain || e.concluded.IsZero() || now.Sub(e.concluded) >= lateTime {
		return false
	}
	return m.Kind == wire.Advertisement || m.Kind == wire.ARPReply && m.Destination[0]&1 == 0
}

// answeredLate is that a host answered the probes after they were concluded. Not
// to answer for the address once more is better than to defend it against the
// one who had it before.
func (b *book) answeredLate(p *place, mac announce.MAC, now time.Time) {
	e := p.entry
	if s := b.suspect(p.link, familyOf(e.addr), mac, now); s != nil && s.proxy {
		b.note(e, p.link, mac, false, true, now)
		return
	}
	b.ask(e, now)
	e.late = true
	b.answered(p, mac, now)
}

// probed is that another host probes for the address at the same time.
func (b *book) probed(p *place, mac announce.MAC, now time.Time) {
	e := p.entry
	switch {
	case !b.fellows.has(mac):
		// RFC 5227 section 2.1.1. Two such hosts hold the address both; which of
		// them is right, people have to say.
		b.counters.claims.Add(1)
		b.dispute(e, p.link, mac, now)
		b.hold(e, now, recheckInterval)
	case e.caution == Doubtful && p.link.mac.Compare(mac) > 0:
		b.dispute(e, p.link, mac, now)
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
