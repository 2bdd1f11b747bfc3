package layer2

import (
	"cmp"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

// reachPrefix begins a selector that names a target.
const reachPrefix = "can-reach:"

// Selection chooses the interfaces on which addresses are announced.
//
// A selector is the name of an interface, a shell pattern of names (path.Match),
// an address of the interface, or "can-reach:ADDRESS" for the interface through
// which that is reached; every usable interface that one of them matches is
// chosen. Without selectors it is the interface whose subnet holds the address,
// and only one: on a LAN, one address must be answered by one MAC address. The
// longest prefix wins, then the name. Prefixes of length 0 and of full length
// are no subnets.
//
// Usable interfaces have a carrier and an Ethernet address, do ARP, and are no
// members of a bond or bridge.
type Selection struct {
	// subnets is nil if there are selectors, for which the address does not matter.
	subnets *subnets
	chosen  []int
	problem string
}

// NewSelection is that of selectors among the node's interfaces. reach are the names of
// those through which the targets of "can-reach:" are reached.
func NewSelection(interfaces []Interface, reach map[netip.Addr]string, selectors []string) *Selection {
	s := &Selection{}
	if len(selectors) == 0 {
		s.subnets = newSubnets(interfaces)
	} else {
		s.chosen, s.problem = choose(interfaces, reach, selectors)
	}
	return s
}

// Of is the choice for an address, as indexes into the interfaces, ascending. If there
// is none, problem says why and what to do. The slice is shared: it must not be changed.
func (s *Selection) Of(addr netip.Addr) (chosen []int, problem string) {
	if s.subnets == nil {
		return s.chosen, s.problem
	}
	return s.subnets.choose(addr)
}

// unusable says why the interface cannot announce; it is empty if it can.
func (i *Interface) unusable() string {
	switch {
	case i.Master != "":
		return fmt.Sprintf("it is a member of %s: name that instead", i.Master)
	case i.NoARP:
		return "its flag NOARP is set: choose another interface"
	case i.MAC == (announce.MAC{}):
		return "it has no Ethernet address: choose another interface"
	case !i.Carrier:
		return "it has no carrier: check its link"
	}
	return ""
}

// choose is the choice with selectors, for which the address does not matter.
func choose(interfaces []Interface, reach map[netip.Addr]string, selectors []string) (chosen []int, problem string) {
	var problems []string
	for _, s := range selectors {
		matched, missing := match(interfaces, reach, s)
		if missing != "" {
			problems = append(problems, missing)
		}
		for _, i := range matched {
			if reason := interfaces[i].unusable(); reason != "" {
				problems = append(problems, fmt.Sprintf("interface %s cannot announce: %s", interfaces[i].Name, reason))
				continue
			}
			chosen = append(chosen, i)
		}
	}
	if len(chosen) == 0 {
		return nil, strings.Join(problems, "; ")
	}
	slices.Sort(chosen)
	return slices.Compact(chosen), ""
}

// match are the interfaces that the selector means, usable or not. If there is
// none, missing says why.
func match(interfaces []Interface, reach map[netip.Addr]string, selector string) (matched []int, missing string) {
	filter := func(keep func(*Interface) bool) {
		for i := range interfaces {
			if keep(&interfaces[i]) {
				matched = append(matched, i)
			}
		}
	}
	if target, found := strings.CutPrefix(selector, reachPrefix); found {
		addr, err := netip.ParseAddr(target)
		name := reach[addr]
		switch {
		case err != nil:
			return nil, fmt.Sprintf("selector %q: no address follows %q", selector, reachPrefix)
		case name == "":
			return nil, fmt.Sprintf("%s is not reached through any link of the node: check address and route", target)
		}
		if filter(func(i *Interface) bool { return i.Name == name }); len(matched) == 0 {
			missing = fmt.Sprintf("interface %s, through which %s is reached, does not exist", name, target)
		}
		return matched, missing
	}
	if addr, err := netip.ParseAddr(selector); err == nil {
		filter(func(i *Interface) bool {
			return slices.ContainsFunc(i.Prefixes, func(p netip.Prefix) bool { return p.Addr().WithZone("") == addr })
		})
		if len(matched) == 0 {
			missing = fmt.Sprintf("no interface has the address %s: check the selector", selector)
		}
		return matched, missing
	}
	if filter(func(i *Interface) bool { return i.Name == selector }); len(matched) > 0 {
		return matched, ""
	}
	if !strings.ContainsAny(selector, `*?[\`) {
		return nil, fmt.Sprintf("interface %s does not exist: check the name, or exclude the node by the pool's nodeSelector", selector)
	}
	if _, err := path.Match(selector, ""); err != nil {
		return nil, fmt.Sprintf("selector %q: %v", selector, err)
	}
	// A pattern means the interfaces that can announce; that it matches others,
	// such as the members of a bond, is no mistake.
	filter(func(i *Interface) bool {
		ok, _ := path.Match(selector, i.Name)
		return ok && i.unusable() == ""
	})
	if len(matched) > 0 {
		return matched, ""
	}
	filter(func(i *Interface) bool { ok, _ := path.Match(selector, i.Name); return ok })
	if len(matched) == 0 {
		missing = fmt.Sprintf("no interface matches %s: check the pattern, or exclude the node by the pool's nodeSelector", selector)
	}
	return matched, missing
}

// subnets are the prefixes of a node's interfaces, in order of preference.
type subnets struct {
	interfaces []Interface
	list       []subnet
	// single[i] is []int{i}, made once for the many addresses that get it.
	single [][]int
}

type subnet struct {
	prefix netip.Prefix
	of     int // index of the interface
	reason string
}

func newSubnets(interfaces []Interface) *subnets {
	s := &subnets{interfaces: interfaces, single: make([][]int, len(interfaces))}
	for i := range interfaces {
		s.single[i] = []int{i}
		reason := interfaces[i].unusable()
		for _, p := range interfaces[i].Prefixes {
			if p.Bits() > 0 && p.Bits() < p.Addr().BitLen() {
				s.list = append(s.list, subnet{prefix: p, of: i, reason: reason})
			}
		}
	}
	slices.SortStableFunc(s.list, func(a, b subnet) int {
		return cmp.Or(
			cmp.Compare(b.prefix.Bits(), a.prefix.Bits()),
			cmp.Compare(interfaces[a.of].Name, interfaces[b.of].Name),
		)
	})
	return s
}

func (s *subnets) choose(addr netip.Addr) (chosen []int, problem string) {
	for _, n := range s.list {
		if n.reason == "" && n.prefix.Contains(addr) {
			return s.single[n.of], ""
		}
	}
	for _, n := range s.list {
		if n.prefix.Contains(addr) {
			return nil, fmt.Sprintf("interface %s, whose subnet holds it, cannot announce: %s", s.interfaces[n.of].Name, n.reason)
		}
	}
	return nil, "no interface of the node has a subnet that holds it: name interfaces in the pool's layer2.interfaces"
}
