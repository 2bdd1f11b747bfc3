package filter

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"sort"

	"go4.org/netipx"
	"golang.org/x/net/bpf"
)

// Addresses of both families are numbers of four words. These are the first words
// that count.
const (
	ipv6     = 0
	ipv4     = 3
	lastWord = 3
)

// number is an unsigned integer of 128 bits.
type number struct{ high, low uint64 }

func numberOf(addr netip.Addr) number {
	if addr.Is4() {
		octets := addr.As4()
		return number{low: uint64(binary.BigEndian.Uint32(octets[:]))}
	}
	octets := addr.As16()
	return number{binary.BigEndian.Uint64(octets[:]), binary.BigEndian.Uint64(octets[8:])}
}

func (n number) compare(other number) int {
	return cmp.Or(cmp.Compare(n.high, other.high), cmp.Compare(n.low, other.low))
}

// minus wants a number that is not larger.
func (n number) minus(other number) number {
	difference := number{n.high - other.high, n.low - other.low}
	if n.low < other.low {
		difference.high--
	}
	return difference
}

// word is 32 bits of the number; word 0 has the highest.
func (n number) word(i int) uint32 {
	half := n.low
	if i < 2 {
		half = n.high
	}
	if i%2 == 0 {
		half >>= 32
	}
	return uint32(half)
}

// below has a one in each bit of the words behind word i.
func below(i int) number {
	return [...]number{{1<<32 - 1, 1<<64 - 1}, {0, 1<<64 - 1}, {0, 1<<32 - 1}, {}}[i]
}

// floor is the smallest number, ceil the largest, with the same words up to i.
func (n number) floor(i int) number {
	clear := below(i)
	return number{n.high &^ clear.high, n.low &^ clear.low}
}

func (n number) ceil(i int) number {
	set := below(i)
	return number{n.high | set.high, n.low | set.low}
}

// span is an inclusive range.
type span struct{ from, to number }

// normalize is the ranges of one family, as merge returns them.
func normalize(addresses []netipx.IPRange, family int) ([]span, error) {
	ranges := make([]span, 0, len(addresses))
	for _, r := range addresses {
		if !r.IsValid() {
			return nil, fmt.Errorf("address range %s-%s is not valid", r.From(), r.To())
		}
		if r.From().Is4() == (family == ipv4) {
			ranges = append(ranges, span{numberOf(r.From()), numberOf(r.To())})
		}
	}
	return merge(ranges), nil
}

// merge sorts the ranges in place and makes one of those that overlap or touch.
func merge(ranges []span) []span {
	slices.SortFunc(ranges, func(a, b span) int { return a.from.compare(b.from) })
	merged := ranges[:0]
	for _, r := range ranges {
		if len(merged) == 0 {
			merged = append(merged, r)
			continue
		}
		last := &merged[len(merged)-1]
		switch {
		case r.from.compare(last.to) > 0 && r.from.minus(last.to) != (number{low: 1}):
			merged = append(merged, r)
		case r.to.compare(last.to) > 0:
			last.to = r.to
		}
	}
	return merged
}

// fitting is the program for the ranges, or, where that is too long, for ranges of
// which as few as suffices are joined. The same ranges make the same program.
func fitting(ranges []span, family int, build func([]span) *program) ([]bpf.RawInstruction, error) {
	if len(ranges) == 0 {
		return bpf.Assemble([]bpf.Instruction{bpf.RetConstant{Val: 0}})
	}
	p := build(ranges)
	if !p.fits() {
		gaps := gapsOf(ranges)
		// More joins make a shorter program, though not at each step: what is
		// found fits, and one join less does not. One range always fits.
		joins := 1 + sort.Search(len(gaps)-1, func(less int) bool {
			return build(widen(ranges, family, gaps[:less+1])).fits()
		})
		p = build(widen(ranges, family, gaps[:joins]))
	}
	return p.instructions()
}

// gap is what lies between a range and the next.
type gap struct {
	after int
	size  number
}

// gapsOf is the gaps between the ranges, smallest first.
func gapsOf(ranges []span) []gap {
	gaps := make([]gap, 0, len(ranges)-1)
	for i, r := range ranges[1:] {
		gaps = append(gaps, gap{after: i, size: r.from.minus(ranges[i].to)})
	}
	slices.SortFunc(gaps, func(a, b gap) int {
		return cmp.Or(a.size.compare(b.size), cmp.Compare(a.after, b.after))
	})
	return gaps
}

// widen fills the gaps, of which the last is the largest. The ends of ranges that
// this joins are moved to where a word begins if that adds no more than such a gap
// does: in IPv6 an end amid a word costs more instructions than an address does.
func widen(ranges []span, family int, fill []gap) []span {
	filled := make([]bool, len(ranges))
	for _, g := range fill {
		filled[g.after] = true
	}
	largest := fill[len(fill)-1].size
	wide := make([]span, 0, len(ranges))
	for i := 0; i < len(ranges); i++ {
		r, first := ranges[i], i
		for ; filled[i]; i++ {
			r.to = ranges[i+1].to
		}
		if i > first {
			r = r.rounded(family, largest)
		}
		wide = append(wide, r)
	}
	return merge(wide)
}

// rounded is the range with its ends moved outwards to where a word begins or
// ends, each by no more than the limit. In IPv4, no word is before the last.
func (r span) rounded(family int, limit number) span {
	wide := r
	for word := family; word < lastWord; word++ {
		if from := r.from.floor(word); r.from.minus(from).compare(limit) <= 0 {
			wide.from = from
			break
		}
	}
	for word := family; word < lastWord; word++ {
		if to := r.to.ceil(word); to.minus(r.to).compare(limit) <= 0 {
			wide.to = to
			break
		}
	}
	return wide
}
