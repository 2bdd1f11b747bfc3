package layer2

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/layer2/internal/wire"
)

// namespaceEnv says that this process is in a network namespace of its own. All
// tests run in one, so that none touches the machine's interfaces.
const namespaceEnv = "LAYER2_TEST_NAMESPACE"

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

// lab is a veth pair: an Announcer on one end, and a host of raw frames on the
// other.
type lab struct {
	t       *testing.T
	n, p    string // interfaces of node and peer
	a       *Announcer
	changed chan struct{}

	peer   *packet.Conn
	mac    announce.MAC
	frames chan seen
	// respond, if set, sees each frame at once.
	respond atomic.Pointer[func(m *wire.Message)]
}

// seen is a frame that the peer received.
type seen struct {
	at time.Time
	m  wire.Message
}

var labs atomic.Int64

func ip(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// need skips the test on machines that cannot run it, and fails there in CI.
func need(t *testing.T) {
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

func newLab(t *testing.T) *lab {
	t.Helper()
	need(t)
	t.Parallel()
	number := labs.Add(1)
	l := &lab{
		t: t, n: fmt.Sprintf("n%d", number), p: fmt.Sprintf("p%d", number),
		changed: make(chan struct{}, 1), frames: make(chan seen, 8192),
	}
	l.link()
	l.a = New(Config{Changed: func() {
		select {
		case l.changed <- struct{}{}:
		default:
		}
	}})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- l.a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return l
}

// link makes the veth pair.
func (l *lab) link() {
	l.t.Helper()
	ip(l.t, "link", "add", l.n, "type", "veth", "peer", "name", l.p)
	l.t.Cleanup(func() { _ = exec.Command("ip", "link", "del", l.n).Run() })
	ip(l.t, "link", "set", l.n, "up")
	ip(l.t, "link", "set", l.p, "up")
	l.carrier(true)
	l.listen()
}

// carrier waits for the kernel to see what was done to the link, which may take
// a second.
func (l *lab) carrier(want bool) {
	l.t.Helper()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	deadline := time.After(10 * time.Second)
	for {
		if ifi, err := net.InterfaceByName(l.n); err == nil && ifi.Flags&net.FlagRunning != 0 == want {
			return
		}
		select {
		case <-poll.C:
		case <-deadline:
			l.t.Fatalf("carrier of %s is not %v", l.n, want)
		}
	}
}

func (l *lab) listen() {
	l.t.Helper()
	ifi, err := net.InterfaceByName(l.p)
	if err != nil {
		l.t.Fatal(err)
	}
	l.mac = announce.MAC(ifi.HardwareAddr)
	if l.peer, err = packet.Listen(ifi, packet.Raw, unix.ETH_P_ALL, nil); err != nil {
		l.t.Fatal(err)
	}
	// A machine that is busy must not look like a network that loses frames.
	if err := force(l.peer, 16<<20); err != nil {
		l.t.Fatal(err)
	}
	conn, mac := l.peer, l.mac
	l.t.Cleanup(func() { _ = conn.Close() })
	go func() {
		buffer := make([]byte, 2048)
		for {
			n, _, err := conn.ReadFrom(buffer)
			if errors.Is(err, unix.ENETDOWN) {
				continue
			}
			if err != nil {
				return
			}
			m, err := wire.ParseFrame(buffer[:n])
			if err != nil || m.Source == mac {
				continue
			}
			if f := l.respond.Load(); f != nil {
				(*f)(&m)
			}
			select {
			case l.frames <- seen{time.Now(), m}:
			default:
			}
		}
	}()
}

// force makes room for so many octets that wait to be read.
func force(conn *packet.Conn, octets int) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, octets)
	})
	return errors.Join(err, failed)
}

