// Package enter runs things in the namespaces of a host of a lab.
package enter

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

func init() {
	// Keeps the main goroutine, and no other, on the main thread. The threads
	// that enter namespaces below are given up afterwards, which cannot be
	// done with the main thread: /proc/self would show the wrong namespaces.
	runtime.LockOSThread()
}

var namespaces = []struct {
	name string
	flag int
}{
	{"pid", unix.CLONE_NEWPID},
	{"ipc", unix.CLONE_NEWIPC},
	{"uts", unix.CLONE_NEWUTS},
	{"net", unix.CLONE_NEWNET},
	{"mnt", unix.CLONE_NEWNS},
}

// Start starts a command in the namespaces of a process, which is given by its
// directory in /proc.
func Start(proc string, cmd *exec.Cmd) error {
	var files []*os.File
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	for _, n := range namespaces {
		f, err := os.Open(filepath.Join(proc, "ns", n.name))
		if err != nil {
			return fmt.Errorf("namespaces of the host: %w", err)
		}
		files = append(files, f)
	}
	return onThread(func() error {
		// A thread may change its mount namespace only if it shares its
		// root and working directory with no other.
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		for i, n := range namespaces {
			if err := unix.Setns(int(files[i].Fd()), n.flag); err != nil {
				return fmt.Errorf("enter %s namespace: %w", n.name, err)
			}
		}
		if cmd.Dir != "" {
			if _, err := os.Stat(cmd.Dir); err != nil {
				cmd.Dir = "/"
			}
		}
		if filepath.Base(cmd.Path) == cmd.Path || errors.Is(cmd.Err, exec.ErrNotFound) {
			// The host may have programs that are missing here.
			if path, err := exec.LookPath(cmd.Args[0]); err == nil {
				cmd.Path, cmd.Err = path, nil
			}
		}
		return cmd.Start()
	})
}

// Dial opens a connection from the network namespace of a process. The address
// is to be an IP address and a port: names would be resolved elsewhere.
func Dial(ctx context.Context, proc, network, address string) (net.Conn, error) {
	f, err := os.Open(filepath.Join(proc, "ns", "net"))
	if err != nil {
		return nil, fmt.Errorf("namespaces of the host: %w", err)
	}
	defer f.Close()
	var conn net.Conn
	err = onThread(func() error {
		if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		var err error
		conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// onThread runs f on a thread of its own that ends with it.
func onThread(f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked
		result <- f()
	}()
	return <-result
}
