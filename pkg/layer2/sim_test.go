package layer2

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/layer2/internal/wire"
)

var (
	nodeMAC   = announce.MAC{2, 0, 0x5e, 0, 0x53, 1}
	otherNIC  = announce.MAC{2, 0, 0x5e, 0, 0x53, 2}
	fellowMAC = announce.MAC{2, 0, 0x5e, 0, 0x53, 0x10}
	lowFellow = announce.MAC{2, 0, 0x5e, 0, 0x53, 0}
	thiefMAC  = announce.MAC{2, 0, 0x5e, 0, 0x53, 0x66}
	vrrpMAC   = announce.MAC{0, 0, 0x5e, 0, 1, 7}

	vip  = netip.MustParseAddr("192.0.2.10")
	vip6 = netip.MustParseAddr("2001:db8::10")
	self = netip.MustParseAddr("192.0.2.1")
)

func eth(n int) Interface {
	return Interface{
		Index: n + 2, Name: fmt.Sprintf("eth%d", n), MAC: announce.MAC{2, 0, 0x5e, 0, 0x53, byte(n + 1)}, Carrier: true,
		Prefixes: []netip.Prefix{
			netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("fe80::1/64"), netip.MustParsePrefix("2001:db8::1/64"),
		},
	}
}

func one(caution Caution, addrs ...netip.Addr) State {
	return State{
		Interfaces: []Interface{eth(0)},
		Groups:     []Group{{Addresses: addrs, Caution: caution}},
		Fellows:    []announce.MAC{fellowMAC, lowFellow},
	}
}

// sim is a book with a clock and a LAN.
type sim struct {
	t     *testing.T
	b     *book
	start time.Time
	now   time.Time
	log   []string
	// refuse, if set, says why a frame is not sent.
	refuse error
	// refuses, if set, says which frames are not sent.
	refuses func(l *link, f family, frame []byte) bool
	// reply, if set, sees each frame.
	reply func(l *link, m *wire.Message)
	count int
}

func newSim(t *testing.T) *sim {
	start := time.Unix(1_800_000_000, 0)
	s := &sim{t: t, b: newBook(), start: start, now: start}
	s.b.clock = func() time.Time { return s.now }
	return s
}

func (s *sim) set(state State) {
	s.b.apply(compile(&state), s.now)
	s.ports()
}

// ports opens and closes as an Announcer would.
func (s *sim) ports() {
	s.b.dirty = false
	wanted := make(map[portKey]bool)
	for _, w := range s.b.wanted() {
		wanted[portKey{w.link, w.family}] = true
		if !w.link.open[w.family] {
			s.b.opened(w.link, w.family, s.now)
		}
	}
	for _, l := range s.b.links {
		for f := range families {
			if l.open[f] && !wanted[portKey{l, f}] {
				s.b.closed(l, f, s.now)
			}
		}
	}
}

func (s *sim) run(d time.Duration) {
	s.t.Helper()
	end := s.now.Add(d)
	for range 10_000_000 {
		if s.b.dirty {
			s.ports()
		}
		next := s.b.turn(s.now, s.send)
		if next.IsZero() || next.After(end) {
			s.now = end
			return
		}
		if next.After(s.now) {
			s.now = next
		}
	}
	s.t.Fatal("the book does not come to rest")
}

func (s *sim) send(l *link, f family, frame []byte) error {
	if s.refuse != nil {
		return s.refuse
	}
	if s.refuses != nil && s.refuses(l, f, frame) {
		return unix.ENOBUFS
	}
	m, err := wire.ParseFrame(frame)
	if err != nil {
		s.t.Fatalf("sent %x: %v", frame, err)
	}
	if !l.open[f] {
		s.t.Fatalf("sent to closed %s: %x", l.name, frame)
	}
	s.count++
	if s.reply == nil || s.count < 1000 {
		s.log = append(s.log, fmt.Sprintf("%v %s %s", s.now.Sub(s.start), l.name, text(&m)))
	}
	if s.reply != nil {
		s.reply(l, &m)
	}
	return nil
}

func text(m *wire.Message) string {
	switch {
	case m.Probe():
		return fmt.Sprintf("probe %v", m.Target)
	case m.Kind == wire.ARPReply:
		return fmt.Sprintf("reply %v", m.Sender)
	case m.Kind == wire.Advertisement, m.Kind == wire.ARPRequest && m.Sender == m.Target:
		return fmt.Sprintf("announce %v", m.Target)
	}
	return fmt.Sprintf("%v %v", m.Kind, m.Target)
}

// said compares what was sent since the last call.
func (s *sim) said(want ...string) {
	s.t.Helper()
	if diff := cmp.Diff(want, s.log, cmp.Transformer("lines", func(l []string) string { return strings.Join(l, "\n") })); diff != "" {
		s.t.Errorf("sent (-want +got):\n%s", diff)
	}
	s.log = nil
}

// unquestioned forgets the questions for the node's own address.
func (s *sim) unquestioned() {
	s.log = slices.DeleteFunc(s.log, func(line string) bool { return strings.HasSuffix(line, " probe "+self.String()) })
}

func (s *sim) silent() {
	s.t.Helper()
	if len(s.log) > 0 {
		s.t.Errorf("sent:\n%s", strings.Join(s.log, "\n"))
	}
	s.log = nil
}

// claim is a gratuitous announcement by another host.
func (s *sim) claim(addr netip.Addr, by announce.MAC) {
	m := wire.Message{Kind: wire.ARPRequest, Source: by, Sender: addr, SenderMAC: by, Target: addr}
	if addr.Is6() {
		m.Kind = wire.Advertisement
	}
	s.hear(m)
}

// probe is another host's.
func (s *sim) probe(addr netip.Addr, by announce.MAC) {
	m := wire.Message{Kind: wire.ARPRequest, Source: by, Sender: netip.IPv4Unspecified(), SenderMAC: by, Target: addr}
	if addr.Is6() {
		m.Kind, m.Sender = wire.Solicitation, netip.IPv6Unspecified()
	}
	s.hear(m)
}

func (s *sim) hear(m wire.Message) {
	for _, l := range s.b.links {
		if l.name == "eth0" {
			s.b.hear(l, &m, s.now)
		}
	}
}

func (s *sim) is(addr netip.Addr, want phase) {
	s.t.Helper()
	e := s.b.entries[addr]
	if e == nil {
		s.t.Fatalf("%v is not in the book", addr)
	}
	if e.phase != want {
		s.t.Errorf("at %v, %v is in phase %d, want %d", s.now.Sub(s.start), addr, e.phase, want)
	}
	for _, p := range e.places {
		if d, known := p.link.station.known[addr]; !known || d != p.duty || (d.stance == answers) != (want == announced) {
			s.t.Errorf("at %v, %v on %s: known %v, duty %+v in phase %d", s.now.Sub(s.start), addr, p.link.name, known, d, want)
		}
	}
}

func (s *sim) conflicts(want ...announce.Conflict) {
	s.t.Helper()
	if diff := cmp.Diff(want, s.b.status().Conflicts, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		s.t.Errorf("at %v: conflicts (-want +got):\n%s", s.now.Sub(s.start), diff)
	}
}

func conflictOf(addr netip.Addr, mac announce.MAC, held, proxy bool) announce.Conflict {
	return announce.Conflict{Address: addr, Interface: "eth0", MAC: mac, Held: held, Proxy: proxy}
}
