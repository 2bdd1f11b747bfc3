package ipam

import (
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

// Owner is a Service that may have addresses. The UID is its identity; the name
// is for messages.
type Owner struct {
	UID       types.UID
	Namespace string
	Name      string
}

// OwnerOf is the Owner of the Service.
func OwnerOf(service *corev1.Service) Owner {
	return Owner{UID: service.UID, Namespace: service.Namespace, Name: service.Name}
}

// String is the namespaced name.
func (o Owner) String() string {
	return o.Namespace + "/" + o.Name
}

// Claim is what a Service asks for.
type Claim struct {
	Owner
	// Labels of the Service and of its Namespace, for the pools' selectors.
	Labels          map[string]string
	NamespaceLabels map[string]string
	// Families that the Service has, in its order; one address is due for each.
	Families []corev1.IPFamily
	// Partial accepts addresses of some of the Families (PreferDualStack).
	Partial bool
	// Pool is the name of the pool to take from; empty means any.
	Pool string
	// Protocol limits the pools to those that speak it; empty means any.
	Protocol v1alpha1.Protocol
	// Requested addresses; of a family with any, the Service gets all of these.
	Requested []netip.Addr
	// External are spec.externalIPs. They are requested where they lie in a pool
	// that allows it, and no business of ours elsewhere.
	External []netip.Addr
	// Terms of sharing; never nil.
	Terms *Terms
	// Recorded addresses, in the Service's status.
	Recorded []netip.Addr
	// Marked Services carry the condition that says they are served by us.
	Marked bool
}

// NewClaim reads the Service, a read-only argument. The error is a *Refusal.
func NewClaim(service *corev1.Service, namespaceLabels map[string]string) (Claim, error) {
	claim := Claim{
		Owner:           OwnerOf(service),
		Labels:          service.Labels,
		NamespaceLabels: namespaceLabels,
		Families:        families(service),
		Partial:         service.Spec.IPFamilyPolicy != nil && *service.Spec.IPFamilyPolicy == corev1.IPFamilyPolicyPreferDualStack,
		Pool:            strings.TrimSpace(service.Annotations[v1alpha1.ServicePool]),
		Protocol:        v1alpha1.Protocol(strings.TrimSpace(service.Annotations[v1alpha1.ServiceProtocol])),
		External:        externalIPs(service),
		Terms:           TermsOf(service),
		Recorded:        Recorded(service),
		Marked:          Marked(service),
	}
	switch claim.Protocol {
	case "", v1alpha1.ProtocolBGP, v1alpha1.ProtocolLayer2:
	default:
		return Claim{}, refuse(MalformedRequest, "annotation %s is %q: write %s or %s", v1alpha1.ServiceProtocol, claim.Protocol, v1alpha1.ProtocolBGP, v1alpha1.ProtocolLayer2)
	}
	if n := len(service.Spec.ExternalIPs); n > maxExternal {
		return Claim{}, refuse(MalformedRequest, "spec.externalIPs lists %d addresses: list %d at most", n, maxExternal)
	}
	requested, refusal := requestedAddresses(service)
	if refusal != nil {
		return Claim{}, refusal
	}
	claim.Requested = requested
	if refusal := claim.checkRequested(); refusal != nil {
		return Claim{}, refusal
	}
	return claim, nil
}

// Plain reports whether the Service asks for no special address, nor for anything
// that NewClaim could find malformed. Most do not, and it takes no claim to tell.
func Plain(service *corev1.Service) bool {
	if service.Spec.LoadBalancerIP != "" || len(service.Spec.ExternalIPs) > 0 {
		return false
	}
	for _, key := range []string{v1alpha1.ServiceAddresses, v1alpha1.ServiceProtocol} {
		if _, ok := service.Annotations[key]; ok {
			return false
		}
	}
	return true
}

// requestedAddresses reads the annotation and spec.loadBalancerIP, which may
// both be set when they agree.
func requestedAddresses(service *corev1.Service) ([]netip.Addr, *Refusal) {
	var requested []netip.Addr
	if text, ok := service.Annotations[v1alpha1.ServiceAddresses]; ok && strings.TrimSpace(text) != "" {
		for entry := range strings.SplitSeq(text, ",") {
			addr, err := ParseAddr(entry)
			if err != nil {
				return nil, refuse(MalformedRequest, "annotation %s: %v", v1alpha1.ServiceAddresses, err)
			}
			if !slices.Contains(requested, addr) {
				requested = append(requested, addr)
			}
		}
	}
	if service.Spec.LoadBalancerIP == "" {
		return requested, nil
	}
	addr, err := ParseAddr(service.Spec.LoadBalancerIP)
	if err != nil {
		return nil, refuse(MalformedRequest, "spec.loadBalancerIP: %v", err)
	}
	if len(requested) > 0 && !slices.Contains(requested, addr) {
		return nil, refuse(MalformedRequest, "spec.loadBalancerIP %s is not among the addresses of annotation %s: remove one of the two", addr, v1alpha1.ServiceAddresses)
	}
	if len(requested) == 0 {
		requested = append(requested, addr)
	}
	return requested, nil
}

const (
	// maxRequested bounds the addresses that a Service may request: all of them
	// are in its status, and planned with each change.
	maxRequested = 64
	// maxExternal bounds its external addresses, which are looked at as often.
	maxExternal = 256
)

// checkRequested refuses what the Service cannot have whatever the pools are.
func (c *Claim) checkRequested() *Refusal {
	if len(c.Requested) > maxRequested {
		return refuse(MalformedRequest, "annotation %s lists %d addresses: request %d at most", v1alpha1.ServiceAddresses, len(c.Requested), maxRequested)
	}
	for _, addr := range c.Requested {
		if refusal := c.checkFamily(addr); refusal != nil {
			return refusal
		}
	}
	return nil
}

func (c *Claim) checkFamily(addr netip.Addr) *Refusal {
	if family := familyOf(addr); !slices.Contains(c.Families, family) {
		return refuse(FamilyUnavailable, "%s is requested, but the Service has no %s: add it to spec.ipFamilies, or request an address of its families", addr, family)
	}
	return nil
}

// externalIPs are those of the spec; what is no address that a pool could hold
// is left out.
func externalIPs(service *corev1.Service) []netip.Addr {
	var external []netip.Addr
	for _, text := range service.Spec.ExternalIPs[:min(len(service.Spec.ExternalIPs), maxExternal)] {
		if addr, err := ParseAddr(text); err == nil && !slices.Contains(external, addr) {
			external = append(external, addr)
		}
	}
	return external
}

// families are those of the spec. An API server fills spec.ipFamilies in; where
// it is empty all the same (a Service that was of type ExternalName), IPv4.
func families(service *corev1.Service) []corev1.IPFamily {
	if len(service.Spec.IPFamilies) == 0 {
		return []corev1.IPFamily{corev1.IPv4Protocol}
	}
	return service.Spec.IPFamilies
}

// Recorded are the addresses in the Service's status, in its order. Entries that
// are no addresses (hostnames) are left out.
func Recorded(service *corev1.Service) []netip.Addr {
	var recorded []netip.Addr
	for _, ingress := range service.Status.LoadBalancer.Ingress {
		addr, err := netip.ParseAddr(ingress.IP)
		if err == nil && addr.Zone() == "" {
			recorded = append(recorded, addr.Unmap())
		}
	}
	return recorded
}

// Marked reports whether the Service carries the condition that marks it as
// served by this project.
func Marked(service *corev1.Service) bool {
	for _, condition := range service.Status.Conditions {
		if condition.Type == v1alpha1.ConditionAnnounced {
			return true
		}
	}
	return false
}

// Settled reports whether nobody disputes what the Service shows: its condition is
// not about an address that it lacks, or that another Service has.
func Settled(service *corev1.Service) bool {
	for _, condition := range service.Status.Conditions {
		if condition.Type == v1alpha1.ConditionAnnounced {
			return !slices.Contains(unsettled, Reason(condition.Reason))
		}
	}
	return false
}

func familyOf(addr netip.Addr) corev1.IPFamily {
	if addr.Is4() {
		return corev1.IPv4Protocol
	}
	return corev1.IPv6Protocol
}

// hasFamily reports whether one of the addresses is of the family.
func hasFamily(addrs []netip.Addr, family corev1.IPFamily) bool {
	return slices.ContainsFunc(addrs, func(addr netip.Addr) bool { return familyOf(addr) == family })
}
