package layer2

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

// memberships are the solicited-node groups (RFC 4291 section 2.7.1) that an
// interface receives for addresses that the kernel does not know. The packet
// socket's memberships make the NIC accept the groups' frames; those of the UDP
// sockets make the kernel report them by MLD (RFC 3810), without which a
// snooping switch would not deliver them.
type memberships struct {
	index int
	conn  *packet.Conn
	// joined are the sockets by group, or -1 where MLD does not report it. The
	// NIC's filter has all groups that are in it.
	joined map[netip.Addr]int
	// sockets are unbound UDP sockets. The kernel limits the memberships of one
	// (net.core.optmem_max), hence several.
	sockets []int
}

// set joins and leaves groups so that these remain. It goes on after an error.
func (m *memberships) set(groups map[netip.Addr]announce.MAC) error {
	if m.joined == nil {
		m.joined = make(map[netip.Addr]int)
	}
	var first error
	failed := 0
	for group, fd := range m.joined {
		if _, wanted := groups[group]; wanted {
			continue
		}
		delete(m.joined, group)
		if fd >= 0 {
			// Groups of an interface that is gone are left already.
			_ = unix.SetsockoptIPv6Mreq(fd, unix.IPPROTO_IPV6, unix.IPV6_LEAVE_GROUP, m.request(group))
		}
		mac := groupMAC(group)
		_ = m.conn.LeaveGroup(mac[:])
	}
	for group, mac := range groups {
		if err := m.join(group, mac); err != nil {
			failed++
			first = err
		}
	}
	if failed > 0 {
		return fmt.Errorf("switches are not told of %d of %d multicast groups (enable IPv6 on the interface): %w", failed, len(groups), first)
	}
	return nil
}

// groupMAC is the Ethernet group that carries an IPv6 group (RFC 2464 section 7).
func groupMAC(group netip.Addr) announce.MAC {
	octets := group.As16()
	return announce.MAC{0x33, 0x33, octets[12], octets[13], octets[14], octets[15]}
}

func (m *memberships) join(group netip.Addr, mac announce.MAC) error {
	fd, joined := m.joined[group]
	if joined && fd >= 0 {
		return nil
	}
	if !joined {
		if err := m.conn.JoinGroup(mac[:]); err != nil {
			return err
		}
		m.joined[group] = -1
	}
	fd, err := m.report(group)
	if err != nil {
		return err
	}
	m.joined[group] = fd
	return nil
}

// report makes the kernel report the group, by the newest socket or, if that is
// full, by another one.
func (m *memberships) report(group netip.Addr) (fd int, err error) {
	if n := len(m.sockets); n > 0 {
		fd = m.sockets[n-1]
		err = unix.SetsockoptIPv6Mreq(fd, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP, m.request(group))
		if !errors.Is(err, unix.ENOMEM) && !errors.Is(err, unix.ENOBUFS) {
			return fd, err
		}
	}
	fd, err = unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("a socket for MLD: %w", err)
	}
	if err := unix.SetsockoptIPv6Mreq(fd, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP, m.request(group)); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	m.sockets = append(m.sockets, fd)
	return fd, nil
}

func (m *memberships) request(group netip.Addr) *unix.IPv6Mreq {
	return &unix.IPv6Mreq{Multiaddr: group.As16(), Interface: uint32(m.index)}
}

// close leaves all groups but those of the packet socket, which leaves its own.
func (m *memberships) close() error {
	var errs []error
	for _, fd := range m.sockets {
		errs = append(errs, unix.Close(fd))
	}
	m.sockets, m.joined = nil, nil
	return errors.Join(errs...)
}
