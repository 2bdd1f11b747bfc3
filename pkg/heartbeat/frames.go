package heartbeat

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

// route is the way to a fellow.
type route struct {
	link     int // index of the interface
	mac      announce.MAC
	from, to netip.Addr
}

// frames sends heartbeats to the MAC address of the fellow's interface, rather than
// where the kernel would: where a node has several interfaces on one LAN, any of them
// may answer ARP for the address of the other, and heartbeats would come in on a link
// that they say nothing about. Nor do they wait for the kernel to find a neighbour
// that it has lost.
type frames struct {
	fd     int
	buffer []byte
}

// openFrames opens the socket, which never receives: it has no protocol.
func openFrames() (*frames, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	return &frames{fd: fd}, nil
}

// send sends a UDP datagram from and to Port. It does not wait for room.
func (f *frames) send(r route, data []byte) error {
	f.buffer = appendDatagram(f.buffer[:0], r.from, r.to, data)
	address := unix.SockaddrLinklayer{Protocol: swap(unix.ETH_P_IPV6), Ifindex: r.link, Halen: uint8(len(r.mac))}
	if r.from.Is4() {
		address.Protocol = swap(unix.ETH_P_IP)
	}
	copy(address.Addr[:], r.mac[:])
	return unix.Sendto(f.fd, f.buffer, unix.MSG_DONTWAIT, &address)
}

func (f *frames) close() error { return unix.Close(f.fd) }

// swap brings a protocol into the order of the network.
func swap(protocol uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], protocol)
	return binary.NativeEndian.Uint16(b[:])
}

const (
	udpLength  = 8
	ipv4Length = 20
	ipv6Length = 40
	// networkControl is the class of traffic that keeps networks running (CS6, RFC
	// 2474 section 4.2.2.2).
	networkControl = 48 << 2
	// whole forbids to fragment a packet (RFC 791 section 3.1): it fits any link.
	whole = 0x4000
)

// appendDatagram appends a UDP datagram with its IP header (RFC 768, RFC 791, RFC
// 8200).
func appendDatagram(b []byte, from, to netip.Addr, data []byte) []byte {
	length := udpLength + len(data)
	begin := len(b)
	source, destination := from.AsSlice(), to.AsSlice()
	if from.Is4() {
		b = append(b, 4<<4|ipv4Length/4, networkControl)
		b = binary.BigEndian.AppendUint16(b, uint16(ipv4Length+length))
		b = append(b, 0, 0, whole>>8, 0, hops, unix.IPPROTO_UDP, 0, 0)
		b = append(append(b, source...), destination...)
		binary.BigEndian.PutUint16(b[begin+10:], ^sum(0, b[begin:]))
	} else {
		b = append(b, 6<<4|networkControl>>4, networkControl&0xf<<4, 0, 0)
		b = binary.BigEndian.AppendUint16(b, uint16(length))
		b = append(b, unix.IPPROTO_UDP, hops)
		b = append(append(b, source...), destination...)
	}
	header := len(b)
	b = binary.BigEndian.AppendUint16(b, Port)
	b = binary.BigEndian.AppendUint16(b, Port)
	b = binary.BigEndian.AppendUint16(b, uint16(length))
	b = append(append(b, 0, 0), data...)
	checksum := ^sum(uint32(sum(uint32(sum(uint32(length)+unix.IPPROTO_UDP, source)), destination)), b[header:])
	if checksum == 0 {
		checksum = 0xffff // zero means that there is none
	}
	binary.BigEndian.PutUint16(b[header+6:], checksum)
	return b
}

// sum is the one's complement sum of RFC 1071.
func sum(start uint32, data []byte) uint16 {
	for ; len(data) >= 2; data = data[2:] {
		start += uint32(binary.BigEndian.Uint16(data))
	}
	if len(data) == 1 {
		start += uint32(data[0]) << 8
	}
	for start > 0xffff {
		start = start>>16 + start&0xffff
	}
	return uint16(start)
}
