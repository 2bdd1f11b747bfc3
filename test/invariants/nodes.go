package invariants

import (
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"
	"time"

	"k8s.io/utils/ptr"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

// defaultMaxNextHops is that of the CRD.
const defaultMaxNextHops = 16

// standing is what can be said of a node and an address. All empty means that the
// node may announce it, and need not.
type standing struct {
	// never is why the node must not announce the address in any case.
	never string
	// unless is why it must not, unless nobody else can.
	unless string
	// patience is for how long unless does not count.
	patience time.Duration
	// due means that nothing speaks against it.
	due bool
}

// findNodes looks at who announces the addresses of Services. Addresses outside
// all pools keep what they had; of them only the plainest is said.
func (w *world) findNodes(holders map[netip.Addr][]*service, report func(Finding)) {
	mass, massAway := w.massFailure(), w.massAbsence()
	for a, all := range holders {
		services := slices.DeleteFunc(slices.Clone(all), func(s *service) bool { return !w.wants(s) })
		if len(services) == 0 {
			continue
		}
		p := w.poolOf(a)
		for _, lan := range []bool{false, true} {
			c := &census{world: w, address: a, services: services, pool: p, lan: lan, mass: mass, massAway: massAway}
			c.take()
			c.findWrong(report)
			if p == nil {
				continue
			}
			if lan {
				c.findOwner(report)
			} else {
				c.findMissing(report)
			}
		}
	}
}

// massFailure reports whether so many nodes are not ready that readiness does
// not count (rule 9 of the design): more than a third, and not just one of
// several.
func (w *world) massFailure() bool {
	all, unready := 0, 0
	for _, n := range w.nodes {
		if n.excluded() || n.draining() || n.Annotations[v1alpha1.NodeSpeaker] == "" {
			continue
		}
		all++
		if !n.ready() {
			unready++
		}
	}
	return unready*3 > all && (unready > 1 || all == 1)
}

// massAbsence reports whether more than a third of the speakers are away.
func (w *world) massAbsence() bool {
	all, away := 0, 0
	for _, n := range w.nodes {
		if n.Annotations[v1alpha1.NodeSpeaker] == "" {
			continue
		}
		all++
		if !w.speakerRuns(n) {
			away++
		}
	}
	return away > 1 && away*3 > all
}

// massNotForwarding reports whether more than a third of the nodes say that they do
// not forward, and not just one.
func (w *world) massNotForwarding() bool {
	all, without := 0, 0
	for _, n := range w.nodes {
		if n.excluded() || n.draining() || !n.ready() || n.Annotations[v1alpha1.NodeSpeaker] == "" {
			continue
		}
		all++
		if n.report.NotForwarding != "" && w.speakerRuns(n) {
			without++
		}
	}
	return without > 1 && without*3 > all
}

// heard reports whether a node that is ready hears this one, of which the control
// plane may not. On the LAN it keeps then what it has.
func (w *world) heard(n *node) bool {
	for _, other := range w.nodes {
		if other != n && other.ready() && w.speakerRuns(other) && slices.Contains(other.report.Hears, n.Name) {
			return true
		}
	}
	return false
}

// census is the standing of all nodes towards one address, announced in one way.
type census struct {
	world          *world
	address        netip.Addr
	services       []*service
	pool           *pool // nil outside all pools
	lan            bool
	mass, massAway bool

	standings map[string]standing
	due       []string // names of nodes
	announce  []string
}

func (c *census) take() {
	c.standings = make(map[string]standing)
	for _, name := range c.world.nodeNames() {
		n := c.world.nodes[name]
		s := c.judge(n)
		c.standings[name] = s
		if s.due {
			c.due = append(c.due, name)
		}
		if r := n.announces[c.address]; r != nil && (!c.lan && r.bgp || c.lan && r.owns(name)) {
			c.announce = append(c.announce, name)
		}
	}
}

// way is how the address is announced, for messages.
func (c *census) way() string {
	if c.lan {
		return "on the LAN"
	}
	return "by BGP"
}

// judge is the standing of a node.
func (c *census) judge(n *node) standing {
	runs := c.world.speakerRuns(n)
	s := standing{never: c.forbids(n)}
	switch {
	case s.never != "":
	case n.excluded():
		s.unless = "is excluded"
	case !n.ready() && !c.mass && !(c.lan && c.world.heard(n)):
		s.unless = "is not ready"
	case c.pool != nil && !selects(c.pool.Spec.NodeSelector, n.Labels):
		s.unless = "is not selected by the AddressPool"
	case c.lan && runs && n.report.Leaving:
		s.unless = "has a speaker that leaves"
	case c.lan && c.offLink(n):
		s.unless = "has no interface for it"
	case c.lan && runs && n.report.NotForwarding != "" && !c.world.massNotForwarding():
		s.unless = "does not forward"
	case c.lan && !runs && c.world.heard(n):
	case c.lan && !runs:
		s.unless, s.patience = "has no speaker running", speakerPatience
		if c.massAway || c.mass {
			s.patience = massSpeakerPatience
		}
	case c.pool == nil || !runs || !n.ready() || n.report.Leaving || c.lan && n.report.NotForwarding != "":
	case c.lan:
		s.due = c.pool.speaks(v1alpha1.ProtocolLayer2) && len(n.report.Interfaces) > 0
	default:
		s.due = c.pool.speaks(v1alpha1.ProtocolBGP) && c.world.reaches(n, c.pool, c.address.Is4())
	}
	return s
}

// forbids is why the node must not announce the address in any case.
func (c *census) forbids(n *node) string {
	if n.draining() {
		return "is draining"
	}
	if !slices.ContainsFunc(c.services, func(s *service) bool { return !c.lacksEndpoint(s, n) }) {
		return "has no endpoint"
	}
	return ""
}

func (c *census) lacksEndpoint(s *service, n *node) bool {
	needed := s.local() || c.pool != nil && c.pool.Spec.NextHops == v1alpha1.NextHopsWithEndpoints
	return needed && !c.world.endpoints[s.id()][n.Name]
}

// offLink reports whether the node's speaker says that no interface is for the
// address.
func (c *census) offLink(n *node) bool {
	if len(n.report.Interfaces) == 0 || c.pool == nil {
		return false // nothing is told
	}
	var selectors []string
	if c.pool.Spec.Layer2 != nil {
		selectors = c.pool.Spec.Layer2.Interfaces
	}
	if own := n.Annotations[v1alpha1.NodeLayer2Interfaces]; own != "" {
		selectors = strings.Split(own, ",")
	}
	return !slices.ContainsFunc(n.report.Interfaces, func(i announce.Interface) bool {
		if i.NoCarrier || i.MAC == "" {
			return false
		}
		if len(selectors) == 0 {
			return slices.ContainsFunc(i.Prefixes, func(p netip.Prefix) bool { return p.Contains(c.address) })
		}
		return slices.ContainsFunc(selectors, func(selector string) bool {
			return namesInterface(strings.TrimSpace(selector), &i, &n.report)
		})
	})
}

// namesInterface reports whether a selector of spec.layer2.interfaces means the
// interface.
func namesInterface(selector string, i *announce.Interface, report *announce.Report) bool {
	if target, ok := strings.CutPrefix(selector, "can-reach:"); ok {
		return slices.ContainsFunc(report.Reach, func(r announce.Reach) bool {
			return r.Target.String() == target && r.Error == "" && r.Interface == i.Name
		})
	}
	if matched, err := path.Match(selector, i.Name); err == nil && matched {
		return true
	}
	return slices.ContainsFunc(i.Prefixes, func(p netip.Prefix) bool { return p.Addr().String() == selector })
}

// reaches reports whether a router that takes the pool's addresses has a session
// with the node.
func (w *world) reaches(n *node, p *pool, is4 bool) bool {
	family := v1alpha1.IPv6
	if is4 {
		family = v1alpha1.IPv4
	}
	for _, peer := range w.peers {
		spec := &peer.Spec
		if peer.DeletionTimestamp != nil || spec.PeerAddress == "" || spec.Announce == v1alpha1.AnnounceCluster ||
			!selects(spec.NodeSelector, n.Labels) ||
			len(spec.AddressFamilies) > 0 && !slices.Contains(spec.AddressFamilies, family) {
			continue
		}
		if p.Spec.BGP == nil || len(p.Spec.BGP.Advertisements) == 0 {
			return true
		}
		for _, advertisement := range p.Spec.BGP.Advertisements {
			if len(advertisement.Peers) == 0 || slices.Contains(advertisement.Peers, peer.Name) {
				return true
			}
		}
	}
	return false
}

func (c *census) subjects(node string) []string {
	subjects := []string{addressSubject(c.address)}
	if node != "" {
		subjects = append(subjects, nodeSubject(node))
	}
	for _, s := range c.services {
		subjects = append(subjects, serviceSubject(s))
	}
	return subjects
}

// findWrong looks for nodes that announce and must not.
func (c *census) findWrong(report func(Finding)) {
	for _, name := range c.announce {
		s := c.standings[name]
		others := slices.ContainsFunc(c.due, func(other string) bool { return other != name })
		why := s.never
		if why == "" && others {
			why = s.unless
		}
		if why == "" {
			continue
		}
		f := Finding{
			Kind:     WrongNode,
			Subjects: c.subjects(name),
			Text:     fmt.Sprintf("%s is announced %s by %s, which %s; it could be by %v", c.address, c.way(), name, why, c.due),
			grace:    c.world.options.Slow,
			actor:    planner,
			also:     c.way() + why,
		}
		if s.never == "" && s.patience > 0 {
			// A new planner has patience anew.
			f.grace += s.patience
			f.also += c.world.planTerm
		}
		report(f)
	}
}

// findMissing looks for nodes that should be next hops and are not.
func (c *census) findMissing(report func(Finding)) {
	limit := int(ptr.Deref(c.pool.Spec.MaxNextHops, defaultMaxNextHops))
	if limit > 0 && len(c.world.nodes) > limit {
		// Which ones are chosen is not told here; one at least has to be.
		if len(c.announce) == 0 && len(c.due) > 0 {
			report(c.missing(c.due[0], "nobody announces it"))
		}
		return
	}
	for _, name := range c.due {
		if !slices.Contains(c.announce, name) {
			report(c.missing(name, "announced by "+fmt.Sprint(c.announce)))
		}
	}
}

func (c *census) missing(node, instead string) Finding {
	return Finding{
		Kind:     NotAnnounced,
		Subjects: c.subjects(node),
		Text:     fmt.Sprintf("%s is not announced %s by %s, though nothing speaks against it; %s", c.address, c.way(), node, instead),
		grace:    c.world.options.Slow,
		actor:    planner,
		also:     c.way(),
	}
}

// findOwner looks for an address on the LAN without an owner, or with several.
func (c *census) findOwner(report func(Finding)) {
	if len(c.announce) == 0 && len(c.due) > 0 {
		report(c.missing(c.due[0], "it has no owner"))
	}
	var owners []string // that any program names
	for _, name := range c.world.nodeNames() {
		r := c.world.nodes[name].announces[c.address]
		if r == nil {
			continue
		}
		for _, o := range r.owners {
			if !slices.Contains(owners, o) {
				owners = append(owners, o)
			}
		}
	}
	if len(owners) > 1 {
		report(Finding{
			Kind:     Owners,
			Subjects: c.subjects(""),
			Text:     fmt.Sprintf("programs name %v as owners of %s", owners, c.address),
			grace:    c.world.options.HandOver,
			actor:    planner,
		})
	}
}
