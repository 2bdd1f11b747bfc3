package plan

import "container/heap"

// queue finds the nodes of the least rank, where ranks grow all the time. It need
// not be told when one does: a node whose place is out of date comes up too early
// at worst, and is put back.
type queue struct {
	places []place // a heap
	rank   func(node int) int
}

type place struct{ rank, node int }

func newQueue(nodes []int, rank func(node int) int) *queue {
	q := &queue{places: make([]place, len(nodes)), rank: rank}
	for k, i := range nodes {
		q.places[k] = place{rank(i), i}
	}
	heap.Init(q)
	return q
}

// least appends the n nodes of the least rank, those that skip leaves out
// excepted; of equal ones the first.
func (q *queue) least(nodes []int, n int, skip func(node int) bool) []int {
	var seen []place
	for n > 0 && len(q.places) > 0 {
		seen = append(seen, q.top())
		heap.Pop(q)
		if i := seen[len(seen)-1].node; !skip(i) {
			nodes = append(nodes, i)
			n--
		}
	}
	for _, p := range seen {
		heap.Push(q, p)
	}
	return nodes
}

// top is the node of the least rank; of equal ones the first. There has to be one.
func (q *queue) top() place {
	for {
		top := &q.places[0]
		now := q.rank(top.node)
		if now == top.rank {
			return *top
		}
		top.rank = now
		heap.Fix(q, 0)
	}
}

// Len implements heap.Interface.
func (q *queue) Len() int { return len(q.places) }

// Less implements heap.Interface.
func (q *queue) Less(i, j int) bool {
	a, b := q.places[i], q.places[j]
	return a.rank < b.rank || a.rank == b.rank && a.node < b.node
}

// Swap implements heap.Interface.
func (q *queue) Swap(i, j int) { q.places[i], q.places[j] = q.places[j], q.places[i] }

// Push implements heap.Interface.
func (q *queue) Push(x any) { q.places = append(q.places, x.(place)) }

// Pop implements heap.Interface.
func (q *queue) Pop() any {
	last := q.places[len(q.places)-1]
	q.places = q.places[:len(q.places)-1]
	return last
}
