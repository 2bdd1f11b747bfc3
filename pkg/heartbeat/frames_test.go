package heartbeat

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

func TestDatagram(t *testing.T) {
	for _, data := range [][]byte{nil, []byte("x"), []byte("even"), make([]byte, maxPacket)} {
		from, to := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
		b := appendDatagram(nil, from, to, data)
		h, err := ipv4.ParseHeader(b)
		if err != nil || h.TTL != hops || h.Protocol != unix.IPPROTO_UDP || h.TotalLen != len(b) ||
			h.Src.String() != from.String() || h.Dst.String() != to.String() || sum(0, b[:ipv4Length]) != 0xffff {
			t.Errorf("IPv4 header %v, error %v", h, err)
		}
		checkUDP(t, from, to, b[ipv4Length:], data)

		from, to = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("fe80::2")
		b = appendDatagram([]byte("before"), from, to, data)[len("before"):]
		h6, err := ipv6.ParseHeader(b)
		if err != nil || h6.HopLimit != hops || h6.NextHeader != unix.IPPROTO_UDP || h6.PayloadLen != len(b)-ipv6Length ||
			h6.TrafficClass != networkControl || h6.Src.String() != from.String() || h6.Dst.String() != to.String() {
			t.Errorf("IPv6 header %v, error %v", h6, err)
		}
		checkUDP(t, from, to, b[ipv6Length:], data)
	}
}

func checkUDP(t *testing.T, from, to netip.Addr, b, data []byte) {
	t.Helper()
	pseudo := append(append(binary.BigEndian.AppendUint32(nil, uint32(len(b))+unix.IPPROTO_UDP), from.AsSlice()...), to.AsSlice()...)
	if sum(uint32(sum(0, pseudo)), b) != 0xffff {
		t.Errorf("UDP checksum of %d bytes is wrong", len(data))
	}
	if binary.BigEndian.Uint16(b) != Port || binary.BigEndian.Uint16(b[2:]) != Port ||
		int(binary.BigEndian.Uint16(b[4:])) != len(b) || string(b[udpLength:]) != string(data) {
		t.Errorf("UDP datagram % x", b[:udpLength])
	}
}
