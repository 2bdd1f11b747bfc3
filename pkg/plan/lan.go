package plan

import (
	"net/netip"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

// maxLinks bounds the links of a node and their prefixes together, for they are in
// the programs of others.
const maxLinks = 64

// canReach begins a selector that means the interface towards an address.
const canReach = "can-reach:"

// lan is what a node's speaker reports of the node's links, as far as they can
// carry Layer-2 announcements.
type lan struct {
	unknown    bool                 // nothing is reported that can be used
	interfaces []announce.Interface // with a carrier
	macs       []announce.MAC
	links      []announce.Link     // with or without a carrier; see maxLinks
	reach      map[netip.Addr]bool // can-reach targets that are reached
	selectors  []string            // of the Node's annotation; they win over the pool's
}

func newLAN(n *corev1.Node, r *announce.Report) lan {
	l := lan{
		unknown:   len(r.Interfaces) == 0, // each node has one
		selectors: splitList(n.Annotations[v1alpha1.NodeLayer2Interfaces]),
	}
	room := maxLinks
	for _, i := range r.Interfaces {
		mac, err := announce.ParseMAC(i.MAC)
		if err != nil {
			continue // ARP and NDP as they are spoken here need Ethernet
		}
		l.macs = append(l.macs, mac)
		link := announce.Link{Name: i.Name, MAC: mac, Prefixes: plainPrefixes(i.Prefixes)}
		if room -= 1 + len(link.Prefixes); room >= 0 {
			l.links = append(l.links, link)
		}
		if !i.NoCarrier {
			l.interfaces = append(l.interfaces, i)
		}
	}
	for _, to := range r.Reach {
		usable := func(i announce.Interface) bool { return i.Name == to.Interface }
		if to.Error != "" || !slices.ContainsFunc(l.interfaces, usable) {
			continue
		}
		if l.reach == nil {
			l.reach = make(map[netip.Addr]bool)
		}
		l.reach[to.Target] = true
	}
	return l
}

// plainPrefixes leaves out what no program may have.
func plainPrefixes(all []netip.Prefix) []netip.Prefix {
	return slices.DeleteFunc(slices.Clone(all), func(p netip.Prefix) bool { return !p.IsValid() || p.Addr().Is4In6() })
}

func splitList(text string) []string {
	var out []string
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}

// selectors are those that count on the node.
func (p *pool) selectors(n *node) []string {
	if len(n.lan.selectors) > 0 {
		return n.lan.selectors
	}
	if former, ok := p.layer2.former[n.object.Name]; ok {
		return former
	}
	return p.layer2.interfaces
}

// has reports whether one of the node's interfaces can announce the address.
func (l *lan) has(selectors []string, addr netip.Addr) bool {
	if len(selectors) == 0 {
		return slices.ContainsFunc(l.interfaces, func(i announce.Interface) bool {
			return slices.ContainsFunc(i.Prefixes, func(p netip.Prefix) bool { return p.Contains(addr) })
		})
	}
	return slices.ContainsFunc(selectors, l.matches)
}

func (l *lan) matches(selector string) bool {
	if target, ok := reachTarget(selector); ok {
		return l.reach[target]
	}
	own, err := netip.ParseAddr(selector)
	return slices.ContainsFunc(l.interfaces, func(i announce.Interface) bool {
		if err == nil {
			return slices.ContainsFunc(i.Prefixes, func(p netip.Prefix) bool { return p.Addr() == own })
		}
		matched, err := path.Match(selector, i.Name)
		return matched && err == nil
	})
}

// reachTarget is the address of a can-reach selector.
func reachTarget(selector string) (netip.Addr, bool) {
	text, ok := strings.CutPrefix(selector, canReach)
	if !ok {
		return netip.Addr{}, false
	}
	target, err := parseAddr(text)
	return target, err == nil
}

// reachTargets are the addresses that the node is to find its interface for.
func (c *computation) reachTargets(n *node) []netip.Addr {
	var targets []netip.Addr
	for _, name := range sortedKeys(c.pools) {
		p := c.pools[name]
		if p.layer2 == nil || !selects(p.object.Spec.NodeSelector, n.object.Labels) {
			continue
		}
		for _, selector := range p.selectors(n) {
			if target, ok := reachTarget(selector); ok {
				targets = append(targets, target)
			}
		}
	}
	return targets
}

// segments tells which subnets of nodes hold an address, without asking each
// node: clusters have a subnet per node for Pods.
type segments struct {
	ids     map[netip.Prefix]int // of masked prefixes
	lengths []int                // that occur, of both families
}

func newSegments(nodes []*node) *segments {
	s := &segments{ids: make(map[netip.Prefix]int)}
	for _, n := range nodes {
		for _, i := range n.lan.interfaces {
			for _, p := range i.Prefixes {
				p = p.Masked()
				if _, known := s.ids[p]; !known {
					s.ids[p] = len(s.ids)
				}
				if !slices.Contains(s.lengths, p.Bits()) {
					s.lengths = append(s.lengths, p.Bits())
				}
			}
		}
	}
	slices.Sort(s.lengths)
	return s
}

// of identifies the subnets that hold the address: addresses of the same text
// are on the links of the same nodes.
func (s *segments) of(addr netip.Addr) string {
	var id []byte
	for _, bits := range s.lengths {
		p, err := addr.Prefix(bits)
		if err != nil {
			continue // the length is one of the other family
		}
		if at, known := s.ids[p]; known {
			id = append(id, byte(at), byte(at>>8), byte(at>>16))
		}
	}
	return string(id)
}

// nodeEntry is a node as its fellows on the LAN see it.
func (n *node) nodeEntry() announce.Node {
	if n.entry != nil {
		return *n.entry
	}
	e := announce.Node{Name: n.object.Name, MACs: n.lan.macs}
	for _, a := range n.object.Status.Addresses {
		if a.Type != corev1.NodeInternalIP {
			continue
		}
		if addr, err := parseAddr(a.Address); err == nil {
			e.Addresses = append(e.Addresses, addr)
		}
	}
	n.entry = &e
	return e
}
