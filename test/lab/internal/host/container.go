package host

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/internal/control"
)

// errHeld tells the kubelet that a person has taken a container down.
var errHeld = errors.New(control.Held)

// startContainer returns when the container runs the program of its image, or
// has ended before: until then others must not join it.
func (s *supervisor) startContainer(spec control.Program) (control.ProgramStatus, error) {
	starting, err := s.forkContainer(spec)
	if err != nil {
		return control.ProgramStatus{}, err
	}
	if starting != nil {
		defer starting.Close()
		_, _ = starting.Read(make([]byte, 1)) // nobody writes: it ends with the exec
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if p, ok := s.programs[spec.Name]; ok {
		return p.status, nil
	}
	return control.ProgramStatus{}, fmt.Errorf("no container %q", spec.Name)
}

// forkContainer starts a container, unless it runs already, and returns a pipe
// that is closed when it is past its preparations.
func (s *supervisor) forkContainer(spec control.Program) (*os.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.programs[spec.Name]
	if !ok {
		p = &program{status: control.ProgramStatus{Name: spec.Name, Log: spec.Log}}
		s.programs[spec.Name] = p
	}
	if p.status.Running {
		return nil, nil
	}
	p.spec = spec
	if s.isHeld(p) {
		return nil, errHeld
	}
	starting, prepared, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer prepared.Close()
	if err := s.start(p, prepared); err != nil {
		starting.Close()
		return nil, err
	}
	return starting, nil
}

func (s *supervisor) waitContainer(name string) (control.ProgramStatus, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.programs[name]
	if !ok {
		return control.ProgramStatus{}, fmt.Errorf("no container %q", name)
	}
	for p.status.Running {
		s.changed.Wait()
	}
	return p.status, nil
}

func (s *supervisor) signalContainer(name string, sig syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.programs[name]
	if !ok || !p.status.Running {
		return nil
	}
	if err := syscall.Kill(p.status.PID, sig); err != nil && err != syscall.ESRCH {
		return fmt.Errorf("signal %s: %w", name, err)
	}
	return nil
}

func (s *supervisor) removeContainer(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.programs[name]
	if ok && p.status.Running {
		return fmt.Errorf("container %q runs", name)
	}
	delete(s.programs, name)
	return nil
}
