package layer2

import (
	"net/netip"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

const (
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
