package filter

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"go4.org/netipx"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// childEnv tells the test that it runs in a network namespace of its own.
const childEnv = "FILTER_TEST_CHILD"

// TestSocket shows what the kernel makes of the programs. Only a process can be
// in a namespace as a whole, so the test runs itself again in one.
func TestSocket(t *testing.T) {
	if os.Getenv(childEnv) != "" {
		testSocket(t)
		return
	}
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("a network namespace needs root")
		}
		t.Skip("a network namespace needs root")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.CommandContext(t.Context(), self, "-test.run=^TestSocket$", "-test.v", "-test.timeout=30s")
	child.Env = append(os.Environ(), childEnv+"=1")
	child.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	out, err := child.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}

func testSocket(t *testing.T) {
	near, far := veth(t)
	t.Run("memory", func(t *testing.T) { testMemory(t, near) })
	if err := limitMemory(20 << 10); err != nil { // what a socket gets up to Linux 6.7
		t.Logf("the limit of the host applies: %v", err)
	}
	ours4, ours6 := netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("2001:db8::10")
	theirs4, theirs6 := netip.MustParseAddr("192.0.2.11"), netip.MustParseAddr("2001:db8::11")
	// The set is so large that the programs are as long as they can be.
	set := []netipx.IPRange{netipx.IPRangeFrom(ours4, ours4), netipx.IPRangeFrom(ours6, ours6)}
	for i := range uint32(3000) {
		for _, addr := range []netip.Addr{address4(10<<24 + 7*i*i), address6(0x20010db800010000, uint64(i)<<34)} {
			set = append(set, netipx.IPRangeFrom(addr, addr))
		}
	}
	for _, test := range []struct {
		name     string
		protocol int
		compile  func(int, []netipx.IPRange) ([]bpf.RawInstruction, error)
		good     []byte
		foreign  [][]byte
	}{
		{"ARP", unix.ETH_P_ARP, ARP, arpFrame(1, theirs4, ours4), [][]byte{arpFrame(1, theirs4, theirs4), arpFrame(2, theirs4, ours4)}},
		{"NDP", unix.ETH_P_IPV6, NDP, ndpFrame(135, ours6), [][]byte{ndpFrame(135, theirs6), ndpFrame(134, ours6)}},
		{"ARPFrom", unix.ETH_P_ARP, ARPFrom, arpFrame(2, ours4, theirs4), [][]byte{arpFrame(2, theirs4, theirs4), arpFrame(1, theirs4, ours4)}},
		{"NDPFrom", unix.ETH_P_IPV6, NDPFrom, sent(ndpFrame(136, theirs6), ours6), [][]byte{sent(ndpFrame(136, theirs6), theirs6), sent(ndpFrame(135, ours6), theirs6)}},
	} {
		t.Run(test.name, func(t *testing.T) {
			program, err := test.compile(near.Index, set)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d instructions", len(program))
			// A socket that listens to one protocol would not get outgoing
			// frames in the first place.
			listener := listen(t, near, &packet.Config{Filter: program})
			if err := listener.SetBPF(program); err != nil {
				t.Fatalf("exchange of a program: %v", err)
			}
			outgoing, incoming := listen(t, near, nil), listen(t, far, nil)

			for _, frame := range test.foreign {
				send(t, incoming, frame, 1)
			}
			send(t, outgoing, test.good, 3)
			send(t, incoming, test.good, 4)
			if got := receive(t, listener); got != 4 {
				t.Errorf("received frame %d, want 4", got)
			}
			send(t, outgoing, test.good, 5)
			send(t, incoming, test.good, 6)
			if got := receive(t, listener); got != 6 {
				t.Errorf("received frame %d, want 6", got)
			}
			bound := listenTo(t, near, test.protocol, &packet.Config{Filter: program})
			testDelivery(t, bound, incoming, near, test.good)
		})
	}
}

// testDelivery shows which of the frames that a NIC gets a socket of one protocol
// sees: those of the interface itself.
func testDelivery(t *testing.T, conn, incoming *packet.Conn, near *net.Interface, frame []byte) {
	t.Helper()
	unicast := func(mac []byte) []byte { return append(append([]byte{}, mac...), frame[6:]...) }
	stranger := []byte{2, 0, 0, 0, 0, 0x66}
	for name, foreign := range map[string][]byte{
		"of a VLAN that the node does not know": broadcast(tagged(frame, 5)),
		"to it, of such a VLAN":                 tagged(unicast(near.HardwareAddr), 5),
		"of a VLAN interface":                   broadcast(tagged(frame, childVLAN)),
		"to a VLAN interface":                   tagged(unicast(near.HardwareAddr), childVLAN),
		"to a macvlan interface":                unicast(childMAC),
		"to another host":                       unicast(stranger),
	} {
		sendAs(t, incoming, foreign, 7)
		sendAs(t, incoming, broadcast(frame), 8)
		if got := receive(t, conn); got != 8 {
			t.Errorf("a frame %s is seen", name)
			receive(t, conn)
		}
	}
	for name, own := range map[string][]byte{
		"untagged": broadcast(frame), "of VLAN 0": broadcast(tagged(frame, 0)), "to the interface": unicast(near.HardwareAddr),
	} {
		sendAs(t, incoming, own, 9)
		if got := receive(t, conn); got != 9 {
			t.Errorf("of the frame %s, received %d", name, got)
		}
	}
}

