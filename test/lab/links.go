package lab

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/internal/control"
)

// OnLink makes a host reach all addresses of a prefix on its LAN directly, as if
// they were of its own subnet.
func (l *Lab) OnLink(ctx context.Context, host, prefix string) error {
	_, destination, err := net.ParseCIDR(prefix)
	if err != nil {
		return err
	}
	return l.netlink(ctx, host, func(h *netlink.Handle) error {
		link, err := h.LinkByName("eth0")
		if err != nil {
			return err
		}
		route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: destination, Protocol: unix.RTPROT_STATIC}
		if destination.IP.To4() != nil {
			route.Scope = netlink.SCOPE_LINK
		}
		if err := h.RouteReplace(route); err != nil {
			return fmt.Errorf("route to %s on the link of %s: %w", prefix, host, err)
		}
		return nil
	})
}

// MAC returns the MAC address that an interface of a host has now.
func (l *Lab) MAC(ctx context.Context, host, iface string) (string, error) {
	var mac string
	err := l.netlink(ctx, host, func(h *netlink.Handle) error {
		link, err := h.LinkByName(iface)
		if err != nil {
			return fmt.Errorf("%s of %s: %w", iface, host, err)
		}
		mac = link.Attrs().HardwareAddr.String()
		return nil
	})
	return mac, err
}

// SetMAC changes the MAC address of an interface of a host, until its next boot.
func (l *Lab) SetMAC(ctx context.Context, host, iface, mac string) error {
	address, err := net.ParseMAC(mac)
	if err != nil {
		return err
	}
	return l.netlink(ctx, host, func(h *netlink.Handle) error {
		link, err := h.LinkByName(iface)
		if err != nil {
			return fmt.Errorf("%s of %s: %w", iface, host, err)
		}
		return h.LinkSetHardwareAddr(link, address)
	})
}

// HostsByMAC returns which host of those with power has which MAC address, over
// all interfaces on the lab's networks.
func (l *Lab) HostsByMAC(ctx context.Context) (map[string]string, error) {
	status, err := l.Status(ctx)
	if err != nil {
		return nil, err
	}
	hosts := make(map[string]string)
	for _, host := range status.Hosts {
		if !host.Up {
			// What it had when it lost its power.
			for _, link := range host.Links {
				hosts[link.MAC] = host.Name
			}
			continue
		}
		for _, link := range host.Links {
			mac, err := l.MAC(ctx, host.Name, link.Name)
			if err != nil {
				return nil, err
			}
			hosts[mac] = host.Name
		}
	}
	return hosts, nil
}

// AddInterface gives a node a second interface on the LAN, for example eth1,
// with the addresses that the plan has for it (addr.NodePlan). The node keeps
// it over boots.
func (l *Lab) AddInterface(ctx context.Context, node, name string) error {
	return l.call(ctx, "AddInterface", control.InterfaceRequest{Host: node, Name: name}, &control.None{})
}

// namespace opens the network namespace of a host.
func (l *Lab) namespace(ctx context.Context, host string) (netns.NsHandle, func(), error) {
	proc, err := l.proc(ctx, host)
	if err != nil {
		return netns.None(), nil, err
	}
	f, err := os.Open(filepath.Join(proc, "ns", "net"))
	if err != nil {
		return netns.None(), nil, fmt.Errorf("network namespace of %s: %w", host, err)
	}
	return netns.NsHandle(f.Fd()), func() { f.Close() }, nil
}

// netlink calls f with a netlink socket in the network namespace of a host.
func (l *Lab) netlink(ctx context.Context, host string, f func(*netlink.Handle) error) error {
	namespace, closeNamespace, err := l.namespace(ctx, host)
	if err != nil {
		return err
	}
	defer closeNamespace()
	handle, err := netlink.NewHandleAt(namespace, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("netlink of %s: %w", host, err)
	}
	defer handle.Close()
	return f(handle)
}
