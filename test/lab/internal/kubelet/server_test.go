package kubelet

import "testing"

func TestLastLines(t *testing.T) {
	for _, test := range []struct {
		text string
		n    int
		want string
	}{
		{"one\ntwo\nthree\n", 1, "three\n"},
		{"one\ntwo\nthree\n", 2, "two\nthree\n"},
		{"one\ntwo\nthree", 2, "two\nthree"},
		{"one\ntwo\n", 5, "one\ntwo\n"},
		{"one\n\n", 1, "\n"},
		{"one\n", 0, ""},
		{"", 3, ""},
	} {
		if got := string(lastLines([]byte(test.text), test.n)); got != test.want {
			t.Errorf("last %d lines of %q: got %q, want %q", test.n, test.text, got, test.want)
		}
	}
}
