package bgp

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/osrg/gobgp/v4/pkg/apiutil"
	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// route is a prefix in the RIB.
type route struct {
	prefix netip.Prefix
	class  marker
}

// routes is a RIB: sorted by prefix, without repetition.
type routes []route

func newRoutes(groups []Group, markers []marker) (routes, error) {
	n := 0
	for _, g := range groups {
		n += len(g.Prefixes)
	}
	out := make(routes, 0, n)
	for i, g := range groups {
		for _, p := range g.Prefixes {
			if !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() {
				return nil, fmt.Errorf("prefix %v", p)
			}
			out = append(out, route{p, markers[i]})
		}
	}
	slices.SortFunc(out, func(a, b route) int { return a.prefix.Compare(b.prefix) })
	for i := 1; i < len(out); i++ {
		if out[i-1].prefix == out[i].prefix {
			return nil, fmt.Errorf("prefix %v is in two groups", out[i].prefix)
		}
	}
	return out, nil
}

// class is the marker of the prefix, 0 if it is not in the RIB.
func (r routes) class(p netip.Prefix) marker {
	i, found := slices.BinarySearchFunc(r, p, func(e route, p netip.Prefix) int { return e.prefix.Compare(p) })
	if !found {
		return 0
	}
	return r[i].class
}

// diff is what turns r into after.
func (r routes) diff(after routes) (add routes, remove []netip.Prefix) {
	for len(r) > 0 || len(after) > 0 {
		switch {
		case len(r) == 0:
			return append(add, after...), remove
		case len(after) == 0 || r[0].prefix.Compare(after[0].prefix) < 0:
			remove = append(remove, r[0].prefix)
			r = r[1:]
		case r[0].prefix == after[0].prefix:
			if r[0].class != after[0].class {
				add = append(add, after[0])
			}
			r, after = r[1:], after[1:]
		default:
			add = append(add, after[0])
			after = after[1:]
		}
	}
	return add, remove
}

// attributes of a path: the unspecified next hop makes gobgp send the local
// address of the session. LOCAL_PREF is 0, for a policy cannot make it that: to
// gobgp, an action of 0 is none, and a path without the attribute has 100. Paths of
// a class share them.
func attributes(ipv4 bool, class marker) []packet.PathAttributeInterface {
	out := []packet.PathAttributeInterface{packet.NewPathAttributeOrigin(0)} // IGP
	if ipv4 {
		nextHop, _ := packet.NewPathAttributeNextHop(netip.IPv4Unspecified()) // an IPv4 address never fails
		out = append(out, nextHop)
	}
	out = append(out, packet.NewPathAttributeLocalPref(0))
	if class != 0 {
		out = append(out, packet.NewPathAttributeCommunities([]uint32{uint32(class)}))
	}
	return out
}

// apiPath is a path as gobgp takes it; attrs are those of attributes, nil in a
// withdrawal.
func apiPath(p netip.Prefix, attrs []packet.PathAttributeInterface) (*apiutil.Path, error) {
	nlri, err := packet.NewIPAddrPrefix(p)
	if err != nil {
		return nil, fmt.Errorf("prefix %v: %w", p, err)
	}
	if p.Addr().Is4() {
		return &apiutil.Path{Family: packet.RF_IPv4_UC, Nlri: nlri, Attrs: attrs, Withdrawal: attrs == nil}, nil
	}
	reach, err := packet.NewPathAttributeMpReachNLRI(packet.RF_IPv6_UC, []packet.PathNLRI{{NLRI: nlri}}, netip.IPv6Unspecified())
	if err != nil {
		return nil, fmt.Errorf("prefix %v: %w", p, err)
	}
	return &apiutil.Path{Family: packet.RF_IPv6_UC, Nlri: nlri, Attrs: append(slices.Clip(attrs), reach), Withdrawal: attrs == nil}, nil
}
