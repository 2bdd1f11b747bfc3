package heartbeat

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

// namespaceEnv says that this process is in a network namespace of its own. All
// tests run in one, so that none touches the machine's interfaces.
const namespaceEnv = "HEARTBEAT_TEST_NAMESPACE"

func TestMain(m *testing.M) {
	if os.Geteuid() != 0 || os.Getenv(namespaceEnv) != "" {
		os.Exit(m.Run())
	}
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	child := exec.Command(self, os.Args[1:]...)
	child.Env = append(os.Environ(), namespaceEnv+"=1")
	child.Stdin, child.Stdout, child.Stderr = os.Stdin, os.Stdout, os.Stderr
	child.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := child.Start(); err != nil {
		os.Exit(m.Run()) // no right to make namespaces: the tests that need one say so
	}
	var failed *exec.ExitError
	if err := child.Wait(); errors.As(err, &failed) {
		os.Exit(max(1, failed.ExitCode()))
	}
}

// need skips the test on machines that cannot run it, and fails there in CI.
func need(t testing.TB) {
	t.Helper()
	missing := ""
	if os.Getenv(namespaceEnv) == "" {
		missing = "the right to make a network namespace"
	}
	if _, err := exec.LookPath("ip"); err != nil {
		missing = "ip"
	}
	switch {
	case missing == "":
	case os.Getenv("CI") != "":
		t.Fatalf("%s is missing", missing)
	default:
		t.Skipf("%s is missing", missing)
	}
}

// lab are two nodes, each in a network namespace, with two cables between them.
type lab struct {
	t     testing.TB
	nodes [2]*labNode
}

// labNode is a kernel, and perhaps an Exchange on it.
type labNode struct {
	t     testing.TB
	index int
	space string // its namespace
	x     *Exchange
	stop  func()
	other *labNode
}

// family is of addresses.
type family struct {
	name     string
	v4       bool
	prefixes [2][2]netip.Prefix // by node and cable
}

var labFamilies = []family{
	{"IPv4", true, [2][2]netip.Prefix{
		{netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("198.51.100.1/24")},
		{netip.MustParsePrefix("192.0.2.2/24"), netip.MustParsePrefix("198.51.100.2/24")},
	}},
	{"IPv6", false, [2][2]netip.Prefix{
		{netip.MustParsePrefix("2001:db8::1/64"), netip.MustParsePrefix("2001:db8:1::1/64")},
		{netip.MustParsePrefix("2001:db8::2/64"), netip.MustParsePrefix("2001:db8:1::2/64")},
	}},
}

func (f *family) addr(node, cable int) netip.Addr { return f.prefixes[node][cable].Addr() }

var labs atomic.Int64

func newLab(t testing.TB) *lab {
	t.Helper()
	need(t)
	l := &lab{t: t}
	number := labs.Add(1)
	for i := range l.nodes {
		n := &labNode{t: t, index: i, space: fmt.Sprintf("heartbeat-%d-%d-%d", os.Getpid(), number, i)}
		run(t, "ip", "netns", "add", n.space)
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", n.space).Run() })
		n.ip("link", "set", "lo", "up")
		l.nodes[i] = n
	}
	l.nodes[0].other, l.nodes[1].other = l.nodes[1], l.nodes[0]
	t.Cleanup(func() { l.nodes[0].kill(); l.nodes[1].kill() })
	l.connect(0)
	l.connect(1)
	return l
}

