// Package control holds what the processes of a lab say to each other: the
// command and the tests to the keeper, the keeper to the init process of each
// host, and the kubelet to the init process of its host, which is also its
// container runtime. The transport is net/rpc over Unix sockets.
package control

import (
	"slices"
	"strings"
	"syscall"
	"time"
)

// RPC service names.
const (
	KeeperService = "Keeper"
	HostService   = "Host"
)

// Held is the message of the error of a start that a person holds back. An RPC
// carries errors as text.
const Held = "held down"

// None is the argument or the answer of a call that needs none.
type None struct{}

// Link is a network interface of a host, plugged into a bridge of the lab.
type Link struct {
	Name      string
	Bridge    string
	MAC       string
	Addresses []string
}

// Route is a static route of a host.
type Route struct {
	Destination string // a prefix, or "default"
	Via         string
}

// Host is everything a host needs to boot.
type Host struct {
	Name     string
	LabDir   string // visible in the host under the same path
	Dir      string // what the host keeps over a reboot
	Links    []Link
	Routes   []Route
	Sysctls  map[string]string
	Commands [][]string // run once at boot, before the programs
	Programs []Program
	// RuntimeSocket, if set, is where the host serves its container runtime.
	RuntimeSocket string
}

// Program is a process that a host runs.
type Program struct {
	Name    string
	Aliases []string
	Argv    []string
	Env     []string
	Log     string

	// Restart starts the program again when it has ended. Containers do not
	// have it: that decision is the kubelet's.
	Restart bool
	// WaitURL and WaitFile hold a start back until the URL answers 200 or
	// the file exists.
	WaitURL  string
	WaitFile string
	// Container asks for PID, mount and IPC namespaces of its own.
	Container bool
}

// Matches tells whether people mean this program by the given name. A
// container is named namespace/pod/container and also goes by any suffix of
// that, by its pod, and by its aliases.
func (p *Program) Matches(name string) bool {
	if p.Name == name || strings.HasSuffix(p.Name, "/"+name) {
		return true
	}
	if p.Container {
		parts := strings.Split(p.Name, "/")
		if len(parts) == 3 && (name == parts[1] || name == parts[0]+"/"+parts[1]) {
			return true
		}
	}
	return slices.Contains(p.Aliases, name)
}

// ProgramStatus tells how a program fares.
type ProgramStatus struct {
	Name      string
	Aliases   []string
	Log       string
	Running   bool
	Held      bool // taken down by a person, stays down until started
	PID       int  // in the host's PID namespace
	Starts    int
	StartedAt time.Time
	EndedAt   time.Time
	ExitCode  int
	Signal    syscall.Signal
	Container bool
}

// Matches tells whether people mean this program by the given name.
func (p *ProgramStatus) Matches(name string) bool {
	return (&Program{Name: p.Name, Aliases: p.Aliases, Container: p.Container}).Matches(name)
}

// HostStatus tells how a host fares.
type HostStatus struct {
	Name     string
	Up       bool
	Cut      bool
	PID      int // of its init process, in the keeper's PID namespace
	BootID   string
	Boots    int
	Links    []Link
	Programs []ProgramStatus
}

// Status tells how the lab fares.
type Status struct {
	Name  string
	Hosts []HostStatus
}

// SignalRequest is about one program of one host. The zero Signal is a request
// that sends none.
type SignalRequest struct {
	Host    string
	Program string
	Signal  syscall.Signal
}

// CutRequest is about the links of a host.
type CutRequest struct {
	Host      string
	Interface string // of the host; empty means all
	Carrier   bool   // the host itself notices
}

// DropRequest is about one direction between two hosts on the LAN.
type DropRequest struct {
	From, To string
}

// QuotaRequest is about the CPU time of one program of one host.
type QuotaRequest struct {
	Host    string
	Program string
	// Cores it may use; 0 means all of them.
	Cores float64
}

// InterfaceRequest asks for one more interface of a node, on the LAN.
type InterfaceRequest struct {
	Host string
	Name string
}

// LinkUp is an interface to set up on a host that runs.
type LinkUp struct {
	Link    Link
	Sysctls map[string]string
}

// NodeRequest describes a node to add.
type NodeRequest struct {
	Zone   string
	Labels map[string]string
}

// RouterRequest changes what a test may change in a running router.
type RouterRequest struct {
	Extra     string // appended to the configuration
	NodeExtra string // inserted into the protocol block of each node
	Password  string
	HoldTime  int
}
