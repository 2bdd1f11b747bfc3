package layer2

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/layer2/internal/wire"
)

// macs is a set of MAC addresses.
type macs map[announce.MAC]struct{}

func macSet(list []announce.MAC) macs {
	set := make(macs, len(list))
	for _, m := range list {
		set[m] = struct{}{}
	}
	return set
}

func (s macs) has(m announce.MAC) bool {
	_, found := s[m]
	return found
}

// ownMACs are those of all the node's interfaces, but for virtual routers'. What
// comes from one of them has been looped back and says nothing.
type ownMACs struct{ atomic.Pointer[macs] }

func (o *ownMACs) has(m announce.MAC) bool {
	set := o.Load()
	return set != nil && set.has(m)
}

// counters are what Status counts.
type counters struct {
	answered, answeredFor, gratuitous, probes, claims, malformed, dropped, failed atomic.Uint64
}

// answer counts one.
func (c *counters) answer(d duty) {
	if d.stance == covers {
		c.answeredFor.Add(1)
	} else {
		c.answered.Add(1)
	}
}

// duty is what a station does about an address.
type duty struct {
	stance stance
	// owner is who is covered.
	owner announce.MAC
}

type stance uint8

const (
	// listens: nobody is answered; the book hears who claims the address.
	listens stance = iota
	// answers: with the interface's own MAC address; the book hears who claims the
	// address, too.
	answers
	// covers: with the owner's. Claims are his business.
	covers
	// waits: nobody is answered, but who asks is remembered.
	waits
)

// station is what the readers of an interface's packets need to know: enough to
// answer without waiting for whoever changes the book. Its lock is held for the
// change of one address, and for the sending of one answer: once an address is
// out, no further answer leaves.
type station struct {
	own      *ownMACs
	checks   *checks
	counters *counters
	clock    func() time.Time
	asks     asks

	mu  sync.RWMutex
	mac announce.MAC
	// known are the addresses in the book, and those that it asks others for.
	known map[netip.Addr]duty
}

func (s *station) setMAC(mac announce.MAC) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mac = mac
}

// set changes a duty, and returns the requests that came a moment ago and are
// answered only now.
func (s *station) set(addr netip.Addr, d duty, now time.Time) (asked []wire.Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known[addr] = d
	if d.stance == answers || d.stance == covers {
		return s.asks.take(addr, now)
	}
	return nil
}

func (s *station) forget(addr netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.known, addr)
}

// receive does its duty about a frame. If the book has to know of it, tell is
// true.
func (s *station) receive(frame []byte, send func([]byte) error) (m wire.Message, tell bool) {
	m, err := wire.ParseFrame(frame)
	if err != nil {
		s.counters.malformed.Add(1)
		return m, false
	}
	if s.own.has(m.Source) {
		return m, false
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.own.has(m.SenderMAC) {
		s.check(&m)
		return m, false
	}
	if addr, asks := m.Asks(); asks {
		s.asked(addr, &m, send)
	}
	if addr, _, claims := m.Claims(); claims {
		if d, known := s.known[addr]; known && (d.stance == listens || d.stance == answers) {
			return m, true
		}
	}
	if m.Probe() {
		// Whoever probes for what is announced has had the answer.
		d, known := s.known[m.Target]
		tell = known && d.stance == listens
	}
	return m, tell
}

// asked answers a request for the address, or remembers it. The lock is held.
func (s *station) asked(addr netip.Addr, m *wire.Message, send func([]byte) error) {
	d, known := s.known[addr]
	switch {
	case !known || d.stance == listens:
	case d.stance == waits:
		s.asks.put(addr, m, s.clock())
	default:
		if err := send(s.compose(d, m)); err != nil {
			s.counters.failed.Add(1)
		} else {
			s.counters.answer(d)
		}
	}
}

// answer is what a request is answered with.
func (s *station) answer(d duty, m *wire.Message) []byte {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.compose(d, m)
}

// compose is answer. The lock is held.
func (s *station) compose(d duty, m *wire.Message) []byte {
	mac := s.mac
	if d.stance == covers {
		mac = d.owner
	}
	var frame []byte
	if m.Target.Is4() {
		frame = wire.ARPAnswer(mac, m.Target, m.SenderMAC, m.Sender)
	} else {
		frame = wire.NDPAnswer(mac, m.Target, m)
	}
	wire.SetSource(frame, s.mac)
	return frame
}
