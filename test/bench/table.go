package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// latencies of Services created one at a time.
type latencies struct{ finalizer, status, node, route []time.Duration }

// bulkResult is what the project did with many pending Services.
type bulkResult struct {
	addressed time.Duration // from the start until all have an address
	routed    time.Duration // from the start until the router has all routes
	manager   usage
	speakers  map[string]usage // by node
}

// usage is what a process has taken.
type usage struct {
	rss int // MiB
	cpu time.Duration
}

func quantile(d []time.Duration, q float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(d))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

func report(w io.Writer, single, bulk int, floor, events, ours latencies, floorBulk time.Duration, oursBulk bulkResult) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "what\tfloor\tfloor with Events\tproject\tratio to floor\tto floor with Events\n")
	ratio := func(ours, floor time.Duration) string {
		if floor == 0 {
			return ""
		}
		return fmt.Sprintf("%.2f", float64(ours)/float64(floor))
	}
	row := func(what string, floor, events, ours time.Duration) {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", what, show(floor), show(events), show(ours), ratio(ours, floor), ratio(ours, events))
	}
	for _, q := range []struct {
		name string
		q    float64
	}{{"median", 0.5}, {"p90", 0.9}} {
		row(fmt.Sprintf("  create -> finalizer, %s", q.name), quantile(floor.finalizer, q.q), quantile(events.finalizer, q.q), quantile(ours.finalizer, q.q))
		row(fmt.Sprintf("create -> status, %d one at a time, %s", single, q.name), quantile(floor.status, q.q), quantile(events.status, q.q), quantile(ours.status, q.q))
		row(fmt.Sprintf("  create -> first Node, %s", q.name), quantile(floor.node, q.q), quantile(events.node, q.q), quantile(ours.node, q.q))
		row(fmt.Sprintf("create -> route, %d one at a time, %s", single, q.name), quantile(floor.route, q.q), quantile(events.route, q.q), quantile(ours.route, q.q))
	}
	if bulk == 0 {
		t.Flush()
		return
	}
	row(fmt.Sprintf("%d pending Services: all addressed", bulk), 0, floorBulk, oursBulk.addressed)
	only := func(what, value string) { fmt.Fprintf(t, "%s\t\t\t%s\t\t\n", what, value) }
	only("  from start to all routes in the router", show(oursBulk.routed))
	only("  cloud-controller-manager, RSS", fmt.Sprintf("%d MiB", oursBulk.manager.rss))
	only("  cloud-controller-manager, CPU", show(oursBulk.manager.cpu))
	for _, node := range slices.Sorted(keys(oursBulk.speakers)) {
		u := oursBulk.speakers[node]
		only("  speaker on "+node+", RSS", fmt.Sprintf("%d MiB", u.rss))
		only("  speaker on "+node+", CPU for them", show(u.cpu))
	}
	t.Flush()
}

func show(d time.Duration) string {
	if d == 0 {
		return ""
	}
	if d < time.Second {
		return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
	}
	return fmt.Sprintf("%.2f s", d.Seconds())
}
