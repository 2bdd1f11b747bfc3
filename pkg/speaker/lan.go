package speaker

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"go4.org/netipx"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/layer2"
)

// standing is what decides how sure a program's owner may be.
type standing struct {
	// node is the name of the speaker's Node.
	node string
	// doubtful: the program may be out of date, for the API server has not
	// confirmed it or is away.
	doubtful bool
	// before are the addresses that were announced before a restart, nil if that
	// is not known. They need not be asked for again.
	before *netipx.IPSet
}

// ways are what the node's routes tell.
type ways struct {
	reached  []announce.Reach
	gateways []netip.Addr
}

func (w ways) equal(other ways) bool {
	return slices.Equal(w.reached, other.reached) && slices.Equal(w.gateways, other.gateways)
}

// compileLAN turns a program into the state of the Layer-2 announcer. It is
// pure.
func compileLAN(p *announce.Program, s standing, i inventory, w ways) (layer2.State, error) {
	state := layer2.State{Interfaces: i.links, Bound: i.bound, Gateways: w.gateways}
	for _, r := range w.reached {
		if r.Error == "" {
			if state.Reach == nil {
				state.Reach = make(map[netip.Addr]string)
			}
			state.Reach[r.Target] = r.Interface
		}
	}
	for _, n := range p.Nodes {
		if n.Name != s.node {
			state.Fellows = append(state.Fellows, n.MACs...)
		}
	}
	left := maxPrefixes
	for g := range owned(p, s.node) {
		byCaution := make(map[layer2.Caution][]netip.Addr)
		for _, r := range g.Addresses {
			for addr := range r.All() {
				if left--; left < 0 {
					return layer2.State{}, fmt.Errorf("more than %d addresses on the LAN", maxPrefixes)
				}
				c := s.caution(g, addr)
				byCaution[c] = append(byCaution[c], addr)
			}
		}
		for _, c := range []layer2.Caution{layer2.Certain, layer2.Fresh, layer2.Doubtful} {
			if len(byCaution[c]) > 0 {
				state.Groups = append(state.Groups, layer2.Group{Addresses: byCaution[c], Interfaces: g.Layer2.Interfaces, Caution: c})
			}
		}
	}
	return state, nil
}

// owned are the groups that the node answers for.
func owned(p *announce.Program, node string) func(yield func(*announce.Group) bool) {
	return func(yield func(*announce.Group) bool) {
		for i := range p.Groups {
			if p.Groups[i].Layer2.OwnedBy(node) && !yield(&p.Groups[i]) {
				return
			}
		}
	}
}

func (s *standing) caution(g *announce.Group, addr netip.Addr) layer2.Caution {
	switch {
	case s.doubtful:
		return layer2.Doubtful
	case g.Layer2.Probe && (s.before == nil || !s.before.Contains(addr)):
		return layer2.Fresh
	}
	return layer2.Certain
}

func ownsAny(p *announce.Program, node string) bool {
	return p != nil && slices.ContainsFunc(p.Groups, func(g announce.Group) bool { return g.Layer2.OwnedBy(node) })
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
