package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/internal/keeper"
)

func (l *Lab) command() string { return filepath.Join(l.Dir, commandFile) }

// Logs returns what the containers of a Pod have written, over all their runs.
// The Pod is given as NAMESPACE/NAME or as NAME, and need not exist any more.
func (l *Lab) Logs(pod string) (string, error) {
	pattern := "*_" + pod + "_*.log"
	if namespace, name, ok := strings.Cut(pod, "/"); ok {
		pattern = namespace + "_" + name + "_*.log"
	}
	files, err := filepath.Glob(filepath.Join(l.Dir, keeper.PodLogDir, pattern))
	if err != nil {
		return "", err
	}
	if len(files) == 0 {
		return "", fmt.Errorf("no logs of pod %q", pod)
	}
	var b strings.Builder
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return "", err
		}
		if len(files) > 1 {
			fmt.Fprintf(&b, "==> %s\n", filepath.Base(f))
		}
		b.Write(text)
	}
	return b.String(), nil
}

// DumpOnFailure writes the state of the lab to the test's log if the test
// fails. With LAB_ARTIFACTS set, it copies all logs below that directory too.
func (l *Lab) DumpOnFailure(t testing.TB) {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() {
			l.dump(t)
		}
	})
}

func (l *Lab) dump(t testing.TB) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for _, args := range [][]string{
		{"get", "nodes,pods,services,endpointslices", "-A", "-o", "wide"},
		{"get", "events", "-A", "--sort-by=.lastTimestamp"},
	} {
		out, err := l.Kubectl(ctx, args...)
		if err != nil {
			out += err.Error()
		}
		t.Logf("kubectl %s\n%s", strings.Join(args, " "), out)
	}
	if out, err := l.On(ctx, Router, "ip", "route"); err == nil {
		t.Logf("routes of the router\n%s", out)
	}
	if neighbors, err := l.Neighbors(ctx, LAN); err == nil {
		t.Logf("neighbours of the LAN client\n%v", neighbors)
	}
	logs := filepath.Join(l.Dir, keeper.LogDir)
	for _, pattern := range []string{"pods/*.log", "*-kubelet.log", "*-bird.log", "*-bgpd.log"} {
		files, _ := filepath.Glob(filepath.Join(logs, pattern))
		for _, f := range files {
			if err := fileTail(f); err != nil {
				t.Logf("end of %s\n%s", strings.TrimPrefix(f, logs), err)
			}
		}
	}
	artifacts := os.Getenv("LAB_ARTIFACTS")
	if artifacts == "" {
		return
	}
	target := filepath.Join(artifacts, strings.ReplaceAll(t.Name(), "/", "_"))
	if err := os.RemoveAll(target); err != nil {
		t.Logf("artifacts: %v", err)
	}
	if err := os.CopyFS(target, os.DirFS(logs)); err != nil {
		t.Logf("artifacts: %v", err)
	}
}
