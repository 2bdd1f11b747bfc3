package host

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"sort"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/internal/control"
)

// supervisor starts processes and collects their ends. As process 1 it also
// collects orphans, so it is the only place of the host that waits for
// children. It lives as long as the host: nothing in it is ever stopped.
type supervisor struct {
	mu       sync.Mutex
	changed  *sync.Cond
	programs map[string]*program
	running  map[int]*program // by PID
	held     map[string]bool  // as people named them
	once     map[int]chan<- syscall.WaitStatus
	ends     chan os.Signal // SIGCHLD
}

type program struct {
	spec   control.Program
	status control.ProgramStatus
}

func newSupervisor() *supervisor {
	s := &supervisor{
		programs: map[string]*program{},
		running:  map[int]*program{},
		held:     map[string]bool{},
		once:     map[int]chan<- syscall.WaitStatus{},
		ends:     make(chan os.Signal, 1),
	}
	// Before anything is started: the end of the only child is told once.
	signal.Notify(s.ends, unix.SIGCHLD)
	s.changed = sync.NewCond(&s.mu)
	return s
}

// reap collects ended children for as long as the host lives.
func (s *supervisor) reap() {
	for range s.ends {
		s.mu.Lock()
		for {
			var ws syscall.WaitStatus
			pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil)
			if err == syscall.EINTR {
				continue
			}
			if err != nil || pid <= 0 {
				break
			}
			s.ended(pid, ws)
		}
		s.mu.Unlock()
	}
}

// ended records the end of a child. The lock is held, and start holds it from
// the fork to the entry in the table, so no end can come before its entry.
func (s *supervisor) ended(pid int, ws syscall.WaitStatus) {
	if done, ok := s.once[pid]; ok {
		delete(s.once, pid)
		done <- ws
		return
	}
	p, ok := s.running[pid]
	if !ok {
		return // an orphan
	}
	delete(s.running, pid)
	p.status.Running, p.status.PID = false, 0
	p.status.EndedAt = time.Now()
	p.status.ExitCode, p.status.Signal = ws.ExitStatus(), 0
	if ws.Signaled() {
		p.status.Signal = ws.Signal()
		p.status.ExitCode = 128 + int(ws.Signal())
	}
	s.changed.Broadcast()
}

// fork starts a process, with further open files from descriptor 3 on. The lock
// is held.
func (s *supervisor) fork(spec *control.Program, out *os.File, files ...*os.File) (int, error) {
	path, err := lookPath(spec.Argv)
	if err != nil {
		return 0, err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	attr := &syscall.ProcAttr{
		Dir:   "/",
		Env:   append(os.Environ(), spec.Env...),
		Files: []uintptr{null.Fd(), out.Fd(), out.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	}
	for _, f := range files {
		attr.Files = append(attr.Files, f.Fd())
	}
	if spec.Container {
		attr.Sys.Cloneflags = unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS
	}
	pid, err := syscall.ForkExec(path, spec.Argv, attr)
	if err != nil {
		return 0, fmt.Errorf("start %s: %w", spec.Name, err)
	}
	return pid, nil
}

// start starts a program that does not run. The lock is held.
func (s *supervisor) start(p *program, files ...*os.File) error {
	out, err := os.OpenFile(p.spec.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("log of %s: %w", p.spec.Name, err)
	}
	defer out.Close()
	pid, err := s.fork(&p.spec, out, files...)
	if err != nil {
		fmt.Fprintln(out, err)
		return err
	}
	s.running[pid] = p
	p.status.Running, p.status.PID = true, pid
	p.status.Starts++
	p.status.StartedAt = time.Now()
	s.changed.Broadcast()
	return nil
}

// runOnce executes a command to its end.
func (s *supervisor) runOnce(argv []string) error {
	out, err := os.CreateTemp("", "lab-command")
	if err != nil {
		return err
	}
	defer os.Remove(out.Name())
	defer out.Close()

	done := make(chan syscall.WaitStatus, 1)
	s.mu.Lock()
	pid, err := s.fork(&control.Program{Name: argv[0], Argv: argv}, out)
	if err == nil {
		s.once[pid] = done
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if ws := <-done; ws != 0 {
		text, _ := os.ReadFile(out.Name())
		return fmt.Errorf("command %q: exit status %d: %s", argv, ws.ExitStatus(), text)
	}
	return nil
}

// add begins to run a program of the host.
func (s *supervisor) add(spec control.Program) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &program{spec: spec, status: control.ProgramStatus{Name: spec.Name, Log: spec.Log}}
	s.programs[spec.Name] = p
	go s.keepRunning(p)
}

// keepRunning starts a program again whenever it has ended, unless it is held.
func (s *supervisor) keepRunning(p *program) {
	for {
		s.waitToStart(p)
		s.mu.Lock()
		for s.isHeld(p) {
			s.changed.Wait()
		}
		err := s.start(p)
		for p.status.Running {
			s.changed.Wait()
		}
		early := err != nil || time.Since(p.status.StartedAt) < restartDelay && !s.isHeld(p)
		s.mu.Unlock()
		if !p.spec.Restart {
			return
		}
		if early {
			time.Sleep(restartDelay)
		}
	}
}

// waitToStart returns when what the program needs is there. Neither can be
// watched: one is behind a socket, the other may lie in a directory that does
// not exist yet.
func (s *supervisor) waitToStart(p *program) {
	const interval = 50 * time.Millisecond
	if p.spec.WaitFile != "" {
		for {
			if _, err := os.Stat(p.spec.WaitFile); err == nil {
				break
			}
			time.Sleep(interval)
		}
	}
	if p.spec.WaitURL != "" {
		// Only whether it answers matters here, not who it is.
		client := &http.Client{
			Timeout:   2 * time.Second,
			Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
		}
		defer client.CloseIdleConnections()
		for {
			response, err := client.Get(p.spec.WaitURL)
			if err == nil {
				response.Body.Close()
				if response.StatusCode == http.StatusOK {
					break
				}
			}
			time.Sleep(interval)
		}
	}
}

func (s *supervisor) list() []control.ProgramStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []control.ProgramStatus
	for _, p := range s.programs {
		st := p.status
		st.Held = s.isHeld(p)
		st.Container, st.Aliases = p.spec.Container, p.spec.Aliases
		all = append(all, st)
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Name < all[j].Name })
	return all
}
