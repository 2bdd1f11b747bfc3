// Package host is the init process of a host of the lab. It is process 1 of
// the host's PID namespace, so that killing it is a power loss: the kernel
// kills everything in the host with it, and its network goes away.
//
// It mounts the host's file systems, configures its network, runs its
// programs, and serves as container runtime to the kubelet.
package host

import (
	"errors"
	"fmt"
	"net"
	"net/rpc"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/internal/cgroup"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/internal/control"
)

// keeperFD is where the keeper passes its end of the control connection.
const keeperFD = 3

// Main runs the init process until the keeper goes away.
func Main() error {
	unix.CloseOnExec(keeperFD)
	f := os.NewFile(keeperFD, "keeper")
	conn, err := net.FileConn(f)
	if err != nil {
		return fmt.Errorf("control connection: %w", err)
	}
	f.Close()

	h := &service{supervisor: newSupervisor()}
	go h.supervisor.reap()
	server := rpc.NewServer()
	if err := server.RegisterName(control.HostService, h); err != nil {
		return fmt.Errorf("register: %w", err)
	}
	h.server = server
	server.ServeConn(conn)
	return nil
}

// service is what the keeper and the kubelet may ask of a host.
type service struct {
	supervisor *supervisor
	server     *rpc.Server

	mu     sync.Mutex
	booted bool
	lab    string // the name of the lab
}

// Boot brings the host up as described.
func (s *service) Boot(h control.Host, _ *control.None) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.booted {
		return errors.New("already booted")
	}
	s.booted, s.lab = true, filepath.Base(h.LabDir)

	if err := unix.Sethostname([]byte(h.Name)); err != nil {
		return fmt.Errorf("set hostname: %w", err)
	}
	if err := mountAll(h); err != nil {
		return err
	}
	if err := setSysctls(h.Sysctls); err != nil {
		return err
	}
	if err := configureLinks(h.Links); err != nil {
		return err
	}
	if err := addRoutes(h.Routes); err != nil {
		return err
	}
	for _, c := range h.Commands {
		if err := s.supervisor.runOnce(c); err != nil {
			return err
		}
	}
	if h.RuntimeSocket != "" {
		if err := s.serveRuntime(h.RuntimeSocket); err != nil {
			return err
		}
	}
	for _, p := range h.Programs {
		s.supervisor.add(p)
	}
	return nil
}

func (s *service) serveRuntime(socket string) error {
	l, err := net.Listen("unix", socket)
	if err != nil {
		return fmt.Errorf("container runtime: %w", err)
	}
	go s.server.Accept(l) // ends with the host
	return nil
}

// AddLink sets up an interface that the keeper has plugged in.
func (s *service) AddLink(l control.LinkUp, _ *control.None) error {
	if err := setSysctls(l.Sysctls); err != nil {
		return err
	}
	return configureLinks([]control.Link{l.Link})
}

// AddRoutes adds static routes.
func (s *service) AddRoutes(r []control.Route, _ *control.None) error { return addRoutes(r) }

// RemoveRoutes removes static routes.
func (s *service) RemoveRoutes(r []control.Route, _ *control.None) error { return removeRoutes(r) }

// Run executes a command to its end.
func (s *service) Run(argv []string, _ *control.None) error { return s.supervisor.runOnce(argv) }

// Programs lists the programs.
func (s *service) Programs(_ control.None, reply *[]control.ProgramStatus) error {
	*reply = s.supervisor.list()
	return nil
}

// Kill takes a program down until it is started again.
func (s *service) Kill(r control.SignalRequest, _ *control.None) error {
	return s.supervisor.kill(r.Program, r.Signal)
}

// Start lets a program that was taken down run again.
func (s *service) Start(r control.SignalRequest, _ *control.None) error {
	return s.supervisor.release(r.Program)
}

// Restart ends a program and leaves it to come back at once.
func (s *service) Restart(r control.SignalRequest, _ *control.None) error {
	return s.supervisor.restart(r.Program, r.Signal)
}

// Signal sends a signal and does not wait for what it does.
func (s *service) Signal(r control.SignalRequest, _ *control.None) error {
	return s.supervisor.signal(r.Program, r.Signal)
}

// SetQuota bounds the CPU time of a program.
func (s *service) SetQuota(r control.QuotaRequest, _ *control.None) error {
	return s.supervisor.each(r.Program, func(p *program) error {
		if err := cgroup.LimitCPU(s.lab, r.Host+"."+p.spec.Name, p.status.PID, r.Cores); err != nil {
			return fmt.Errorf("quota of %s: %w", p.spec.Name, err)
		}
		return nil
	})
}

// StartContainer starts a container. One that runs already is left as it is.
func (s *service) StartContainer(p control.Program, reply *control.ProgramStatus) error {
	st, err := s.supervisor.startContainer(p)
	*reply = st
	return err
}

// WaitContainer returns when a container has ended.
func (s *service) WaitContainer(name string, reply *control.ProgramStatus) error {
	st, err := s.supervisor.waitContainer(name)
	*reply = st
	return err
}

// SignalContainer sends a signal to a container, by its full name.
func (s *service) SignalContainer(r control.SignalRequest, _ *control.None) error {
	return s.supervisor.signalContainer(r.Program, r.Signal)
}

// RemoveContainer forgets a container that has ended.
func (s *service) RemoveContainer(name string, _ *control.None) error {
	return s.supervisor.removeContainer(name)
}

// lookPath resolves the program of argv as a shell would.
func lookPath(argv []string) (string, error) {
	if len(argv) == 0 {
		return "", errors.New("empty command")
	}
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return "", fmt.Errorf("program %s: %w", argv[0], err)
	}
	return path, nil
}

// restartDelay spares the machine a program that ends as soon as it starts.
const restartDelay = 500 * time.Millisecond
