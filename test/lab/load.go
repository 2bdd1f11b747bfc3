package lab

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"sync"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/internal/load"
)

// LoadReport tells what came of a load.
type LoadReport = load.Report

// LoadOptions describe a load.
type LoadOptions struct {
	// Rate is how many requests to send each second, each over a new
	// connection. Default 50.
	Rate float64
	// Timeout of a request, or of a silence in a stream. Default 1s.
	Timeout time.Duration
	// Stream reads one endless response, as of the echo server's /stream,
	// instead of sending requests.
	Stream bool
}

// Load is a load that a host generates. It ends with Stop, with the process
// that started it, or with the host.
type Load struct {
	cmd   *exec.Cmd
	stdin io.Closer
	ended chan struct{} // closed when all reports are read

	mu      sync.Mutex
	last    LoadReport
	changed chan struct{} // closed and replaced at each report
	err     error
}

// StartLoad makes a host, for example Client, send requests to a URL, or
// datagrams to udp://ADDRESS:PORT. Each is sent on schedule, whatever became of
// those before. Unlike TCP, datagrams confirm to the kernel nothing about its
// neighbours.
func (l *Lab) StartLoad(ctx context.Context, host, url string, options LoadOptions) (*Load, error) {
	argv := []string{l.command(), "load", url, "--until-eof", "--progress=100ms"}
	if options.Rate != 0 {
		argv = append(argv, "--rate="+strconv.FormatFloat(options.Rate, 'g', -1, 64))
	}
	if options.Timeout != 0 {
		argv = append(argv, "--timeout="+options.Timeout.String())
	}
	if options.Stream {
		argv = append(argv, "--stream")
	}
	cmd := Command(context.WithoutCancel(ctx), argv...)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := l.StartOn(ctx, host, cmd); err != nil {
		return nil, err
	}
	g := &Load{cmd: cmd, stdin: stdin, ended: make(chan struct{}), changed: make(chan struct{})}
	go g.read(stdout)
	return g, nil
}

func (g *Load) read(r io.Reader) {
	defer close(g.ended)
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		var report LoadReport
		err = json.Unmarshal(line, &report)
		g.mu.Lock()
		if err != nil {
			g.err = fmt.Errorf("report of the load: %w", err)
		} else {
			g.last = report
		}
		close(g.changed)
		g.changed = make(chan struct{})
		g.mu.Unlock()
	}
}

// Report returns the state of at most a tenth of a second ago.
func (g *Load) Report() LoadReport {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.last
}

// Wait waits until a report meets a condition.
func (g *Load) Wait(ctx context.Context, condition func(LoadReport) bool) error {
	for {
		g.mu.Lock()
		report, changed := g.last, g.changed
		g.mu.Unlock()
		if condition(report) {
			return nil
		}
		select {
		case <-changed:
		case <-g.ended:
			return fmt.Errorf("the load has ended: %s", g.Report())
		case <-ctx.Done():
			return fmt.Errorf("load: %s: %w", report, ctx.Err())
		}
	}
}

// Stop ends the load and returns the last report.
func (g *Load) Stop() (LoadReport, error) {
	_ = g.stdin.Close()
	t := time.AfterFunc(10*time.Second, func() { _ = g.cmd.Process.Kill() })
	defer t.Stop()
	<-g.ended
	err := g.cmd.Wait()
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.last, errors.Join(g.err, err)
}
