package ipam

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

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
	type recorded struct {
		*corev1.Service
		seniority Seniority
	}
	var found []recorded
	for _, service := range services {
		if len(service.Status.LoadBalancer.Ingress) > 0 {
			found = append(found, recorded{service, SeniorityOf(service)})
		}
	}
	slices.SortFunc(found, func(a, b recorded) int { return a.seniority.Compare(&b.seniority) })
	records := make([]Record, len(found))
	for i := range found {
		records[i] = RecordOf(found[i].Service)
	}
	return records
}

// Seniority is the right of a Service to an address that it shows: those
// whose right nobody disputed come first, for what others show may be a late write
// of a leader that was deposed; then the older comes first.
type Seniority struct {
	settled         bool
	created         time.Time
	namespace, name string
}

// SeniorityOf is the Seniority of the Service.
func SeniorityOf(service *corev1.Service) Seniority {
	return Seniority{
		settled:   Settled(service),
		created:   service.CreationTimestamp.Time,
		namespace: service.Namespace,
		name:      service.Name,
	}
}

// Compare is negative for the senior one.
func (s *Seniority) Compare(other *Seniority) int {
	if s.settled != other.settled {
		if s.settled {
			return -1
		}
		return 1
	}
	if c := s.created.Compare(other.created); c != 0 {
		return c
	}
	return cmp.Or(cmp.Compare(s.namespace, other.namespace), cmp.Compare(s.name, other.name))
}
