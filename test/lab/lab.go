package lab

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/rpc"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/internal/control"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/internal/keeper"
)

// Lab is a running cluster.
type Lab struct {
	// Name of the lab, and Dir, where its logs and configurations are.
	Name, Dir string

	binDir string
	client *rpc.Client
	pid    int      // of the keeper
	pidfd  int      // of the keeper
	owner  *os.File // the lab ends when it is closed; nil if it is detached

	closing sync.Once
	closed  error
	rest    func() (*rest.Config, error)
	clients func() (kubernetes.Interface, error)
}

// Start starts a lab and returns when its nodes are ready. Unless it is
// detached the calling process owns it: the lab ends with it, however it ends.
func Start(ctx context.Context, config Config) (*Lab, error) {
	config.setDefaults()
	if err := config.validate(); err != nil {
		return nil, err
	}
	root, err := projectRoot()
	if err != nil {
		return nil, err
	}
	if err := checkPrograms(root, config.Router.Kind); err != nil {
		return nil, err
	}
	lock, err := lockDir(config.dir())
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if err := installCommand(ctx, config.dir()); err != nil {
		return nil, err
	}
	process, owner, err := startKeeper(ctx, &config, root, lock)
	if err != nil {
		return nil, err
	}
	l, err := attach(config.dir())
	if err != nil {
		return nil, errors.Join(err, process.Kill())
	}
	l.owner = owner
	if err := l.waitReady(ctx, config.Nodes); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// startKeeper starts the lab's process and waits until its hosts are up. It
// returns the owner's end of the pipe too, if the lab is to have an owner.
func startKeeper(ctx context.Context, config *Config, root string, lock *os.File) (*os.Process, *os.File, error) {
	dir := config.dir()
	text, err := json.MarshalIndent(config.keeperConfig(root), "", "  ")
	if err != nil {
		return nil, nil, err
	}
	configFile := filepath.Join(dir, keeper.ConfigFile)
	if err := os.WriteFile(configFile, text, 0o600); err != nil {
		return nil, nil, err
	}
	log, err := os.Create(filepath.Join(dir, "keeper.log"))
	if err != nil {
		return nil, nil, err
	}
	defer log.Close()
	readyOut, readyIn, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer readyOut.Close()

	cmd := exec.Command(filepath.Join(dir, commandFile), "keeper", configFile)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{lock, readyIn}
	cmd.SysProcAttr = &unix.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		Setsid:     true,
	}
	var owner *os.File
	if !config.Detached {
		ownerOut, ownerIn, err := os.Pipe()
		if err != nil {
			readyIn.Close()
			return nil, nil, err
		}
		defer ownerOut.Close()
		owner = ownerIn
		cmd.Args = append(cmd.Args, "--owned")
		cmd.ExtraFiles = append(cmd.ExtraFiles, ownerOut)
	}
	err = cmd.Start()
	readyIn.Close()
	if err != nil {
		owner.Close()
		return nil, nil, fmt.Errorf("start lab %s: %w", config.Name, err)
	}
	go func() { _ = cmd.Wait() }() // it is killed, or has said why

	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	answer, _ := bufio.NewReader(readyOut).ReadString('\n')
	if answer != "ready\n" {
		owner.Close()
		_ = cmd.Process.Kill()
		return nil, nil, fmt.Errorf("start lab %s: %s %w", config.Name, strings.TrimSpace(answer), errors.Join(ctx.Err(), fileTail(log.Name())))
	}
	return cmd.Process, owner, nil
}

// fileTail returns the end of a log as an error.
func fileTail(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if len(text) > 2000 {
		text = text[len(text)-2000:]
	}
	if len(text) == 0 {
		return nil
	}
	return errors.New(strings.TrimSpace(string(text)))
}

// Attach returns a lab that is running. Closing it ends the lab all the same.
func Attach(name string) (*Lab, error) {
	config := Config{Name: name}
	config.setDefaults()
	return attach(config.dir())
}

