package main

import (
	"maps"
	"math"
	"slices"
	"testing"
)

func TestExponent(t *testing.T) {
	for name, test := range map[string]struct {
		points [][2]float64
		want   float64
	}{
		"none":        {[][2]float64{{10, 7}, {100, 7}, {1000, 7}}, 0},
		"linear":      {[][2]float64{{10, 3}, {100, 30}, {1000, 300}}, 1},
		"quadratic":   {[][2]float64{{10, 1}, {100, 100}}, 2},
		"a bend":      {[][2]float64{{1, 1}, {10, 1}, {100, 100}}, 1},
		"zeros apart": {[][2]float64{{10, 0}, {100, 5}, {1000, 50}}, 1},
		"one point":   {[][2]float64{{10, 7}}, math.NaN()},
	} {
		if got := exponent(test.points); math.Abs(got-test.want) > 1e-9 || math.IsNaN(got) != math.IsNaN(test.want) {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

// TestAuditCountsTheProjectsWrites, and those of nobody else.
func TestAuditCountsTheProjectsWrites(t *testing.T) {
	a := &audit{counts: make(writes)}
	for _, line := range []string{
		`{"verb":"patch","userAgent":"baremetal-planner","objectRef":{"resource":"nodes","name":"a"},"responseStatus":{"code":200}}`,
		`{"verb":"patch","userAgent":"baremetal-planner","objectRef":{"resource":"nodes","name":"b"},"responseStatus":{"code":200}}`,
		`{"verb":"patch","userAgent":"baremetal-cloud-controller-manager/v1 (linux/amd64)","objectRef":{"resource":"services","subresource":"status"}}`,
		`{"verb":"create","userAgent":"baremetal-load-balancer","objectRef":{"resource":"events"}}`,
		`{"verb":"create","userAgent":"baremetal-cloud-controller-manager/v1","objectRef":{"resource":"tokenreviews"}}`,
		`{"verb":"create","userAgent":"users","objectRef":{"resource":"services"}}`,
		`{"verb":"update","userAgent":"kube-controller-manager/v1","objectRef":{"resource":"nodes","subresource":"status"}}`,
	} {
		if err := a.note([]byte(line)); err != nil {
			t.Fatal(err)
		}
	}
	want := writes{"planner patch nodes": 2, "controllers patch services/status": 1, "controllers create events": 1}
	if !maps.Equal(a.counts, want) {
		t.Errorf("%v, want %v", a.counts, want)
	}
	if got := a.counts.since(writes{"planner patch nodes": 1}); got.total() != 3 || got["planner patch nodes"] != 1 {
		t.Errorf("since: %v", got)
	}
}

func TestNumbers(t *testing.T) {
	if got, err := numbers("1000, 10,100"); err != nil || !slices.Equal(got, []int{10, 100, 1000}) {
		t.Errorf("%v (%v)", got, err)
	}
	for _, list := range []string{"", "x", "1,,2", "0", "-1"} {
		if got, err := numbers(list); err == nil {
			t.Errorf("%q is %v", list, got)
		}
	}
}

func TestLaterResultsReplaceEarlierOnes(t *testing.T) {
	earlier := []result{{Nodes: 10, Services: 1, Plan: 1}, {Nodes: 10, Services: 2, Plan: 1}, {Nodes: 10, Services: 1, DualStack: true, Plan: 1}}
	later := []result{{Nodes: 100, Services: 1, Plan: 2}, {Nodes: 10, Services: 1, Plan: 2}}
	want := []result{
		{Nodes: 10, Services: 1, Plan: 2}, {Nodes: 10, Services: 2, Plan: 1}, {Nodes: 100, Services: 1, Plan: 2},
		{Nodes: 10, Services: 1, DualStack: true, Plan: 1},
	}
	got := merge(earlier, later)
	if !slices.EqualFunc(got, want, func(a, b result) bool { return a.size() == b.size() && a.Plan == b.Plan }) {
		t.Errorf("%+v, want %+v", got, want)
	}
}
