package layer2

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

// socket sends and receives Ethernet frames on one interface. Read is for one
// goroutine at a time and ends when the socket is closed; Write is for any, and
// does not wait for room.
type socket interface {
	Read(buffer []byte) (int, error)
	Write(frame []byte) error
	// SetFilter makes the kernel drop what the program does not accept.
	SetFilter(program []bpf.RawInstruction) error
	// SetGroups says which multicast groups are to be received, these and no
	// others; Join then joins and leaves, at most so many of them at a time, as
	// long as there are more. An error means that some may not be received.
	SetGroups(groups map[netip.Addr]announce.MAC)
	Join(limit int) (more bool, err error)
	Close() error
}

// etherTypes are what a socket of each family receives.
var etherTypes = [families]int{ipv4: unix.ETH_P_ARP, ipv6: unix.ETH_P_IPV6}

// packetSocket is a socket of AF_PACKET.
type packetSocket struct {
	conn   *packet.Conn
	raw    syscall.RawConn
	groups memberships

	// The functions for raw are made once, so that no packet costs an
	// allocation.
	buffer    []byte
	length    int
	readErr   error
	readOnce  func(fd uintptr) bool
	sending   sync.Mutex
	frame     []byte
	writeErr  error
	writeOnce func(fd uintptr) bool
}

// openSocket opens a socket that never receives what the program rejects: it is
// in force before the socket is bound.
func openSocket(index int, f family, program []bpf.RawInstruction) (socket, error) {
	conn, err := packet.Listen(&net.Interface{Index: index}, packet.Raw, etherTypes[f], &packet.Config{Filter: program})
	if err != nil {
		return nil, err
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	s := &packetSocket{conn: conn, raw: raw, groups: memberships{index: index, conn: conn}}
	s.readOnce = func(fd uintptr) bool {
		s.length, s.readErr = unix.Read(int(fd), s.buffer)
		return s.readErr != unix.EAGAIN
	}
	s.writeOnce = func(fd uintptr) bool {
		_, s.writeErr = unix.Write(int(fd), s.frame)
		return true // full is an error like others: the sender comes again
	}
	return s, nil
}

// Read is of socket.
func (s *packetSocket) Read(buffer []byte) (int, error) {
	for {
		s.buffer = buffer
		if err := s.raw.Read(s.readOnce); err != nil {
			return 0, err
		}
		if s.readErr != unix.EINTR {
			return s.length, s.readErr
		}
	}
}

// Write is of socket.
func (s *packetSocket) Write(frame []byte) error {
	s.sending.Lock()
	defer s.sending.Unlock()
	s.frame = frame
	if err := s.raw.Write(s.writeOnce); err != nil {
		return err
	}
	return s.writeErr
}

// SetFilter is of socket.
func (s *packetSocket) SetFilter(program []bpf.RawInstruction) error {
	return s.conn.SetBPF(program)
}

// SetGroups is of socket.
func (s *packetSocket) SetGroups(groups map[netip.Addr]announce.MAC) {
	s.groups.set(groups)
}

// Join is of socket.
func (s *packetSocket) Join(limit int) (more bool, err error) {
	return s.groups.advance(limit)
}

// Close is of socket.
func (s *packetSocket) Close() error {
	return errors.Join(s.groups.close(), s.conn.Close())
}

// isGone reports whether the error says that the interface is down or gone: the
// socket will not come to life again by itself, or nobody would notice.
func isGone(err error) bool {
	return errors.Is(err, unix.ENETDOWN) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENODEV)
}

// explain says what to do about a socket that cannot be opened.
func explain(name string, f family, err error) string {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return fmt.Sprintf("interface %s: no packet socket for %v: the speaker needs the capability NET_RAW", name, f)
	}
	return fmt.Sprintf("interface %s: no packet socket for %v, tried again each second: %v", name, f, err)
}
