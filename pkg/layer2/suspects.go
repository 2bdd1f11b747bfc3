package layer2

import (
	"net/netip"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

const (
	// questions are how often a suspect is asked, probeInterval apart, and
	// checkGrace is how long the questions may wait to be sent.
	questions  = 2
	checkGrace = 2 * time.Second
	// proxyTime and hostTime are how long the answer counts.
	proxyTime = time.Minute
	hostTime  = 5 * time.Second
	// maxSuspects bounds those of a link, maxAnswers those of an entry. One that
	// finds no room is taken for the host that it says it is.
	maxSuspects = 64
	maxAnswers  = 8
)

// checkTime is how long a suspect may take to answer. Proxies of NDP wait for up to
// a second (RFC 4861 section 7.2.8).
var checkTime = [families]time.Duration{ipv4: 300 * time.Millisecond, ipv6: 1100 * time.Millisecond}

// suspect is a MAC address that claimed one of our addresses and is asked
// whether it claims one of the node's own, too.
type suspect struct {
	link   *link
	family family
	mac    announce.MAC
	proxy  bool
	// sent counts the questions; the next one is due at next, unless it is queued.
	sent   int
	next   time.Time
	queued bool
	// until is when no answer is awaited any more, expires when the record is too
	// old to count.
	until, expires time.Time
}

type suspectKey struct {
	family family
	mac    announce.MAC
}

// decided reports whether proxy is known to be true or false.
func (s *suspect) decided(now time.Time) bool {
	return s.proxy || s.sent == questions && !now.Before(s.until) || !now.Before(s.until.Add(checkGrace))
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
	s := &suspect{link: l, family: f, mac: mac, until: now.Add(checkTime[f])}
	s.expires = s.until.Add(hostTime)
	l.suspects[key] = s
	if !l.watched[f].IsValid() {
		l.watched[f] = self
		l.station.set(self, duty{stance: listens}, now)
		b.dirty = true // the filter has to let the answer through
	}
	s.queue()
	return s
}

func (s *suspect) queue() {
	s.queued = true
	s.link.lanes[s.family].ready[atOnce].push(job{suspect: s})
}

// question asks for the node's own address: all hosts, then the suspect alone,
// for proxies put off what they answer to all.
func (s *suspect) question() []byte {
	frame := probe(s.link, s.link.watched[s.family])
	if s.sent > 0 {
		copy(frame, s.mac[:]) // the destination of the Ethernet header
	}
	return frame
}

// asked notes that a question has been sent.
func (s *suspect) asked(now time.Time) {
	s.sent++
	s.queued, s.next = false, now.Add(probeInterval)
	s.until = now.Add(checkTime[s.family])
	s.expires = s.until.Add(hostTime)
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

// watch goes on with the checks of a link's suspects, ends to listen when all are
// decided, and returns when there is more to do.
func (b *book) watch(l *link, now time.Time) (next time.Time) {
	for f := range families {
		if !l.watched[f].IsValid() {
			continue
		}
		over := true
		for _, s := range l.suspects {
			if s.family != f || s.decided(now) {
				continue
			}
			over = false
			at := s.until
			switch {
			case s.queued && !at.After(now):
				at = now.Add(slotTime)
			case !s.queued && s.sent < questions && s.next.After(now):
				at = s.next
			case !s.queued && s.sent < questions:
				s.queue()
				at = now
			}
			next = earlier(next, at)
		}
		if over {
			b.ignore(l, f)
		}
	}
	return next
}

// ignore ends to listen to the node's own address.
func (b *book) ignore(l *link, f family) {
	if l.places[l.watched[f]] == nil {
		l.station.forget(l.watched[f])
	}
	l.watched[f] = netip.Addr{}
	b.dirty = true
}
