package plan

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"go4.org/netipx"
	"k8s.io/utils/ptr"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/ipam"
)

// Defaults of an AddressPool, as in its CRD.
const (
	defaultMaxNextHops = 16
	defaultLocalPref   = 100
)

// pool is an AddressPool, with the verdicts on the nodes as far as no single
// address matters. An address outside every pool has a pool of its own, made
// of what its speakers were told before.
type pool struct {
	name           string
	object         *v1alpha1.AddressPool // nil where the pool is gone
	owned          *netipx.IPSet         // its addresses; nil where the pool is gone
	advertisements []advertisement
	layer2         *layer2 // nil where the pool does not speak Layer2
	maxNextHops    int     // 0 means no limit
	withEndpoints  bool
	families       map[bool]*family // by "is IPv4"
}

// layer2 is how a pool's addresses are announced on the LAN.
type layer2 struct {
	interfaces []string
	// former are those that nodes were told before, where the AddressPool is
	// gone, by node name.
	former map[string][]string
}

// advertisement is a BGPAdvertisement with its texts parsed.
type advertisement struct {
	bgp      announce.BGP // without Peers and AggregationLength
	peers    []string     // nil means all of the node's
	lengthV4 uint8        // 0 means full length
	lengthV6 uint8
}

// family is the standing of the nodes in a pool, for one address family.
type family struct {
	verdicts []NodeVerdict // parallel to the nodes; Announces means eligible
	eligible []int         // their indexes, ascending
	away     []int         // nodes that would be eligible but for their speaker, which is away
	queue    *queue        // the eligible nodes by load; nil before somebody needs it
}

// newPool resolves an AddressPool. Problems are the owner's to read; the pool
// works as far as it can.
func newPool(compiled *ipam.Pool, peers map[string]bool) (*pool, []Problem) {
	object := compiled.Object()
	spec := &object.Spec
	p := &pool{
		name:          object.Name,
		object:        object,
		owned:         setOf(compiled.Ranges()),
		maxNextHops:   int(ptr.Deref(spec.MaxNextHops, defaultMaxNextHops)),
		withEndpoints: spec.NextHops == v1alpha1.NextHopsWithEndpoints,
		families:      make(map[bool]*family),
	}
	problems := unsupportedInPool(spec)
	if slices.Contains(spec.Protocols, v1alpha1.ProtocolLayer2) {
		p.layer2 = &layer2{}
		if spec.Layer2 != nil {
			p.layer2.interfaces = spec.Layer2.Interfaces
		}
	}
	if len(spec.Protocols) > 0 && !slices.Contains(spec.Protocols, v1alpha1.ProtocolBGP) {
		return p, problems
	}
	advertisements := []v1alpha1.BGPAdvertisement{{}}
	if spec.BGP != nil && len(spec.BGP.Advertisements) > 0 {
		advertisements = spec.BGP.Advertisements
	}
	var unknown []string
	for i := range advertisements {
		a, err := newAdvertisement(&advertisements[i])
		if err != nil {
			problems = append(problems, Problem{"Malformed", fmt.Sprintf("spec.bgp.advertisements[%d] is not used: %v", i, err)})
			continue
		}
		for _, name := range a.peers {
			if !peers[name] {
				unknown = append(unknown, name)
			}
		}
		if p.foldsOutside(&a) {
			problems = append(problems, Problem{"Aggregation", fmt.Sprintf(
				"spec.bgp.advertisements[%d]: where a prefix of the aggregation length would hold addresses that are not the pool's, addresses are announced one by one; lengthen it, or give the pool whole prefixes", i)})
		}
		p.advertisements = append(p.advertisements, a)
	}
	if len(unknown) > 0 {
		problems = append(problems, Problem{"UnknownPeer",
			fmt.Sprintf("spec.bgp.advertisements name BGPPeers that do not exist: %s; create them or correct the names", strings.Join(unknown, ", "))})
	}
	return p, problems
}

func newAdvertisement(spec *v1alpha1.BGPAdvertisement) (advertisement, error) {
	a := advertisement{
		bgp:      announce.BGP{LocalPref: uint32(ptr.Deref(spec.LocalPref, defaultLocalPref))},
		lengthV4: uint8(ptr.Deref(spec.AggregationLength, 0)) % 32, // 32 is the full length
		lengthV6: uint8(ptr.Deref(spec.AggregationLengthV6, 0)) % 128,
	}
	if len(spec.Peers) > 0 {
		a.peers = spec.Peers
	}
	for _, text := range spec.Communities {
		c, err := parseCommunity(text)
		if err != nil {
			return advertisement{}, err
		}
		a.bgp.Communities = append(a.bgp.Communities, c)
	}
	for _, text := range spec.LargeCommunities {
		c, err := parseLargeCommunity(text)
		if err != nil {
			return advertisement{}, err
		}
		a.bgp.LargeCommunities = append(a.bgp.LargeCommunities, c)
	}
	return a, nil
}

