package speaker

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"go4.org/netipx"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/heartbeat"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/layer2"
)

// standing is what decides who answers, and how sure a program's owner may be.
type standing struct {
	// node is the name of the speaker's Node.
	node string
	// doubtful: the program may be out of date, for the API server has not
	// confirmed it or is away.
	doubtful bool
	// before are the addresses that were announced before a restart, nil if that
	// is not known. They need not be asked for again.
	before *netipx.IPSet
	// accord is what the candidates have agreed on.
	accord accord
}

// ways are what the node's routes tell.
type ways struct {
	reached  []announce.Reach
	gateways []netip.Addr
}

// interfaces are the names of those through which targets are reached.
func (w ways) interfaces() map[netip.Addr]string {
	var names map[netip.Addr]string
	for _, r := range w.reached {
		if r.Error == "" {
			if names == nil {
				names = make(map[netip.Addr]string)
			}
			names[r.Target] = r.Interface
		}
	}
	return names
}

func (w ways) equal(other ways) bool {
	return slices.Equal(w.reached, other.reached) && slices.Equal(w.gateways, other.gateways)
}

// compileLAN turns a program into the state of the Layer-2 announcer. It is
// pure.
func compileLAN(p *announce.Program, s standing, i inventory, w ways) (layer2.State, error) {
	state := layer2.State{Interfaces: i.links, Bound: i.bound, Gateways: w.gateways, Reach: w.interfaces()}
	for _, n := range p.Nodes {
		if n.Name != s.node {
			state.Fellows = append(state.Fellows, n.MACs...)
		}
	}
	left := maxPrefixes
	for i := range p.Groups {
		g := &p.Groups[i]
		if g.Layer2 == nil || !slices.Contains(g.Layer2.Candidates, s.node) {
			continue
		}
		parts := make(map[part][]netip.Addr)
		for _, r := range g.Addresses {
			for addr := range r.All() {
				if left--; left < 0 {
					return layer2.State{}, fmt.Errorf("more than %d addresses on the LAN", maxPrefixes)
				}
				key := s.part(g, addr)
				parts[key] = append(parts[key], addr)
			}
		}
		for _, key := range slices.SortedFunc(maps.Keys(parts), part.compare) {
			state.Groups = append(state.Groups, layer2.Group{
				Addresses: parts[key], Interfaces: g.Layer2.Interfaces,
				Caution: key.caution, Role: key.role, Round: key.round, Quiet: key.quiet, Owner: s.accord.macs[key.owner],
			})
		}
	}
	return state, nil
}

// part is what addresses of a group have in common that are treated alike.
type part struct {
	role    layer2.Role
	caution layer2.Caution
	round   uint32
	quiet   bool   // the node hears nobody
	owner   string // who is covered
}

func (p part) compare(other part) int {
	if p.quiet != other.quiet {
		if p.quiet {
			return 1
		}
		return -1
	}
	return cmp.Or(cmp.Compare(p.role, other.role), cmp.Compare(p.caution, other.caution),
		cmp.Compare(p.round, other.round), cmp.Compare(p.owner, other.owner))
}

// part says what to do about an address.
func (s *standing) part(g *announce.Group, addr netip.Addr) part {
	d, known := s.accord.decisions[addr]
	if !known { // nobody has been asked yet
		d.Role = heartbeat.Standby
		if g.Layer2.OwnedBy(s.node) {
			d.Role = heartbeat.Own
		}
	}
	switch c := s.caution(g, addr, d); d.Role {
	case heartbeat.Own:
		return part{role: layer2.Own, caution: c, round: d.Round, quiet: d.Deaf}
	case heartbeat.Cover:
		return part{role: layer2.Cover, owner: d.Owner}
	case heartbeat.Undecided:
		// The LAN is asked while the candidates are.
		if d.Owner == s.node && c != layer2.Certain {
			return part{role: layer2.Own, caution: c, round: d.Round}
		}
	}
	return part{role: layer2.Standby}
}

func (s *standing) caution(g *announce.Group, addr netip.Addr, d heartbeat.Decision) layer2.Caution {
	switch {
	case d.Claimed:
		return layer2.Certain
	case g.Layer2.Probe && (s.before == nil || !s.before.Contains(addr)):
		if s.doubtful {
			return layer2.Doubtful
		}
		return layer2.Fresh
	case s.doubtful && !d.Agreed:
		return layer2.Doubtful
	}
	return layer2.Certain
}

// asks reports whether the node asks for addresses of its own before it answers for them.
func asks(state *layer2.State) bool {
	return slices.ContainsFunc(state.Groups, func(g layer2.Group) bool { return g.Role == layer2.Own && g.Caution != layer2.Certain })
}

// takesOver reports whether next makes the node answer for addresses that
// another node answered for: that one waits for the report.
func takesOver(next, previous *announce.Program, node string) bool {
	// Others are nobody's yet.
	taken := next.Addresses(func(g *announce.Group) bool { return g.Layer2.OwnedBy(node) && !g.Layer2.Probe })
	had := previous.Owned(node)
	return slices.ContainsFunc(taken.Ranges(), func(r netipx.IPRange) bool { return !had.ContainsRange(r) })
}

// targets are those of "can-reach:" that matter to the program.
func targets(p *announce.Program) []netip.Addr {
	if p == nil {
		return nil
	}
	out := slices.Clone(p.Reach)
	for _, g := range p.Groups {
		if g.Layer2 == nil {
			continue
		}
		for _, selector := range g.Layer2.Interfaces {
			if text, ok := strings.CutPrefix(selector, "can-reach:"); ok {
				if target, err := netip.ParseAddr(text); err == nil {
					out = append(out, target)
				}
			}
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}
