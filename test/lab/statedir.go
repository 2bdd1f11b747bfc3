package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/internal/cgroup"
)

// ErrRunning tells that a lab of that name exists already.
var ErrRunning = errors.New("lab is running")

// lockDir makes the directory of a lab, empties it of what a killed lab has
// left, and locks it. The lock lasts as long as the returned file is open
// anywhere; the keeper inherits it.
func lockDir(dir string) (*os.File, error) {
	const tries = 100 // each lost against somebody who removes the directory
	for range tries {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
		f, err := os.Open(dir)
		if errors.Is(err, os.ErrNotExist) {
			continue
		} else if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			f.Close()
			if err == unix.EWOULDBLOCK {
				return nil, fmt.Errorf("%s: %w", dir, ErrRunning)
			}
			return nil, fmt.Errorf("lock %s: %w", dir, err)
		}
		if !sameFile(f, dir) {
			f.Close()
			continue
		}
		if err := errors.Join(emptyDir(dir), cgroup.RemoveAll(filepath.Base(dir))); err != nil {
			f.Close()
			return nil, err
		}
		return f, nil
	}
	return nil, fmt.Errorf("lock %s: it keeps being removed", dir)
}

func sameFile(f *os.File, path string) bool {
	a, errA := f.Stat()
	b, errB := os.Stat(path)
	return errA == nil && errB == nil && os.SameFile(a, b)
}

func emptyDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// removeDir removes the directory of a lab that has ended, and the directory
// of all labs with the last of them.
func removeDir(dir string) error {
	lock, err := lockDir(dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	_ = os.Remove(filepath.Dir(dir)) // there may be others
	return nil
}
