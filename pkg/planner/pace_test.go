package planner

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestPace(t *testing.T) {
	ms := func(values ...int) (all []time.Duration) {
		for _, v := range values {
			all = append(all, time.Duration(v)*time.Millisecond)
		}
		return all
	}
	const (
		idle = iota
		busy
		failed // and busy, for what failed is tried again
	)
	for name, test := range map[string]struct {
		plans []int
		want  []time.Duration
	}{
		"changes that come alone":           {[]int{idle, idle, idle}, ms(0, 0, 0)},
		"a burst":                           {[]int{busy, busy, busy, busy, busy, busy, busy, busy}, ms(10, 20, 40, 80, 160, 320, 500, 500)},
		"a burst that ends":                 {[]int{busy, busy, idle, busy}, ms(10, 20, 0, 10)},
		"writes that fail":                  {[]int{failed, failed, failed}, ms(250, 500, 500)},
		"writes that fail in a burst":       {[]int{busy, failed, busy}, ms(10, 250, 500)},
		"writes that fail late in a burst":  {[]int{busy, busy, busy, busy, busy, busy, failed}, ms(10, 20, 40, 80, 160, 320, 500)},
		"a change alone after failed write": {[]int{failed, idle, busy}, ms(250, 0, 10)},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var (
					p   pace
					got []time.Duration
				)
				for _, plan := range test.plans {
					began := time.Now()
					if plan == failed {
						p.failed()
					}
					if !p.wait(t.Context(), plan != idle, 0) {
						t.Fatal("the context has ended")
					}
					got = append(got, time.Since(began))
				}
				if !slices.Equal(got, test.want) {
					t.Errorf("waited %v; want %v", got, test.want)
				}
			})
		})
	}
}

// TestPlansRestAsLongAsTheyTook: where plans are large, changes that come one after
// the other must not take all of a core.
func TestPlansRestAsLongAsTheyTook(t *testing.T) {
	for name, test := range map[string]struct {
		busy     []bool
		computed time.Duration
		want     []time.Duration
	}{
		"one alone":    {[]bool{false}, 80 * time.Millisecond, []time.Duration{80 * time.Millisecond}},
		"a burst":      {[]bool{true, true, true, true, true}, 80 * time.Millisecond, []time.Duration{80e6, 80e6, 80e6, 80e6, 160e6}},
		"a huge plan":  {[]bool{false}, time.Minute, []time.Duration{longestInterval}},
		"a small plan": {[]bool{true}, time.Millisecond, []time.Duration{shortestInterval}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var p pace
				for i, busy := range test.busy {
					began := time.Now()
					if !p.wait(t.Context(), busy, test.computed) {
						t.Fatal("the context has ended")
					}
					if got := time.Since(began); got != test.want[i] {
						t.Errorf("wait %d took %v; want %v", i, got, test.want[i])
					}
				}
			})
		})
	}
}

func TestPaceEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		p := pace{interval: longestInterval}
		began := time.Now()
		time.AfterFunc(time.Millisecond, cancel)
		if p.wait(ctx, true, 0) || time.Since(began) != time.Millisecond {
			t.Errorf("waited %v", time.Since(began))
		}
		if p.wait(ctx, false, 0) {
			t.Error("goes on after the context has ended")
		}
	})
}
