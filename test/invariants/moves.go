package invariants

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

// moves remembers which addresses Services have, to see when they move.
//
// The addresses of a Service are settled when its status has shown them for a
// grace. A status that differs from them later is a finding, unless the user asks
// for something else: an edit of what addresses depend on is a licence, until
// the status has given the answer. A licence that changed nothing ends when what
// the Service has is what it asks for.
type moves struct {
	judge *Judge
	of    map[types.UID]*placement
}

// placement is the addresses of a Service over time.
type placement struct {
	service *service
	ask     ask
	settled []netip.Addr // sorted; what the Service has
	shown   []netip.Addr // sorted; what its status shows
	// shownAt and askedAt are times of the allocator's clock.
	shownAt, askedAt time.Duration
	licensed         bool
}

// ask is all that the addresses of a Service depend on, and that its user writes.
type ask struct {
	kind, class, address, external, families, policy, annotations string
	// traffic matters to addresses that are shared.
	traffic string
}

func askOf(s *service) ask {
	a := ask{
		kind:     string(s.Spec.Type),
		class:    ptr.Deref(s.Spec.LoadBalancerClass, ""),
		address:  s.Spec.LoadBalancerIP,
		external: strings.Join(s.Spec.ExternalIPs, ","),
		families: fmt.Sprint(s.Spec.IPFamilies),
		policy:   string(ptr.Deref(s.Spec.IPFamilyPolicy, "")),
		traffic:  fmt.Sprint(portsOf(s), s.local(), s.Spec.Selector),
	}
	var lines []string
	for key, value := range s.Annotations {
		if strings.HasPrefix(key, v1alpha1.GroupName+"/") {
			lines = append(lines, key+"="+value)
		}
	}
	slices.Sort(lines)
	a.annotations = strings.Join(lines, " ")
	return a
}

// String is what is asked for beside the ports.
func (a ask) String() string {
	text := strings.TrimSpace(strings.Join([]string{a.annotations, a.class, a.address, a.external, a.families, a.policy}, " "))
	return strings.Join(strings.Fields(text), " ")
}

func newMoves(j *Judge) *moves { return &moves{judge: j, of: make(map[types.UID]*placement)} }

func (m *moves) now() time.Duration { return m.judge.clocks.active[allocator] }

func (m *moves) forget(uid types.UID) { delete(m.of, uid) }

// see takes note of a Service.
func (m *moves) see(now time.Time, s *service) {
	shown := slices.SortedFunc(slices.Values(s.addresses), netip.Addr.Compare)
	p := m.of[s.UID]
	if p == nil {
		m.of[s.UID] = &placement{service: s, ask: askOf(s), shown: shown, shownAt: m.now()}
		return
	}
	before := p.shown
	asks := askOf(s)
	edited := m.edited(p, asks)
	p.service, p.ask = s, asks
	if edited {
		p.licensed, p.askedAt = true, m.now()
	}
	if !slices.Equal(before, shown) {
		p.shown, p.shownAt = shown, m.now()
		m.changed(now, p, before)
	}
	if p.licensed || !m.judge.world.wants(s) {
		p.settled = p.shown
	}
}

// edited reports whether the user asks for something else than before.
func (m *moves) edited(p *placement, next ask) bool {
	before := p.ask
	if before.traffic != next.traffic && m.shared(p) {
		return true
	}
	before.traffic, next.traffic = "", ""
	return before != next
}

// shared reports whether another Service shows an address of this one.
func (m *moves) shared(p *placement) bool {
	for uid, other := range m.of {
		if uid != p.service.UID && slices.ContainsFunc(other.shown, func(a netip.Addr) bool { return slices.Contains(p.shown, a) }) {
			return true
		}
	}
	return false
}

// changed looks for a disturbance: addresses that were shown for a moment only,
// and that nobody asked to be replaced.
func (m *moves) changed(now time.Time, p *placement, before []netip.Addr) {
	if p.licensed || !m.judge.world.wants(p.service) {
		return
	}
	var text string
	switch {
	case p.strays(before) && !p.strays(p.shown):
		text = fmt.Sprintf("showed %s instead of %s", list(before), list(p.settled))
	case len(p.settled) == 0 && len(before) > 0 && !p.grows(before, p.shown):
		text = fmt.Sprintf("showed %s at first, then %s", list(before), list(p.shown))
	default:
		return
	}
	m.judge.disturbances = append(m.judge.disturbances, Disturbance{now, serviceSubject(p.service), text})
	m.judge.history.add(now, serviceSubject(p.service), "disturbed: %s", text)
}

