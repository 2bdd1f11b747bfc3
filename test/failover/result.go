package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// result is what came of all runs of a scenario.
type result struct {
	Scenario string   `json:"scenario"`
	What     string   `json:"what"`
	Nodes    int      `json:"nodes"`
	Measured measured `json:"measured"`
	Samples  []sample `json:"samples"`
}

// Files of the directory for results.
const (
	jsonFile  = "failover.json"
	tableFile = "failover.md"
)

// save writes results, in place of earlier ones of the same scenarios.
func save(dir string, results []result) error {
	earlier, err := load(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	all := merge(earlier, results)
	text, err := json.MarshalIndent(all, "", "\t")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, jsonFile), append(text, '\n'), 0o644),
		os.WriteFile(filepath.Join(dir, tableFile), []byte(table(all)), 0o644),
	)
}

func load(dir string) (results []result, err error) {
	text, err := os.ReadFile(filepath.Join(dir, jsonFile))
	if err != nil {
		return nil, err
	}
	return results, json.Unmarshal(text, &results)
}

// merge are the results of both, the later ones where scenarios are the same, in
// the order of the scenarios.
func merge(earlier, later []result) []result {
	all := slices.Clone(later)
	for _, e := range earlier {
		if !slices.ContainsFunc(later, func(l result) bool { return l.Scenario == e.Scenario }) {
			all = append(all, e)
		}
	}
	order := func(r result) int {
		return slices.IndexFunc(scenarios(), func(s scenario) bool { return s.name == r.Scenario })
	}
	slices.SortStableFunc(all, func(a, b result) int { return order(a) - order(b) })
	return all
}

// table is results in Markdown.
func table(results []result) string {
	var b strings.Builder
	b.WriteString("| what | nodes | runs | measured | median | worst | requests failed | owner moved |\n|---|---|---|---|---|---|---|---|\n")
	for _, r := range results {
		fmt.Fprintf(&b, "| %s | %d | %d | %s | %s |\n", r.What, r.Nodes, len(r.Samples), r.Measured, strings.Join(r.figures(), " | "))
	}
	return b.String()
}

// figures are median, worst, failed requests, and moves.
func (r result) figures() []string {
	if r.Measured == changes {
		n, soaked := 0, time.Duration(0)
		for _, s := range r.Samples {
			n, soaked = n+s.Changes, soaked+s.Soaked
		}
		return []string{"", fmt.Sprintf("%d in %s", n, show(soaked)), "", ""}
	}
	var values []time.Duration
	sent, failed, moved, unended := 0, 0, 0, 0
	for _, s := range r.Samples {
		values = append(values, s.value(r.Measured))
		sent, failed = sent+s.Sent, failed+s.Failed
		if s.Moved {
			moved++
		}
		if s.Unended {
			unended++
		}
	}
	slices.Sort(values)
	median, worst := show(values[len(values)/2]), show(values[len(values)-1])
	if unended > 0 {
		worst += fmt.Sprintf(", %d not over", unended)
	}
	figures := []string{median, worst, "", ""}
	if sent > 0 {
		figures[2] = fmt.Sprintf("%d of %d", failed, sent)
	}
	if r.Measured != lastClaim {
		figures[3] = fmt.Sprintf("%d of %d", moved, len(r.Samples))
	}
	return figures
}

// show is a duration as people read it.
func show(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < 10*time.Minute:
		return fmt.Sprintf("%.2f s", d.Seconds())
	}
	return d.Round(time.Second).String()
}
