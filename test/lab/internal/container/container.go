// Package container is what a container of the lab runs before it becomes the
// program of its image: it builds the root file system, gives up privileges as
// the Pod's security context says, and executes the program.
//
// The container sees the machine's programs and libraries read-only, its image
// as /NAME, and of the host's files only what its volumes give it.
package container

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Spec describes a container.
type Spec struct {
	Hostname     string   `json:"hostname,omitempty"`
	NetNS        string   `json:"netns,omitempty"` // path; empty is the host's
	Image        string   `json:"image"`           // the program of the image
	ImageName    string   `json:"imageName"`
	ImageDir     string   `json:"imageDir,omitempty"` // further programs of the image, for /usr/local/bin
	ResolvConf   string   `json:"resolvConf,omitempty"`
	Argv         []string `json:"argv"`
	Env          []string `json:"env"`
	Dir          string   `json:"dir,omitempty"`
	Mounts       []Mount  `json:"mounts,omitempty"`
	ReadOnlyRoot bool     `json:"readOnlyRoot,omitempty"`
	Privileged   bool     `json:"privileged,omitempty"`
	UID          int      `json:"uid"`
	GID          int      `json:"gid"`
	Groups       []int    `json:"groups,omitempty"`
	Capabilities []string `json:"capabilities,omitempty"` // the bounding set
	NoNewPrivs   bool     `json:"noNewPrivs,omitempty"`
}

// Mount is a volume.
type Mount struct {
	Source   string `json:"source"`
	Target   string `json:"target"`
	ReadOnly bool   `json:"readOnly,omitempty"`
}

// preparedFD is closed by the exec, which tells the runtime that the container
// is prepared.
const preparedFD = 3

// Main becomes the container described in a file. It returns only on failure.
func Main(specFile string) error {
	unix.CloseOnExec(preparedFD)
	// Namespaces and privileges belong to a thread until the exec, which
	// keeps those of the thread that calls it.
	runtime.LockOSThread()

	text, err := os.ReadFile(specFile)
	if err != nil {
		return err
	}
	var s Spec
	if err := json.Unmarshal(text, &s); err != nil {
		return fmt.Errorf("container spec %s: %w", specFile, err)
	}
	if s.NetNS != "" {
		if err := enterNetNS(s.NetNS); err != nil {
			return err
		}
	}
	if s.Hostname != "" {
		if err := unix.Sethostname([]byte(s.Hostname)); err != nil {
			return fmt.Errorf("set hostname: %w", err)
		}
	}
	if err := buildRoot(&s, filepath.Dir(specFile)); err != nil {
		return err
	}
	if s.Dir != "" {
		if err := os.Chdir(s.Dir); err != nil {
			return fmt.Errorf("working directory: %w", err)
		}
	}
	path, err := findProgram(s.Argv[0], s.Env)
	if err != nil {
		return err
	}
	if err := dropPrivileges(&s); err != nil {
		return err
	}
	return fmt.Errorf("execute %s: %w", path, syscall.Exec(path, s.Argv, s.Env))
}

func enterNetNS(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("network namespace %s: %w", path, err)
	}
	defer unix.Close(fd)
	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace %s: %w", path, err)
	}
	return nil
}
