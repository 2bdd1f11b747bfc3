package filter

import (
	"slices"

	"golang.org/x/net/bpf"
)

// interval is a part of the values that a word can have. Addresses with such a
// word are in the set if they are in one of the ranges that rest, or all of them
// where rest is empty. Each of rest has that one value in the word.
type interval struct {
	first, last uint32
	rest        []span
}

// chain is how many intervals are tried one after the other. Halving them further
// would take as many instructions again and save a nanosecond.
const chain = 8

// enoughToFlip is the number of intervals above which it pays to spare the kernel
// constants that are negative to it.
const enoughToFlip = 3

// searcher writes the search for an address whose words are loaded by a function
// of the program. It leads to yes if the address is in one of the ranges, and
// else to no.
type searcher struct {
	*program
	load    func(word int, next *label) *label
	yes, no *label
}

// search is the search among normalized ranges. Only the words from the given one
// on are looked at: in those before, the ranges and the address are equal.
func (s *searcher) search(ranges []span, word int) *label {
	list := intervals(ranges, word)
	low, high := halves(list)
	if len(high) <= enoughToFlip {
		return s.load(word, s.tree(list, word, 0, ^uint32(0)))
	}
	if len(low) == 0 {
		return s.load(word, s.flip(s.tree(high, word, 0, ^uint32(0))))
	}
	upper := s.flip(s.tree(high, word, 0, signBit-1))
	lower := s.tree(low, word, 0, signBit-1)
	return s.load(word, s.test(bpf.JumpGreaterOrEqual, signBit, upper, lower))
}

// halves is the intervals below signBit, and those from there on with that bit
// taken away.
func halves(list []interval) (low, high []interval) {
	for _, i := range list {
		if i.first < signBit {
			low = append(low, interval{i.first, min(i.last, signBit-1), i.rest})
		}
		if i.last >= signBit {
			high = append(high, interval{max(i.first, signBit) - signBit, i.last - signBit, i.rest})
		}
	}
	return low, high
}

// tree searches among intervals for a word that is known to lie from low to high,
// as do the intervals.
func (s *searcher) tree(list []interval, word int, low, high uint32) *label {
	if !s.fits() {
		return s.no // it is thrown away
	}
	if len(list) <= chain {
		return s.chain(list, word, low, high)
	}
	middle := len(list) / 2
	first := list[middle].first
	upper := s.tree(list[middle:], word, first, high)
	lower := s.tree(list[:middle], word, low, first-1)
	return s.test(bpf.JumpGreaterOrEqual, first, upper, lower)
}

// chain tries one interval after the other.
func (s *searcher) chain(list []interval, word int, low, high uint32) *label {
	next := s.no
	for _, i := range slices.Backward(list) {
		inside := s.yes
		if len(i.rest) > 0 {
			inside = s.search(i.rest, word+1)
		}
		if i.first == i.last && low < high {
			next = s.test(bpf.JumpEqual, i.first, inside, next)
			continue
		}
		if i.first > low {
			inside = s.test(bpf.JumpGreaterOrEqual, i.first, inside, next)
		}
		if i.last < high {
			inside = s.test(bpf.JumpGreaterThan, i.last, next, inside)
		}
		next = inside
	}
	return next
}

// intervals is what the ranges, sorted and disjoint, mean for one of their words.
func intervals(ranges []span, word int) []interval {
	list := make([]interval, 0, len(ranges))
	for _, r := range ranges {
		first, last := r.from.word(word), r.to.word(word)
		// A value belongs to the range as a whole unless the range begins or
		// ends somewhere within it.
		head := r.from != r.from.floor(word)
		tail := r.to != r.to.ceil(word)
		if first == last && (head || tail) {
			list = descend(list, first, r)
			continue
		}
		if head {
			list = descend(list, first, span{r.from, r.from.ceil(word)})
			first++
		}
		switch {
		case !tail:
			list = append(list, interval{first: first, last: last})
		case first < last:
			list = append(list, interval{first: first, last: last - 1})
		}
		if tail {
			list = descend(list, last, span{r.to.floor(word), r.to})
		}
	}
	return list
}

// descend adds a range that has one value in the word, and does not have it whole.
func descend(list []interval, value uint32, r span) []interval {
	if n := len(list); n > 0 && list[n-1].last == value {
		list[n-1].rest = append(list[n-1].rest, r)
		return list
	}
	return append(list, interval{first: value, last: value, rest: []span{r}})
}
