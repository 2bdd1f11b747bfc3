package container

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	bootID      = "/proc/sys/kernel/random/boot_id"
	defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// buildRoot makes a root file system below dir and moves into it.
func buildRoot(s *Spec, dir string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	boot, err := os.Open(bootID)
	if err != nil {
		return err
	}
	defer boot.Close()

	root := filepath.Join(dir, "root")
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("root", root, "tmpfs", unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mount root: %w", err)
	}
	if err := mountSystem(s, root, boot); err != nil {
		return err
	}
	if err := bind(s.Image, filepath.Join(root, s.ImageName), true); err != nil {
		return err
	}
	if s.ImageDir != "" {
		if err := bind(s.ImageDir, root+"/usr/local/bin", true); err != nil {
			return err
		}
	}
	if s.ResolvConf != "" {
		if err := mountResolvConf(s.ResolvConf, dir, root); err != nil {
			return err
		}
	}
	for _, m := range s.Mounts {
		if err := bind(m.Source, filepath.Join(root, m.Target), m.ReadOnly); err != nil {
			return err
		}
	}
	return enterRoot(root, s.ReadOnlyRoot)
}

// mountSystem gives the container the machine's programs and the file systems
// of the kernel, read-only as a container runtime does.
func mountSystem(s *Spec, root string, boot *os.File) error {
	for _, d := range []string{"/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc"} {
		if target, err := os.Readlink(d); err == nil {
			if err := os.Symlink(target, root+d); err != nil {
				return err
			}
			continue
		}
		if err := bind(d, root+d, true); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	for _, d := range []string{"/proc", "/sys", "/dev", "/tmp", "/run", "/var", "/root"} {
		if err := os.Mkdir(root+d, 0o755); err != nil {
			return err
		}
	}
	if err := os.Chmod(root+"/tmp", 0o1777); err != nil {
		return err
	}
	if err := os.Symlink("../run", root+"/var/run"); err != nil {
		return err
	}
	if err := unix.Mount("/dev", root+"/dev", "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("mount /dev: %w", err)
	}

	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	// The open file must be reached through the /proc it was opened in.
	self := fmt.Sprintf("/proc/self/fd/%d", boot.Fd())
	bootFile := filepath.Join(filepath.Dir(root), "boot_id")
	if err := bind(self, bootFile, false); err != nil {
		return err
	}
	if err := unix.Mount("proc", root+"/proc", "proc", flags, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := unix.Mount(bootFile, root+bootID, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount boot id: %w", err)
	}
	if s.NetNS == "" {
		if err := unix.Mount("/sys", root+"/sys", "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("mount /sys: %w", err)
		}
	} else if err := unix.Mount("sysfs", root+"/sys", "sysfs", flags, ""); err != nil {
		return fmt.Errorf("mount /sys: %w", err)
	}
	if s.Privileged {
		return nil
	}
	if err := unix.Mount(root+"/proc/sys", root+"/proc/sys", "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("mount /proc/sys: %w", err)
	}
	for _, d := range []string{"/proc/sys", "/sys"} {
		if err := unix.Mount("", root+d, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|flags, ""); err != nil {
			return fmt.Errorf("make %s read-only: %w", d, err)
		}
	}
	return nil
}

// mountResolvConf puts a file of the container in place of the machine's, which
// may be a link to where nothing is here.
func mountResolvConf(text, dir, root string) error {
	source := filepath.Join(dir, "resolv.conf")
	if err := os.WriteFile(source, []byte(text), 0o644); err != nil {
		return err
	}
	target := "/etc/resolv.conf"
	if link, err := os.Readlink(target); err == nil {
		if !filepath.IsAbs(link) {
			link = filepath.Join("/etc", link)
		}
		target = link
	}
	return bind(source, root+target, true)
}

// bind mounts a file or a directory, and makes the place for it.
func bind(source, target string, readOnly bool) error {
	info, err := os.Stat(source)
	if err != nil {
		return fmt.Errorf("mount %s: %w", source, err)
	}
	if info.IsDir() {
		err = os.MkdirAll(target, 0o755)
	} else if err = os.MkdirAll(filepath.Dir(target), 0o755); err == nil {
		var f *os.File
		if f, err = os.OpenFile(target, os.O_CREATE, 0o644); err == nil {
			err = f.Close()
		}
	}
	if err != nil {
		return fmt.Errorf("mount point %s: %w", target, err)
	}
	if err := unix.Mount(source, target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("mount %s on %s: %w", source, target, err)
	}
	if readOnly {
		if err := unix.Mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			return fmt.Errorf("make %s read-only: %w", target, err)
		}
	}
	return nil
}

func enterRoot(root string, readOnly bool) error {
	if err := os.Chdir(root); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave old root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	if readOnly {
		if err := unix.Mount("", "/", "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			return fmt.Errorf("make root read-only: %w", err)
		}
	}
	return nil
}

// findProgram looks a program up in the container's own PATH.
func findProgram(name string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	path := defaultPath
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			path = v
		}
	}
	for _, d := range filepath.SplitList(path) {
		candidate := filepath.Join(d, name)
		if info, err := os.Stat(candidate); err == nil && !info.IsDir() && info.Mode()&0o111 != 0 {
			return candidate, nil
		}
	}
	return "", fmt.Errorf("executable %q not found in PATH %s", name, path)
}
