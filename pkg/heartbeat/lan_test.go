package heartbeat

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

// lan is a LAN in memory, with Exchanges on it. All its time is that of a bubble of
// testing/synctest.
type lan struct {
	t     *testing.T
	hosts []*host

	mu sync.Mutex
	// fate is what becomes of a frame: after which delays it arrives. nil means once
	// and soon.
	fate func(f datagram) []time.Duration
	// seen are all frames that were sent, for who records them.
	seen []datagram
	deaf map[netip.Addr]bool // whose frames arrive nowhere, and who receives none
}

// datagram is a packet on the LAN.
type datagram struct {
	from, to netip.Addr
	data     []byte
}

const (
	lanDelay = 200 * time.Microsecond
	lanLink  = 1
)

// bystander is a host that is no node.
var bystander = netip.MustParseAddr("192.0.2.200")

// host is a node.
type host struct {
	lan     *lan
	index   int
	addr    netip.Addr
	state   State
	change  func(*Config) // of the next process
	powered bool

	// Of the process.
	x       *Exchange
	stop    func()
	changed chan struct{}

	// Of lan.mu.
	socket *fakeConn
	opens  int
	// openErr is what opening a socket returns, readErr what reading does at once.
	openErr, readErr error
}

var errNoNeighbour = errors.New("nobody is to be asked")

// newLAN is a LAN of n nodes whose processes run; the first one owns the address.
func newLAN(t *testing.T, n int, change ...func(*host)) *lan {
	l := &lan{t: t, deaf: make(map[netip.Addr]bool)}
	for i := range n {
		h := &host{lan: l, index: i, addr: nodeAddr(i), powered: true}
		h.state = l.state(i, n)
		for _, f := range change {
			f(h)
		}
		l.hosts = append(l.hosts, h)
	}
	for _, h := range l.hosts {
		h.start()
	}
	t.Cleanup(func() {
		for _, h := range l.hosts {
			h.kill()
		}
	})
	return l
}

// state is that of a node of n.
func (l *lan) state(i, n int) State {
	s := State{
		Cluster: "cluster", Node: nodeName(i), Keys: testKeys, Grace: time.Minute,
		Links: []Link{{Index: lanLink, Name: "eth0", Prefixes: []netip.Prefix{netip.PrefixFrom(nodeAddr(i), 24)}, Witnesses: []netip.Addr{bystander}}},
	}
	g := Group{Addresses: []netip.Addr{virtual}, Epoch: 1, Links: []int{lanLink}}
	for j := range n {
		g.Candidates = append(g.Candidates, nodeName(j))
		s.Fellows = append(s.Fellows, announce.Node{Name: nodeName(j), Links: []announce.Link{
			{Name: "eth0", MAC: nodeMAC(j), Prefixes: []netip.Prefix{netip.PrefixFrom(nodeAddr(j), 24)}},
		}})
	}
	s.Groups = []Group{g}
	return s
}

// start begins a process.
func (h *host) start() {
	h.changed = make(chan struct{}, 1)
	changed := h.changed
	config := Config{
		Changed: func() {
			select {
			case changed <- struct{}{}:
			default:
			}
		},
		Prober: h, Checker: h,
		API:       func(context.Context) error { return errors.New("the API server is away") },
		Neighbors: func(int) []netip.Addr { return nil },
	}
	if h.change != nil {
		h.change(&config)
	}
	h.x = New(config)
	h.x.open = h.open
	h.x.Set(h.state)
	ctx, cancel := context.WithCancel(h.lan.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := h.x.Run(ctx); err != nil {
			h.lan.t.Errorf("Run: %v", err)
		}
	}()
	h.stop = func() { cancel(); <-done }
}

// kill ends the process.
func (h *host) kill() {
	if h.stop != nil {
		h.stop()
		h.stop = nil
	}
}

// powerOff ends the kernel, too.
func (h *host) powerOff() {
	h.with(func() { h.powered = false })
	h.kill()
}

func (h *host) open(_ context.Context, name string, v4 bool) (conn, error) {
	h.lan.mu.Lock()
	defer h.lan.mu.Unlock()
	h.opens++
	if name != "eth0" || !v4 {
		h.lan.t.Errorf("a socket on %q, IPv4 %v", name, v4)
	}
	if h.openErr != nil {
		return nil, h.openErr
	}
	h.socket = &fakeConn{host: h, events: make(chan arrival, 4096), closed: make(chan struct{}), failure: h.readErr}
	return h.socket, nil
}

// with calls f with the lock of what the test and the process share.
func (h *host) with(f func()) {
	h.lan.mu.Lock()
	defer h.lan.mu.Unlock()
	f()
}

// port is the socket.
func (h *host) port() (c *fakeConn) {
	h.with(func() { c = h.socket })
	return c
}

// opened is how many sockets were opened, or tried.
func (h *host) opened() (n int) {
	h.with(func() { n = h.opens })
	return n
}

// Listen is of Prober.
func (h *host) Listen(map[int][]netip.Addr) {}

// Ask is of Prober.
func (h *host) Ask(link int, to netip.Addr, mac announce.MAC) error {
	x := h.x
	time.AfterFunc(lanDelay, func() {
		if mac, ok := h.lan.resolve(h, to, mac); ok {
			x.Answered(link, to, mac, true)
		}
	})
	return nil
}

