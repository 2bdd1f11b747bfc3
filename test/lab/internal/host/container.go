package host

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/internal/control"
)

// errHeld tells the kubelet that a person has taken a container down.
var errHeld = errors.New(control.Held)

func (s *supervisor) startContainer(spec control.Program) (control.ProgramStatus, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.programs[spec.Name]
	if !ok {
		p = &program{status: control.ProgramStatus{Name: spec.Name, Log: spec.Log}}
		s.programs[spec.Name] = p
	}
	if p.status.Running {
		return p.status, nil
	}
	p.spec = spec
	if s.isHeld(p) {
		return p.status, errHeld
	}
	err := s.start(p)
	return p.status, err
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
