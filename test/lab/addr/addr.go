// Package addr is the address plan of the lab. It is the same in every lab:
// labs are not connected to each other nor to the machine.
package addr

import (
	"fmt"
	"net/netip"
)

// Networks of the lab. The pools are not routed by anything in the lab; they
// are reserved for the addresses that load balancers announce.
const (
	LAN          = "192.0.2.0/24"
	LANv6        = "2001:db8:2::/64"
	Far          = "198.51.100.0/24"
	FarV6        = "2001:db8:51::/64"
	Pods         = "198.18.0.0/16"
	PodsV6       = "2001:db8:18::/48"
	ClusterIPs   = "198.19.0.0/17"
	ClusterIPsV6 = "2001:db8:19::/112"

	Pool      = "203.0.113.0/24"
	PoolV6    = "2001:db8:100::/64"
	ScalePool = "198.19.128.0/17"

	// Layer2Pool and Layer2PoolV6 are free addresses of the LAN itself.
	Layer2Pool   = "192.0.2.200-192.0.2.250"
	Layer2PoolV6 = "2001:db8:2::2:0/112"

	// Strangers and StrangersV6 are of the LAN too. Nobody has them: they are
	// what forged packets come from.
	Strangers   = "192.0.2.251-192.0.2.254"
	StrangersV6 = "2001:db8:2::3:0-2001:db8:2::3:f"
)

// Hosts that every lab has.
const (
	Router      = "192.0.2.1"
	RouterV6    = "2001:db8:2::1"
	Control     = "192.0.2.2"
	ControlV6   = "2001:db8:2::2"
	LANClient   = "192.0.2.100"
	LANClientV6 = "2001:db8:2::100"

	RouterFar   = "198.51.100.1"
	RouterFarV6 = "2001:db8:51::1"
	FarClient   = "198.51.100.100"
	FarClientV6 = "2001:db8:51::100"

	// Kubernetes is the ClusterIP of the API server.
	Kubernetes   = "198.19.0.1"
	KubernetesV6 = "2001:db8:19::1"
	APIPort      = 6443
)

// AS numbers of the default router configuration.
const (
	RouterASN = 64500
	NodeASN   = 64512
)

// MaxNodes is the number of nodes the plan has room for, between the control
// plane and the LAN client.
const MaxNodes = 88

// NodePlan is what the plan gives to one node.
type NodePlan struct {
	Number             int
	Name               string
	IPv4, IPv6         netip.Addr
	PodsIPv4, PodsIPv6 netip.Prefix

	// SecondIPv4 and SecondIPv6 are of a second interface on the LAN, if it has
	// one.
	SecondIPv4, SecondIPv6 netip.Addr
}

// Node returns the plan of node number n, counted from 1. Decimal numbers are
// written into IPv6 addresses as they are, so that node3 is ::13 and .13, and
// its second interface ::103 and .103.
func Node(n int) NodePlan {
	return NodePlan{
		Number:   n,
		Name:     fmt.Sprintf("node%d", n),
		IPv4:     netip.AddrFrom4([4]byte{192, 0, 2, byte(10 + n)}),
		IPv6:     netip.MustParseAddr(fmt.Sprintf("2001:db8:2::%d", 10+n)),
		PodsIPv4: netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18, byte(n), 0}), 24),
		PodsIPv6: netip.MustParsePrefix(fmt.Sprintf("2001:db8:18:%d::/64", n)),

		SecondIPv4: netip.AddrFrom4([4]byte{192, 0, 2, byte(100 + n)}),
		SecondIPv6: netip.MustParseAddr(fmt.Sprintf("2001:db8:2::%d", 100+n)),
	}
}

// Prefix writes address with the length of network, as interfaces take it.
func Prefix(address, network string) string {
	return fmt.Sprintf("%s/%d", address, netip.MustParsePrefix(network).Bits())
}
