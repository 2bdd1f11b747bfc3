package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// JoinCommand is the command of the lab's program that calls Join. Whoever
// starts it, in the namespaces of a container, passes the program and the
// container's Spec as open files: their paths mean nothing there.
const (
	JoinCommand   = "join"
	JoinProgramFD = 3
	JoinSpecFD    = 4
)

// Join becomes a further process of the container whose namespaces it was
// started in: with its environment, its user and its capabilities, and no more
// privileges than it has. It returns only on failure.
func Join(argv []string) error {
	runtime.LockOSThread() // see Main
	if len(argv) == 0 {
		return errors.New("no command to execute")
	}
	unix.CloseOnExec(JoinProgramFD)
	f := os.NewFile(JoinSpecFD, "container spec")
	defer f.Close()
	var s Spec
	if err := json.NewDecoder(f).Decode(&s); err != nil {
		return fmt.Errorf("container spec: %w", err)
	}
	unix.CloseOnExec(JoinSpecFD)
	if s.Dir != "" {
		if err := os.Chdir(s.Dir); err != nil {
			return fmt.Errorf("working directory: %w", err)
		}
	}
	path, err := findProgram(argv[0], s.Env)
	if err != nil {
		return err
	}
	if err := dropPrivileges(&s); err != nil {
		return err
	}
	return fmt.Errorf("execute %s: %w", path, syscall.Exec(path, argv, s.Env))
}
