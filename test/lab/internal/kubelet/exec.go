package kubelet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/internal/container"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/internal/control"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/internal/enter"
)

// executor runs commands in containers for the streaming library.
type executor struct {
	kubelet *kubelet
}

var _ remotecommand.Executor = executor{}

// ExecInContainer runs a command in a container to its end. The container is
// named as the runtime knows it, and its Pod is part of that.
func (e executor) ExecInContainer(ctx context.Context, _, _, id string, argv []string, in io.Reader, out, errOut io.WriteCloser,
	_ bool, _ <-chan remotecommand.TerminalSize, _ time.Duration) error {
	err := e.kubelet.exec(ctx, id, argv, in, writer(out), writer(errOut))
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		return utilexec.CodeExitError{Err: err, Code: exit.ExitCode()}
	}
	return err
}

// writer makes a stream that was not asked for a nil interface.
func writer(w io.WriteCloser) io.Writer {
	if w == nil {
		return nil
	}
	return w
}

// exec runs a command in a container that runs: in its namespaces, with its
// environment, its user and its capabilities. It ends with ctx.
func (k *kubelet) exec(ctx context.Context, id string, argv []string, in io.Reader, out, errOut io.Writer) error {
	if len(argv) == 0 {
		return errors.New("no command to execute")
	}
	pid, err := k.containerPID(id)
	if err != nil {
		return err
	}
	spec, err := os.Open(filepath.Join(specDir(id), "spec.json"))
	if err != nil {
		return err
	}
	defer spec.Close()
	// The container does not see the lab's program: it is passed on open.
	program, err := os.Open(k.config.Command)
	if err != nil {
		return err
	}
	defer program.Close()

	cmd := exec.CommandContext(ctx, fmt.Sprintf("/proc/self/fd/%d", container.JoinProgramFD))
	cmd.Args = append([]string{filepath.Base(k.config.Command), container.JoinCommand}, argv...)
	cmd.ExtraFiles = []*os.File{container.JoinProgramFD - 3: program, container.JoinSpecFD - 3: spec}
	cmd.Stdout, cmd.Stderr = out, errOut
	if in != nil {
		stdin, err := cmd.StdinPipe()
		if err != nil {
			return err
		}
		// Ends with the command, or at the latest with the client's
		// connection; the command's end does not wait for more input.
		go func() {
			defer stdin.Close()
			_, _ = io.Copy(stdin, in)
		}()
	}
	if err := enter.Start(filepath.Join("/proc", strconv.Itoa(pid)), cmd); err != nil {
		return fmt.Errorf("execute %q in %s: %w", argv, id, err)
	}
	return cmd.Wait()
}

// containerPID is the first process of a container that runs.
func (k *kubelet) containerPID(id string) (int, error) {
	var all []control.ProgramStatus
	if err := k.runtime.Call(control.HostService+".Programs", control.None{}, &all); err != nil {
		return 0, fmt.Errorf("list containers: %w", err)
	}
	for _, c := range all {
		if c.Container && c.Name == id && c.Running {
			return c.PID, nil
		}
	}
	return 0, fmt.Errorf("container %s does not run", id)
}
