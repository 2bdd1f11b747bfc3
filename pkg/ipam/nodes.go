package ipam

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
)

// NodeAddresses are the addresses of all nodes, with the nodes' names: what an
// Allocator must never give out.
func NodeAddresses(nodes []*corev1.Node) map[netip.Addr]string {
	addresses := map[netip.Addr]string{}
	for _, node := range nodes {
		for _, address := range node.Status.Addresses {
			if addr, err := netip.ParseAddr(address.Address); err == nil {
				addresses[addr.Unmap().WithZone("")] = node.Name
			}
		}
	}
	return addresses
}
