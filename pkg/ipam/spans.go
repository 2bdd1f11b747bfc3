package ipam

import (
	"net/netip"
	"slices"

	"go4.org/netipx"
)

// spans is a set of addresses as sorted, disjoint and never adjacent ranges of
// IPv4 before IPv6. The zero value is empty. A run of neighbours is one range,
// so next looks at one range however full a pool is.
type spans struct {
	ranges []netipx.IPRange
}

// search returns the index of the first range that does not end before addr.
func (s *spans) search(addr netip.Addr) int {
	return searchRanges(s.ranges, addr)
}

// searchRanges returns the index of the first of the sorted, disjoint ranges
// that does not end before addr.
func searchRanges(ranges []netipx.IPRange, addr netip.Addr) int {
	i, _ := slices.BinarySearchFunc(ranges, addr, func(r netipx.IPRange, addr netip.Addr) int {
		return r.To().Compare(addr)
	})
	return i
}

// has reports whether addr is in the set.
func (s *spans) has(addr netip.Addr) bool {
	i := s.search(addr)
	return i < len(s.ranges) && s.ranges[i].Contains(addr)
}

// add puts addr into the set.
func (s *spans) add(addr netip.Addr) {
	i := s.search(addr)
	if i < len(s.ranges) && s.ranges[i].Contains(addr) {
		return
	}
	before := i > 0 && s.ranges[i-1].To().Next() == addr
	after := i < len(s.ranges) && addr.Next() == s.ranges[i].From()
	switch {
	case before && after:
		s.ranges[i-1] = netipx.IPRangeFrom(s.ranges[i-1].From(), s.ranges[i].To())
		s.ranges = slices.Delete(s.ranges, i, i+1)
	case before:
		s.ranges[i-1] = netipx.IPRangeFrom(s.ranges[i-1].From(), addr)
	case after:
		s.ranges[i] = netipx.IPRangeFrom(addr, s.ranges[i].To())
	default:
		s.ranges = slices.Insert(s.ranges, i, netipx.IPRangeFrom(addr, addr))
	}
}

// remove takes addr out of the set.
func (s *spans) remove(addr netip.Addr) {
	i := s.search(addr)
	if i == len(s.ranges) || !s.ranges[i].Contains(addr) {
		return
	}
	from, to := s.ranges[i].From(), s.ranges[i].To()
	switch {
	case from == to:
		s.ranges = slices.Delete(s.ranges, i, i+1)
	case addr == from:
		s.ranges[i] = netipx.IPRangeFrom(addr.Next(), to)
	case addr == to:
		s.ranges[i] = netipx.IPRangeFrom(from, addr.Prev())
	default:
		s.ranges[i] = netipx.IPRangeFrom(from, addr.Prev())
		s.ranges = slices.Insert(s.ranges, i+1, netipx.IPRangeFrom(addr.Next(), to))
	}
}

// next returns the first address at or after addr that is not in the set. It is
// the zero Addr when the family ends before one is found.
func (s *spans) next(addr netip.Addr) netip.Addr {
	if i := s.search(addr); i < len(s.ranges) && s.ranges[i].Contains(addr) {
		return s.ranges[i].To().Next()
	}
	return addr
}
