package baremetal

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// statusOf is the load-balancer status that shows the addresses. ipMode is
// explicit (KEP-1860): the API server would default it, and upstream would find
// a difference at each sync.
func statusOf(addresses []netip.Addr) *corev1.LoadBalancerStatus {
	status := &corev1.LoadBalancerStatus{}
	for _, addr := range addresses {
		status.Ingress = append(status.Ingress, corev1.LoadBalancerIngress{
			IP:     addr.String(),
			IPMode: ptr.To(corev1.LoadBalancerIPModeVIP),
		})
	}
	return status
}
