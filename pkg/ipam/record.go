package ipam

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// Record is what the API shows of a Service's addresses.
type Record struct {
	Owner
	// Addresses in the Service's status.
	Addresses []netip.Addr
	// Marked Services carry the condition that says they are served by us.
	Marked bool
}

// Conflicting are two Services that record one address.
type Conflicting struct {
	Address netip.Addr
	// First has the address, Second has not.
	First, Second Owner
}

// String names address and Services.
func (c Conflicting) String() string {
	return fmt.Sprintf("%s is recorded by Service %s, which has it, and by %s", c.Address, c.First, c.Second)
}

// RecordOf is the Record of the Service.
func RecordOf(service *corev1.Service) Record {
	return Record{Owner: OwnerOf(service), Addresses: Recorded(service), Marked: Marked(service)}
}

// Records are those of the Services that have recorded anything, the older
// Service before the younger.
func Records(services []*corev1.Service) []Record {
	var recorded []*corev1.Service
	for _, service := range services {
		if len(service.Status.LoadBalancer.Ingress) > 0 {
			recorded = append(recorded, service)
		}
	}
	slices.SortFunc(recorded, func(a, b *corev1.Service) int {
		return cmp.Or(
			a.CreationTimestamp.Time.Compare(b.CreationTimestamp.Time),
			cmp.Compare(a.Namespace, b.Namespace),
			cmp.Compare(a.Name, b.Name),
		)
	})
	records := make([]Record, len(recorded))
	for i, service := range recorded {
		records[i] = RecordOf(service)
	}
	return records
}
