// Package cgroup bounds the CPU time of programs of a lab, as the container
// runtime of a real node does.
//
// The kernel does not remove control groups with their processes: RemoveAll does
// when a lab ends, or before the next one of its name starts.
package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	root   = "/sys/fs/cgroup"
	prefix = "baremetal-lab."
)

// period is the kernel's, and Kubernetes', default.
const period = 100 * time.Millisecond

// version tells where the groups of the CPU controller are, and whether they are
// of cgroup v2.
func version() (dir string, v2 bool, err error) {
	if _, err := os.Stat(filepath.Join(root, "cgroup.controllers")); err == nil {
		return root, true, nil
	}
	dir = filepath.Join(root, "cpu")
	if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err != nil {
		return "", false, fmt.Errorf("no CPU controller of cgroups: %w", err)
	}
	return dir, false, nil
}

// LimitCPU bounds a process, by its PID as the caller sees it, and what it starts
// from now on, to so many cores; 0 ends that. The name tells groups of a lab
// apart.
func LimitCPU(lab, name string, pid int, cores float64) error {
	dir, v2, err := version()
	if err != nil {
		return err
	}
	group := filepath.Join(dir, prefix+lab+"."+strings.ReplaceAll(name, "/", "."))
	if cores <= 0 {
		group = dir
	} else if err := makeGroup(dir, group, v2, cores); err != nil {
		return err
	}
	return write(group, "cgroup.procs", strconv.Itoa(pid))
}

func makeGroup(dir, group string, v2 bool, cores float64) error {
	if v2 {
		if err := write(dir, "cgroup.subtree_control", "+cpu"); err != nil {
			return err
		}
	}
	if err := os.Mkdir(group, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("control group: %w", err)
	}
	quota := strconv.FormatInt(int64(cores*float64(period.Microseconds())), 10)
	if v2 {
		return write(group, "cpu.max", fmt.Sprintf("%s %d", quota, period.Microseconds()))
	}
	if err := write(group, "cpu.cfs_period_us", strconv.FormatInt(period.Microseconds(), 10)); err != nil {
		return err
	}
	return write(group, "cpu.cfs_quota_us", quota)
}

func write(group, file, value string) error {
	if err := os.WriteFile(filepath.Join(group, file), []byte(value), 0); err != nil {
		return fmt.Errorf("control group: %w", err)
	}
	return nil
}

// RemoveAll removes the groups of a lab that has ended.
func RemoveAll(lab string) error {
	dir, _, err := version()
	if err != nil {
		return nil // and so no groups
	}
	groups, err := filepath.Glob(filepath.Join(dir, prefix+lab+".*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, group := range groups {
		if err := unix.Rmdir(group); err != nil && err != unix.ENOENT {
			errs = append(errs, fmt.Errorf("control group %s: %w", group, err))
		}
	}
	return errors.Join(errs...)
}
