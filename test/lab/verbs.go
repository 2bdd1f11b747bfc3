package lab

import (
	"context"
	"errors"
	"syscall"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/internal/control"
)

// Status tells how the lab and its hosts fare.
type Status = control.Status

// HostStatus tells how a host fares.
type HostStatus = control.HostStatus

// ProgramStatus tells how a program of a host fares.
type ProgramStatus = control.ProgramStatus

// NodeOptions describes a node to add.
type NodeOptions = control.NodeRequest

// Status returns the state of all hosts.
func (l *Lab) Status(ctx context.Context) (*Status, error) {
	var s Status
	return &s, l.call(ctx, "Status", control.None{}, &s)
}

// Cut takes a host off the network silently: neither it nor its peers lose
// their carrier.
func (l *Lab) Cut(ctx context.Context, host string) error {
	return l.call(ctx, "Cut", control.CutRequest{Host: host}, &control.None{})
}

// CutCarrier takes a host off the network as if its cable were pulled: its own
// interfaces lose their carrier.
func (l *Lab) CutCarrier(ctx context.Context, host string) error {
	return l.call(ctx, "Cut", control.CutRequest{Host: host, Carrier: true}, &control.None{})
}

// CutCarrierOf is CutCarrier for one interface of a host.
func (l *Lab) CutCarrierOf(ctx context.Context, host, iface string) error {
	return l.call(ctx, "Cut", control.CutRequest{Host: host, Interface: iface, Carrier: true}, &control.None{})
}

// Restore connects a host that was cut, all of its interfaces.
func (l *Lab) Restore(ctx context.Context, host string) error {
	return l.call(ctx, "Restore", control.CutRequest{Host: host}, &control.None{})
}

// Kill ends a program of a host with a signal, waits for its end, and keeps it
// down until StartProgram or a boot of the host. The programs are etcd, kube-apiserver,
// kube-controller-manager and kube-scheduler on the control plane; kubelet and
// kube-proxy on nodes; bird, or zebra and bgpd, on the router; and containers
// by the name of their Pod, their image or their own.
func (l *Lab) Kill(ctx context.Context, host, program string, sig syscall.Signal) error {
	return l.call(ctx, "Kill", control.SignalRequest{Host: host, Program: program, Signal: sig}, &control.None{})
}

// StartProgram lets a program run again that was killed.
func (l *Lab) StartProgram(ctx context.Context, host, program string) error {
	return l.call(ctx, "Start", control.SignalRequest{Host: host, Program: program}, &control.None{})
}

// Restart ends a program with a signal. It comes back at once.
func (l *Lab) Restart(ctx context.Context, host, program string, sig syscall.Signal) error {
	return l.call(ctx, "Restart", control.SignalRequest{Host: host, Program: program, Signal: sig}, &control.None{})
}

// Signal sends a program a signal, for example SIGSTOP, and does not wait.
func (l *Lab) Signal(ctx context.Context, host, program string, sig syscall.Signal) error {
	return l.call(ctx, "Signal", control.SignalRequest{Host: host, Program: program, Signal: sig}, &control.None{})
}

// SetQuota bounds the CPU time of a program of a host, named as in Kill, and of
// what it starts from now on, to so many cores. It ends with the program, or
// with 0. As the kernel does for containers: what is used up stands still until
// the next tenth of a second.
func (l *Lab) SetQuota(ctx context.Context, host, program string, cores float64) error {
	return l.call(ctx, "SetQuota", control.QuotaRequest{Host: host, Program: program, Cores: cores}, &control.None{})
}

// StopAPI kills the API server and keeps it down.
func (l *Lab) StopAPI(ctx context.Context) error {
	return l.Kill(ctx, ControlPlane, "kube-apiserver", syscall.SIGKILL)
}

// StartAPI starts the API server and waits until it serves.
func (l *Lab) StartAPI(ctx context.Context) error {
	if err := l.StartProgram(ctx, ControlPlane, "kube-apiserver"); err != nil {
		return err
	}
	return l.waitAPI(ctx)
}

// Reboot takes a host's power away and gives it back. Nothing in it is told.
func (l *Lab) Reboot(ctx context.Context, host string) error {
	return l.call(ctx, "Reboot", host, &control.None{})
}

// PowerOff takes a host's power away.
func (l *Lab) PowerOff(ctx context.Context, host string) error {
	return l.call(ctx, "PowerOff", host, &control.None{})
}

// PowerOn boots a host that is off.
func (l *Lab) PowerOn(ctx context.Context, host string) error {
	return l.call(ctx, "PowerOn", host, &control.None{})
}

// AddNode adds a node and returns its name when it is ready.
func (l *Lab) AddNode(ctx context.Context, options NodeOptions) (string, error) {
	var name string
	if err := l.call(ctx, "AddNode", options, &name); err != nil {
		return "", err
	}
	return name, l.WaitNodeReady(ctx, name)
}

// RemoveNode switches a node off for ever and deletes its Node object.
func (l *Lab) RemoveNode(ctx context.Context, name string) error {
	if err := l.call(ctx, "RemoveNode", name, &control.None{}); err != nil {
		return err
	}
	client, err := l.Client()
	if err != nil {
		return err
	}
	err = client.CoreV1().Nodes().Delete(ctx, name, metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// ConfigureRouter changes Extra, NodeExtra, Password and, unless it is 0, the
// HoldTime of the router while it runs.
func (l *Lab) ConfigureRouter(ctx context.Context, config RouterConfig) error {
	if config.Kind != "" || config.Passive {
		return errors.New("only Extra, NodeExtra, Password and HoldTime can be changed while the router runs")
	}
	return l.call(ctx, "ConfigureRouter", control.RouterRequest{
		Extra: config.Extra, NodeExtra: config.NodeExtra, Password: config.Password, HoldTime: int(config.HoldTime.Seconds()),
	}, &control.None{})
}
