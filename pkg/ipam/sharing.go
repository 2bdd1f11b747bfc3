package ipam

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

// Terms are what of a Service decides with whom it may share an address. They
// are immutable.
type Terms struct {
	Namespace string
	// Key is the annotation lb.baremetal.dev/share-key.
	Key string
	// Ports are sorted.
	Ports []Port
	// Local is true with externalTrafficPolicy Local. The selector, in its
	// canonical text, matters only then.
	Local    bool
	Selector string
}

// Port is a port of a Service, without its name.
type Port struct {
	Protocol corev1.Protocol
	Number   int32
}

// String is the port as people write it.
func (p Port) String() string { return fmt.Sprintf("%s port %d", p.Protocol, p.Number) }

func comparePorts(a, b Port) int {
	return cmp.Or(cmp.Compare(a.Number, b.Number), cmp.Compare(a.Protocol, b.Protocol))
}

// TermsOf reads the Service.
func TermsOf(service *corev1.Service) *Terms {
	t := &Terms{
		Namespace: service.Namespace,
		Key:       strings.TrimSpace(service.Annotations[v1alpha1.ServiceShareKey]),
		Local:     service.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal,
	}
	if t.Local {
		t.Selector = labels.Set(service.Spec.Selector).String()
	}
	for _, port := range service.Spec.Ports {
		t.Ports = append(t.Ports, Port{Protocol: cmp.Or(port.Protocol, corev1.ProtocolTCP), Number: port.Port})
	}
	slices.SortFunc(t.Ports, comparePorts)
	return t
}

// Equal reports whether the terms are the same.
func (t *Terms) Equal(other *Terms) bool {
	if t == nil || other == nil {
		return t == other
	}
	return t.Namespace == other.Namespace && t.Key == other.Key && t.Local == other.Local &&
		t.Selector == other.Selector && slices.Equal(t.Ports, other.Ports)
}

// Clash says why two Services cannot have one address whatever the pool allows,
// and what to do; it is empty where they can. A node forwards by protocol, port
// and one traffic policy, so these must tell the Services apart; under
// externalTrafficPolicy Local both must have their endpoints on the same nodes.
func (t *Terms) Clash(other *Terms) string {
	for _, port := range t.Ports {
		if _, both := slices.BinarySearchFunc(other.Ports, port, comparePorts); both {
			return fmt.Sprintf("both have %s: use another port", port)
		}
	}
	switch {
	case t.Local != other.Local:
		return "their spec.externalTrafficPolicy differs: use the same one"
	case !t.Local:
		return ""
	case t.Namespace != other.Namespace || t.Selector != other.Selector:
		return "with externalTrafficPolicy Local both must be in one namespace and have the same spec.selector: change one of these, or use Cluster"
	case t.Selector == "":
		return "with externalTrafficPolicy Local both must have the same spec.selector, and they have none: use Cluster"
	}
	return ""
}

// SameKey reports whether both have the same share-key.
func (t *Terms) SameKey(other *Terms) bool {
	return t.Key != "" && t.Key == other.Key
}

// refusal says why a pool with the mode does not let two Services share, and
// what to do; it is empty where it does.
func (t *Terms) refusal(other *Terms, mode v1alpha1.SharingMode) string {
	switch mode {
	case v1alpha1.SharingNever:
		return "the pool shares no address (spec.sharing)"
	case v1alpha1.SharingPorts:
		return ""
	}
	switch {
	case t.Key == "" && other.Key == "":
		return fmt.Sprintf("to share it, give both the same annotation %s", v1alpha1.ServiceShareKey)
	case !t.SameKey(other):
		return fmt.Sprintf("their annotations %s differ (%q and %q): make them equal to share it", v1alpha1.ServiceShareKey, t.Key, other.Key)
	case mode != v1alpha1.SharingKeyAnyNamespace && t.Namespace != other.Namespace:
		return "the pool shares within one namespace only (spec.sharing)"
	}
	return ""
}

// MayShare reports whether two Services may have one address of a pool.
func MayShare(pool *Pool, a, b *Terms) bool {
	return a.Clash(b) == "" && a.refusal(b, pool.sharing()) == ""
}

// MayKeepSharing reports whether two Services that show one address may go on
// with it: they may share it, or they could when the pool allowed more. Settled
// are both when they were announced with the address they show. The pool is nil
// for an address outside all.
func MayKeepSharing(pool *Pool, a, b *Terms, settled bool) bool {
	if a.Clash(b) != "" {
		return false
	}
	return settled || a.SameKey(b) || pool != nil && a.refusal(b, pool.sharing()) == ""
}

// inUse is the refusal of an address for the sake of another Service that has it.
func inUse(addr netip.Addr, pool *Pool, claim *Claim, by *holding) *Refusal {
	has := fmt.Sprintf("%s of AddressPool %q is in use by Service %s", addr, pool.Name(), by.owner)
	other := by.terms
	if other == nil {
		other = &Terms{} // it has no key, and the pool did not share by ports when it was served
	}
	why := cmp.Or(claim.Terms.refusal(other, pool.sharing()), claim.Terms.Clash(other), "its ports are not known yet: wait a moment")
	wants := claim.Terms.Key != "" || pool.sharing() == v1alpha1.SharingPorts
	if wants && pool.sharing() != v1alpha1.SharingNever {
		return refuse(SharingConflict, "%s, and cannot be shared: %s; or request another address", has, why)
	}
	return refuse(AddressInUse, "%s: request another one, or delete that Service; %s", has, why)
}
