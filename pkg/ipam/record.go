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
	// Settled Services are marked as announced: nobody disputes what they show.
	Settled bool
	// Terms of sharing; never nil.
	Terms *Terms
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
	return Record{
		Owner:     OwnerOf(service),
		Addresses: Recorded(service),
		Marked:    Marked(service),
		Settled:   Settled(service),
		Terms:     TermsOf(service),
	}
}

// Records are those of the Services that have recorded anything, in the order of
// Seniority.
func Records(services []*corev1.Service) []Record {
	var recorded []*corev1.Service
	for _, service := range services {
		if len(service.Status.LoadBalancer.Ingress) > 0 {
			recorded = append(recorded, service)
		}
	}
	slices.SortFunc(recorded, Seniority)
	records := make([]Record, len(recorded))
	for i, service := range recorded {
		records[i] = RecordOf(service)
	}
	return records
}

// Seniority orders Services by their right to an address that they show: those
// that were announced come before those that never were, for what they show may
// be a late write of a leader that was deposed; then the older comes first.
func Seniority(a, b *corev1.Service) int {
	if settled := Settled(a); settled != Settled(b) {
		if settled {
			return -1
		}
		return 1
	}
	return cmp.Or(
		a.CreationTimestamp.Time.Compare(b.CreationTimestamp.Time),
		cmp.Compare(a.Namespace, b.Namespace),
		cmp.Compare(a.Name, b.Name),
	)
}
