package bgp

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/osrg/gobgp/v4/api"
)

// Names in gobgp's policy tables.
const (
	globalTable  = "global"
	importPolicy = "import"
	exportPolicy = "export"
)

// marker is the internal community of a group's paths. The range 0:1 to 0:65535
// is reserved (RFC 1997), so it meets no community of the outside.
type marker uint16

// prepended is how many more times the AS number is in demoted paths.
const prepended = 3

// maxGroups is how many markers there are, less as many for groups that are on
// their way out.
const maxGroups = 1<<15 - 1

func (m marker) String() string { return fmt.Sprintf("0:%d", uint16(m)) }

// classes are the groups that the export policy knows, by marker.
type classes map[marker][]Export

// key is equal for groups that are announced alike.
func key(exports []Export) string {
	text, _ := json.Marshal(exports) // plain values always marshal
	return string(text)
}

// assign gives each group its marker. A group that is announced as before keeps
// its marker. One whose exports changed takes over the marker that its prefixes
// have now, if nobody else needs it and there are peers for whom nothing changed:
// then only the policy changes, and they hear nothing of it. previous tells the
// present marker of a prefix, 0 if none.
func (c classes) assign(groups []Group, previous func(netip.Prefix) marker) []marker {
	known := make(map[string]marker, len(c))
	for _, m := range slices.Sorted(maps.Keys(c)) {
		known[key(c[m])] = m
	}
	out := make([]marker, len(groups))
	taken := make(map[marker]bool, len(groups))
	for i, g := range groups {
		if m, ok := known[key(g.Exports)]; ok && !taken[m] {
			out[i], taken[m] = m, true
		}
	}
	next := marker(1)
	for i, g := range groups {
		if out[i] != 0 {
			continue
		}
		for _, p := range g.Prefixes {
			if m := previous(p); m != 0 && !taken[m] && keeps(c[m], g.Exports) {
				out[i] = m
				break
			}
		}
		for out[i] == 0 {
			if _, used := c[next]; !used && !taken[next] {
				out[i] = next
			}
			next++
		}
		taken[out[i]] = true
	}
	return out
}

// keeps reports whether the exports mean the same to a peer before and after.
func keeps(before, after []Export) bool {
	was, is := byPeer(before), byPeer(after)
	for name, attributes := range was {
		if is[name] == attributes {
			return true
		}
	}
	return false
}

// with is c where the groups' classes are as the groups say. Classes that no
// group uses any more stay: paths of theirs may still be in the RIB.
func (c classes) with(groups []Group, markers []marker) classes {
	out := maps.Clone(c)
	if out == nil {
		out = make(classes, len(groups))
	}
	for i, m := range markers {
		out[m] = groups[i].Exports
	}
	return out
}

// only is c without the classes whose marker is not among markers.
func (c classes) only(markers []marker) classes {
	out := make(classes, len(markers))
	for _, m := range markers {
		out[m] = c[m]
	}
	return out
}

