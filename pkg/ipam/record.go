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
	// Foreign Services are those of another controller.
	Foreign bool
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
// seniority.
func Records(services []*corev1.Service) []Record {
	var recorded []*corev1.Service
	for _, service := range services {
		if len(service.Status.LoadBalancer.Ingress) > 0 {
			recorded = append(recorded, service)
		}
	}
	SortBySeniority(recorded)
	records := make([]Record, len(recorded))
	for i, service := range recorded {
		records[i] = RecordOf(service)
	}
	return records
}

// SortBySeniority orders Services by their right to an address that they show:
// those whose right nobody disputed come first, for what others show may be a late
// write of a leader that was deposed; then the older comes first.
func SortBySeniority(services []*corev1.Service) {
	// What decides is read once: looking it up for each comparison would cost more
	// than all the rest of an adoption.
	type senior struct {
		settled bool
		created int64
		*corev1.Service
	}
	seniors := make([]senior, len(services))
	for i, service := range services {
		seniors[i] = senior{Settled(service), service.CreationTimestamp.UnixNano(), service}
	}
	slices.SortFunc(seniors, func(a, b senior) int {
		if a.settled != b.settled {
			if a.settled {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(a.created, b.created), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	for i := range seniors {
		services[i] = seniors[i].Service
	}
}