// strays reports whether the addresses are not those that the Service has, nor
// more of what it has.
func (p *placement) strays(shown []netip.Addr) bool {
	return len(p.settled) > 0 && !slices.Equal(p.settled, shown) && !p.grows(p.settled, shown)
}

// grows reports whether addresses came only, of a family that was missing.
func (p *placement) grows(from, to []netip.Addr) bool {
	for _, a := range from {
		if !slices.Contains(to, a) {
			return false
		}
	}
	return !slices.ContainsFunc(to, func(a netip.Addr) bool {
		sameFamily := func(b netip.Addr) bool { return a.Is4() == b.Is4() }
		return !slices.Contains(from, a) && slices.ContainsFunc(from, sameFamily)
	})
}

// settle makes what has been shown for a grace what the Service has, and ends
// licences that changed nothing.
func (m *moves) settle() {
	options := m.judge.options
	for _, p := range m.of {
		if !p.strays(p.shown) && m.now()-p.shownAt > options.Grace {
			p.settled = p.shown
		}
		if p.licensed && m.now()-max(p.askedAt, p.shownAt) > options.Slow && m.judge.world.satisfied(p.service) {
			p.licensed = false
		}
	}
}

// accept makes what is shown what the Service has, after that was reported.
func (m *moves) accept(uid string) {
	if p := m.of[types.UID(uid)]; p != nil {
		p.settled = p.shown
		m.judge.dirty = true
	}
}

func (m *moves) findings(report func(Finding)) {
	for _, uid := range slices.Sorted(maps.Keys(m.of)) {
		p := m.of[uid]
		if !p.strays(p.shown) {
			continue
		}
		f := Finding{
			Kind:     Moved,
			Subjects: []string{serviceSubject(p.service)},
			Text: fmt.Sprintf("Service %s had %s, and shows %s; nobody asked for that (%s)",
				p.service.id(), list(p.settled), list(p.shown), p.ask),
			grace: m.judge.options.Grace,
			actor: allocator,
			also:  string(uid),
		}
		for _, a := range append(slices.Clone(p.settled), p.shown...) {
			if subject := addressSubject(a); !slices.Contains(f.Subjects, subject) {
				f.Subjects = append(f.Subjects, subject)
			}
		}
		report(f)
	}
}

// satisfied reports whether the Service has what it asks for, as far as that can
// be told plainly.
func (w *world) satisfied(s *service) bool {
	requested, ok := requestedBy(s)
	if len(s.addresses) == 0 || !ok {
		return false
	}
	for _, a := range requested {
		if !slices.Contains(s.addresses, a) {
			return false
		}
	}
	for _, family := range s.Spec.IPFamilies {
		has := slices.ContainsFunc(s.addresses, func(a netip.Addr) bool { return a.Is4() == (family == corev1.IPv4Protocol) })
		if !has && ptr.Deref(s.Spec.IPFamilyPolicy, "") != corev1.IPFamilyPolicyPreferDualStack {
			return false
		}
	}
	for _, a := range s.addresses {
		family := corev1.IPv6Protocol
		if a.Is4() {
			family = corev1.IPv4Protocol
		}
		p := w.poolOf(a)
		name := strings.TrimSpace(s.Annotations[v1alpha1.ServicePool])
		protocol := v1alpha1.Protocol(s.Annotations[v1alpha1.ServiceProtocol])
		if !slices.Contains(s.Spec.IPFamilies, family) ||
			name != "" && (p == nil || p.Name != name) ||
			protocol != "" && (p == nil || !p.speaks(protocol)) {
			return false
		}
	}
	return true
}

// requestedBy are the addresses that the Service asks for by name. ok is false where
// one of them is none.
func requestedBy(s *service) (all []netip.Addr, ok bool) {
	texts := strings.Split(s.Annotations[v1alpha1.ServiceAddresses], ",")
	texts = append(append(texts, s.Spec.LoadBalancerIP), s.Spec.ExternalIPs...)
	ok = true
	for _, text := range texts {
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		a, err := netip.ParseAddr(text)
		if err != nil {
			ok = false
			continue
		}
		all = append(all, a.Unmap())
	}
	return all, ok
}