// limitMemory sets the limit for the option memory of sockets. Before Linux 6.8 a
// namespace has none of its own.
func limitMemory(octets int) error {
	return os.WriteFile("/proc/sys/net/core/optmem_max", []byte(strconv.Itoa(octets)), 0)
}

// testMemory shows that the kernel takes programs of all shapes, and that they
// need no more memory than is reckoned.
func testMemory(t *testing.T, ifi *net.Interface) {
	random := rand.New(rand.NewPCG(13, 14))
	for _, f := range families {
		for i := 0; i < 150; i += 5 {
			var ranges []netipx.IPRange
			for range 1 + random.IntN(1+2*i) {
				from := f.random(random)
				to := from
				if next := from.Next(); random.IntN(3) == 0 && next.IsValid() {
					to = next
				}
				ranges = append(ranges, netipx.IPRangeFrom(from, to))
			}
			normal, err := normalize(ranges, f.first)
			if err != nil {
				t.Fatal(err)
			}
			exact := f.exact(ifi.Index, normal)
			reckoned := min(exact.memory(), maxMemory)
			program, err := f.write(ifi.Index, ranges)
			if err != nil {
				t.Fatal(err)
			}
			if err := limitMemory(reckoned); err != nil {
				t.Skipf("the limit of the host applies: %v", err)
			}
			conn, err := packet.Listen(ifi, packet.Raw, unix.ETH_P_ALL, &packet.Config{Filter: program})
			if err != nil {
				t.Fatalf("%s: %d instructions for %d ranges, reckoned to take %d octets: %v", f.name, len(program), len(normal), reckoned, err)
			}
			_ = conn.Close()
		}
	}
}

// tagged is the frame with a tag, which the kernel takes out before sockets see
// the frame.
func tagged(frame []byte, vlan byte) []byte {
	return append(append(append([]byte{}, frame[:12]...), 0x81, 0x00, 0x00, vlan), frame[12:]...)
}

// childVLAN and childMAC are those of interfaces on top of the near end. A kernel
// without VLAN interfaces treats the VLAN as one that the node does not know.
const childVLAN = 6

var childMAC = net.HardwareAddr{2, 0, 0, 0, 0, 0x77}

func broadcast(frame []byte) []byte {
	return append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, frame[6:]...)
}

// veth makes a pair, of which the near end is promiscuous and has others on top.
func veth(t *testing.T) (near, far *net.Interface) {
	t.Helper()
	attributes := netlink.NewLinkAttrs()
	attributes.Name = "near"
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attributes, PeerName: "far"}); err != nil {
		t.Fatal(err)
	}
	ends := make([]*net.Interface, 0, 2)
	for _, name := range []string{"near", "far"} {
		link, err := netlink.LinkByName(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.LinkSetUp(link); err != nil {
			t.Fatal(err)
		}
		end, err := net.InterfaceByName(name)
		if err != nil {
			t.Fatal(err)
		}
		ends = append(ends, end)
	}
	parent, err := netlink.LinkByName("near")
	if err != nil {
		t.Fatal(err)
	}
	attributes = netlink.NewLinkAttrs()
	attributes.Name, attributes.ParentIndex, attributes.HardwareAddr = "near.m", ends[0].Index, childMAC
	child := &netlink.Macvlan{LinkAttrs: attributes, Mode: netlink.MACVLAN_MODE_BRIDGE}
	if err := errors.Join(netlink.LinkAdd(child), netlink.LinkSetUp(child)); err != nil {
		t.Fatal(err)
	}
	attributes.Name, attributes.HardwareAddr = "near.6", nil
	vlan := &netlink.Vlan{LinkAttrs: attributes, VlanId: childVLAN}
	if err := netlink.LinkAdd(vlan); errors.Is(err, unix.EOPNOTSUPP) {
		t.Log("the kernel has no VLAN interfaces")
	} else if err = errors.Join(err, netlink.LinkSetUp(vlan)); err != nil {
		t.Fatal(err)
	}
	if err := netlink.SetPromiscOn(parent); err != nil {
		t.Fatal(err)
	}
	return ends[0], ends[1]
}

func listen(t *testing.T, ifi *net.Interface, config *packet.Config) *packet.Conn {
	t.Helper()
	return listenTo(t, ifi, unix.ETH_P_ALL, config)
}

func listenTo(t *testing.T, ifi *net.Interface, protocol int, config *packet.Config) *packet.Conn {
	t.Helper()
	conn, err := packet.Listen(ifi, packet.Raw, protocol, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// send broadcasts the frame, marked with a number.
func send(t *testing.T, conn *packet.Conn, frame []byte, number uint16) {
	t.Helper()
	sendAs(t, conn, broadcast(frame), number)
}

// sendAs marks the frame with a number in its Ethernet source.
func sendAs(t *testing.T, conn *packet.Conn, frame []byte, number uint16) {
	t.Helper()
	frame = append([]byte{}, frame...)
	copy(frame[6:], []byte{0x02, 0, 0, 0})
	binary.BigEndian.PutUint16(frame[10:], number)
	if _, err := conn.WriteTo(frame, &packet.Addr{HardwareAddr: frame[:6]}); err != nil {
		t.Fatal(err)
	}
}

// receive is the number of the next frame. Frames of a veth stay in order, so it
// tells that those before were rejected.
func receive(t *testing.T, conn *packet.Conn) uint16 {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 1500)
	n, _, err := conn.ReadFrom(buffer)
	if err != nil {
		t.Fatal(err)
	}
	if n < 42 {
		t.Fatalf("received %d octets", n)
	}
	return binary.BigEndian.Uint16(buffer[10:])
}
