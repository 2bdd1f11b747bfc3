package main

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"
)

const report = `[{"SpecReports": [
	{"ContainerHierarchyTexts": ["[sig-network] LoadBalancers [Feature:LoadBalancer]"],
	 "LeafNodeText": "should work [Slow]", "State": "passed", "RunTime": 2100000000, "NumAttempts": 1},
	{"ContainerHierarchyTexts": ["[sig-network] LoadBalancers ExternalTrafficPolicy: Local [Feature:LoadBalancer] [Slow]"],
	 "LeafNodeText": "should work", "State": "failed", "RunTime": 65000000000, "NumAttempts": 1,
	 "Failure": {"Message": "no answer\nwithin a minute"}},
	{"ContainerHierarchyTexts": ["[sig-network] LoadBalancers [Feature:LoadBalancer]"],
	 "LeafNodeText": "should be left out", "State": "skipped", "NumAttempts": 0},
	{"ContainerHierarchyTexts": ["[sig-network] LoadBalancers [Feature:LoadBalancer]"],
	 "LeafNodeText": "should want a cloud", "State": "skipped", "NumAttempts": 1, "Failure": {"Message": "not here"}},
	{"LeafNodeText": "", "State": "passed", "NumAttempts": 1}
]}]`

func TestMatch(t *testing.T) {
	file := filepath.Join(t.TempDir(), "report.json")
	if err := os.WriteFile(file, []byte(report), 0o644); err != nil {
		t.Fatal(err)
	}
	specs, err := readReport(file)
	if err != nil {
		t.Fatal(err)
	}
	got := match([]string{"should work", "ExternalTrafficPolicy: Local should work", "should want a cloud", "should be left out", "should"}, specs)
	renamed := "Kubernetes has no such test, or has renamed it"
	for i, want := range []result{
		{"should work", "passed", 2100 * time.Millisecond, ""},
		{"ExternalTrafficPolicy: Local should work", "failed", 65 * time.Second, "no answer"},
		{"should want a cloud", "skipped", 0, "not here"},
		{"should be left out", stateNotRun, 0, "the run ended before; see the log"},
		{"should", stateMissing, 0, renamed},
	} {
		if got[i] != want {
			t.Errorf("got %+v, want %+v", got[i], want)
		}
	}
}

// TestStages checks that no test is in two stages, or forgotten.
func TestStages(t *testing.T) {
	for _, layer2 := range []bool{false, true} {
		seen := map[string]bool{}
		for _, s := range stages(options{nodes: 3, layer2: layer2}) {
			for _, name := range s.only(regexp.MustCompile("")) {
				if seen[name] {
					t.Errorf("%q is there twice", name)
				}
				seen[name] = true
			}
		}
		if len(seen) != 17 {
			t.Errorf("%d tests, want the 17 of Kubernetes 1.36", len(seen))
		}
	}
}
