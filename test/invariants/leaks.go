package invariants

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

// cleanupFinalizer is that of the service controller of Kubernetes.
const cleanupFinalizer = "service.kubernetes.io/load-balancer-cleanup"

// findLeaks looks for what should have gone with a Service.
func (w *world) findLeaks(holders map[netip.Addr][]*service, report func(Finding)) {
	for _, name := range w.nodeNames() {
		for a := range w.nodes[name].announces {
			if slices.ContainsFunc(holders[a], w.wants) {
				continue
			}
			report(Finding{
				Kind:     Leaked,
				Subjects: []string{addressSubject(a), nodeSubject(name)},
				Text:     fmt.Sprintf("%s is in the program of %s, and no Service is to have it", a, name),
				grace:    w.options.Slow,
				actor:    planner,
			})
		}
	}
	for _, s := range w.services {
		if why := w.stuck(s); why != "" {
			report(Finding{
				Kind:     Leaked,
				Subjects: []string{serviceSubject(s)},
				Text:     fmt.Sprintf("Service %s %s", s.id(), why),
				grace:    w.options.Slow,
				actor:    allocator,
				also:     string(s.UID),
			})
		}
	}
}

// findPools looks for pools that are being deleted, and could go.
func (w *world) findPools(holders map[netip.Addr][]*service, report func(Finding)) {
	for _, p := range w.pools {
		held := slices.ContainsFunc(slices.Collect(maps.Keys(holders)), p.set.Contains)
		if p.DeletionTimestamp == nil || len(p.Finalizers) != 1 || p.Finalizers[0] != v1alpha1.PoolInUse || held || w.overlapped(p) {
			continue
		}
		report(Finding{
			Kind:     Leaked,
			Subjects: []string{poolSubject(p.Name)},
			Text:     fmt.Sprintf("AddressPool %s is being deleted, no Service shows an address of it, and the finalizer %s is left", p.Name, v1alpha1.PoolInUse),
			grace:    w.options.Slow,
			actor:    planner,
			also:     string(p.UID),
		})
	}
}

// stuck says what a Service that is to have no address still has.
func (w *world) stuck(s *service) string {
	ours := slices.Contains(s.Finalizers, cleanupFinalizer)
	switch {
	case !w.ours(s) || w.wants(s):
		return ""
	case s.DeletionTimestamp != nil && ours && len(s.Finalizers) == 1:
		return "is being deleted, and only the finalizer " + cleanupFinalizer + " is left"
	case s.DeletionTimestamp == nil && (ours || len(s.addresses) > 0 && s.Spec.Type != corev1.ServiceTypeLoadBalancer):
		return fmt.Sprintf("is of type %s, and has the finalizers %v and addresses %s", s.Spec.Type, s.Finalizers, list(s.addresses))
	}
	return ""
}

// findMiscounts compares the pools' status with what Services show.
func (w *world) findMiscounts(holders map[netip.Addr][]*service, report func(Finding)) {
	for _, p := range w.pools {
		if p.DeletionTimestamp != nil || w.overlapped(p) {
			continue
		}
		count := 0
		for a := range holders {
			if p.set.Contains(a) {
				count++
			}
		}
		if got := p.Status.Allocated; got != strconv.Itoa(count) {
			report(Finding{
				Kind:     Miscounted,
				Subjects: []string{poolSubject(p.Name)},
				Text:     fmt.Sprintf("AddressPool %s says that %q addresses are allocated; Services show %d", p.Name, got, count),
				also:     strconv.Itoa(count), // while it changes, the status may lag
				grace:    w.options.Slow,
				actor:    planner,
			})
		}
	}
}

// findWaiting looks for Services that wait, and plainly could be served.
func (w *world) findWaiting(holders map[netip.Addr][]*service, report func(Finding)) {
	v := w.newVacancies(holders)
	for _, s := range w.services {
		if !w.wants(s) || len(s.addresses) > 0 {
			continue
		}
		if free, ok := v.servable(s); ok {
			report(Finding{
				Kind:     Waiting,
				Subjects: []string{serviceSubject(s)},
				Text:     fmt.Sprintf("Service %s has no address, and could have %s", s.id(), list(free)),
				grace:    w.options.Slow,
				actor:    allocator,
				also:     string(s.UID),
			})
		}
	}
}

// vacancies are the addresses that nobody has.
type vacancies struct {
	world *world
	taken map[netip.Addr]bool
	// first is the first free address of each pool and family, once it was asked
	// for: many Services may wait.
	first map[vacancy]netip.Addr
}

