package main

import (
	"strings"
	"testing"
)

// TestFlags runs the command with flags that it has to refuse before it does
// anything.
func TestFlags(t *testing.T) {
	for flag, want := range map[string]string{
		"--datapath=forward":  "--datapath is not supported",
		"--datapath-table=7":  "--datapath-table is not supported",
		"--datapath-mark=7":   "--datapath-mark is not supported",
		"--cleanup":           "--cleanup is not supported",
		"--restart-grace=-1s": "--restart-grace -1s is negative",
		"--bgp-listen-port=0": "--bgp-listen-port 0",
		"--node-name=":        "--node-name is empty",
		"--namespace=":        "--namespace is empty",
		"--no-such-flag":      "unknown flag",
	} {
		command := newCommand()
		command.SilenceErrors = true
		command.SetArgs([]string{"--node-name=n1", flag})
		if err := command.Execute(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", flag, err, want)
		}
	}
}

func TestMetricsPort(t *testing.T) {
	// MetalLB's speaker has 7472 and 7473, on the same host.
	if got := newCommand().Flags().Lookup("metrics-bind-address").DefValue; got != ":7479" {
		t.Errorf("--metrics-bind-address defaults to %s", got)
	}
}

func TestVersion(t *testing.T) {
	if programVersion() == "" {
		t.Error("no version")
	}
}
