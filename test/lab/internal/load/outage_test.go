package load

import (
	"testing"
	"time"
)

func TestOutageIsBetweenSendings(t *testing.T) {
	start := time.Unix(1000, 0)
	ms := func(n int) time.Time { return start.Add(time.Duration(n) * time.Millisecond) }
	for name, test := range map[string]struct {
		answered []bool // of requests sent every 20ms
		order    []int  // in which they end
		want     time.Duration
		at       time.Time
	}{
		"all answered":          {[]bool{true, true, true}, []int{0, 1, 2}, 0, time.Time{}},
		"out of order":          {[]bool{true, true, true, true}, []int{3, 1, 0, 2}, 0, time.Time{}},
		"two lost":              {[]bool{true, true, false, false, true}, []int{0, 1, 4, 2, 3}, 60 * time.Millisecond, ms(20)},
		"the longer of two":     {[]bool{true, false, true, false, false, true}, []int{0, 1, 2, 3, 4, 5}, 60 * time.Millisecond, ms(40)},
		"out of order, lost":    {[]bool{true, false, true, true}, []int{3, 1, 0, 2}, 40 * time.Millisecond, ms(0)},
		"never answered":        {[]bool{false, false, false}, []int{0, 1, 2}, 40 * time.Millisecond, ms(0)},
		"not over yet":          {[]bool{true, false, false}, []int{2, 1, 0}, 40 * time.Millisecond, ms(0)},
		"unknown is not judged": {[]bool{true, false, true, true}, []int{0, 2, 3}, 0, time.Time{}},
	} {
		t.Run(name, func(t *testing.T) {
			var o outages
			for i := range test.answered {
				if number := o.send(ms(20 * i)); number != i {
					t.Fatalf("request %d is numbered %d", i, number)
				}
			}
			for _, i := range test.order {
				o.end(i, test.answered[i])
			}
			if o.longest != test.want || !o.at.Equal(test.at) {
				t.Errorf("%s from %s, want %s from %s", o.longest, o.at, test.want, test.at)
			}
		})
	}
}
