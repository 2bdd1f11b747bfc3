package plan

// slab gives out values of one kind that are dropped together. A plan makes some ten
// thousand of each; one by one, they would be most of the garbage collector's work.
type slab[T any] struct{ free []T }

const slabSize = 1024

// next is another value, zero.
func (s *slab[T]) next() *T { return &s.slice(1)[0] }

// slice is of n values, zero.
func (s *slab[T]) slice(n int) []T {
	if n > len(s.free) {
		s.free = make([]T, max(n, slabSize))
	}
	out := s.free[:n:n]
	s.free = s.free[n:]
	return out
}
