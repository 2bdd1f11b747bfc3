package layer2

import (
	"net/netip"
	"sync"
	"sync/atomic"

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
	answered, gratuitous, probes, claims, malformed, dropped, failed atomic.Uint64
}

// station is what the readers of an interface's packets need to know: enough to
// answer without waiting for whoever changes the book. Its lock is held for the
// change of one address, and for the sending of one answer: once an address is
// out, no further answer leaves.
type station struct {
	own      *ownMACs
	counters *counters

	mu  sync.RWMutex
	mac announce.MAC
	// known are the addresses that the book wants to hear about, and whether
	// they are answered for.
	known map[netip.Addr]bool
}

func (s *station) setMAC(mac announce.MAC) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mac = mac
}

func (s *station) set(addr netip.Addr, answered bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known[addr] = answered
}

func (s *station) forget(addr netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.known, addr)
}

// receive answers the frame if it asks for an address that is answered for. If
// the book has to know of it, tell is true.
func (s *station) receive(frame []byte, send func([]byte) error) (m wire.Message, tell bool) {
	m, err := wire.ParseFrame(frame)
	if err != nil {
		s.counters.malformed.Add(1)
		return m, false
	}
	if s.own.has(m.Source) || s.own.has(m.SenderMAC) {
		return m, false
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if addr, asks := m.Asks(); asks && s.known[addr] {
		if err := send(s.answer(addr, &m)); err != nil {
			s.counters.failed.Add(1)
		} else {
			s.counters.answered.Add(1)
		}
	}
	if addr, _, claims := m.Claims(); claims {
		if _, tell = s.known[addr]; tell {
			return m, true
		}
	}
	if m.Probe() {
		// Whoever probes for what is announced has had the answer.
		answered, known := s.known[m.Target]
		tell = known && !answered
	}
	return m, tell
}

func (s *station) answer(addr netip.Addr, m *wire.Message) []byte {
	if addr.Is4() {
		return wire.ARPAnswer(s.mac, addr, m.SenderMAC, m.Sender)
	}
	return wire.NDPAnswer(s.mac, addr, m)
}
