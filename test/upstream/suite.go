package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/cluster"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab"
)

// feature is in the name of each of the tests.
const feature = "[Feature:LoadBalancer]"

// suite runs Kubernetes' tests in a lab.
type suite struct {
	lab       *cluster.Cluster
	stages    []stage
	bin       string
	nodes     int
	processes int
}

func (s *suite) program(name string) string { return filepath.Join(s.bin, "upstream", name) }

// image is that of the tests' Pods.
func (s *suite) image() string { return s.program("agnhost") }

// check tells what is missing.
func (s *suite) check() error {
	for _, p := range []string{s.program("e2e.test"), s.program("ginkgo"), filepath.Join(s.image(), "agnhost")} {
		if _, err := os.Stat(p); err != nil {
			return fmt.Errorf("%w (hack/lab-binaries/build.sh upstream)", err)
		}
	}
	for _, p := range []string{"curl", "nc", "wget"} {
		if _, err := exec.LookPath(p); err != nil {
			return fmt.Errorf("%w: the tests' Pods run it (hack/packages.sh nc wget)", err)
		}
	}
	return nil
}

// runStage arranges what a stage wants, runs tests of it, and returns what came
// of each.
func (s *suite) runStage(ctx context.Context, stage stage, tests []string) ([]result, error) {
	if len(tests) == 0 {
		return nil, nil
	}
	if stage.prepare == nil {
		var all []result
		for _, t := range tests {
			all = append(all, result{test: t, state: stateLeftOut, message: stage.title})
		}
		return all, nil
	}
	step("%s: %d tests", stage.title, len(tests))
	if err := stage.prepare(ctx, s.lab); err != nil {
		return nil, err
	}
	return s.run(ctx, stage, tests)
}

func (s *suite) run(ctx context.Context, stage stage, tests []string) ([]result, error) {
	dir := filepath.Join(s.program("results"), s.lab.Name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	report := filepath.Join(dir, stage.file+".json")
	if err := os.Remove(report); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, stage.file+".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	step("The log, written at the end of each test: %s", log.Name())

	cmd := lab.Command(ctx, append(s.ginkgo(report, tests), s.e2e(stage)...)...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := s.lab.StartOn(ctx, lab.Client, cmd); err != nil {
		return nil, err
	}
	// Failed tests are in the report; without one, the exit status counts.
	waited := cmd.Wait()
	specs, err := readReport(report)
	if err != nil {
		return nil, fmt.Errorf("%w: see %s", errors.Join(waited, err), log.Name())
	}
	if names := unlisted(specs, s.stages); len(names) > 0 {
		return nil, fmt.Errorf("tests that no stage has: %q; add them to test/upstream/stages.go", names)
	}
	return match(tests, specs), nil
}

// ginkgo is the command line of the test runner.
func (s *suite) ginkgo(report string, tests []string) []string {
	var focus []string
	for _, t := range tests {
		focus = append(focus, focusOf(t))
	}
	return []string{
		s.program("ginkgo"), "run", "--no-color", "--silence-skips", "--timeout=1h",
		"--procs=" + strconv.Itoa(min(s.processes, len(tests))),
		"--focus=" + strings.Join(focus, "|"),
		"--output-dir=" + filepath.Dir(report), "--json-report=" + filepath.Base(report),
		s.program("e2e.test"),
	}
}

// e2e are the arguments of the tests themselves. Local is the provider that
// stands for no cloud: nothing of it is asked for, and nothing is left out.
func (s *suite) e2e(stage stage) []string {
	return []string{
		"--",
		"--kubeconfig=" + s.lab.Kubeconfig(),
		"--kubectl-path=" + filepath.Join(s.bin, "lab", "kubectl"),
		"--provider=local",
		"--num-nodes=" + strconv.Itoa(s.nodes),
		"--allowed-not-ready-nodes=" + strconv.Itoa(stage.notReady),
		"--disable-log-dump",
	}
}

// focusOf matches the full name of a test: the labels stand before the last
// part, or after it.
func focusOf(test string) string {
	container, name := split(test)
	return regexp.QuoteMeta(container+" "+feature) + `.* ` + regexp.QuoteMeta(name) + `( \[.*)?$`
}

// split returns the title of the container of a test, and the rest of its name.
func split(test string) (container, name string) {
	const local = "ExternalTrafficPolicy: Local"
	if rest, ok := strings.CutPrefix(test, local+" "); ok {
		return "LoadBalancers " + local, rest
	}
	return "LoadBalancers", test
}
