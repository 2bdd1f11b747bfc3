package main

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"
)

// States of a test, as Ginkgo names them, and what it does not know.
const (
	statePassed  = "passed"
	stateMissing = "missing"
	stateNotRun  = "not run"
	stateLeftOut = "left out"
)

// spec is what Ginkgo's report says of a test.
type spec struct {
	ContainerHierarchyTexts []string
	LeafNodeText            string
	State                   string
	RunTime                 time.Duration
	NumAttempts             int
	Failure                 struct{ Message string }
}

// name is the full name, labels and all.
func (s spec) name() string {
	return strings.Join(append(s.ContainerHierarchyTexts, s.LeafNodeText), " ")
}

// readReport reads the tests of the feature from a report of Ginkgo's, those
// that were not chosen included.
func readReport(file string) ([]spec, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var suites []struct{ SpecReports []spec }
	if err := json.Unmarshal(text, &suites); err != nil {
		return nil, fmt.Errorf("report %s: %w", file, err)
	}
	var specs []spec
	for _, s := range suites {
		for _, spec := range s.SpecReports {
			if strings.Contains(spec.name(), feature) {
				specs = append(specs, spec)
			}
		}
	}
	return specs, nil
}

// result is what came of a test.
type result struct {
	test    string
	state   string
	took    time.Duration
	message string
}

// String is one line for people.
func (r result) String() string {
	line := fmt.Sprintf("%-8s %7s  %s", r.state, r.took.Round(time.Second), r.test)
	if r.message != "" {
		line += ": " + r.message
	}
	return line
}

// match finds each test in a report.
func match(tests []string, specs []spec) []result {
	var results []result
	for _, t := range tests {
		r := result{test: t, state: stateMissing, message: "Kubernetes has no such test, or has renamed it"}
		pattern := regexp.MustCompile(focusOf(t))
		for _, s := range specs {
			switch {
			case !pattern.MatchString(s.name()):
			case s.NumAttempts == 0:
				r.state, r.message = stateNotRun, "the run ended before; see the log"
			default:
				r.state, r.took, r.message = s.State, s.RunTime, firstLine(s.Failure.Message)
			}
		}
		results = append(results, r)
	}
	return results
}

// unlisted are the tests in a report that no stage has: a newer Kubernetes has
// added them.
func unlisted(specs []spec, stages []stage) []string {
	var names []string
	for _, s := range specs {
		known := false
		for _, stage := range stages {
			for _, t := range stage.tests {
				known = known || regexp.MustCompile(focusOf(t)).MatchString(s.name())
			}
		}
		if !known {
			names = append(names, s.name())
		}
	}
	return names
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}
