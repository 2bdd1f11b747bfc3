package layer2

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/layer2/internal/wire"
)

// fakeNIC is an interface with what can go wrong on it.
type fakeNIC struct {
	mu      sync.Mutex
	opens   []time.Time
	sockets []*fakeSocket
	frames  []string
	sent    []wire.Message // the same
	// errors of the calls to come
	openErr, writeErr, readErr, filterErr error
	// refused counts writes that failed.
	refused int
}

// joinTime is what a group costs.
const joinTime = 100 * time.Microsecond

type fakeSocket struct {
	nic     *fakeNIC
	family  family
	program []bpf.RawInstruction
	groups  map[netip.Addr]announce.MAC
	left    int // of the groups to join
	in      chan []byte
	closed  chan struct{}
}

func (n *fakeNIC) open(_ int, f family, program []bpf.RawInstruction) (socket, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.opens = append(n.opens, time.Now())
	if n.openErr != nil {
		return nil, n.openErr
	}
	s := &fakeSocket{nic: n, family: f, program: program, in: make(chan []byte), closed: make(chan struct{})}
	n.sockets = append(n.sockets, s)
	return s, nil
}

func (n *fakeNIC) fail(change func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change()
}

// opened counts the attempts to open a socket.
func (n *fakeNIC) opened() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.opens)
}

// socket is the newest one of the family.
func (n *fakeNIC) socket(f family) *fakeSocket {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range slices.Backward(n.sockets) {
		if s.family == f {
			return s
		}
	}
	return nil
}

func (n *fakeNIC) said() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := n.frames
	n.frames = nil
	return out
}

func (s *fakeSocket) Read(buffer []byte) (int, error) {
	s.nic.mu.Lock()
	err := s.nic.readErr
	s.nic.mu.Unlock()
	if err != nil {
		return 0, err
	}
	select {
	case frame := <-s.in:
		if frame == nil {
			return 0, unix.ENETDOWN
		}
		return copy(buffer, frame), nil
	case <-s.closed:
		return 0, context.Canceled
	}
}

func (s *fakeSocket) Write(frame []byte) error {
	s.nic.mu.Lock()
	defer s.nic.mu.Unlock()
	if s.nic.writeErr != nil {
		s.nic.refused++
		return s.nic.writeErr
	}
	m, err := wire.ParseFrame(frame)
	if err != nil {
		return err
	}
	s.nic.frames, s.nic.sent = append(s.nic.frames, text(&m)), append(s.nic.sent, m)
	return nil
}

func (s *fakeSocket) SetFilter(program []bpf.RawInstruction) error {
	s.nic.mu.Lock()
	defer s.nic.mu.Unlock()
	if s.nic.filterErr != nil && len(program) > 60 {
		return s.nic.filterErr
	}
	s.program = program
	return nil
}

func (s *fakeSocket) filter() []bpf.RawInstruction {
	s.nic.mu.Lock()
	defer s.nic.mu.Unlock()
	return s.program
}

func (s *fakeSocket) SetGroups(groups map[netip.Addr]announce.MAC) {
	s.nic.mu.Lock()
	defer s.nic.mu.Unlock()
	s.groups = groups
	s.left = len(groups)
}

func (s *fakeSocket) Join(limit int) (more bool, err error) {
	time.Sleep(time.Duration(min(s.left, limit)) * joinTime)
	s.nic.mu.Lock()
	defer s.nic.mu.Unlock()
	s.left -= min(s.left, limit)
	return s.left > 0, nil
}

func (s *fakeSocket) Close() error {
	close(s.closed)
	return nil
}

// start runs an Announcer on the fake until the test ends.
func (n *fakeNIC) start(t *testing.T) *Announcer {
	return n.startWith(t, Config{})
}

func (n *fakeNIC) startWith(t *testing.T, config Config) *Announcer {
	a := New(config)
	a.ports.open = n.open
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return a
}

