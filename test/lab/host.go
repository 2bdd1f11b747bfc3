package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/internal/enter"
)

// ErrHostOff tells that a host has no power.
var ErrHostOff = errors.New("host is off")

// proc returns the /proc directory of a host's first process. It is reached
// through the keeper's mounts, because PIDs differ between the namespaces.
func (l *Lab) proc(ctx context.Context, host string) (string, error) {
	s, err := l.Status(ctx)
	if err != nil {
		return "", err
	}
	for _, h := range s.Hosts {
		if h.Name != host {
			continue
		}
		if !h.Up {
			return "", fmt.Errorf("%s: %w", host, ErrHostOff)
		}
		return filepath.Join("/proc", strconv.Itoa(l.pid), "root/proc", strconv.Itoa(h.PID)), nil
	}
	return "", fmt.Errorf("no host %q", host)
}

// Command prepares a command for Run. It is killed when ctx ends, and ends with
// the host in any case.
func Command(ctx context.Context, argv ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir, _ = os.Getwd()
	return cmd
}

// StartOn starts a command in the namespaces of a host. The caller waits for it.
func (l *Lab) StartOn(ctx context.Context, host string, cmd *exec.Cmd) error {
	proc, err := l.proc(ctx, host)
	if err != nil {
		return err
	}
	if err := enter.Start(proc, cmd); err != nil {
		return fmt.Errorf("run %q on %s: %w", cmd.Args, host, err)
	}
	return nil
}

// On runs a command on a host and returns its standard output.
func (l *Lab) On(ctx context.Context, host string, argv ...string) (string, error) {
	return l.OnStdin(ctx, nil, host, argv...)
}

// OnStdin is On with an input.
func (l *Lab) OnStdin(ctx context.Context, stdin io.Reader, host string, argv ...string) (string, error) {
	cmd := Command(ctx, argv...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &stdout, &stderr
	if err := l.StartOn(ctx, host, cmd); err != nil {
		return "", err
	}
	if err := cmd.Wait(); err != nil {
		return stdout.String(), fmt.Errorf("%q on %s: %w: %s", argv, host, err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// Dial opens a connection from a host. The address is an IP address and a port.
func (l *Lab) Dial(ctx context.Context, host, network, address string) (net.Conn, error) {
	proc, err := l.proc(ctx, host)
	if err != nil {
		return nil, err
	}
	return enter.Dial(ctx, proc, network, address)
}

// BootID returns the boot id of a host.
func (l *Lab) BootID(ctx context.Context, host string) (string, error) {
	s, err := l.Status(ctx)
	if err != nil {
		return "", err
	}
	for _, h := range s.Hosts {
		if h.Name == host {
			return h.BootID, nil
		}
	}
	return "", fmt.Errorf("no host %q", host)
}