// List returns the names of the labs of this machine, those that were killed
// included.
func List() ([]string, error) {
	entries, err := os.ReadDir(defaultStateDir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

// Down ends a lab if it runs, and removes what a killed one has left.
func Down(name string) error {
	config := Config{Name: name}
	config.setDefaults()
	if l, err := attach(config.dir()); err == nil {
		return l.Close()
	}
	if _, err := os.Stat(config.dir()); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return removeDir(config.dir())
}

func attach(dir string) (*Lab, error) {
	name := filepath.Base(dir)
	conn, err := net.Dial("unix", filepath.Join(dir, keeper.SocketFile))
	if err != nil {
		return nil, fmt.Errorf("lab %s is not running: %w", name, err)
	}
	// The keeper does not know its own PID as seen from here; the kernel does.
	pid, err := peerPID(conn.(*net.UnixConn))
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("lab %s: %w", name, err)
	}
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("process of lab %s: %w", name, err)
	}
	l := &Lab{Name: name, Dir: dir, client: rpc.NewClient(conn), pid: pid, pidfd: pidfd}
	text, err := os.ReadFile(filepath.Join(dir, keeper.ConfigFile))
	if err != nil {
		return nil, err
	}
	var config keeper.Config
	if err := json.Unmarshal(text, &config); err != nil {
		return nil, fmt.Errorf("configuration of lab %s: %w", name, err)
	}
	l.binDir = config.BinDir
	l.rest = sync.OnceValues(l.makeRESTConfig)
	l.clients = sync.OnceValues(l.makeClient)
	return l, nil
}

func peerPID(conn *net.UnixConn) (int, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var credentials *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		credentials, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if credErr != nil {
		return 0, credErr
	}
	return int(credentials.Pid), nil
}

// Close ends the lab and removes its directory. It returns when nothing is
// left of it.
func (l *Lab) Close() error {
	l.closing.Do(func() {
		defer unix.Close(l.pidfd)
		defer l.client.Close()
		if l.owner != nil {
			l.owner.Close()
		}
		// A kill needs no cooperation, and the kernel kills the rest.
		if err := unix.PidfdSendSignal(l.pidfd, unix.SIGKILL, nil, 0); err != nil && err != unix.ESRCH {
			l.closed = fmt.Errorf("end lab %s: %w", l.Name, err)
			return
		}
		if err := waitPidfd(l.pidfd, 30*time.Second); err != nil {
			l.closed = fmt.Errorf("end lab %s: %w", l.Name, err)
			return
		}
		l.closed = removeDir(l.Dir)
	})
	return l.closed
}

// Release lets an attached lab live on when this process has no more use for it.
func (l *Lab) Release() {
	l.closing.Do(func() {
		unix.Close(l.pidfd)
		l.client.Close()
	})
}

// waitPidfd waits for a process to end. As process 1 of the lab it ends only
// after all others of the lab have.
func waitPidfd(pidfd int, timeout time.Duration) error {
	deadline := time.Now().Add(timeout)
	for {
		left := time.Until(deadline)
		if left <= 0 {
			return errors.New("its processes do not end")
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if n > 0 {
			return nil
		}
	}
}

// call asks the keeper. A call cannot be taken back: if ctx ends first, what
// was asked happens all the same.
func (l *Lab) call(ctx context.Context, method string, argument, reply any) error {
	call := l.client.Go(control.KeeperService+"."+method, argument, reply, make(chan *rpc.Call, 1))
	select {
	case <-call.Done:
		if errors.Is(call.Error, rpc.ErrShutdown) || errors.Is(call.Error, io.ErrUnexpectedEOF) {
			return fmt.Errorf("lab %s has ended: %w", l.Name, call.Error)
		}
		return call.Error
	case <-ctx.Done():
		return fmt.Errorf("%s in lab %s: %w", method, l.Name, ctx.Err())
	}
}
