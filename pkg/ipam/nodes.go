package ipam

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

// NodeAddresses are the addresses that nodes publish, with the nodes' names: what
// an Allocator must never give out.
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

// ReportedAddresses are those of the nodes' interfaces, as their speakers report
// them, with the nodes' names: a Node publishes one of each family only. A report
// that cannot be read tells nothing.
func ReportedAddresses(nodes ...*corev1.Node) map[netip.Addr]string {
	addresses := map[netip.Addr]string{}
	for _, node := range nodes {
		value, ok := node.Annotations[v1alpha1.NodeSpeaker]
		if !ok {
			continue
		}
		report, err := announce.DecodeReport(value)
		if err != nil {
			continue
		}
		for _, i := range report.Interfaces {
			for _, prefix := range i.Prefixes {
				addresses[prefix.Addr().Unmap().WithZone("")] = node.Name
			}
		}
	}
	return addresses
}
