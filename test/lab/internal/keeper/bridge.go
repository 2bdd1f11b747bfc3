package keeper

import (
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/internal/control"
)

// Bridges of the lab, in the keeper's network namespace.
const (
	lanBridge = "lan"
	farBridge = "far"
)

func makeBridges() error {
	for _, key := range []string{"all", "default"} {
		// Bridges are switches here, and talk to nobody.
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+key+"/disable_ipv6", []byte("1"), 0); err != nil {
			return err
		}
	}
	for i, name := range []string{lanBridge, farBridge} {
		snooping := false
		attributes := netlink.NewLinkAttrs()
		attributes.Name = name
		// Otherwise it would take the lowest of its ports' addresses.
		attributes.HardwareAddr = net.HardwareAddr{2, 0xff, 0, 0, 0, byte(i)}
		bridge := &netlink.Bridge{LinkAttrs: attributes, MulticastSnooping: &snooping}
		if err := netlink.LinkAdd(bridge); err != nil {
			return fmt.Errorf("bridge %s: %w", name, err)
		}
		if err := netlink.LinkSetUp(bridge); err != nil {
			return fmt.Errorf("bridge %s up: %w", name, err)
		}
	}
	return nil
}

// portName is the bridge's end of a host's link.
func portName(host string, l control.Link) string {
	if l.Bridge == lanBridge && l.Name == "eth0" {
		return "p-" + host
	}
	if l.Bridge == lanBridge {
		return "p-" + host + "-" + l.Name
	}
	return "p-" + host + "-" + l.Bridge
}

// plug makes a link into the network namespace of a process.
func plug(host string, l control.Link, pid int) error {
	port := portName(host, l)
	mac, err := net.ParseMAC(l.MAC)
	if err != nil {
		return fmt.Errorf("link %s: %w", port, err)
	}
	veth := netlink.NewVeth(netlink.LinkAttrs{Name: port})
	veth.PeerName, veth.PeerHardwareAddr, veth.PeerNamespace = l.Name, mac, netlink.NsPid(pid)
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("link %s: %w", port, err)
	}
	return setPort(host, l, true, true)
}

func unplug(host string, l control.Link) {
	if link, err := netlink.LinkByName(portName(host, l)); err == nil {
		_ = netlink.LinkDel(link) // the kernel may have been faster
	}
}

// setPort connects a port to its bridge or takes it out, which neither end
// notices. With carrier, the host's interface loses its carrier too.
func setPort(host string, l control.Link, connected, carrier bool) error {
	name := portName(host, l)
	port, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("port %s: %w", name, err)
	}
	if connected {
		bridge, err := netlink.LinkByName(l.Bridge)
		if err != nil {
			return fmt.Errorf("bridge %s: %w", l.Bridge, err)
		}
		if err := netlink.LinkSetMaster(port, bridge); err != nil {
			return fmt.Errorf("connect port %s: %w", name, err)
		}
		if err := netlink.LinkSetUp(port); err != nil {
			return fmt.Errorf("port %s up: %w", name, err)
		}
		return nil
	}
	if carrier {
		if err := netlink.LinkSetDown(port); err != nil {
			return fmt.Errorf("port %s down: %w", name, err)
		}
	}
	if err := netlink.LinkSetNoMaster(port); err != nil {
		return fmt.Errorf("disconnect port %s: %w", name, err)
	}
	return nil
}

// mac gives an interface an address that stays over boots, as hardware does.
func mac(ip string) string {
	b := netip.MustParseAddr(ip).As4()
	return net.HardwareAddr{2, 0, b[0], b[1], b[2], b[3]}.String()
}
