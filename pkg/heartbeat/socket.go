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
// one goroutine; Send for any.
type conn interface {
	// Receive waits for a packet, or for a host's message that nobody listens on
	// its port.
	Receive(buffer []byte) (event, error)
	Send(data []byte, to netip.Addr) error
	Close() error
}

// event is what Receive returns: a packet of n bytes, or who has refused one.
type event struct {
	n    int
	hops int
	// refused is valid if it is no packet.
	refused netip.Addr
}

// udpConn is a UDP socket that is bound to an interface. It reads the messages of
// ICMP that its packets cause (IP_RECVERR), which tell at once that a speaker is
// gone and that its kernel is not.
type udpConn struct {
	*net.UDPConn
	raw     syscall.RawConn
	control [256]byte
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
			err = errors.Join(unix.BindToDevice(int(fd), name), setOptions(int(fd)))
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
	return &udpConn{UDPConn: udp, raw: raw}, nil
}

func setOptions4(fd int) error {
	return errors.Join(
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TTL, hops),
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVTTL, 1),
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVERR, 1),
	)
}

func setOptions6(fd int) error {
	return errors.Join(
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, hops),
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT, 1),
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1),
	)
}

// Receive is of conn.
func (c *udpConn) Receive(buffer []byte) (e event, err error) {
	waitErr := c.raw.Read(func(fd uintptr) bool {
		for {
			if e, err = c.receive(int(fd), buffer, unix.MSG_ERRQUEUE); err == nil && !e.refused.IsValid() {
				continue // it says something else
			}
			if err == nil {
				return true
			}
			// An error of the past is told once by whatever call comes next.
			if e, err = c.receive(int(fd), buffer, 0); err == nil || !isPast(err) {
				return err != unix.EAGAIN
			}
		}
	})
	return e, errors.Join(waitErr, err)
}

// isPast reports whether the error is about a packet that was sent before.
func isPast(err error) bool {
	return errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.EHOSTUNREACH) || errors.Is(err, unix.ENETUNREACH) ||
		errors.Is(err, unix.EINTR) || errors.Is(err, unix.EPROTO) || errors.Is(err, unix.EMSGSIZE) || errors.Is(err, unix.EACCES)
}

// receive is one system call.
func (c *udpConn) receive(fd int, buffer []byte, flags int) (event, error) {
	n, controlled, _, from, err := unix.Recvmsg(fd, buffer, c.control[:], flags|unix.MSG_DONTWAIT)
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
func (c *udpConn) Send(data []byte, to netip.Addr) error {
	for range 2 { // the first call may tell an error of the past
		_, err := c.WriteToUDPAddrPort(data, netip.AddrPortFrom(to, Port))
		if err == nil || !isPast(err) {
			return err
		}
	}
	return nil
}