func TestNoCapability(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nic := &fakeNIC{openErr: unix.EPERM}
		a := nic.start(t)
		a.Set(one(Certain, vip))
		time.Sleep(10500 * time.Millisecond)
		s := a.Status()
		if len(s.Problems) != 1 || !strings.Contains(s.Problems[0], "NET_RAW") || s.Announced != 0 {
			t.Errorf("status %+v", s)
		}
		if n := nic.opened(); n != 11 {
			t.Errorf("%d attempts in 10.5 s", n)
		}
		nic.fail(func() { nic.openErr = nil })
		time.Sleep(time.Second)
		if s = a.Status(); s.Problems != nil || s.Announced != 1 {
			t.Errorf("status %+v", s)
		}
		if said := nic.said(); len(said) < 2 || said[1] != "reply 192.0.2.10" {
			t.Errorf("said %q", said)
		}
	})
}

func TestDeadSocket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nic := &fakeNIC{readErr: unix.ENETDOWN}
		a := nic.start(t)
		a.Set(one(Certain, vip))
		time.Sleep(10500 * time.Millisecond)
		if n := nic.opened(); n != 11 {
			t.Errorf("%d sockets in 10.5 s: it spins", n)
		}
		nic.fail(func() { nic.readErr = nil })
		time.Sleep(10 * time.Second)
		opens := nic.opened()
		nic.said()
		nic.socket(ipv4).in <- nil // down
		time.Sleep(100 * time.Millisecond)
		if got := a.Status().Announced; got != 0 {
			t.Errorf("%d announced without a socket", got)
		}
		time.Sleep(950 * time.Millisecond)
		if nic.opened() != opens+1 || a.Status().Announced != 1 {
			t.Errorf("%d sockets more, status %+v", nic.opened()-opens, a.Status())
		}
		if said := nic.said(); !slices.Equal(said, []string{"announce 192.0.2.10", "reply 192.0.2.10"}) {
			t.Errorf("said %q", said)
		}
		// A sender finds out, too.
		opens = nic.opened()
		nic.fail(func() { nic.writeErr = unix.ENETDOWN })
		time.Sleep(time.Minute)
		nic.fail(func() { nic.writeErr = nil })
		if n := nic.opened() - opens; n < 2 || n > 61 {
			t.Errorf("%d sockets in a minute", n)
		}
	})
}

func TestNoBuffers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nic := &fakeNIC{writeErr: unix.ENOBUFS}
		a := nic.start(t)
		a.Set(wide(100, Certain))
		time.Sleep(time.Second)
		nic.fail(func() {
			if nic.refused == 0 || nic.refused > 30 {
				t.Errorf("%d attempts in a second", nic.refused)
			}
			nic.writeErr = nil
		})
		time.Sleep(200 * time.Millisecond)
		if said := nic.said(); len(said) != 200 {
			t.Errorf("%d of 200 first announcements", len(said))
		}
		if got := a.Status().Failed; got == 0 {
			t.Error("the failures are not counted")
		}
	})
}

func TestFilterTooLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nic := &fakeNIC{filterErr: unix.ENOMEM}
		a := nic.start(t)
		state := wide(1, Certain)
		a.Set(state)
		synctest.Wait()
		before := nic.socket(ipv4).filter()
		var scattered []netip.Addr
		for i, addr := range many(1000) {
			if i%2 == 0 {
				scattered = append(scattered, addr)
			}
		}
		state.Groups = []Group{{Addresses: scattered}}
		a.Set(state)
		time.Sleep(time.Second)
		if got := a.Status(); got.Problems != nil || got.Announced != 500 {
			t.Errorf("status %+v", got)
		}
		if slices.Equal(nic.socket(ipv4).filter(), before) {
			t.Error("the filter is the old one")
		}
	})
}

// TestFilterRefused: what cannot be filtered is no reason not to join the groups.
func TestFilterRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nic := &fakeNIC{filterErr: unix.EINVAL}
		a := nic.start(t)
		a.Set(one(Certain, vip6))
		synctest.Wait()
		addrs := []netip.Addr{vip6}
		for i := range 50 {
			addrs = append(addrs, netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: byte(4*i + 3)}))
		}
		a.Set(one(Certain, addrs...))
		time.Sleep(time.Second)
		nic.fail(func() {
			if got := len(nic.sockets[0].groups); got != len(addrs) {
				t.Errorf("%d of %d groups", got, len(addrs))
			}
			nic.filterErr = nil
		})
		if got := a.Status().Problems; len(got) != 1 || !strings.Contains(got[0], "optmem_max") {
			t.Errorf("problems %q", got)
		}
		time.Sleep(adjustTime)
		if got := a.Status().Problems; got != nil {
			t.Errorf("problems %q after the repair", got)
		}
	})
}

