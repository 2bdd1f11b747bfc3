package main

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func seconds(values ...int) (all []sample) {
	for _, v := range values {
		all = append(all, sample{Outage: time.Duration(v) * time.Second, Sent: 100, Failed: v})
	}
	return all
}

func TestTable(t *testing.T) {
	killed := result{Scenario: "speaker-killed", What: "killed", Nodes: 3, Measured: outage, Samples: seconds(5, 1, 3)}
	killed.Samples[0].Unended, killed.Samples[1].Moved = true, true
	got := table([]result{
		killed,
		{Scenario: "many", What: "many", Nodes: 3, Measured: lastClaim, Samples: []sample{{Last: 250 * time.Millisecond}}},
		{Scenario: "soak", What: "soak", Nodes: 10, Measured: changes, Samples: []sample{{Soaked: time.Hour, Changes: 2}}},
	})
	want := []string{
		"| killed | 3 | 3 | longest outage | 3.00 s | 5.00 s, 1 not over | 9 of 300 | 1 of 3 |",
		"| many | 3 | 1 | link cut to last first claim | 250 ms | 250 ms |  |  |",
		"| soak | 10 | 1 | changes of owner |  | 2 in 1h0m0s |  |  |",
	}
	if lines := strings.Split(strings.TrimSpace(got), "\n"); !slices.Equal(lines[2:], want) {
		t.Errorf("table:\n%s", got)
	}
}

func TestResultsAreKeptByScenario(t *testing.T) {
	dir := t.TempDir()
	for _, results := range [][]result{
		{{Scenario: "many", Samples: seconds(1)}, {Scenario: "drained", Samples: seconds(1)}},
		{{Scenario: "many", Samples: seconds(2, 3)}, {Scenario: "link-cut-3", Samples: seconds(4)}},
	} {
		if err := save(dir, results); err != nil {
			t.Fatal(err)
		}
	}
	got, err := load(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range got {
		names = append(names, r.Scenario)
	}
	// In the order of the scenarios.
	if !slices.Equal(names, []string{"link-cut-3", "drained", "many"}) || len(got[2].Samples) != 2 {
		t.Errorf("%+v", got)
	}
}

func TestChoose(t *testing.T) {
	names := func(only string) (all []string) {
		chosen, err := choose(scenarios(), only)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range chosen {
			all = append(all, s.name)
		}
		return all
	}
	if got := names("soak,link-cut-2"); !slices.Equal(got, []string{"soak", "link-cut-2"}) {
		t.Errorf("%q", got)
	}
	if all := names(""); slices.Contains(all, "soak") || len(all) != len(scenarios())-1 {
		t.Errorf("%q", all)
	}
	if _, err := choose(scenarios(), "nothing"); err == nil {
		t.Error("no error for what there is not")
	}
}