// concerned are the peers to whom a class means something else in after, in
// order.
func (c classes) concerned(after classes) []string {
	var names []string
	for m, exports := range c {
		was, is := byPeer(exports), byPeer(after[m])
		for name, attributes := range was {
			if is[name] != attributes {
				names = append(names, name)
			}
		}
		for name := range is {
			if _, known := was[name]; !known {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func byPeer(exports []Export) map[string]string {
	out := make(map[string]string)
	for _, e := range exports {
		text, _ := json.Marshal(e.Attributes) // plain values always marshal
		for _, name := range e.Peers {
			out[name] = string(text)
		}
	}
	return out
}

// policies is the whole of gobgp's policy: accept our own paths and nothing
// else on import, and the classes' exports.
func (c classes) policies(peers map[string]Peer) *api.SetPoliciesRequest {
	request := &api.SetPoliciesRequest{}
	export := &api.Policy{Name: exportPolicy}
	add := func(kind api.DefinedType, name string, list ...string) {
		request.DefinedSets = append(request.DefinedSets, &api.DefinedSet{DefinedType: kind, Name: name, List: list})
	}
	for _, m := range slices.Sorted(maps.Keys(c)) {
		members := "members-" + m.String()
		add(api.DefinedType_DEFINED_TYPE_COMMUNITY, members, m.String())
		for i, e := range c[m] {
			// Peers over IPv4 with a next hop for IPv6 prefixes have a statement
			// each for these; those without one get IPv4 prefixes only.
			var all, only4 []string
			for _, name := range e.Peers {
				p, known := peers[name]
				if !known {
					continue
				}
				host := netip.PrefixFrom(p.Address, p.Address.BitLen()).String()
				switch {
				case p.Address.Is6():
					all = append(all, host)
				case p.NextHop6.IsValid():
					all = append(all, host)
					set := fmt.Sprintf("%s-%d-%s", m, i, host)
					add(api.DefinedType_DEFINED_TYPE_NEIGHBOR, set, host)
					s := e.statement(members, set, api.Family_AFI_IP6)
					s.Actions.Nexthop = &api.NexthopAction{Address: p.NextHop6.String()}
					export.Statements = append(export.Statements, s)
				default:
					only4 = append(only4, host)
				}
			}
			// To gobgp an empty set is everybody.
			if set := fmt.Sprintf("%s-%d", m, i); len(all) > 0 {
				add(api.DefinedType_DEFINED_TYPE_NEIGHBOR, set, all...)
				export.Statements = append(export.Statements, e.statement(members, set, api.Family_AFI_IP, api.Family_AFI_IP6))
			}
			if set := fmt.Sprintf("%s-%d-only4", m, i); len(only4) > 0 {
				add(api.DefinedType_DEFINED_TYPE_NEIGHBOR, set, only4...)
				export.Statements = append(export.Statements, e.statement(members, set, api.Family_AFI_IP))
			}
		}
	}
	request.Policies = []*api.Policy{ownPathsOnly(), export}
	return request
}

// statement exports the paths of the community set members and of the families
// to the neighbours of the set neighbors.
func (e *Export) statement(members, neighbors string, families ...api.Family_Afi) *api.Statement {
	var unicast []*api.Family
	for _, f := range families {
		unicast = append(unicast, &api.Family{Afi: f, Safi: api.Family_SAFI_UNICAST})
	}
	return &api.Statement{
		Name: "to-" + neighbors,
		Conditions: &api.Conditions{
			NeighborSet:  &api.MatchSet{Type: api.MatchSet_TYPE_ANY, Name: neighbors},
			CommunitySet: &api.MatchSet{Type: api.MatchSet_TYPE_ANY, Name: members},
			AfiSafiIn:    unicast,
		},
		Actions: e.actions(),
	}
}

// ownPathsOnly is the import policy. gobgp asks it about local paths too.
func ownPathsOnly() *api.Policy {
	return &api.Policy{Name: importPolicy, Statements: []*api.Statement{{
		Name:       "own",
		Conditions: &api.Conditions{RouteType: api.Conditions_ROUTE_TYPE_LOCAL},
		Actions:    &api.Actions{RouteAction: api.RouteAction_ROUTE_ACTION_ACCEPT},
	}}}
}

// actions set the attributes. Replacing the communities strips the marker.
func (a *Attributes) actions() *api.Actions {
	communities := make([]string, 0, len(a.Communities))
	for _, c := range a.Communities {
		communities = append(communities, fmt.Sprintf("%d:%d", c>>16, c&0xffff))
	}
	out := &api.Actions{
		RouteAction: api.RouteAction_ROUTE_ACTION_ACCEPT,
		Community:   &api.CommunityAction{Type: api.CommunityAction_TYPE_REPLACE, Communities: communities},
	}
	if a.Demoted {
		// gobgp asks the policy after it has put the peer's local AS number into
		// AS_PATH, where it is the leftmost. Towards iBGP peers AS_PATH is empty,
		// and stays so; LOCAL_PREF stays 0, as it is in the RIB.
		out.AsPrepend = &api.AsPrependAction{UseLeftMost: true, Repeat: prepended}
	} else {
		out.LocalPref = &api.LocalPrefAction{Value: a.LocalPref}
	}
	if len(a.LargeCommunities) > 0 {
		large := make([]string, 0, len(a.LargeCommunities))
		for _, l := range a.LargeCommunities {
			large = append(large, fmt.Sprintf("%d:%d:%d", l[0], l[1], l[2]))
		}
		out.LargeCommunity = &api.CommunityAction{Type: api.CommunityAction_TYPE_REPLACE, Communities: large}
	}
	return out
}

func (c classes) equal(other classes) bool {
	return maps.EqualFunc(c, other, func(a, b []Export) bool { return key(a) == key(b) })
}
