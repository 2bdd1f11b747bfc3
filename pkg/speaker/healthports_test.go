package speaker

import (
	"net/netip"
	"testing"
	"time"
)

func TestHealthPortTake(t *testing.T) {
	t.Parallel()
	type answer struct {
		after  time.Duration // the one before
		status int
		unfit  bool
	}
	const none, ms = 0, time.Millisecond
	for name, answers := range map[string][]answer{
		"endpoints":           {{0, 200, false}, {time.Hour, 200, false}},
		"none any more":       {{0, 200, false}, {0, 503, false}, {time.Second, 503, false}, {time.Second, 503, true}, {0, 503, true}},
		"none from the start": {{0, 503, false}, {unfitAfter, 503, true}},
		"not for long enough": {{0, 503, false}, {unfitAfter - ms, 503, false}, {ms, 503, true}},
		"not twice":           {{0, 503, false}, {time.Hour, none, false}, {time.Hour, 404, false}},
		"in between":          {{0, 503, false}, {time.Second, 200, false}, {time.Second, 503, false}, {time.Second, 503, false}, {time.Second, 503, true}},
		"again":               {{0, 503, false}, {unfitAfter, 503, true}, {ms, 200, false}, {ms, 503, false}, {unfitAfter, 503, true}},
		"upgrade":             {{0, 200, false}, {0, none, false}, {time.Hour, none, false}, {0, 200, false}},
		"upgrade while unfit": {{0, 503, false}, {unfitAfter, 503, true}, {time.Hour, none, true}, {0, 200, false}},
		"no answer between":   {{0, 503, false}, {time.Second, none, false}, {time.Second, 503, true}},
		"another program":     {{0, 404, false}, {unfitAfter, 500, false}, {unfitAfter, 302, false}, {unfitAfter, 204, false}},
		"another, while unfit": {
			{0, 503, false}, {unfitAfter, 503, true}, {unfitAfter, 404, true}, {0, 500, true}, {0, 204, true}, {0, 302, true},
		},
	} {
		var p healthPort
		now := time.Unix(0, 0)
		fit := false
		for i, a := range answers {
			before := p
			now = now.Add(a.after)
			fit = a.status == 200 || fit && a.status != 503
			if changed := p.take(a.status, now); p.unfit != a.unfit || p.fit != fit || changed != (before.unfit != a.unfit || before.fit != fit) {
				t.Errorf("%s, answer %d, %d: unfit %t, fit %t, changed %t", name, i, a.status, p.unfit, p.fit, changed)
			}
		}
	}
}

func TestHealthPortsDue(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	for name, test := range map[string]struct {
		ports healthPorts
		want  uint16 // 0: none
		wait  time.Duration
	}{
		"new ones, in order":  {ports: healthPorts{{number: 1}, {number: 2}}, want: 1},
		"new one":             {ports: healthPorts{{number: 1, asked: ago(time.Hour)}, {number: 2}}, want: 2},
		"longest ago":         {ports: healthPorts{{number: 1, asked: ago(2 * time.Second)}, {number: 2, asked: ago(3 * time.Second)}, {number: 3, asked: ago(portInterval)}}, want: 2},
		"suspected":           {ports: healthPorts{{number: 1}, {number: 2, asked: ago(portInterval), empty: ago(portInterval)}, {number: 3}}, want: 2},
		"suspected for long":  {ports: healthPorts{{number: 1, asked: ago(time.Second), empty: now}, {number: 2, asked: ago(2 * time.Second), empty: now}}, want: 2},
		"unfit":               {ports: healthPorts{{number: 1, asked: ago(2 * time.Second)}, {number: 2, asked: ago(time.Second), empty: ago(time.Hour), unfit: true}}, want: 1},
		"suspected, too soon": {ports: healthPorts{{number: 1, asked: ago(500 * time.Millisecond), empty: now}, {number: 2, asked: ago(time.Second)}}, want: 2},
		"not answered yet":    {ports: healthPorts{{number: 1, asking: true, asked: ago(time.Hour)}, {number: 2, asked: ago(time.Second)}}, want: 2},
		"too soon":            {ports: healthPorts{{number: 1, asked: ago(200 * time.Millisecond)}, {number: 2, asked: ago(300 * time.Millisecond)}}, wait: 700 * time.Millisecond},
		"all asked":           {ports: healthPorts{{number: 1, asking: true, asked: now}}, wait: portInterval},
	} {
		next, wait := test.ports.due(now)
		var got uint16
		if next != nil {
			got, wait = next.number, 0
		}
		if got != test.want || wait != test.wait {
			t.Errorf("%s: port %d after %v, want %d after %v", name, got, wait, test.want, test.wait)
		}
	}
}

func TestHealthPortsWith(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	known := healthPort{number: 2, asked: now, answered: netip.MustParseAddr("192.0.2.1"), empty: now, unfit: true}
	ports := healthPorts{{number: 1, unfit: true}, known, {number: 5}}.with([]uint16{2, 3, 5, 7})
	if len(ports) != 4 || ports[0] != known || ports[1] != (healthPort{number: 3}) || ports[3].number != 7 {
		t.Errorf("%+v", ports)
	}
	if again := ports[1:].with([]uint16{2, 3}); again[0].unfit {
		t.Errorf("what was forgotten is known again: %+v", again)
	}
	if got := ports.with(nil); len(got) != 0 {
		t.Errorf("%+v", got)
	}
}
