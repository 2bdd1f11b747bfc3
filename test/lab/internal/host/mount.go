package host

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/internal/control"
)

// BootIDFile is where the kernel tells one boot from the next.
const BootIDFile = "/proc/sys/kernel/random/boot_id"

// mountAll gives the host its own /proc, /sys, /run, /var/tmp and
// /var/lib. The lab's
// directory stays visible under its path although /run is covered.
func mountAll(h control.Host) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := mountSys(); err != nil {
		return err
	}

	lab, err := os.Open(h.LabDir)
	if err != nil {
		return fmt.Errorf("lab directory: %w", err)
	}
	defer lab.Close()
	if err := unix.Mount("run", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	// Daemons leave things there, which would be the machine's otherwise.
	if err := unix.Mount("tmp", "/var/tmp", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777"); err != nil {
		return fmt.Errorf("mount /var/tmp: %w", err)
	}
	for _, d := range []string{"/run/lock", "/run/netns", "/run/kubernetes"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	if strings.HasPrefix(h.LabDir, "/run/") {
		if err := os.MkdirAll(h.LabDir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", lab.Fd()), h.LabDir, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount lab directory: %w", err)
		}
	}

	varLib := filepath.Join(h.Dir, "var-lib")
	if err := os.MkdirAll(varLib, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(varLib, "/var/lib", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount /var/lib: %w", err)
	}
	if err := unix.Mount(filepath.Join(h.Dir, "boot_id"), BootIDFile, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount %s: %w", BootIDFile, err)
	}
	return nil
}

// mountSys mounts the sysfs of the host's network namespace, with the
// machine's cgroups in it where it has any.
func mountSys() error {
	cgroup, err := os.Open("/sys/fs/cgroup")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("cgroups: %w", err)
	}
	if err := unix.Mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /sys: %w", err)
	}
	if cgroup == nil {
		return nil
	}
	defer cgroup.Close()
	source := fmt.Sprintf("/proc/self/fd/%d", cgroup.Fd())
	if err := unix.Mount(source, "/sys/fs/cgroup", "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("mount /sys/fs/cgroup: %w", err)
	}
	return nil
}

func setSysctls(sysctls map[string]string) error {
	for key, value := range sysctls {
		path := "/proc/sys/" + strings.ReplaceAll(key, ".", "/")
		if err := os.WriteFile(path, []byte(value), 0); err != nil {
			return fmt.Errorf("sysctl %s: %w", key, err)
		}
	}
	return nil
}
