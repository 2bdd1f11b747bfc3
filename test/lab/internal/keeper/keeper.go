// Package keeper is the process that a lab lives in. It is process 1 of the
// lab's PID namespace and its network namespace holds the bridges, so that
// when it ends, however it does, the kernel removes the whole lab.
package keeper

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/rpc"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/internal/control"
)

// Config describes a lab.
type Config struct {
	Name    string                `json:"name"`
	Dir     string                `json:"dir"`     // of this lab, empty and locked
	BinDir  string                `json:"binDir"`  // Kubernetes and etcd
	Command string                `json:"command"` // this program
	Images  map[string]string     `json:"images"`
	Nodes   []control.NodeRequest `json:"nodes"`
	Router  Router                `json:"router"`

	ProxyMode     string        `json:"proxyMode"`
	NodeGrace     time.Duration `json:"nodeGrace"`
	EvictionAfter time.Duration `json:"evictionAfter"`
	Fsync         bool          `json:"fsync"`
	Uninitialized bool          `json:"uninitialized"`
	IPv4Only      bool          `json:"ipv4Only"`
	DNS           bool          `json:"dns"`

	APIServerArgs         []string `json:"apiServerArgs,omitempty"`
	ControllerManagerArgs []string `json:"controllerManagerArgs,omitempty"`
	ProxyArgs             []string `json:"proxyArgs,omitempty"`
}

// Files of a lab's directory.
const (
	ConfigFile = "config.json"
	SocketFile = "control.sock"
	LogDir     = "logs"
	PodLogDir  = "logs/pods"
	PKIDir     = "pki"
	AdminFile  = "admin.kubeconfig"
)

// File descriptors that the starter passes. The owner's is missing if nobody
// owns the lab.
const (
	LockFD  = 3 // holds the directory's lock as long as the keeper lives
	ReadyFD = 4
	OwnerFD = 5
)

// keeper holds the lab.
type keeper struct {
	config Config
	pki    *pki

	mu     sync.Mutex // of the set of hosts
	hosts  map[string]*host
	nodes  map[int]control.NodeRequest
	filter filter
}

// Main runs a lab until it is shut down or its owner ends.
func Main(configFile string, owned bool) error {
	for _, fd := range []int{LockFD, ReadyFD, OwnerFD} {
		unix.CloseOnExec(fd)
	}
	if owned {
		go dieWithOwner()
	}
	ready := os.NewFile(ReadyFD, "ready")
	k, err := start(configFile)
	var l net.Listener
	if err == nil {
		l, err = net.Listen("unix", filepath.Join(k.config.Dir, SocketFile))
	}
	if err != nil {
		fmt.Fprintln(ready, err)
		return err
	}
	if _, err := io.WriteString(ready, "ready\n"); err != nil {
		return fmt.Errorf("nobody waits for the lab: %w", err)
	}
	ready.Close()
	return k.serve(l)
}

// dieWithOwner ends the lab when the other end of the owner's pipe is closed,
// which the kernel does when the owner dies.
func dieWithOwner() {
	var b [1]byte
	_, _ = os.NewFile(OwnerFD, "owner").Read(b[:])
	os.Exit(0)
}

func start(configFile string) (*keeper, error) {
	text, err := os.ReadFile(configFile)
	if err != nil {
		return nil, err
	}
	k := &keeper{hosts: map[string]*host{}, nodes: map[int]control.NodeRequest{}}
	if err := json.Unmarshal(text, &k.config); err != nil {
		return nil, fmt.Errorf("lab configuration %s: %w", configFile, err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return nil, fmt.Errorf("mount /proc: %w", err)
	}
	for _, d := range []string{LogDir, PodLogDir, PKIDir} {
		if err := os.MkdirAll(filepath.Join(k.config.Dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	if err := makeBridges(); err != nil {
		return nil, err
	}
	if k.pki, err = newPKI(filepath.Join(k.config.Dir, PKIDir)); err != nil {
		return nil, err
	}
	if err := k.writeControlPlane(); err != nil {
		return nil, err
	}
	for i, n := range k.config.Nodes {
		k.nodes[i+1] = n
	}
	return k, k.bootAll()
}

// bootAll switches all hosts on together.
func (k *keeper) bootAll() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.hosts[ControlPlane] = &host{name: ControlPlane}
	k.hosts[RouterHost] = &host{name: RouterHost}
	k.hosts[LANHost] = &host{name: LANHost}
	k.hosts[FarHost] = &host{name: FarHost}
	for n := range k.nodes {
		h := &host{name: nodeName(n), node: n}
		k.hosts[h.name] = h
	}
	var g errgroup.Group
	for _, h := range k.hosts {
		spec, err := k.describe(h)
		if err != nil {
			return err
		}
		g.Go(func() error { return h.boot(spec, k.config.Command) })
	}
	return g.Wait()
}

// serve answers the command and the tests, for as long as the lab lives.
func (k *keeper) serve(l net.Listener) error {
	server := rpc.NewServer()
	if err := server.RegisterName(control.KeeperService, &service{k}); err != nil {
		return fmt.Errorf("register: %w", err)
	}
	server.Accept(l)
	return errors.New("control socket closed")
}

func (k *keeper) find(name string) (*host, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	h, ok := k.hosts[name]
	if !ok {
		return nil, fmt.Errorf("no host %q", name)
	}
	return h, nil
}
