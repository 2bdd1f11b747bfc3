package main

import (
	"cmp"
	"fmt"
	"html"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Plots are small, with logarithmic axes: a straight line is a power, and its slope
// the exponent.
const (
	plotWidth, plotHeight = 480, 300
	plotLeft, plotRight   = 64, 130
	plotTop, plotBottom   = 36, 40
)

// colors of numbers of nodes, which also those tell apart who see few colors: light
// to dark.
var colors = []string{"#e69f00", "#0072b2", "#000000", "#009e73", "#cc79a7"}

// draw writes a plot of each quantity over the number of Services, a line for each
// number of nodes and kind of addresses.
func draw(dir string, results []result) error {
	for _, q := range quantities {
		if err := os.WriteFile(filepath.Join(dir, q.file+".svg"), []byte(plot(results, q)), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// series are the points of one line.
type series struct {
	nodes     int
	dualStack bool
	points    [][2]float64
}

func seriesOf(results []result, q quantity) (all []series) {
	for _, r := range results {
		at := slices.IndexFunc(all, func(s series) bool { return s.nodes == r.Nodes && s.dualStack == r.DualStack })
		if at < 0 {
			at = len(all)
			all = append(all, series{nodes: r.Nodes, dualStack: r.DualStack})
		}
		if y := q.of(&r); y > 0 {
			all[at].points = append(all[at].points, [2]float64{float64(r.Services), y})
		}
	}
	slices.SortFunc(all, func(a, b series) int { return cmp.Compare(a.nodes, b.nodes) })
	return all
}

// scale maps logarithms onto pixels.
type scale struct {
	low, high  float64 // decades
	from, upTo float64 // pixels
}

func newScale(values []float64, from, upTo float64) scale {
	low, high := math.Inf(1), math.Inf(-1)
	for _, v := range values {
		low, high = min(low, math.Log10(v)), max(high, math.Log10(v))
	}
	if len(values) == 0 {
		low, high = 0, 1
	}
	low, high = math.Floor(low), math.Ceil(high)
	if high == low {
		high++
	}
	return scale{low, high, from, upTo}
}

func (s scale) at(v float64) float64 {
	return s.from + (math.Log10(v)-s.low)/(s.high-s.low)*(s.upTo-s.from)
}

// ticks are the decades.
func (s scale) ticks() (ticks []float64) {
	for d := s.low; d <= s.high; d++ {
		ticks = append(ticks, math.Pow(10, d))
	}
	return ticks
}

func plot(results []result, q quantity) string {
	all := seriesOf(results, q)
	var xs, ys []float64
	var counts []int
	for _, s := range all {
		if !slices.Contains(counts, s.nodes) {
			counts = append(counts, s.nodes)
		}
		for _, p := range s.points {
			xs, ys = append(xs, p[0]), append(ys, p[1])
		}
	}
	x := newScale(xs, plotLeft, plotWidth-plotRight)
	y := newScale(ys, plotHeight-plotBottom, plotTop)
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%[1]d" height="%[2]d" viewBox="0 0 %[1]d %[2]d" font-family="sans-serif" font-size="11">`+"\n", plotWidth, plotHeight)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#ffffff"/>`+"\n", plotWidth, plotHeight)
	title := q.name
	if q.unit != "" {
		title += ", " + q.unit
	}
	fmt.Fprintf(&b, `<text x="%d" y="18" font-size="13">%s</text>`+"\n", 8, html.EscapeString(title))
	for _, v := range x.ticks() {
		fmt.Fprintf(&b, `<line x1="%[1]g" x2="%[1]g" y1="%[2]g" y2="%[3]g" stroke="#dddddd"/><text x="%[1]g" y="%[4]g" text-anchor="middle">%[5]g</text>`+"\n",
			round(x.at(v)), y.upTo, y.from, y.from+16, v)
	}
	for _, v := range y.ticks() {
		fmt.Fprintf(&b, `<line x1="%[1]g" x2="%[2]g" y1="%[3]g" y2="%[3]g" stroke="#dddddd"/><text x="%[4]g" y="%[5]g" text-anchor="end">%[6]g</text>`+"\n",
			x.from, x.upTo, round(y.at(v)), x.from-6, round(y.at(v))+4, v)
	}
	fmt.Fprintf(&b, `<text x="%g" y="%d" text-anchor="middle">Services</text>`+"\n", (x.from+x.upTo)/2, plotHeight-8)
	for i, s := range all {
		color := colors[slices.Index(counts, s.nodes)%len(colors)]
		dash, label := "", fmt.Sprintf("%d nodes", s.nodes)
		if s.dualStack {
			dash, label = ` stroke-dasharray="5 3"`, label+", dual"
		}
		var points []string
		for _, p := range s.points {
			points = append(points, fmt.Sprintf("%g,%g", round(x.at(p[0])), round(y.at(p[1]))))
			fmt.Fprintf(&b, `<circle cx="%g" cy="%g" r="2.5" fill="%s"/>`+"\n", round(x.at(p[0])), round(y.at(p[1])), color)
		}
		fmt.Fprintf(&b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="1.5"%s/>`+"\n", strings.Join(points, " "), color, dash)
		at := plotTop + 12 + 16*i
		fmt.Fprintf(&b, `<line x1="%d" x2="%d" y1="%d" y2="%d" stroke="%s" stroke-width="1.5"%s/><text x="%d" y="%d">%s</text>`+"\n",
			plotWidth-plotRight+10, plotWidth-plotRight+32, at-4, at-4, color, dash, plotWidth-plotRight+38, at, label)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

func round(v float64) float64 { return math.Round(v*10) / 10 }
