package keeper

import (
	"crypto/rand"
	"fmt"
	"net"
	"net/rpc"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/internal/control"
)

// Names of the hosts that are no nodes.
const (
	ControlPlane = "cp"
	RouterHost   = "router"
	LANHost      = "lan"
	FarHost      = "client"
)

// host is a machine of the lab, on or off.
type host struct {
	name  string
	node  int            // 0 if it is none
	extra []control.Link // interfaces that were added; the keeper's lock is held

	mu     sync.Mutex
	up     bool
	cut    bool
	links  []control.Link
	cmd    *exec.Cmd
	ended  chan struct{} // closed when the init process is gone
	client *rpc.Client
	bootID string
	boots  int
}

// boot switches a host on that is off.
func (h *host) boot(spec control.Host, command string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.up {
		return fmt.Errorf("host %s is up", h.name)
	}
	if err := os.MkdirAll(spec.Dir, 0o755); err != nil {
		return err
	}
	h.bootID = newUUID()
	if err := os.WriteFile(filepath.Join(spec.Dir, "boot_id"), []byte(h.bootID+"\n"), 0o444); err != nil {
		return err
	}
	if err := h.spawn(spec, command); err != nil {
		return err
	}
	h.links = spec.Links
	if err := h.powerUp(spec); err != nil {
		h.powerCut()
		return fmt.Errorf("boot %s: %w", h.name, err)
	}
	h.boots++
	h.up, h.cut = true, false
	return nil
}

// spawn starts the init process in namespaces of its own.
func (h *host) spawn(spec control.Host, command string) error {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("control connection of %s: %w", h.name, err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "host"), os.NewFile(uintptr(fds[1]), "keeper")
	defer ours.Close()
	defer theirs.Close()
	log, err := os.OpenFile(filepath.Join(spec.LabDir, LogDir, h.name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()

	cmd := exec.Command(command, "host")
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr = &unix.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		Setsid:     true,
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", h.name, err)
	}
	ended := make(chan struct{})
	h.cmd, h.ended = cmd, ended
	go func() {
		defer close(ended)
		_ = cmd.Wait() // it is killed, or fails and says why in its log
	}()
	conn, err := net.FileConn(ours)
	if err != nil {
		return fmt.Errorf("control connection of %s: %w", h.name, err)
	}
	h.client = rpc.NewClient(conn)
	return nil
}

func (h *host) powerUp(spec control.Host) error {
	for _, l := range spec.Links {
		if err := plug(h.name, l, h.cmd.Process.Pid); err != nil {
			return err
		}
	}
	return h.client.Call(control.HostService+".Boot", spec, &control.None{})
}

// powerOff is a power loss: everything in the host is gone at once.
func (h *host) powerOff() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.up {
		return fmt.Errorf("host %s is off", h.name)
	}
	h.powerCut()
	return nil
}

func (h *host) powerCut() {
	_ = h.cmd.Process.Kill() // fails only if it has ended
	for _, l := range h.links {
		// The kernel would remove it too, some time after the last process.
		unplug(h.name, l)
	}
	<-h.ended
	h.client.Close()
	h.up = false
}

// addLink plugs an interface into the running host.
func (h *host) addLink(up control.LinkUp) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.up {
		return fmt.Errorf("host %s is off", h.name)
	}
	if err := plug(h.name, up.Link, h.cmd.Process.Pid); err != nil {
		return err
	}
	h.links = append(slices.Clip(h.links), up.Link)
	return h.client.Call(control.HostService+".AddLink", up, &control.None{})
}

// call asks the init process of the host.
func (h *host) call(method string, argument any) error {
	client, err := h.connection()
	if err != nil {
		return err
	}
	if err := client.Call(control.HostService+"."+method, argument, &control.None{}); err != nil {
		return fmt.Errorf("%s: %w", h.name, err)
	}
	return nil
}

func (h *host) connection() (*rpc.Client, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.up {
		return nil, fmt.Errorf("host %s is off", h.name)
	}
	return h.client, nil
}

// setCut cuts or restores links of the host.
func (h *host) setCut(cut bool, r control.CutRequest) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.up {
		return fmt.Errorf("host %s is off", h.name)
	}
	found := false
	for _, l := range h.links {
		if r.Interface != "" && r.Interface != l.Name {
			continue
		}
		found = true
		if err := setPort(h.name, l, !cut, r.Carrier); err != nil {
			return err
		}
	}
	if !found {
		return fmt.Errorf("%s has no interface %q", h.name, r.Interface)
	}
	if r.Interface == "" {
		h.cut = cut
	}
	return nil
}

// status never waits for an operation on the host for long: all of them are
// short.
func (h *host) status() control.HostStatus {
	h.mu.Lock()
	s := control.HostStatus{
		Name: h.name, Up: h.up, Cut: h.cut, BootID: h.bootID, Boots: h.boots, Links: h.links,
	}
	client := h.client
	if h.up {
		s.PID = h.cmd.Process.Pid
	}
	h.mu.Unlock()
	if s.Up {
		// A host that dies meanwhile has no programs.
		_ = client.Call(control.HostService+".Programs", control.None{}, &s.Programs)
	}
	return s
}

func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
