package ipam

import (
	"cmp"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"slices"

	"go4.org/netipx"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

// Pool is a compiled AddressPool. It is immutable.
type Pool struct {
	object            *v1alpha1.AddressPool
	namespaceSelector labels.Selector
	serviceSelector   labels.Selector
	declared          []netipx.IPRange
	owned             []netipx.IPRange
	conflicts         []Conflict
	err               error
}

// Conflict is a part of a pool that belongs to another one.
type Conflict struct {
	// Winner is the name of the pool that has the part.
	Winner string
	// Range is the part.
	Range netipx.IPRange
}

// String names the other pool and the addresses.
func (c Conflict) String() string {
	return fmt.Sprintf("%s belongs to AddressPool %q", rangeText(c.Range), c.Winner)
}

// Name is the name of the AddressPool.
func (p *Pool) Name() string { return p.object.Name }

// Object is the AddressPool that the pool was compiled from. It is read-only.
func (p *Pool) Object() *v1alpha1.AddressPool { return p.object }

// Err is why the pool gives out nothing, or nil. It names pool, entry and remedy.
func (p *Pool) Err() error { return p.err }

// Conflicts are the parts that other pools have, in the order of addresses.
func (p *Pool) Conflicts() []Conflict { return p.conflicts }

// Ranges are the addresses that belong to the pool: what it declares without
// its Conflicts, sorted and disjoint. It is read-only.
func (p *Pool) Ranges() []netipx.IPRange { return p.owned }

// Capacity is the number of addresses that the pool could give out.
func (p *Pool) Capacity() *big.Int {
	return capacity(p.owned, p.object.Spec.AvoidBuggyIPs)
}

// closed says why the pool gives out nothing new, and what would change that; both
// are empty where it does.
func (p *Pool) closed() (why, remedy string) {
	switch {
	case p.object.DeletionTimestamp != nil:
		return "is being deleted", "wait until it is gone and create it again"
	case p.object.Spec.Disabled:
		return "is disabled (spec.disabled)", "enable it"
	}
	return "", ""
}

// avoids reports whether the pool does not give out addr, which belongs to it.
func (p *Pool) avoids(addr netip.Addr) bool {
	return p.object.Spec.AvoidBuggyIPs && buggy(addr)
}

// Speaks reports whether the pool's addresses are announced by protocol.
func (p *Pool) Speaks(protocol v1alpha1.Protocol) bool {
	return slices.Contains(p.protocols(), protocol)
}

func (p *Pool) protocols() []v1alpha1.Protocol {
	if len(p.object.Spec.Protocols) == 0 {
		return []v1alpha1.Protocol{v1alpha1.ProtocolBGP}
	}
	return p.object.Spec.Protocols
}

func (p *Pool) sharing() v1alpha1.SharingMode {
	return cmp.Or(p.object.Spec.Sharing, v1alpha1.SharingKey)
}

func (p *Pool) autoAssign() bool {
	return p.object.Spec.AutoAssign == nil || *p.object.Spec.AutoAssign
}

// hasFamily reports whether the pool has addresses of the family of IPv4 or not.
func (p *Pool) hasFamily(is4 bool) bool {
	return len(familyRanges(p.owned, is4)) > 0
}

// familyRanges is the IPv4 or the IPv6 part of sorted ranges.
func familyRanges(ranges []netipx.IPRange, is4 bool) []netipx.IPRange {
	split, _ := slices.BinarySearchFunc(ranges, false, func(r netipx.IPRange, _ bool) int {
		if r.From().Is4() {
			return -1
		}
		return 1
	})
	if is4 {
		return ranges[:split]
	}
	return ranges[split:]
}

// searchRanges returns the index of the first of the sorted, disjoint ranges
// that does not end before addr.
func searchRanges(ranges []netipx.IPRange, addr netip.Addr) int {
	i, _ := slices.BinarySearchFunc(ranges, addr, func(r netipx.IPRange, addr netip.Addr) int {
		return r.To().Compare(addr)
	})
	return i
}

// compile reads the object. A pool with an error gives out nothing, and owns nothing
// if the error is in its addresses.
func compile(object *v1alpha1.AddressPool) *Pool {
	p := &Pool{object: object}
	set, errAddresses := parseRanges(object.Spec.Addresses)
	var errNamespaces, errServices error
	p.namespaceSelector, errNamespaces = selector("spec.namespaceSelector", object.Spec.NamespaceSelector)
	p.serviceSelector, errServices = selector("spec.serviceSelector", object.Spec.ServiceSelector)
	if err := errors.Join(errAddresses, errNamespaces, errServices); err != nil {
		p.err = fmt.Errorf("AddressPool %q: %w", object.Name, err)
	}
	if errAddresses == nil {
		p.declared = set.Ranges() // an unreadable selector takes no address away
	}
	return p
}

// selector is nil where the pool has none: everything matches.
func selector(field string, s *metav1.LabelSelector) (labels.Selector, error) {
	if s == nil {
		return nil, nil
	}
	parsed, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: correct the selector", field, err)
	}
	return parsed, nil
}

// standing orders pools that overlap: who comes first has the common part. An
// incumbent with assignments comes before others, and one whose present spec was
// judged Ready before one that was edited since; then the older, then the name.
// It looks at nothing but the objects, so that all who compile them agree.
func standing(a, b *Pool) int {
	return cmp.Or(
		cmp.Compare(incumbency(a.object), incumbency(b.object)),
		a.object.CreationTimestamp.Time.Compare(b.object.CreationTimestamp.Time),
		cmp.Compare(a.object.Name, b.object.Name),
	)
}

func incumbency(object *v1alpha1.AddressPool) int {
	const judged, edited, newcomer = 0, 1, 2
	if object.Status.Allocated == "" || object.Status.Allocated == "0" {
		return newcomer
	}
	for _, condition := range object.Status.Conditions {
		if condition.Type != v1alpha1.ConditionReady || condition.Status != metav1.ConditionTrue {
			continue
		}
		if condition.ObservedGeneration == object.Generation {
			return judged
		}
		return edited
	}
	return newcomer
}

func rangeText(r netipx.IPRange) string {
	if r.From() == r.To() {
		return r.From().String()
	}
	if prefix, ok := r.Prefix(); ok {
		return prefix.String()
	}
	return r.String()
}

// Alike reports whether two states of one AddressPool compile alike: the spec is
// the same, and so is what the status says about its standing among pools that
// overlap.
func Alike(a, b *v1alpha1.AddressPool) bool {
	return a.UID == b.UID &&
		a.Generation == b.Generation &&
		(a.DeletionTimestamp == nil) == (b.DeletionTimestamp == nil) &&
		incumbency(a) == incumbency(b)
}
