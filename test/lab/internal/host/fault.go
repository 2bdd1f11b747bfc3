package host

import (
	"fmt"
	"syscall"
)

// isHeld tells whether a person has taken the program down. The lock is held.
func (s *supervisor) isHeld(p *program) bool {
	for name := range s.held {
		if p.spec.Matches(name) {
			return true
		}
	}
	return false
}

// find lists the programs that people mean by a name. The lock is held.
func (s *supervisor) find(name string) ([]*program, error) {
	var found []*program
	for _, p := range s.programs {
		if p.spec.Matches(name) {
			found = append(found, p)
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("no program %q", name)
	}
	return found, nil
}

// kill holds a program down and waits for its end.
func (s *supervisor) kill(name string, sig syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	found, err := s.find(name)
	if err != nil {
		return err
	}
	s.held[name] = true
	return s.end(found, sig)
}

// restart ends a program and waits for its end; whoever started it starts it
// again.
func (s *supervisor) restart(name string, sig syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	found, err := s.find(name)
	if err != nil {
		return err
	}
	return s.end(found, sig)
}

// end signals those programs that run and waits until these runs are over. The
// lock is held.
func (s *supervisor) end(programs []*program, sig syscall.Signal) error {
	for _, p := range programs {
		if !p.status.Running {
			continue
		}
		run := p.status.Starts
		if err := syscall.Kill(p.status.PID, sig); err != nil && err != syscall.ESRCH {
			return fmt.Errorf("signal %s: %w", p.spec.Name, err)
		}
		for p.status.Running && p.status.Starts == run {
			s.changed.Wait()
		}
	}
	return nil
}

// release lets a held program run again.
func (s *supervisor) release(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held[name] {
		delete(s.held, name)
		s.changed.Broadcast()
		return nil
	}
	// Held under another of its names.
	found, err := s.find(name)
	if err != nil {
		return err
	}
	for _, p := range found {
		for held := range s.held {
			if p.spec.Matches(held) {
				delete(s.held, held)
			}
		}
	}
	s.changed.Broadcast()
	return nil
}

func (s *supervisor) signal(name string, sig syscall.Signal) error {
	return s.each(name, func(p *program) error {
		if err := syscall.Kill(p.status.PID, sig); err != nil {
			return fmt.Errorf("signal %s: %w", p.spec.Name, err)
		}
		return nil
	})
}

// each calls f with the programs of a name that run, with the lock held.
func (s *supervisor) each(name string, f func(*program) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	found, err := s.find(name)
	if err != nil {
		return err
	}
	for _, p := range found {
		if !p.status.Running {
			continue
		}
		if err := f(p); err != nil {
			return err
		}
	}
	return nil
}
