package main

import (
	"fmt"
	"io"
	"math"
	"text/tabwriter"
)

// quantity is one of the figures that are plotted, and whose growth is told.
type quantity struct {
	name, file, unit string
	of               func(r *result) float64
}

var quantities = []quantity{
	{"Plan", "plan", "ms", func(r *result) float64 { return r.Plan * 1e3 }},
	{"Service to the annotation of its last node", "latency", "ms", func(r *result) float64 { return r.Latency * 1e3 }},
	{"the same, while 20 Services come and go a second", "churn", "ms", func(r *result) float64 { return r.Churn * 1e3 }},
	{"CPU of the cloud-controller-manager for a new Service", "cpu", "ms", func(r *result) float64 { return r.CreateCPU * 1e3 }},
	{"API writes for a new Service", "writes", "", func(r *result) float64 { return totalOf(r.Creates) }},
	{"Request bodies for a new Service", "requests", "KiB", func(r *result) float64 { return r.CreateBytes / 1024 }},
	{"Bytes to each watcher of all Nodes for a new Service", "watch", "KiB", func(r *result) float64 { return r.WatchBytes / 1024 }},
	{"Largest annotation, as stored", "stored", "KiB", func(r *result) float64 { return float64(r.Stored) / 1024 }},
	{"Largest annotation, plain", "plain", "KiB", func(r *result) float64 { return float64(r.Plain) / 1024 }},
	{"Memory of the cloud-controller-manager", "manager", "MiB", func(r *result) float64 { return float64(r.ManagerRSS) / (1 << 20) }},
	{"Memory of the real speaker", "speaker", "MiB", func(r *result) float64 { return float64(r.SpeakerRSS) / (1 << 20) }},
	{"Start of the cloud-controller-manager to a correct plan", "recovery", "s", func(r *result) float64 { return r.Recovered }},
}

func totalOf(writes map[string]float64) (n float64) {
	for _, k := range writes {
		n += k
	}
	return n
}

// exponent is b of the y = a·x^b that fits the points best: 1 is linear growth, 0
// none. It is NaN where there are less than two points.
func exponent(points [][2]float64) float64 {
	var n, sumX, sumY, sumXX, sumXY float64
	for _, p := range points {
		if p[0] <= 0 || p[1] <= 0 {
			continue
		}
		x, y := math.Log(p[0]), math.Log(p[1])
		n, sumX, sumY, sumXX, sumXY = n+1, sumX+x, sumY+y, sumXX+x*x, sumXY+x*y
	}
	if n < 2 {
		return math.NaN()
	}
	return (n*sumXY - sumX*sumY) / (n*sumXX - sumX*sumX)
}

// growth is the exponent in Services at the most nodes, and in nodes with the most
// Services.
func growth(results []result, q quantity, dualStack bool) (inServices, inNodes float64) {
	nodes, services := 0, 0
	for _, r := range results {
		if r.DualStack == dualStack {
			nodes, services = max(nodes, r.Nodes), max(services, r.Services)
		}
	}
	var byServices, byNodes [][2]float64
	for _, r := range results {
		if r.DualStack != dualStack {
			continue
		}
		if r.Nodes == nodes {
			byServices = append(byServices, [2]float64{float64(r.Services), q.of(&r)})
		}
		if r.Services == services {
			byNodes = append(byNodes, [2]float64{float64(r.Nodes), q.of(&r)})
		}
	}
	return exponent(byServices), exponent(byNodes)
}

// table prints all figures, and how they grow.
func table(w io.Writer, results []result) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "nodes\tServices\tfamilies\t")
	for _, q := range quantities {
		fmt.Fprintf(t, "%s %s\t", q.file, q.unit)
	}
	fmt.Fprintln(t, "idle writes\trewritten\twithdrawn\t")
	for _, r := range results {
		fmt.Fprintf(t, "%d\t%d\t%s\t", r.Nodes, r.Services, family(r.DualStack))
		for _, q := range quantities {
			fmt.Fprintf(t, "%.4g\t", q.of(&r))
		}
		fmt.Fprintf(t, "%d\t%d\t%d\t\n", r.IdleWrites, r.Rewritten, r.Withdrawn)
	}
	for _, dualStack := range []bool{false, true} {
		for k, in := range []string{"Services", "nodes"} {
			fmt.Fprintf(t, "exponent\tin %s\t%s\t", in, family(dualStack))
			for _, q := range quantities {
				inServices, inNodes := growth(results, q, dualStack)
				fmt.Fprintf(t, "%.2f\t", []float64{inServices, inNodes}[k])
			}
			fmt.Fprintln(t, "\t\t\t")
		}
	}
	t.Flush()
}

func family(dualStack bool) string {
	if dualStack {
		return "dual"
	}
	return "ipv4"
}
