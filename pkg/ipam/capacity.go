package ipam

import (
	"encoding/binary"
	"math/big"
	"net/netip"

	"go4.org/netipx"
)

// capacity counts the addresses of ranges, by arithmetic: a /64 costs no more
// than a /32.
func capacity(ranges []netipx.IPRange, avoidBuggy bool) *big.Int {
	total := new(big.Int)
	for _, r := range ranges {
		total.Add(total, size(r))
		if avoidBuggy && r.From().Is4() {
			total.Sub(total, big.NewInt(buggyIn(r)))
		}
	}
	return total
}

// size is the number of addresses of r.
func size(r netipx.IPRange) *big.Int {
	from, to := r.From().As16(), r.To().As16()
	n := new(big.Int).SetBytes(to[:])
	n.Sub(n, new(big.Int).SetBytes(from[:]))
	return n.Add(n, big.NewInt(1))
}

// buggy reports whether addr is an IPv4 address that some home routers and old
// stacks take for a network or broadcast address.
func buggy(addr netip.Addr) bool {
	if !addr.Is4() {
		return false
	}
	last := addr.As4()[3]
	return last == 0 || last == 255
}

// buggyIn counts the buggy addresses of an IPv4 range.
func buggyIn(r netipx.IPRange) int64 {
	from, to := uint32From(r.From()), uint32From(r.To())
	return buggyBelow(int64(to)+1) - buggyBelow(int64(from))
}

// buggyBelow counts the buggy addresses before the n-th IPv4 address.
func buggyBelow(n int64) int64 {
	zeros := (n + 255) / 256
	ones := n / 256
	return zeros + ones
}

func uint32From(addr netip.Addr) uint32 {
	bytes := addr.As4()
	return binary.BigEndian.Uint32(bytes[:])
}