// Check and Arrived are of Checker.
func (h *host) Check(int, netip.Addr, announce.MAC) error { return errNoNeighbour }
func (h *host) Arrived() map[announce.MAC]uint8           { return nil }

// resolve is who answers a question.
func (l *lan) resolve(from *host, to netip.Addr, mac announce.MAC) (announce.MAC, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.deaf[from.addr] || l.deaf[to] {
		return announce.MAC{}, false
	}
	if to == bystander {
		return announce.MAC{2, 9}, true
	}
	for _, h := range l.hosts {
		if h.addr == to && h.powered && nodeMAC(h.index) == mac {
			return mac, true
		}
	}
	return announce.MAC{}, false
}

// send puts a datagram on the LAN.
func (l *lan) send(f datagram) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen = append(l.seen, f)
	if l.deaf[f.from] || l.deaf[f.to] {
		return
	}
	delays := []time.Duration{lanDelay}
	if l.fate != nil {
		delays = l.fate(f)
	}
	for _, d := range delays {
		time.AfterFunc(d, func() { l.deliver(f, hops) })
	}
}

// deliver lets a datagram arrive.
func (l *lan) deliver(f datagram, hops int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, h := range l.hosts {
		if h.addr != f.to || !h.powered {
			continue
		}
		if h.socket == nil || !h.socket.put(arrival{event: event{hops: hops}, data: f.data}) {
			for _, sender := range l.hosts { // ICMP
				if sender.addr == f.from && sender.socket != nil {
					sender.socket.put(arrival{event: event{refused: f.to}})
				}
			}
		}
	}
}

// arrival is what a socket receives.
type arrival struct {
	event
	data []byte
}

// fakeConn is a socket on the LAN.
type fakeConn struct {
	host    *host
	events  chan arrival
	once    sync.Once
	closed  chan struct{}
	failure error

	mu      sync.Mutex
	self    id
	fellows []id
	dropped uint32
}

// put reports whether the socket is open.
func (c *fakeConn) put(a arrival) bool {
	select {
	case <-c.closed:
		return false
	default:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !a.refused.IsValid() && !c.admits(a.data) {
		c.dropped++
		return true
	}
	a.dropped = c.dropped
	select {
	case c.events <- a:
	default:
		c.dropped++ // there is no room
	}
	return true
}

// admits is what admission makes the kernel do.
func (c *fakeConn) admits(data []byte) bool {
	return len(data) >= 20 && bytes.Equal(data[12:20], c.self.octets()) &&
		slices.ContainsFunc(c.fellows, func(f id) bool { return bytes.Equal(data[4:12], f.octets()) })
}

func (i id) octets() []byte {
	p := packet{from: i}
	return p.append(nil)[4:12]
}

func (c *fakeConn) Receive(buffer []byte) (event, error) {
	if c.failure != nil {
		return event{}, c.failure
	}
	select {
	case <-c.closed:
		return event{}, net.ErrClosed
	case a := <-c.events:
		a.n = copy(buffer, a.data)
		return a.event, nil
	}
}

func (c *fakeConn) Send(data []byte, to route) error {
	c.host.lan.send(datagram{c.host.addr, to.to, bytes.Clone(data)})
	return nil
}

func (c *fakeConn) Admit(self id, fellows []id) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.self, c.fellows = self, fellows
	return nil
}

func (c *fakeConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return nil
}

func (h *host) role() Role { return h.x.Decisions()[virtual].Role }

// hears is what the node knows of another one.
func (h *host) hears(other *host) Liveness {
	for _, a := range h.x.Adjacencies() {
		if a.Node == nodeName(other.index) {
			return a.Liveness
		}
	}
	return Dead
}

// pass lets time pass, and calls check every few milliseconds.
func (l *lan) pass(d time.Duration, check func()) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
		synctest.Wait()
		if check != nil {
			check()
		}
	}
}

// after is how long it takes until something is so.
func (l *lan) after(what string, limit time.Duration, is func() bool) time.Duration {
	l.t.Helper()
	start := time.Now()
	for !is() {
		if time.Since(start) > limit {
			l.t.Fatalf("not %s within %v", what, limit)
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
	}
	return time.Since(start)
}

// settle waits until all nodes hear each other and the first one owns the address.
func (l *lan) settle() {
	l.t.Helper()
	l.after("settled", 2*time.Second, func() bool {
		for _, h := range l.hosts {
			if !h.well() {
				return false
			}
		}
		return true
	})
	l.pass(time.Second, nil)
}

// well reports whether the node is in its place and hears all others.
func (h *host) well() bool {
	want := Standby
	if h.index == 0 {
		want = Own
	}
	return h.role() == want && !slices.ContainsFunc(h.x.Adjacencies(), func(a Adjacency) bool { return a.Liveness != Up || !a.Minded })
}

// wantWell fails if some node is not.
func (l *lan) wantWell() {
	for _, h := range l.hosts {
		if !h.well() {
			l.t.Helper()
			l.t.Fatalf("node %s: %v, %+v, %+v", nodeName(h.index), h.role(), h.x.Adjacencies(), h.x.Counters())
		}
	}
}