func run(t testing.TB, args ...string) {
	t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// ip runs a command of ip on the node.
func (n *labNode) ip(args ...string) {
	n.t.Helper()
	run(n.t, append([]string{"ip", "-n", n.space}, args...)...)
}

// cable is the name of an interface.
func cable(i int) string { return fmt.Sprintf("eth%d", i) }

// connect makes a cable.
func (l *lab) connect(i int) {
	l.t.Helper()
	l.nodes[0].ip("link", "add", cable(i), "type", "veth", "peer", "name", cable(i), "netns", l.nodes[1].space)
	for _, n := range l.nodes {
		n.up(i)
	}
}

// up brings an interface up, with an address of each family.
func (n *labNode) up(i int) {
	n.t.Helper()
	n.ip("link", "set", cable(i), "up")
	for _, f := range labFamilies {
		n.ip("addr", "replace", f.prefixes[n.index][i].String(), "dev", cable(i), "nodad")
	}
}

// in runs f in the namespace of the node.
func (n *labNode) in(f func()) {
	n.t.Helper()
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		space, err := os.Open("/run/netns/" + n.space)
		if err == nil {
			defer space.Close()
			err = unix.Setns(int(space.Fd()), unix.CLONE_NEWNET)
		}
		if err == nil {
			f()
		}
		failed <- err
	}()
	if err := <-failed; err != nil {
		n.t.Fatal(err)
	}
}

// listen opens a socket as Exchanges do.
func (n *labNode) listen(name string, v4 bool) (c conn, err error) {
	n.in(func() { c, err = listen(context.Background(), name, v4) })
	return c, err
}

// link is an interface.
func (n *labNode) link(i int) (ifi *net.Interface) {
	n.t.Helper()
	var err error
	if n.in(func() { ifi, err = net.InterfaceByName(cable(i)) }); err != nil {
		n.t.Fatal(err)
	}
	return ifi
}

// route is the way to the other node.
func (n *labNode) route(f *family, i int) route {
	n.t.Helper()
	return route{n.link(i).Index, announce.MAC(n.other.link(i).HardwareAddr), f.addr(n.index, i), f.addr(n.other.index, i)}
}

// state has one family, on both cables.
func (n *labNode) state(f *family) State {
	n.t.Helper()
	s := State{Cluster: "cluster", Node: nodeName(n.index), Keys: testKeys, Grace: time.Minute}
	g := Group{Addresses: []netip.Addr{virtual}, Candidates: []string{nodeName(0), nodeName(1)}}
	fellow := announce.Node{Name: nodeName(1 - n.index)}
	for i := range 2 {
		s.Links = append(s.Links, Link{Index: n.link(i).Index, Name: cable(i), Prefixes: []netip.Prefix{f.prefixes[n.index][i]}})
		g.Links = append(g.Links, n.link(i).Index)
		fellow.Links = append(fellow.Links, announce.Link{
			Name: cable(i), MAC: announce.MAC(n.other.link(i).HardwareAddr), Prefixes: []netip.Prefix{f.prefixes[1-n.index][i]},
		})
	}
	s.Fellows, s.Groups = []announce.Node{fellow}, []Group{g}
	return s
}

// start runs an Exchange.
func (n *labNode) start(s State) {
	n.t.Helper()
	n.x = New(Config{
		Changed: func() {}, Prober: n, Checker: n,
		API:       func(context.Context) error { return errors.New("the API server is away") },
		Neighbors: func(int) []netip.Addr { return nil },
	})
	n.x.open = func(_ context.Context, name string, v4 bool) (conn, error) { return n.listen(name, v4) }
	n.x.Set(s)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := n.x.Run(ctx); err != nil {
			n.t.Errorf("Run: %v", err)
		}
	}()
	n.stop = func() { cancel(); <-done }
}

func (n *labNode) kill() {
	if n.stop != nil {
		n.stop()
		n.stop = nil
	}
}

// Listen and Ask are of Prober.
func (n *labNode) Listen(map[int][]netip.Addr) {}
func (n *labNode) Ask(link int, host netip.Addr, mac announce.MAC) error {
	if host != virtual { // a kernel answers, and no speaker
		n.x.Answered(link, host, mac, true)
	}
	return nil
}

// Check and Arrived are of Checker.
func (n *labNode) Check(int, netip.Addr, announce.MAC) error { return errNoNeighbour }
func (n *labNode) Arrived() map[announce.MAC]uint8           { return nil }