// TestManyGroups: while many groups are joined, which takes a second, everything
// else goes on.
func TestManyGroups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nic := new(fakeNIC)
		a := nic.start(t)
		addrs := []netip.Addr{vip}
		for i := range 10_000 {
			addrs = append(addrs, netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 14: byte(i >> 8), 15: byte(i)}))
		}
		addrs = slices.DeleteFunc(addrs, func(addr netip.Addr) bool { return addr == netip.MustParseAddr("2001:db8::1") })
		a.Set(one(Certain, addrs...))
		time.Sleep(50 * time.Millisecond)
		if s := a.Status(); s.Announced != len(addrs) {
			t.Errorf("%d announced", s.Announced)
		}
		if said := nic.said(); !slices.Contains(said, "reply 192.0.2.10") {
			t.Errorf("said %q", said)
		}
		time.Sleep(300 * time.Millisecond)
		if said := nic.said(); !slices.Contains(said, "announce 192.0.2.10") {
			t.Error("the second round waits")
		}
		nic.fail(func() {
			if nic.sockets[0].left == 0 && nic.sockets[1].left == 0 {
				t.Error("the groups have been joined already: the test shows nothing")
			}
		})
		time.Sleep(2 * time.Second)
		if left := nic.socket(ipv6).left; left > 0 {
			t.Errorf("%d groups are left to join", left)
		}
	})
}

func TestAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nic := new(fakeNIC)
		a := nic.start(t)
		a.Set(one(Certain, vip, vip6))
		time.Sleep(10 * time.Second)
		nic.said()
		nic.fail(func() {
			for _, s := range nic.sockets {
				if want := int(s.family); len(s.groups) != want {
					t.Errorf("%d groups of %v", len(s.groups), s.family)
				}
			}
		})
		nic.socket(ipv4).in <- wire.ARPProbe(thiefMAC, vip)
		nic.socket(ipv4).in <- wire.ARPProbe(nodeMAC, vip) // looped back
		nic.socket(ipv6).in <- wire.NDPProbe(thiefMAC, vip6)
		nic.socket(ipv6).in <- []byte("nonsense")
		synctest.Wait()
		if said := nic.said(); !slices.Equal(said, []string{"reply 192.0.2.10", "announce 2001:db8::10"}) {
			t.Errorf("said %q", said)
		}
		if s := a.Status(); s.Answered != 2 || s.Malformed != 1 || s.Announced != 2 {
			t.Errorf("status %+v", s)
		}

		// Removed: silence when Set returns, and no socket for it any more.
		socket6 := nic.socket(ipv6)
		a.Set(one(Certain, vip))
		if _, known := a.book.links[2].station.known[vip6]; known {
			t.Error("still known after Set")
		}
		synctest.Wait()
		select {
		case <-socket6.closed:
		default:
			t.Error("the socket is still open")
		}
	})
}

func TestChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nic := new(fakeNIC)
		var changes atomic.Int64
		a := nic.startWith(t, Config{Changed: func() { changes.Add(1) }})
		a.Set(one(Fresh, vip))
		time.Sleep(time.Second)
		if n := changes.Swap(0); n < 2 {
			t.Errorf("%d changes until announced", n)
		}
		a.Set(one(Fresh, vip))
		time.Sleep(5 * time.Minute)
		if n := changes.Load(); n != 0 {
			t.Errorf("%d changes without one", n)
		}
		nic.socket(ipv4).in <- wire.ARPAnnouncement(thiefMAC, vip)
		time.Sleep(time.Second)
		if n := changes.Load(); n != 1 {
			t.Errorf("%d changes by a conflict", n)
		}
	})
}

// TestConcurrent is for the race detector.
func TestConcurrent(t *testing.T) {
	nic := new(fakeNIC)
	a := nic.start(t)
	var workers sync.WaitGroup
	for i := range 4 {
		workers.Go(func() {
			for n := range 50 {
				a.Set(wide(1+(i+n)%20, Caution(n%3)))
				_ = a.Status()
				if s := nic.socket(ipv4); s != nil {
					select {
					case s.in <- wire.ARPAnnouncement(thiefMAC, netip.MustParseAddr("10.0.0.1")):
					case <-s.closed:
					}
				}
			}
		})
	}
	workers.Wait()
}