type vacancy struct {
	pool types.UID
	is4  bool
}

func (w *world) newVacancies(holders map[netip.Addr][]*service) *vacancies {
	v := &vacancies{world: w, taken: make(map[netip.Addr]bool), first: make(map[vacancy]netip.Addr)}
	take := func(text string) {
		if a, err := netip.ParseAddr(text); err == nil {
			v.taken[a] = true
		}
	}
	for a := range holders {
		v.taken[a] = true
	}
	for _, n := range w.nodes {
		for _, own := range n.Status.Addresses {
			take(own.Address)
		}
	}
	// What is claimed by externalIPs may be held though no status shows it.
	for _, s := range w.services {
		for _, external := range s.Spec.ExternalIPs {
			take(external)
		}
	}
	return v
}

// servable finds free addresses for a Service. It passes over all that is not
// plain: pools for some Services only, and claims by spec.externalIPs.
func (v *vacancies) servable(s *service) (free []netip.Addr, ok bool) {
	requested, ok := requestedBy(s)
	if len(s.Spec.ExternalIPs) > 0 || !ok {
		return nil, false
	}
	if len(requested) > 0 {
		return requested, v.allFree(s, requested)
	}
	for _, family := range s.Spec.IPFamilies {
		a := v.forFamily(s, family == corev1.IPv4Protocol)
		switch {
		case a.IsValid():
			free = append(free, a)
		case ptr.Deref(s.Spec.IPFamilyPolicy, "") != corev1.IPFamilyPolicyPreferDualStack:
			return nil, false
		}
	}
	return free, len(free) > 0
}

// allFree reports whether a Service could have the addresses that it asks for by
// name: one for each of its families.
func (v *vacancies) allFree(s *service, requested []netip.Addr) bool {
	if len(requested) != len(s.Spec.IPFamilies) {
		return false
	}
	for i, a := range requested {
		p := v.world.poolOf(a)
		if a.Is4() != (s.Spec.IPFamilies[i] == corev1.IPv4Protocol) || p == nil || !p.open(s) || !v.free(p, a) {
			return false
		}
		if name := strings.TrimSpace(s.Annotations[v1alpha1.ServicePool]); name != "" && name != p.Name {
			return false
		}
	}
	return true
}

// forFamily is a free address of a pool that the Service may take from, or the zero
// Addr.
func (v *vacancies) forFamily(s *service, is4 bool) netip.Addr {
	named := strings.TrimSpace(s.Annotations[v1alpha1.ServicePool])
	for _, p := range v.world.pools {
		if named != p.Name && (named != "" || !ptr.Deref(p.Spec.AutoAssign, true)) || !p.open(s) || v.world.overlapped(p) {
			continue
		}
		if a := v.firstOf(p, is4); a.IsValid() {
			return a
		}
	}
	return netip.Addr{}
}

func (v *vacancies) firstOf(p *pool, is4 bool) netip.Addr {
	key := vacancy{p.UID, is4}
	if a, known := v.first[key]; known {
		return a
	}
	v.first[key] = netip.Addr{}
	for _, r := range p.set.Ranges() {
		if r.From().Is4() != is4 {
			continue
		}
		count := 0
		for a := r.From(); a.IsValid() && r.Contains(a) && count < maxRange; a = a.Next() {
			if count++; v.free(p, a) {
				v.first[key] = a
				return a
			}
		}
	}
	return netip.Addr{}
}

// open reports whether the pool plainly gives addresses to the Service.
func (p *pool) open(s *service) bool {
	spec := &p.Spec
	protocol := v1alpha1.Protocol(strings.TrimSpace(s.Annotations[v1alpha1.ServiceProtocol]))
	return p.DeletionTimestamp == nil && !spec.Disabled &&
		len(spec.Namespaces) == 0 && spec.NamespaceSelector == nil && spec.ServiceSelector == nil &&
		(protocol == "" || p.speaks(protocol)) &&
		!meta.IsStatusConditionPresentAndEqual(p.Status.Conditions, v1alpha1.ConditionReady, metav1.ConditionFalse)
}

// free reports whether nobody has the address, and the pool gives it out.
func (v *vacancies) free(p *pool, a netip.Addr) bool {
	buggy := a.Is4() && (a.As4()[3] == 0 || a.As4()[3] == 255)
	return !v.taken[a] && !(p.Spec.AvoidBuggyIPs && buggy)
}
