package heartbeat

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
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
	// Receive returns a packet, and whether no router has forwarded it.
	Receive(buffer []byte) (n int, near bool, err error)
	Send(data []byte, to netip.Addr) error
	Close() error
}

// listen opens the port on an interface.
func listen(ctx context.Context, name string, v4 bool) (conn, error) {
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		controlErr := raw.Control(func(fd uintptr) {
			if err = unix.BindToDevice(int(fd), name); err == nil {
				// A smaller buffer works, too.
				_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
			}
		})
		if controlErr != nil {
			return controlErr
		}
		return err
	}}
	network := "udp6"
	if v4 {
		network = "udp4"
	}
	packets, err := config.ListenPacket(ctx, network, fmt.Sprintf(":%d", Port))
	if err != nil {
		return nil, err
	}
	udp := packets.(*net.UDPConn)
	if v4 {
		c := ipv4.NewPacketConn(udp)
		if err = c.SetTTL(hops); err == nil {
			err = c.SetControlMessage(ipv4.FlagTTL, true)
		}
		if err == nil {
			return &conn4{udp, c}, nil
		}
	} else {
		c := ipv6.NewPacketConn(udp)
		if err = c.SetHopLimit(hops); err == nil {
			err = c.SetControlMessage(ipv6.FlagHopLimit, true)
		}
		if err == nil {
			return &conn6{udp, c}, nil
		}
	}
	_ = udp.Close() // it is of no use
	return nil, err
}

type conn4 struct {
	*net.UDPConn
	packets *ipv4.PacketConn
}

// Receive is of conn.
func (c *conn4) Receive(buffer []byte) (n int, near bool, err error) {
	n, control, _, err := c.packets.ReadFrom(buffer)
	return n, control != nil && control.TTL == hops, err
}

// Send is of conn.
func (c *conn4) Send(data []byte, to netip.Addr) error { return send(c.UDPConn, data, to) }

type conn6 struct {
	*net.UDPConn
	packets *ipv6.PacketConn
}

// Receive is of conn.
func (c *conn6) Receive(buffer []byte) (n int, near bool, err error) {
	n, control, _, err := c.packets.ReadFrom(buffer)
	return n, control != nil && control.HopLimit == hops, err
}

// Send is of conn.
func (c *conn6) Send(data []byte, to netip.Addr) error { return send(c.UDPConn, data, to) }

func send(c *net.UDPConn, data []byte, to netip.Addr) error {
	_, err := c.WriteToUDPAddrPort(data, netip.AddrPortFrom(to, Port))
	return err
}
