package wire

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// port is a raw socket on an interface.
type port struct {
	conn       *packet.Conn
	mac        net.HardwareAddr
	ipv4, ipv6 netip.Addr // the first global ones; zero if there is none
}

// What a port hears.
type hearing int

const (
	nothing  hearing = iota
	received         // not what the host itself sends
	everything
)

// receiveBuffer has room for some ten thousand packets.
const receiveBuffer = 16 << 20

func open(name string, hears hearing) (*port, error) {
	if name == "" {
		name = "eth0"
	}
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", name, err)
	}
	filter, err := bpf.Assemble(program(hears))
	if err != nil {
		return nil, fmt.Errorf("filter: %w", err)
	}
	p := &port{mac: ifi.HardwareAddr}
	if p.conn, err = packet.Listen(ifi, packet.Raw, unix.ETH_P_ALL, &packet.Config{Filter: filter}); err != nil {
		return nil, fmt.Errorf("raw socket on %s: %w", name, err)
	}
	if err := p.enlarge(); err != nil {
		p.conn.Close()
		return nil, err
	}
	addresses, err := ifi.Addrs()
	if err != nil {
		p.conn.Close()
		return nil, fmt.Errorf("addresses of %s: %w", name, err)
	}
	for _, a := range addresses {
		prefix, err := netip.ParsePrefix(a.String())
		if err != nil || !prefix.Addr().IsGlobalUnicast() {
			continue
		}
		if own := prefix.Addr(); own.Is4() && !p.ipv4.IsValid() {
			p.ipv4 = own
		} else if own.Is6() && !p.ipv6.IsValid() {
			p.ipv6 = own
		}
	}
	return p, nil
}

func (p *port) enlarge() error {
	raw, err := p.conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer)
	})
	if err = errors.Join(err, failed); err != nil {
		return fmt.Errorf("receive buffer: %w", err)
	}
	return nil
}

// own is the interface's own address of the family.
func (p *port) own(family netip.Addr) (netip.Addr, error) {
	own := p.ipv6
	if family.Is4() {
		own = p.ipv4
	}
	if !own.IsValid() {
		return own, fmt.Errorf("the interface has no address to ask for %s from", family)
	}
	return own, nil
}

// send sends a frame. A full queue of the interface is not an error: frames are
// lost on every network.
func (p *port) send(frame []byte) error {
	_, err := p.conn.WriteTo(frame, &packet.Addr{HardwareAddr: net.HardwareAddr(frame[:6])})
	if errors.Is(err, unix.ENOBUFS) {
		return nil
	}
	return err
}

// receive calls f with each packet until ctx ends or f returns false.
func (p *port) receive(ctx context.Context, f func(Packet) bool) error {
	stop := context.AfterFunc(ctx, func() { _ = p.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	buffer := make([]byte, 1<<16)
	own := p.mac.String()
	for {
		n, _, err := p.conn.ReadFrom(buffer)
		if ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if errors.Is(err, unix.ENETDOWN) {
			continue // the interface may come up again
		}
		if err != nil {
			return err
		}
		packet := parse(buffer[:n])
		packet.Time, packet.Sent = time.Now(), packet.Source == own
		if !f(packet) {
			return nil
		}
	}
}

// dropped is how many packets the kernel had no room for.
func (p *port) dropped() int {
	stats, err := p.conn.Stats()
	if err != nil {
		return 0
	}
	return int(stats.Drops)
}

// program is the filter of a port: ARP, neighbour solicitations and
// advertisements, without VLAN tag.
func program(hears hearing) []bpf.Instruction {
	if hears == nothing {
		return []bpf.Instruction{bpf.RetConstant{Val: 0}}
	}
	outgoing := uint32(unix.PACKET_OUTGOING)
	if hears == everything {
		outgoing = 0xff // no such type
	}
	const afterEther = etherHeader
	return []bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtVLANTagPresent},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0, SkipTrue: 11},
		bpf.LoadExtension{Num: bpf.ExtType},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: outgoing, SkipTrue: 9},
		bpf.LoadAbsolute{Off: 12, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: etherARP, SkipTrue: 6},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: etherIPv6, SkipTrue: 6},
		bpf.LoadAbsolute{Off: afterEther + 6, Size: 1}, // next header
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: nextICMPv6, SkipTrue: 4},
		bpf.LoadAbsolute{Off: afterEther + ipv6Header, Size: 1}, // type
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: typeNS, SkipTrue: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: typeNA, SkipTrue: 1},
		bpf.RetConstant{Val: 1 << 16},
		bpf.RetConstant{Val: 0},
	}
}
