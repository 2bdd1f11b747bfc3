package heartbeat

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// Port is the UDP port of heartbeats. Firewalls between the nodes have to let it
// through, on the interfaces that announce.
const Port = 7480

// hops is the TTL or hop limit of heartbeats: no router has forwarded a packet that
// arrives with it (RFC 5082).
const hops = 255

// receiveBuffer bounds what waits in the kernel, in bytes: the tables of several
// fellows, or a flood until it is sorted out.
const receiveBuffer = 256 << 10

// conn sends and receives heartbeats of one family on one interface. Receive is for
// one goroutine, and so is Send.
type conn interface {
	// Receive waits for a packet, or for a host's message that nobody listens on
	// its port.
	Receive(buffer []byte) (event, error)
	// Send does not wait for room.
	Send(data []byte, to route) error
	// Admit makes the kernel drop what is not from one of the fellows to the node.
	Admit(self id, fellows []id) error
	Close() error
}

// event is what Receive returns: a packet of n bytes, or who has refused one.
type event struct {
	n    int
	hops int
	// dropped are the packets that the kernel had dropped so far.
	dropped uint32
	// refused is valid if it is no packet.
	refused netip.Addr
}

// udpConn is a UDP socket that is bound to an interface, and receives. It reads the messages of
// ICMP that its packets cause (IP_RECVERR), which tell at once that a speaker is
// gone and that its kernel is not.
type udpConn struct {
	udp     *net.UDPConn
	raw     syscall.RawConn
	control [256]byte
	// errors is whether messages of ICMP are next: neither they nor packets are to
	// wait for the others to end.
	errors bool

	// The functions for raw are made once, so that no packet costs an allocation for
	// them.
	buffer      []byte
	event       event
	receiveErr  error
	receiveOnce func(fd uintptr) bool

	frames *frames
}

// listen opens the port on an interface.
func listen(ctx context.Context, name string, v4 bool) (conn, error) {
	network, setOptions := "udp6", setOptions6
	if v4 {
		network, setOptions = "udp4", setOptions4
	}
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		controlErr := raw.Control(func(fd uintptr) {
			// A smaller buffer works, too.
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
			err = errors.Join(
				unix.BindToDevice(int(fd), name),
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1),
				setOptions(int(fd)),
			)
		})
		return errors.Join(controlErr, err)
	}}
	packets, err := config.ListenPacket(ctx, network, fmt.Sprintf(":%d", Port))
	if err != nil {
		return nil, err
	}
	udp := packets.(*net.UDPConn)
	raw, err := udp.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, udp.Close())
	}
	frames, err := openFrames()
	if err != nil {
		return nil, errors.Join(err, udp.Close())
	}
	c := &udpConn{udp: udp, raw: raw, frames: frames}
	c.receiveOnce = func(fd uintptr) bool { return c.receiveAny(int(fd)) }
	return c, nil
}

func setOptions4(fd int) error {
	return errors.Join(
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVTTL, 1),
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVERR, 1),
	)
}

func setOptions6(fd int) error {
	return errors.Join(
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT, 1),
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1),
	)
}

// Receive is of conn.
func (c *udpConn) Receive(buffer []byte) (event, error) {
	c.buffer = buffer
	if err := c.raw.Read(c.receiveOnce); err != nil {
		return event{}, err
	}
	return c.event, c.receiveErr
}

// receiveAny reports whether there was something.
func (c *udpConn) receiveAny(fd int) bool {
	for empty := 0; empty < 2; {
		flags := 0
		if c.errors = !c.errors; c.errors {
			flags = unix.MSG_ERRQUEUE
		}
		c.event, c.receiveErr = c.receive(fd, flags)
		switch err := c.receiveErr; {
		case err == nil && (flags == 0 || c.event.refused.IsValid()):
			return true
		case err == nil, isPast(err): // it says something else, or is of no packet
			empty = 0
		case err == unix.EAGAIN:
			empty++
		default:
			return true
		}
	}
	return false
}

// isPast reports whether the error is about a packet that was sent before.
func isPast(err error) bool {
	return errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.EHOSTUNREACH) || errors.Is(err, unix.ENETUNREACH) ||
		errors.Is(err, unix.EINTR) || errors.Is(err, unix.EPROTO) || errors.Is(err, unix.EMSGSIZE) || errors.Is(err, unix.EACCES)
}

// receive is one system call.
func (c *udpConn) receive(fd, flags int) (event, error) {
	n, controlled, _, from, err := unix.Recvmsg(fd, c.buffer, c.control[:], flags|unix.MSG_DONTWAIT)
	if err != nil {
		return event{}, err
	}
	e := event{n: n}
	for control := c.control[:controlled]; len(control) >= unix.CmsgLen(0); {
		header, data, rest, err := unix.ParseOneSocketControlMessage(control)
		if err != nil {
			break // what is missing counts as a packet from afar
		}
		control = rest
		switch {
		case header.Level == unix.IPPROTO_IP && header.Type == unix.IP_TTL && len(data) >= 4,
			header.Level == unix.IPPROTO_IPV6 && header.Type == unix.IPV6_HOPLIMIT && len(data) >= 4:
			e.hops = int(binary.NativeEndian.Uint32(data))
		case header.Level == unix.SOL_SOCKET && header.Type == unix.SO_RXQ_OVFL && len(data) >= 4:
			e.dropped = binary.NativeEndian.Uint32(data)
		case header.Level == unix.IPPROTO_IP && header.Type == unix.IP_RECVERR,
			header.Level == unix.IPPROTO_IPV6 && header.Type == unix.IPV6_RECVERR:
			if isRefusal(data) {
				e.refused = addrOf(from) // where the packet was sent
			}
		}
	}
	return e, nil
}

// isRefusal reports whether a sock_extended_err (linux/errqueue.h) is the message of
// a host that nobody listens there.
func isRefusal(data []byte) bool {
	return len(data) >= 5 && unix.Errno(binary.NativeEndian.Uint32(data)) == unix.ECONNREFUSED &&
		(data[4] == unix.SO_EE_ORIGIN_ICMP || data[4] == unix.SO_EE_ORIGIN_ICMP6)
}

func addrOf(from unix.Sockaddr) netip.Addr {
	switch a := from.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrFrom4(a.Addr)
	case *unix.SockaddrInet6:
		return netip.AddrFrom16(a.Addr)
	}
	return netip.Addr{}
}

// Send is of conn.
func (c *udpConn) Send(data []byte, to route) error { return c.frames.send(to, data) }

// Admit is of conn.
func (c *udpConn) Admit(self id, fellows []id) error {
	program, err := admission(self, fellows)
	if err != nil {
		return err
	}
	filter := make([]unix.SockFilter, len(program))
	for i, p := range program {
		filter[i] = unix.SockFilter{Code: p.Op, Jt: p.Jt, Jf: p.Jf, K: p.K}
	}
	controlErr := c.raw.Control(func(fd uintptr) {
		err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
	})
	return errors.Join(controlErr, err)
}

// Close is of conn.
func (c *udpConn) Close() error { return errors.Join(c.udp.Close(), c.frames.close()) }