// minds reports whether the node has heard the other one own the address.
func (n *labNode) minds() bool {
	n.x.mu.Lock()
	defer n.x.mu.Unlock()
	return n.x.core.entries[virtual].seen == idOf("cluster", nodeName(n.other.index))
}

func (n *labNode) role() Role { return n.x.Decisions()[virtual].Role }

// hears is what the node knows of the other one by a cable.
func (n *labNode) hears(i int) Liveness {
	for _, a := range n.x.Adjacencies() {
		if a.Interface == cable(i) {
			return a.Liveness
		}
	}
	return Dead
}

// until waits until something is so.
func (l *lab) until(what string, is func() bool) {
	l.t.Helper()
	poll := time.NewTicker(2 * time.Millisecond)
	defer poll.Stop()
	deadline := time.After(15 * time.Second)
	for !is() {
		select {
		case <-poll.C:
		case <-deadline:
			l.t.Fatalf("not %s: %+v; %+v; %q", what, l.nodes[0].x.Adjacencies(), l.nodes[1].x.Adjacencies(), l.nodes[0].x.Problems())
		}
	}
}

// untilUp waits until the nodes hear each other by both cables, and know that the first
// one owns the address.
func (l *lab) untilUp() {
	l.t.Helper()
	for _, n := range l.nodes {
		for i := range 2 {
			l.until(fmt.Sprintf("%s up on %s", nodeName(1-n.index), cable(i)), func() bool { return n.hears(i) == Up })
		}
	}
	l.until("settled", func() bool {
		return l.nodes[0].role() == Own && l.nodes[1].role() == Standby && l.nodes[1].minds()
	})
}

func (l *lab) start(f *family) {
	l.t.Helper()
	for _, n := range l.nodes {
		n.start(n.state(f))
	}
	l.untilUp()
}

// sender sends packets from a node that no Exchange sends, with any number of hops.
func (n *labNode) sender(f *family, hops int) func(data []byte) {
	n.t.Helper()
	var (
		sender *net.UDPConn
		err    error
	)
	n.in(func() {
		sender, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(f.addr(1-n.index, 0), Port)))
	})
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = sender.Close() })
	raw, err := sender.SyscallConn()
	if err != nil {
		n.t.Fatal(err)
	}
	var optionErr error
	if err := raw.Control(func(fd uintptr) {
		if f.v4 {
			optionErr = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TTL, hops)
		} else {
			optionErr = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, hops)
		}
	}); err != nil || optionErr != nil {
		n.t.Fatal(err, optionErr)
	}
	return func(data []byte) { _, _ = sender.Write(data) } // what is refused is like what is lost
}

// forged is a packet to node a that looks like one of b's, signed with a key.
func forged(keys announce.HeartbeatKeys) []byte {
	p := packet{from: idOf("cluster", nodeName(1)), to: idOf("cluster", nodeName(0)), life: 1, seq: 1}
	return newKeyring(keys).sign(p.append(nil), 0)
}

// received is what a socket receives, by a goroutine of its own.
func (l *lab) received(c conn) <-chan arrival {
	arrivals := make(chan arrival, 64)
	go func() {
		defer close(arrivals)
		buffer := make([]byte, 2*maxPacket)
		for {
			e, err := c.Receive(buffer)
			if err != nil {
				return
			}
			arrivals <- arrival{e, bytes.Clone(buffer[:e.n])}
		}
	}()
	return arrivals
}

// next is what arrives next.
func (l *lab) next(arrivals <-chan arrival) (a arrival) {
	l.t.Helper()
	select {
	case a = <-arrivals:
	case <-time.After(10 * time.Second):
		l.t.Fatal("nothing arrives")
	}
	return a
}

// eachFamily runs a test for each.
func eachFamily(t *testing.T, f func(t *testing.T, l *lab, f *family)) {
	for i := range labFamilies {
		t.Run(labFamilies[i].name, func(t *testing.T) { f(t, newLab(t), &labFamilies[i]) })
	}
}
