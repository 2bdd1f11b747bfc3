package layer2

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

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
	index  int
	conn   *packet.Conn
	wanted map[netip.Addr]announce.MAC
	// joined are the sockets by group, or nil where MLD does not report it. The
	// NIC's filter has all groups that are in it.
	joined map[netip.Addr]*reporter
	// reporters are unbound UDP sockets. The kernel limits the memberships of one
	// (net.core.optmem_max), hence several.
	reporters []*reporter
	// todo are the groups to leave and to join. Of those that it had, failed could
	// not be joined, the latest one because of reason.
	todo   []netip.Addr
	failed int
	reason error
}

// reporter is a socket with so many memberships.
type reporter struct{ fd, groups int }

// set begins to join and leave groups so that these remain.
func (m *memberships) set(groups map[netip.Addr]announce.MAC) {
	if m.joined == nil {
		m.joined = make(map[netip.Addr]*reporter)
	}
	m.wanted, m.todo, m.failed, m.reason = groups, m.todo[:0], 0, nil
	m.expire()
	for group := range m.joined {
		if _, wanted := groups[group]; !wanted {
			m.todo = append(m.todo, group)
		}
	}
	for group := range groups {
		if m.joined[group] == nil {
			m.todo = append(m.todo, group)
		}
	}
}

// advance joins and leaves at most so many groups and reports whether there are
// more. When there are none, an error means that some could not be joined.
func (m *memberships) advance(limit int) (more bool, err error) {
	n := min(limit, len(m.todo))
	for _, group := range m.todo[:n] {
		mac, wanted := m.wanted[group]
		if !wanted {
			m.leave(group)
		} else if err := m.join(group, mac); err != nil {
			m.failed++
			m.reason = err
		}
	}
	m.todo = m.todo[n:]
	switch {
	case len(m.todo) > 0:
		return true, nil
	case m.failed > 0:
		return false, fmt.Errorf("switches are not told of %d of %d multicast groups (enable IPv6 on the interface): %w", m.failed, len(m.wanted), m.reason)
	}
	m.todo = nil
	return false, nil
}

// expire gives up the memberships that the kernel reports no longer: it forgets
// them all when the interface loses IPv6, by an MTU below 1280 for example, and
// does not find them again when that is back.
func (m *memberships) expire() {
	if len(m.reporters) == 0 {
		return
	}
	text, err := os.ReadFile("/proc/net/igmp6")
	if err != nil {
		return // then nobody knows better
	}
	reported := make(map[netip.Addr]bool)
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 3 || fields[0] != strconv.Itoa(m.index) {
			continue
		}
		if octets, err := hex.DecodeString(fields[2]); err == nil && len(octets) == 16 {
			reported[netip.AddrFrom16([16]byte(octets))] = true
		}
	}
	for group, r := range m.joined {
		if r != nil && !reported[group] {
			m.joined[group] = nil
			m.release(r, group)
		}
	}
}

func (m *memberships) leave(group netip.Addr) {
	if r := m.joined[group]; r != nil {
		m.release(r, group)
	}
	delete(m.joined, group)
	mac := groupMAC(group)
	// Groups of an interface that is gone are left already.
	_ = m.conn.LeaveGroup(mac[:])
}

// release ends a membership, and the socket with its last one.
func (m *memberships) release(r *reporter, group netip.Addr) {
	_ = unix.SetsockoptIPv6Mreq(r.fd, unix.IPPROTO_IPV6, unix.IPV6_LEAVE_GROUP, m.request(group)) // see leave
	if r.groups--; r.groups == 0 {
		m.reporters = slices.DeleteFunc(m.reporters, func(other *reporter) bool { return other == r })
		_ = unix.Close(r.fd) // it is not used any more either way
	}
}

// groupMAC is the Ethernet group that carries an IPv6 group (RFC 2464 section 7).
func groupMAC(group netip.Addr) announce.MAC {
	octets := group.As16()
	return announce.MAC{0x33, 0x33, octets[12], octets[13], octets[14], octets[15]}
}

func (m *memberships) join(group netip.Addr, mac announce.MAC) error {
	if _, joined := m.joined[group]; !joined {
		if err := m.conn.JoinGroup(mac[:]); err != nil {
			return err
		}
		m.joined[group] = nil
	}
	r, err := m.report(group)
	if err != nil {
		return err
	}
	r.groups++
	m.joined[group] = r
	return nil
}

// report makes the kernel report the group, by the newest socket or, if that is
// full, by another one.
func (m *memberships) report(group netip.Addr) (*reporter, error) {
	if n := len(m.reporters); n > 0 {
		r := m.reporters[n-1]
		err := unix.SetsockoptIPv6Mreq(r.fd, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP, m.request(group))
		if err == nil {
			return r, nil
		}
		if !errors.Is(err, unix.ENOMEM) && !errors.Is(err, unix.ENOBUFS) {
			return nil, err
		}
	}
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("a socket for MLD: %w", err)
	}
	if err := unix.SetsockoptIPv6Mreq(fd, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP, m.request(group)); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	r := &reporter{fd: fd}
	m.reporters = append(m.reporters, r)
	return r, nil
}

func (m *memberships) request(group netip.Addr) *unix.IPv6Mreq {
	return &unix.IPv6Mreq{Multiaddr: group.As16(), Interface: uint32(m.index)}
}

// close leaves all groups but those of the packet socket, which leaves its own.
func (m *memberships) close() error {
	var errs []error
	for _, r := range m.reporters {
		errs = append(errs, unix.Close(r.fd))
	}
	m.reporters, m.joined, m.todo = nil, nil, nil
	return errors.Join(errs...)
}
