// Command scale measures how the project's cost grows with the cluster: a real
// control plane, the real cloud-controller-manager and one real node with a
// real speaker and a router, and as many simulated nodes as asked for. On each of
// those runs the real loop of a speaker, whose announcers only count.
//
// It starts one lab for each number of nodes and kind of addresses, fills it with
// more and more Services, and measures at each size. It prints a table, and
// writes the figures (results.json) and plots of them (*.svg).
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
)

func main() {
	var (
		nodes    = flag.String("nodes", "10,100,1000", "numbers of nodes, with the real one")
		services = flag.String("services", "1000,5000,10000", "numbers of Services, ascending")
		families = flag.String("families", "ipv4,dual", "ipv4, dual, or both")
		changes  = flag.Int("changes", 8, "Services created, and deleted, one at a time at each size")
		churn    = flag.Duration("churn", 20*time.Second, "how long 20 Services a second come and go at each size")
		out      = flag.String("out", "", "directory for results.json and the plots; empty: none are written")
		plots    = flag.Bool("plots-only", false, "draw the plots from results.json in -out, and measure nothing")
	)
	flag.Parse()
	klog.SetLogger(logr.Discard()) // a thousand speakers
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 3*time.Hour)
	defer cancel()
	if err := run(ctx, *nodes, *services, *families, *out, *plots, options{changes: *changes, churn: *churn}); err != nil {
		fmt.Fprintln(os.Stderr, "scale:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, nodes, services, families, out string, plotsOnly bool, o options) error {
	nodeCounts, err := numbers(nodes)
	if err != nil {
		return fmt.Errorf("-nodes: %w", err)
	}
	serviceCounts, err := numbers(services)
	if err != nil {
		return fmt.Errorf("-services: %w", err)
	}
	var results []result
	if plotsOnly {
		if results, err = load(out); err != nil {
			return err
		}
		table(os.Stdout, results)
		return draw(out, results)
	}
	for _, family := range strings.Split(families, ",") {
		if family != "ipv4" && family != "dual" {
			return fmt.Errorf("-families: %q is neither ipv4 nor dual", family)
		}
		for _, n := range nodeCounts {
			measured, err := measureSite(ctx, n, family == "dual", serviceCounts, o)
			results = append(results, measured...)
			if err != nil {
				return errors.Join(fmt.Errorf("%d nodes, %s: %w", n, family, err), save(out, results))
			}
		}
	}
	if out == "" {
		table(os.Stdout, results)
		return nil
	}
	if err := save(out, results); err != nil {
		return err
	}
	if results, err = load(out); err != nil {
		return err
	}
	table(os.Stdout, results)
	return draw(out, results)
}

// numbers are those of a comma list, ascending.
func numbers(list string) ([]int, error) {
	var all []int
	for _, text := range strings.Split(list, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%q is no list of positive numbers", list)
		}
		all = append(all, n)
	}
	slices.Sort(all)
	return all, nil
}

const resultsFile = "results.json"

// save writes the results into the file, in place of earlier ones of the same sizes.
func save(dir string, results []result) error {
	if dir == "" || len(results) == 0 {
		return nil
	}
	earlier, err := load(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	results = merge(earlier, results)
	text, err := json.MarshalIndent(results, "", "\t")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, resultsFile), append(text, '\n'), 0o644)
}

// merge are the results of both, the later ones where sizes are the same, in order.
func merge(earlier, later []result) []result {
	all := slices.Clone(later)
	for _, e := range earlier {
		if !slices.ContainsFunc(later, func(l result) bool { return l.size() == e.size() }) {
			all = append(all, e)
		}
	}
	slices.SortFunc(all, func(a, b result) int { return slices.Compare(a.order(), b.order()) })
	return all
}

func load(dir string) (results []result, err error) {
	text, err := os.ReadFile(filepath.Join(dir, resultsFile))
	if err != nil {
		return nil, err
	}
	return results, json.Unmarshal(text, &results)
}
