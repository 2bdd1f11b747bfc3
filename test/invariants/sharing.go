package invariants

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

// portProtocol is what two Services on one address must not both have.
type portProtocol struct {
	protocol corev1.Protocol
	port     int32
}

func portsOf(s *service) []portProtocol {
	var all []portProtocol
	for _, p := range s.Spec.Ports {
		all = append(all, portProtocol{cmp.Or(p.Protocol, corev1.ProtocolTCP), p.Port})
	}
	return all
}

// compatible says why traffic to one address could not be told apart or sent to
// the right nodes for both Services, whatever their pool says; empty means that
// it could.
func compatible(a, b *service) (why string) {
	for _, p := range portsOf(a) {
		if slices.Contains(portsOf(b), p) {
			return fmt.Sprintf("both have port %d/%s", p.port, p.protocol)
		}
	}
	switch {
	case a.local() != b.local():
		return "their externalTrafficPolicy differs"
	case !a.local():
		return ""
	case a.Namespace != b.Namespace || len(a.Spec.Selector) == 0 || !maps.Equal(a.Spec.Selector, b.Spec.Selector):
		return "both are Local, and do not select the same Pods"
	}
	return ""
}

// permits reports whether the pool lets the two Services share.
func (p *pool) permits(a, b *service) bool {
	key := a.Annotations[v1alpha1.ServiceShareKey]
	equal := key != "" && key == b.Annotations[v1alpha1.ServiceShareKey]
	switch p.Spec.Sharing {
	case v1alpha1.SharingNever:
		return false
	case v1alpha1.SharingKeyAnyNamespace:
		return equal
	case v1alpha1.SharingPorts:
		return true
	}
	return equal && a.Namespace == b.Namespace
}

// sharing remembers which Services shared by right, for they may go on when the
// pool becomes stricter.
type sharing struct {
	judge *Judge
	once  map[pair]keys
	// recent are pools as they were a moment ago: an address may be written into a
	// status after an edit of its pool, and have been given before.
	recent []recentPool
}

// pair is two Services on an address, the lesser UID first.
type pair struct {
	address netip.Addr
	a, b    types.UID
}

// keys are the share-keys of a pair: with other ones, the past says nothing.
type keys [2]string

type recentPool struct {
	*pool
	until time.Duration // of the allocator's clock
}

func newSharing(j *Judge) *sharing { return &sharing{judge: j, once: make(map[pair]keys)} }

// former takes note of a pool that has been changed or deleted.
func (s *sharing) former(p *pool) {
	if p != nil {
		s.recent = append(s.recent, recentPool{p, s.judge.clocks.active[allocator] + s.judge.options.Slow/2})
	}
}

func (s *sharing) permitted(address netip.Addr, a, b *service) bool {
	for _, p := range s.judge.world.pools {
		if p.set.Contains(address) && p.permits(a, b) {
			return true
		}
	}
	return slices.ContainsFunc(s.recent, func(p recentPool) bool { return p.set.Contains(address) && p.permits(a, b) })
}

// findings looks at each two Services that show an address.
func (s *sharing) findings(holders map[netip.Addr][]*service, report func(Finding)) {
	now := s.judge.clocks.active[allocator]
	s.recent = slices.DeleteFunc(s.recent, func(p recentPool) bool { return p.until < now })
	seen := make(map[pair]bool)
	for address, services := range holders {
		for i, a := range services {
			for _, b := range services[i+1:] {
				if !s.judge.world.ours(a) || !s.judge.world.ours(b) {
					continue
				}
				id, why := s.look(address, a, b)
				seen[id] = true
				if why != "" {
					report(s.finding(address, a, b, why))
				}
			}
		}
	}
	maps.DeleteFunc(s.once, func(p pair, _ keys) bool { return !seen[p] })
}

// look says why the two may not share the address; empty means that they may.
func (s *sharing) look(address netip.Addr, a, b *service) (id pair, why string) {
	if a.UID > b.UID {
		a, b = b, a
	}
	id = pair{address, a.UID, b.UID}
	now := keys{a.Annotations[v1alpha1.ServiceShareKey], b.Annotations[v1alpha1.ServiceShareKey]}
	if why = compatible(a, b); why != "" {
		return id, why
	}
	if s.permitted(address, a, b) {
		s.once[id] = now
		return id, ""
	}
	if then, shared := s.once[id]; shared && then == now {
		return id, ""
	}
	return id, fmt.Sprintf("no pool of the address permits it (share-keys %q and %q)", now[0], now[1])
}

func (s *sharing) finding(address netip.Addr, a, b *service, why string) Finding {
	var by []string
	for _, name := range s.judge.world.nodeNames() {
		if s.judge.world.nodes[name].announces[address] != nil {
			by = append(by, name)
		}
	}
	announced := "nobody announces it"
	if len(by) > 0 {
		announced = "announced by " + strings.Join(by, ", ")
	}
	return Finding{
		Kind:     Duplicate,
		Subjects: []string{addressSubject(address), serviceSubject(a), serviceSubject(b)},
		Text:     fmt.Sprintf("%s is in the status of Services %s and %s, which may not share it: %s; %s", address, a.id(), b.id(), why, announced),
		grace:    s.judge.options.Grace,
		actor:    allocator,
		also:     string(a.UID + "\n" + b.UID),
	}
}
