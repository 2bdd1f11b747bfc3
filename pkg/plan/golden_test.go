package plan

import (
	"bytes"
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the expected plans in testdata")

// TestGolden plans each dump in testdata and compares the plan, as text. A
// dump FOO.yaml begins with a comment that says what it shows; its plan is
// FOO.txt.
func TestGolden(t *testing.T) {
	dumps, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(dumps) == 0 {
		t.Fatalf("no dumps in testdata: %v", err)
	}
	for _, dump := range dumps {
		t.Run(strings.TrimSuffix(filepath.Base(dump), ".yaml"), func(t *testing.T) {
			s := readDump(t, dump)
			p := Compute(s)
			for i := range p.Services {
				if announced, _, _ := p.Services[i].Condition(); announced != p.Services[i].Announced() {
					t.Errorf("Service %s: Announced() is not what its condition says", p.Services[i].Name)
				}
			}
			got := p.String()
			expected := strings.TrimSuffix(dump, ".yaml") + ".txt"
			if *update {
				if err := os.WriteFile(expected, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(expected)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("the plan differs from %s (-want +got); if it should, run go test ./pkg/plan -update and review the change:\n%s", expected, diff)
			}
			shuffled(t, s, got)
		})
	}
}

// moved are the lines of a plan that tell what it changes.
var moved = regexp.MustCompile(`(?m)^moved from .*\n`)

// shuffled checks that the order of the objects does not matter, and that a
// plan computed on top of itself stays as it is.
func shuffled(t *testing.T, s *State, want string) {
	random := rand.New(rand.NewPCG(5, 6))
	for range 5 {
		random.Shuffle(len(s.Nodes), func(i, j int) { s.Nodes[i], s.Nodes[j] = s.Nodes[j], s.Nodes[i] })
		random.Shuffle(len(s.Services), func(i, j int) { s.Services[i], s.Services[j] = s.Services[j], s.Services[i] })
		random.Shuffle(len(s.EndpointSlices), func(i, j int) {
			s.EndpointSlices[i], s.EndpointSlices[j] = s.EndpointSlices[j], s.EndpointSlices[i]
		})
		random.Shuffle(len(s.Pools), func(i, j int) { s.Pools[i], s.Pools[j] = s.Pools[j], s.Pools[i] })
		random.Shuffle(len(s.Peers), func(i, j int) { s.Peers[i], s.Peers[j] = s.Peers[j], s.Peers[i] })
		p := Compute(s)
		if diff := cmp.Diff(want, p.String()); diff != "" {
			t.Fatalf("another order of the objects gave another plan:\n%s", diff)
		}
		again := *s
		again.Previous = p.Programs
		if diff := cmp.Diff(moved.ReplaceAllString(want, ""), Compute(&again).String()); diff != "" {
			t.Fatalf("a plan on top of itself is another plan:\n%s", diff)
		}
	}
}

func readDump(t *testing.T, name string) *State {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ReadDump(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}