func setOf(ranges []netipx.IPRange) *netipx.IPSet {
	var b netipx.IPSetBuilder
	for _, r := range ranges {
		b.AddRange(r)
	}
	set, err := b.IPSet()
	if err != nil {
		return &netipx.IPSet{} // an invalid range holds nothing
	}
	return set
}

// former reports whether the AddressPool is gone.
func (p *pool) former() bool { return p.object == nil }

// foldable reports whether all prefixes that the address would be folded into
// hold nothing but addresses of the pool: others are not ours to announce.
func (p *pool) foldable(addr netip.Addr) bool {
	for i := range p.advertisements {
		if !p.holdsFold(&p.advertisements[i], addr) {
			return false
		}
	}
	return true
}

// foldsOutside reports whether some prefix of the advertisement would hold
// addresses that are not the pool's: it is enough to look at the ends of ranges.
func (p *pool) foldsOutside(a *advertisement) bool {
	for _, r := range p.owned.Ranges() {
		if !p.holdsFold(a, r.From()) || !p.holdsFold(a, r.To()) {
			return true
		}
	}
	return false
}

func (p *pool) holdsFold(a *advertisement, addr netip.Addr) bool {
	length := a.length(addr.Is4())
	if length == 0 {
		return true
	}
	prefix, err := addr.Prefix(int(length))
	return err == nil && p.owned != nil && p.owned.ContainsPrefix(prefix)
}

// length is the aggregation length for a family; 0 means the full length.
func (a *advertisement) length(is4 bool) uint8 {
	if is4 {
		return a.lengthV4
	}
	return a.lengthV6
}

// wellKnown communities: RFC 1997, RFC 3765, RFC 7999 and RFC 8326.
var wellKnown = map[string]uint32{
	"graceful-shutdown":   0xFFFF0000,
	"blackhole":           0xFFFF029A,
	"no-export":           0xFFFFFF01,
	"no-advertise":        0xFFFFFF02,
	"local-as":            0xFFFFFF03,
	"no-export-subconfed": 0xFFFFFF03,
	"no-peer":             0xFFFFFF04,
}

func parseCommunity(text string) (uint32, error) {
	if c, ok := wellKnown[text]; ok {
		return c, nil
	}
	parts, err := parseNumbers(text, 2, 16)
	if err != nil {
		return 0, fmt.Errorf("community %q: write ASN:VALUE, both up to 65535, or a well-known name such as no-export", text)
	}
	return parts[0]<<16 | parts[1], nil
}

func parseLargeCommunity(text string) (announce.LargeCommunity, error) {
	parts, err := parseNumbers(text, 3, 32)
	if err != nil {
		return announce.LargeCommunity{}, fmt.Errorf("large community %q: write ASN:VALUE:VALUE, each up to 4294967295", text)
	}
	return announce.LargeCommunity(parts), nil
}

func parseNumbers(text string, count, bits int) ([]uint32, error) {
	fields := strings.Split(text, ":")
	if len(fields) != count {
		return nil, fmt.Errorf("%d numbers", len(fields))
	}
	numbers := make([]uint32, count)
	for i, field := range fields {
		n, err := strconv.ParseUint(field, 10, bits)
		if err != nil {
			return nil, err
		}
		numbers[i] = uint32(n)
	}
	return numbers, nil
}

// family returns the standing of the nodes for addresses of the family.
func (p *pool) family(is4 bool, nodes []*node) *family {
	if f := p.families[is4]; f != nil {
		return f
	}
	f := &family{verdicts: make([]NodeVerdict, len(nodes))}
	for i, n := range nodes {
		v := p.judge(n, is4)
		f.verdicts[i] = NodeVerdict{Node: n.object.Name, Verdict: v, CutOff: p.cutOff(n, is4)}
		switch v {
		case Announces:
			f.eligible = append(f.eligible, i)
		case SpeakerAway:
			f.away = append(f.away, i)
		}
	}
	p.families[is4] = f
	return f
}

