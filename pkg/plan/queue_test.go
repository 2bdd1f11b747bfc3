package plan

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestQueueAgainstSorting: ranks grow behind the queue's back.
func TestQueueAgainstSorting(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	ranks := make([]int, 50)
	rank := func(i int) int { return ranks[i] }
	var all []int
	for i := range ranks {
		ranks[i] = random.IntN(5)
		all = append(all, i)
	}
	q := newQueue(all, rank)
	for step := range 500 {
		skip := func(i int) bool { return i%7 == step%7 }
		want := slices.DeleteFunc(slices.Clone(all), skip)
		slices.SortStableFunc(want, func(a, b int) int { return cmp.Compare(ranks[a], ranks[b]) })
		n := random.IntN(60)
		want = want[:min(n, len(want))]
		if got := q.least(nil, n, skip); !slices.Equal(got, want) {
			t.Fatalf("step %d: the least of %v are %v, want %v", step, ranks, got, want)
		}
		for range random.IntN(20) {
			ranks[random.IntN(len(ranks))] += random.IntN(3)
		}
	}
}
