package speaker

import (
	"errors"
	"testing"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

// text is the annotation with a program of the epoch that announces the
// addresses, if any.
func text(t testing.TB, epoch int64, addresses ...string) string {
	t.Helper()
	p := announce.Program{Epoch: epoch}
	if len(addresses) > 0 {
		p.Groups = []announce.Group{{Pool: "p", BGP: &announce.BGP{}, Addresses: ranges(addresses...)}}
	}
	p.Normalize()
	value, err := announce.Encode(p)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func TestNext(t *testing.T) {
	t.Parallel()
	current, err := announce.Decode(text(t, 5, "203.0.113.1"))
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		current  *announce.Program
		value    string
		rollback bool
		want     int64  // epoch, 0 for none
		reason   string // of the error
	}{
		"first":                 {value: text(t, 1, "203.0.113.1"), want: 1},
		"first, empty":          {value: text(t, 1), want: 1},
		"same":                  {current: &current, value: text(t, 5, "203.0.113.1")},
		"newer":                 {current: &current, value: text(t, 6, "203.0.113.2"), want: 6},
		"newer, empty":          {current: &current, value: text(t, 6), want: 6},
		"newer, same content":   {current: &current, value: text(t, 6, "203.0.113.1"), want: 6},
		"older":                 {current: &current, value: text(t, 4, "203.0.113.2"), reason: "older"},
		"older, same content":   {current: &current, value: text(t, 4, "203.0.113.1"), want: 4},
		"rollback":              {current: &current, value: text(t, 4, "203.0.113.2"), rollback: true, want: 4},
		"same epoch":            {current: &current, value: text(t, 5, "203.0.113.2"), want: 5},
		"unknown version":       {current: &current, value: `{"version":99}`, reason: "version"},
		"malformed":             {current: &current, value: `{`, reason: "malformed"},
		"nothing is no program": {current: &current, value: ``, reason: "malformed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := next(test.current, test.value, test.rollback)
			reason, epoch := "", int64(0)
			if err != nil {
				reason = reasonOf(err)
			}
			if got != nil {
				epoch = got.Epoch
			}
			if reason != test.reason || epoch != test.want {
				t.Errorf("epoch %d, error %v; want epoch %d, error %q", epoch, err, test.want, test.reason)
			}
		})
	}
	var older olderError
	if _, err := next(&current, text(t, 1), false); !errors.As(err, &older) || older.epoch != 1 {
		t.Errorf("got %v, want an olderError", err)
	}
}