func (p *pool) judge(n *node, is4 bool) Verdict {
	switch {
	case p.object != nil && !selects(p.object.Spec.NodeSelector, n.object.Labels):
		return NotSelected
	case n.verdict != "":
		return n.verdict
	case !p.reaches(n, is4):
		return NoPeer
	case n.speaker == speakerAway:
		return SpeakerAway
	}
	return Announces
}

// reaches reports whether some advertisement has a peer on the node.
func (p *pool) reaches(n *node, is4 bool) bool {
	for i := range p.advertisements {
		if len(p.advertisements[i].peersOn(n, is4)) > 0 {
			return true
		}
	}
	return false
}

// cutOff reports whether the node's speaker reports that none of its sessions
// for the pool is established. A session it has not reported yet may be.
func (p *pool) cutOff(n *node, is4 bool) bool {
	known := false
	for i := range p.advertisements {
		for _, name := range p.advertisements[i].peersOn(n, is4) {
			at := slices.IndexFunc(n.report.Sessions, func(s announce.Session) bool { return s.Peer == name })
			if at < 0 || n.report.Sessions[at].Established() {
				return false
			}
			known = true
		}
	}
	return known
}

// peersOn are the names of the node's peers that the advertisement goes to.
func (a *advertisement) peersOn(n *node, is4 bool) []string {
	var names []string
	for i := range n.peers {
		peer := &n.peers[i]
		if (is4 && !peer.IPv4) || (!is4 && !peer.IPv6) {
			continue
		}
		if a.peers == nil || slices.Contains(a.peers, peer.Name) {
			names = append(names, peer.Name)
		}
	}
	return names
}

// attributes are how a node announces addresses of the pool: once for each
// advertisement that has a peer there.
func (p *pool) attributes(n *node, is4, foldable bool) []*announce.BGP {
	var all []*announce.BGP
	for i := range p.advertisements {
		a := &p.advertisements[i]
		bgp := a.bgp
		if bgp.Peers = a.peersOn(n, is4); len(bgp.Peers) == 0 {
			continue
		}
		if foldable {
			bgp.AggregationLength = a.length(is4)
		}
		all = append(all, &bgp)
	}
	return all
}

// formerPool is the pool of an address that lies outside every pool, as the
// speakers know it: the address keeps the attributes it had. It is nil if no
// speaker knows the address.
func (c *computation) formerPool(a *address) *pool {
	former := &pool{families: make(map[bool]*family), maxNextHops: defaultMaxNextHops}
	var key []string // addresses with the same past share a pool, and so a group
	if before := a.before; before.layer2 != nil {
		former.name = before.pool
		former.layer2 = &layer2{interfaces: before.layer2.Interfaces, former: make(map[string][]string)}
		key = append(key, "layer2 "+strings.Join(before.layer2.Interfaces, ","))
	}
	seen := make(map[string]bool)
	told := slices.Concat(a.announcers, a.candidates)
	slices.Sort(told)
	for _, i := range slices.Compact(told) {
		n := c.nodes[i]
		for j := range n.previous.Groups {
			g := &n.previous.Groups[j]
			if !g.Contains(a.Addr) {
				continue
			}
			if g.BGP == nil {
				former.layer2.former[n.object.Name] = g.Layer2.Interfaces
				key = append(key, "layer2 "+n.object.Name+" "+strings.Join(g.Layer2.Interfaces, ","))
				continue
			}
			text := c.textOf(g.BGP)
			if seen[text] {
				continue
			}
			seen[text] = true
			former.name = g.Pool
			key = append(key, text)
			attributes := *g.BGP
			attributes.Peers, attributes.AggregationLength = nil, 0
			former.advertisements = append(former.advertisements, advertisement{bgp: attributes, peers: g.BGP.Peers})
		}
	}
	if len(key) == 0 {
		return nil
	}
	slices.Sort(key)
	id := former.name + "\n" + strings.Join(key, "\n")
	if known := c.former[id]; known != nil {
		return known
	}
	if p := c.pools[former.name]; p != nil {
		former.object, former.owned = p.object, p.owned
		former.maxNextHops, former.withEndpoints = p.maxNextHops, p.withEndpoints
		if former.layer2 != nil && p.layer2 != nil {
			former.layer2 = p.layer2
		}
	}
	c.former[id] = former
	return former
}

// textOf is the text of attributes, for comparing. Many addresses share them.
func (c *computation) textOf(bgp *announce.BGP) string {
	text, known := c.texts[bgp]
	if !known {
		plain, _ := json.Marshal(bgp) // plain values always marshal
		text = string(plain)
		c.texts[bgp] = text
	}
	return text
}