// state is one of the node's end.
func (l *lab) state(caution Caution, addrs ...netip.Addr) State {
	l.t.Helper()
	s := State{Groups: []Group{{Addresses: addrs, Caution: caution}}, Fellows: []announce.MAC{fellowMAC}}
	if ifi, err := net.InterfaceByName(l.n); err == nil {
		s.Interfaces = []Interface{{
			Index: ifi.Index, Name: ifi.Name, MAC: announce.MAC(ifi.HardwareAddr), Carrier: ifi.Flags&net.FlagRunning != 0,
			Prefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("2001:db8::1/64")},
		}}
	}
	return s
}

func (l *lab) nodeMAC() announce.MAC {
	ifi, err := net.InterfaceByName(l.n)
	if err != nil {
		l.t.Fatal(err)
	}
	return announce.MAC(ifi.HardwareAddr)
}

func (l *lab) send(frames ...[]byte) {
	l.t.Helper()
	for _, frame := range frames {
		if _, err := l.peer.WriteTo(frame, &packet.Addr{HardwareAddr: frame[:6]}); err != nil {
			l.t.Fatal(err)
		}
	}
}

// host makes the peer a Linux host with an address of each family, in a namespace
// of its own, and returns what runs a command there.
func (l *lab) host() (in func(args ...string) string) {
	t := l.t
	t.Helper()
	name := "layer2-" + l.p
	ip(t, "netns", "add", name)
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", name).Run() })
	ip(t, "link", "set", l.p, "netns", name)
	in = func(args ...string) string {
		t.Helper()
		out, err := exec.Command("ip", append([]string{"netns", "exec", name}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	in("ip", "addr", "add", client.String()+"/24", "dev", l.p)
	in("ip", "addr", "add", client6.String()+"/64", "dev", l.p, "nodad")
	in("ip", "link", "set", l.p, "up")
	l.carrier(true)
	return in
}

// until waits for the status.
func (l *lab) until(what string, is func(Status) bool) {
	l.t.Helper()
	deadline := time.After(20 * time.Second)
	for !is(l.a.Status()) {
		select {
		case <-l.changed:
		case <-deadline:
			l.t.Fatalf("not %s: %+v", what, l.a.Status())
		}
	}
}

// counts waits for counters, which tell of no change.
func (l *lab) counts(what string, is func(Status) bool) {
	l.t.Helper()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	deadline := time.After(10 * time.Second)
	for !is(l.a.Status()) {
		select {
		case <-poll.C:
		case <-deadline:
			l.t.Fatalf("not %s: %+v", what, l.a.Status())
		}
	}
}

func (l *lab) announced(n int) {
	l.t.Helper()
	l.until(fmt.Sprintf("%d announced", n), func(s Status) bool { return s.Announced == n })
}

// next is the next frame about the address that is no announcement, or one of
// any kind if bursts is set.
func (l *lab) next(addr netip.Addr, bursts bool) wire.Message {
	l.t.Helper()
	deadline := time.After(15 * time.Second)
	for {
		select {
		case s := <-l.frames:
			about := s.m.Target == addr || s.m.Sender == addr
			burst := s.m.Kind == wire.ARPRequest || s.m.Destination[0]&1 == 1
			if about && (bursts || !burst) {
				return s.m
			}
		case <-deadline:
			l.t.Fatalf("no frame about %v; %+v", addr, l.a.Status())
		}
	}
}

// answer is the next frame that is for the peer alone.
func (l *lab) answer() wire.Message {
	l.t.Helper()
	deadline := time.After(15 * time.Second)
	for {
		select {
		case s := <-l.frames:
			if s.m.Destination == l.mac {
				return s.m
			}
		case <-deadline:
			l.t.Fatalf("no answer; %+v", l.a.Status())
		}
	}
}

// drain forgets the frames seen so far.
func (l *lab) drain() {
	for {
		select {
		case <-l.frames:
		default:
			return
		}
	}
}

// arpRequest asks for target from the peer.
func arpRequest(from announce.MAC, sender, target netip.Addr, to announce.MAC) []byte {
	frame := wire.ARPAnnouncement(from, sender)
	copy(frame, to[:])
	t := target.As4()
	copy(frame[38:], t[:])
	return frame
}

var broadcastMAC = announce.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// solicitation asks for target: by multicast, or from a neighbour that knows the
// MAC address, with or without its own as an option.
func solicitation(from announce.MAC, sender, target netip.Addr, unicast *announce.MAC, option bool, edit func(packet []byte)) []byte {
	message := make([]byte, 24, 32)
	message[0] = 135
	t := target.As16()
	copy(message[8:], t[:])
	if option {
		message = append(append(message, 1, 1), from[:]...)
	}
	to, mac := wire.SolicitedNode(target)
	if unicast != nil {
		to, mac = target, *unicast
	}
	frame := append(append([]byte{}, mac[:]...), from[:]...)
	frame = append(frame, 0x86, 0xdd, 0x60, 0, 0, 0, 0, byte(len(message)), 58, 255)
	source, destination := sender.As16(), to.As16()
	frame = append(append(frame, source[:]...), destination[:]...)
	frame = append(frame, message...)
	sum := uint32(len(message)) + 58
	for i := 22; i < len(frame); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(frame[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(frame[56:], ^uint16(sum))
	if edit != nil {
		edit(frame)
	}
	return frame
}

var (
	client  = netip.MustParseAddr("192.0.2.200")
	client6 = netip.MustParseAddr("2001:db8::200")
)

func TestLabARP(t *testing.T) {
	l := newLab(t)
	l.a.Set(l.state(Certain, vip))
	l.announced(1)
	mac := l.nodeMAC()
	for name, request := range map[string][]byte{
		"broadcast": arpRequest(l.mac, client, vip, broadcastMAC),
		"unicast":   arpRequest(l.mac, client, vip, mac),
	} {
		l.send(request)
		m := l.next(vip, false)
		if m.Kind != wire.ARPReply || m.SenderMAC != mac || m.Sender != vip || m.Target != client || m.Destination != l.mac || m.Source != mac {
			t.Errorf("%s: answer %+v", name, m)
		}
	}
	// A probe is answered, which defends the address. Its target is 0.0.0.0.
	l.send(wire.ARPProbe(l.mac, vip))
	if m := l.next(vip, false); m.Kind != wire.ARPReply || m.Target != netip.IPv4Unspecified() {
		t.Errorf("answer to a probe: %+v", m)
	}
	// What is not ours, not to us or not for anybody is not answered; the last
	// request shows that the others were passed over.
	other := netip.MustParseAddr("192.0.2.11")
	for n, frame := range [][]byte{
		arpRequest(l.mac, netip.MustParseAddr("192.0.2.201"), other, broadcastMAC),
		arpRequest(l.mac, netip.MustParseAddr("192.0.2.202"), vip, fellowMAC),
		wire.ARPAnnouncement(l.mac, netip.MustParseAddr("192.0.2.203")),
	} {
		l.send(frame, arpRequest(l.mac, client, vip, broadcastMAC))
		if m := l.answer(); m.Target != client || m.Sender != vip {
			t.Errorf("frame %d: answer %+v", n, m)
		}
	}

	// Another address instead: silence about the first one.
	l.a.Set(l.state(Certain, other))
	l.next(other, true)
	l.send(arpRequest(l.mac, client, vip, broadcastMAC), arpRequest(l.mac, client, other, broadcastMAC))
	if m := l.answer(); m.Sender != other {
		t.Errorf("answer %+v", m)
	}
}

func TestLabNDP(t *testing.T) {
	l := newLab(t)
	l.a.Set(l.state(Certain, vip6))
	l.announced(1)
	for range len(bursts[ipv6]) { // over, so that what follows is an answer
		l.next(vip6, true)
	}
	mac := l.nodeMAC()
	for name, request := range map[string][]byte{
		"multicast":              solicitation(l.mac, client6, vip6, nil, true, nil),
		"multicast, no option":   solicitation(l.mac, client6, vip6, nil, false, nil),
		"unicast, as NUD does":   solicitation(l.mac, client6, vip6, &mac, false, nil),
		"unicast, with option":   solicitation(l.mac, client6, vip6, &mac, true, nil),
		"from a link-local host": solicitation(l.mac, netip.MustParseAddr("fe80::200"), vip6, nil, true, nil),
	} {
		l.send(request)
		m := l.next(vip6, false)
		if m.Kind != wire.Advertisement || m.SenderMAC != mac || m.Destination != l.mac || !m.Override || !m.Solicited || m.Router || m.Sender != vip6 {
			t.Errorf("%s: answer %+v", name, m)
		}
	}
	l.send(
		solicitation(l.mac, client6, vip6, nil, true, func(p []byte) { p[21] = 254 }),
		solicitation(l.mac, client6, vip6, nil, true, func(p []byte) { p[56] ^= 1 }),
		solicitation(l.mac, client6, netip.MustParseAddr("2001:db8::11"), nil, true, nil),
		wire.NDPProbe(l.mac, vip6),
	)
	m := l.next(vip6, true) // not an answer to one of the others
	if m.Kind != wire.Advertisement || m.To != netip.IPv6LinkLocalAllNodes() || m.Solicited || !m.Override || m.SenderMAC != mac {
		t.Errorf("answer to duplicate address detection: %+v", m)
	}
	if n := l.a.Status().Malformed; n != 1 {
		t.Errorf("%d malformed, want that with the wrong checksum only: the filter stops the others", n)
	}

	// The group is joined as long as it is needed: the NIC lets it in, and MLD
	// reports it.
	joined := func() (packet, mld bool) {
		maddr, err := exec.Command("ip", "maddr", "show", "dev", l.n).Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains(string(maddr), "33:33:ff:00:00:10"), strings.Contains(string(maddr), "ff02::1:ff00:10")
	}
	if p, m := joined(); !p || !m {
		t.Errorf("solicited-node group: packet %v, MLD %v", p, m)
	}
	l.a.Set(l.state(Certain))
	l.until("no address", func(s Status) bool { p, m := joined(); return !p && !m })
}

func TestLabGroups(t *testing.T) {
	l := newLab(t)
	var addrs []netip.Addr
	addr := netip.MustParseAddr("2001:db8::1:0")
	for range 2000 {
		addrs = append(addrs, addr)
		addr = addr.Next()
	}
	begin := time.Now()
	l.a.Set(l.state(Certain, addrs...))
	l.announced(2000)
	t.Logf("2,000 addresses announced after %v", time.Since(begin).Round(time.Millisecond))
	if s := l.a.Status(); s.Problems != nil {
		t.Errorf("problems: %q", s.Problems)
	}
	l.reported(2000)
	t.Logf("2,000 groups joined after %v", time.Since(begin).Round(time.Millisecond))
}

// reported waits until MLD reports so many solicited-node groups of 2001:db8::1:0
// and following.
func (l *lab) reported(want int) {
	l.t.Helper()
	l.reportedGroups("ff0200000000000000000001ff01", want)
}

// reportedGroups waits until MLD reports so many groups whose address begins so.
func (l *lab) reportedGroups(prefix string, want int) {
	l.t.Helper()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	deadline := time.After(10 * time.Second)
	for {
		text, err := os.ReadFile("/proc/net/igmp6")
		if err != nil {
			l.t.Fatal(err)
		}
		n := 0
		for line := range strings.Lines(string(text)) {
			if fields := strings.Fields(line); fields[1] == l.n && strings.HasPrefix(fields[2], prefix) {
				n++
			}
		}
		if n == want {
			return
		}
		select {
		case <-poll.C:
		case <-deadline:
			l.t.Fatalf("%d groups in MLD, want %d", n, want)
		}
	}
}

// TestLabGroupsForgotten: the kernel forgets all groups of an interface whose MTU
// is too small for IPv6.
func TestLabGroupsForgotten(t *testing.T) {
	l := newLab(t)
	first := netip.MustParseAddr("2001:db8::1:0")
	state := l.state(Certain, first, first.Next())
	state.Groups[0].Interfaces = []string{l.n}
	l.a.Set(state)
	l.reported(2)
	ip(t, "link", "set", l.n, "mtu", "1200")
	ip(t, "link", "set", l.n, "mtu", "1500")
	l.reported(0)
	bare := l.state(Certain, first, first.Next())
	bare.Groups[0].Interfaces = []string{l.n}
	bare.Interfaces[0].Prefixes = bare.Interfaces[0].Prefixes[:1]
	l.a.Set(bare)
	l.reported(2)
}

// TestGroupSockets: sockets that have no group left are closed.
func TestGroupSockets(t *testing.T) {
	l := newLab(t)
	state := l.state(Certain)
	opened, err := openSocket(state.Interfaces[0].Index, ipv6, []bpf.RawInstruction{{Op: 6}})
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	s := opened.(*packetSocket)
	addr := netip.MustParseAddr("2001:db8::1:0")
	var addrs []netip.Addr
	for range 10_000 {
		addrs = append(addrs, addr)
		addr = addr.Next()
	}
	set := func(addrs []netip.Addr) int {
		groups := make(map[netip.Addr]announce.MAC)
		for _, addr := range addrs {
			group, mac := wire.SolicitedNode(addr)
			groups[group] = mac
		}
		s.SetGroups(groups)
		for more := true; more; {
			if more, err = s.Join(joinSlice); err != nil {
				t.Fatal(err)
			}
		}
		return len(s.groups.reporters)
	}
	for i := 0; i+100 <= len(addrs); i += 50 {
		if n := set(addrs[i : i+100]); n > 20 {
			t.Fatalf("%d sockets for 100 groups", n)
		}
	}
	if n := set(nil); n != 0 {
		t.Errorf("%d sockets without a group", n)
	}
}

// TestLabNoIPv6: where the kernel does no IPv6, only switches that snoop on MLD
// are a problem.
func TestLabNoIPv6(t *testing.T) {
	l := newLab(t)
	path := "/proc/sys/net/ipv6/conf/" + l.n + "/disable_ipv6"
	if err := os.WriteFile(path, []byte("1"), 0o644); err != nil {
		t.Fatal(err)
	}
	l.a.Set(l.state(Certain, vip6))
	l.announced(1)
	l.send(solicitation(l.mac, client6, vip6, nil, true, nil))
	if m := l.answer(); m.Sender != vip6 {
		t.Errorf("answer %+v", m)
	}
	t.Logf("problems: %q", l.a.Status().Problems)
}

func TestLabBurst(t *testing.T) {
	l := newLab(t)
	l.a.Set(l.state(Certain, vip, vip6))
	got := make(map[string][]time.Duration)
	var start time.Time
	deadline := time.After(5500 * time.Millisecond)
	for done := false; !done; {
		select {
		case s := <-l.frames:
			if s.m.Target != vip && s.m.Target != vip6 {
				continue
			}
			if start.IsZero() {
				start = s.at
			}
			got[text(&s.m)] = append(got[text(&s.m)], s.at.Sub(start))
		case <-deadline:
			done = true
		}
	}
	for what, want := range map[string][]time.Duration{
		"announce 192.0.2.10":   bursts[ipv4],
		"reply 192.0.2.10":      {0},
		"announce 2001:db8::10": bursts[ipv6],
	} {
		near := func(a, b time.Duration) bool { return (a - b).Abs() < 200*time.Millisecond }
		if !slices.EqualFunc(got[what], want, near) {
			t.Errorf("%s after %v, want %v", what, got[what], want)
		}
		delete(got, what)
	}
	if len(got) > 0 {
		t.Errorf("seen besides: %v", got)
	}
}

func TestLabConflict(t *testing.T) {
	l := newLab(t)
	// The other host has both addresses, and no others.
	respond := func(m *wire.Message) {
		if !m.Probe() {
			return
		}
		switch m.Target {
		case vip:
			_, _ = l.peer.WriteTo(wire.ARPAnswer(l.mac, vip, m.SenderMAC, m.Sender), &packet.Addr{HardwareAddr: m.SenderMAC[:]})
		case vip6:
			_, _ = l.peer.WriteTo(wire.NDPAnswer(l.mac, vip6, m), &packet.Addr{HardwareAddr: m.SenderMAC[:]})
		}
	}
	l.respond.Store(&respond)
	l.a.Set(l.state(Fresh, vip, vip6))
	l.until("held", func(s Status) bool { return s.Held == 2 })
	for _, c := range l.a.Status().Conflicts {
		if c.MAC != l.mac || !c.Held || c.Proxy || c.Interface != l.n {
			t.Errorf("conflict %+v", c)
		}
	}
	l.send(arpRequest(l.mac, client, vip, broadcastMAC), solicitation(l.mac, client6, vip6, nil, true, nil))
	l.respond.Store(nil)
	begin := time.Now()
	l.announced(2)
	if d := time.Since(begin); d < 9*time.Second {
		t.Errorf("announced after %v", d)
	}
	s := l.a.Status()
	if s.Answered != 0 || len(s.Conflicts) != 0 {
		t.Errorf("status %+v", s)
	}
}

func TestLabProxy(t *testing.T) {
	l := newLab(t)
	respond := func(m *wire.Message) {
		switch {
		case !m.Probe():
		case m.Target.Is4():
			_, _ = l.peer.WriteTo(wire.ARPAnswer(l.mac, m.Target, m.SenderMAC, m.Sender), &packet.Addr{HardwareAddr: m.SenderMAC[:]})
		default:
			_, _ = l.peer.WriteTo(wire.NDPAnswer(l.mac, m.Target, m), &packet.Addr{HardwareAddr: m.SenderMAC[:]})
		}
	}
	l.respond.Store(&respond)
	l.a.Set(l.state(Fresh, vip, vip6))
	l.announced(2)
	for _, c := range l.a.Status().Conflicts {
		if c.MAC != l.mac || c.Held || !c.Proxy {
			t.Errorf("conflict %+v", c)
		}
	}
	if n := len(l.a.Status().Conflicts); n != 2 {
		t.Errorf("%d conflicts", n)
	}
}

func TestLabDefence(t *testing.T) {
	l := newLab(t)
	l.a.Set(l.state(Fresh, vip))
	l.announced(1)
	l.next(vip, true)
	l.next(vip, true)
	l.drain()
	l.send(wire.ARPAnnouncement(l.mac, vip), wire.ARPGratuitousReply(l.mac, vip))
	l.until("a conflict", func(s Status) bool { return len(s.Conflicts) == 1 && s.Announced == 1 })
	for m := l.next(vip, true); m.SenderMAC != l.nodeMAC(); m = l.next(vip, true) {
	}
	if s := l.a.Status(); s.Claims == 0 || s.Announced != 1 {
		t.Errorf("status %+v", s)
	}
}

func TestLabLink(t *testing.T) {
	l := newLab(t)
	first := func(what string) {
		t.Helper()
		for m := l.next(vip, true); m.Kind != wire.ARPReply || m.Destination != broadcastMAC; m = l.next(vip, true) {
			if m.SenderMAC != l.nodeMAC() {
				t.Fatalf("%s: %+v", what, m)
			}
		}
	}
	l.a.Set(l.state(Certain, vip))
	l.announced(1)
	first("announced") // only first rounds have the reply form

	// With the events that the kernel tells.
	ip(t, "link", "set", l.n, "down")
	l.carrier(false)
	l.a.Set(l.state(Certain, vip))
	l.until("off", func(s Status) bool { return s.Announced == 0 && len(s.Problems) == 1 })
	ip(t, "link", "set", l.n, "up")
	l.carrier(true)
	l.a.Set(l.state(Certain, vip))
	l.announced(1)
	first("link up")

	// Without: the socket notices.
	ip(t, "link", "set", l.n, "down")
	l.carrier(false)
	l.until("off", func(s Status) bool { return s.Announced == 0 })
	ip(t, "link", "set", l.n, "up")
	l.carrier(true)
	l.announced(1)
	first("link up, unnoticed")
	l.send(arpRequest(l.mac, client, vip, broadcastMAC))
	l.next(vip, false)

	// The peer's end goes down, and with it the carrier.
	ip(t, "link", "set", l.p, "down")
	l.carrier(false)
	l.a.Set(l.state(Certain, vip))
	l.until("off", func(s Status) bool { return s.Announced == 0 })
	ip(t, "link", "set", l.p, "up")
	l.carrier(true)
	l.a.Set(l.state(Certain, vip))
	l.announced(1)
	first("carrier")

	ip(t, "link", "set", l.n, "address", "02:00:5e:00:53:77")
	l.drain()
	l.a.Set(l.state(Certain, vip))
	first("MAC changed")
	l.send(arpRequest(l.mac, client, vip, broadcastMAC))
	if m := l.next(vip, false); m.SenderMAC != (announce.MAC{2, 0, 0x5e, 0, 0x53, 0x77}) {
		t.Errorf("answer %+v", m)
	}

	// Another interface of the same name.
	ip(t, "link", "del", l.n)
	l.a.Set(l.state(Certain, vip))
	l.until("gone", func(s Status) bool { return s.Announced == 0 && len(s.Problems) == 1 })
	l.link()
	l.a.Set(l.state(Certain, vip))
	l.announced(1)
	first("created anew")
	l.send(arpRequest(l.mac, client, vip, broadcastMAC))
	l.next(vip, false)
}

func TestLabLater(t *testing.T) {
	l := newLab(t)
	// The state asks for an interface that does not exist yet.
	ip(t, "link", "del", l.n)
	state := l.state(Fresh, vip6)
	state.Groups[0].Interfaces = []string{l.n}
	l.a.Set(state)
	if s := l.a.Status(); len(s.Problems) != 1 || !strings.Contains(s.Problems[0], "does not exist") {
		t.Errorf("problems %q", s.Problems)
	}
	l.link()
	later := l.state(Fresh, vip6)
	later.Groups = state.Groups
	l.a.Set(later)
	l.announced(1)
	l.send(solicitation(l.mac, client6, vip6, nil, true, nil))
	if m := l.next(vip6, false); m.Kind != wire.Advertisement {
		t.Errorf("answer %+v", m)
	}
}

// TestLabBridge has the node's NIC be a member of a bridge: the bridge's address
// is told, once, and the member stays silent whatever selects it.
func TestLabBridge(t *testing.T) {
	l := newLab(t)
	bridge := l.n + "b"
	ip(t, "link", "add", bridge, "type", "bridge")
	t.Cleanup(func() { _ = exec.Command("ip", "link", "del", bridge).Run() })
	ip(t, "link", "set", bridge, "address", "02:00:5e:00:53:b0")
	ip(t, "link", "set", l.n, "master", bridge)
	ip(t, "link", "set", bridge, "up")
	member, err := net.InterfaceByName(l.n)
	if err != nil {
		t.Fatal(err)
	}
	master, err := net.InterfaceByName(bridge)
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.MustParseAddr("192.0.2.77")
	l.a.Set(State{
		Interfaces: []Interface{
			{Index: member.Index, Name: l.n, MAC: announce.MAC(member.HardwareAddr), Carrier: true, Master: bridge},
			{Index: master.Index, Name: bridge, MAC: announce.MAC(master.HardwareAddr), Carrier: true},
		},
		Groups: []Group{{Addresses: []netip.Addr{addr}, Interfaces: []string{l.n + "*"}}},
	})
	l.announced(1)
	l.drain()
	l.send(arpRequest(l.mac, netip.MustParseAddr("192.0.2.1"), addr, broadcastMAC))
	m := l.next(addr, false)
	if m.SenderMAC != announce.MAC(master.HardwareAddr) || m.Source != m.SenderMAC {
		t.Errorf("answer %+v, want the MAC address of the bridge", m)
	}
	if s := l.a.Status(); s.Answered != 1 {
		t.Errorf("%d answers", s.Answered)
	}
}
