package speaker

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"go4.org/netipx"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/heartbeat"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/layer2"
)

// exchange is the part of heartbeat.Exchange that the loop needs.
type exchange interface {
	Set(s heartbeat.State)
	Decisions() map[netip.Addr]heartbeat.Decision
	Adjacencies() []heartbeat.Adjacency
	Counters() heartbeat.Counters
	Problems() []string
	Farewell(ctx context.Context)
}

// maxWitnesses bounds the hosts on a link that are to show that it is not this node
// that is cut off.
const maxWitnesses = 8

// compileFellows turns a program into what is agreed on with the other candidates. It
// is pure. Of more addresses than a node may announce the rest is left out; compileLAN
// refuses such a program. unfit are the health check ports of Services without an endpoint
// on the node, unsure those of which that is not known.
func compileFellows(p *announce.Program, node string, i inventory, w ways, unfit, unsure map[uint16]bool) heartbeat.State {
	s := heartbeat.State{Cluster: p.Cluster, Node: node, Fellows: p.Nodes}
	for _, l := range i.links {
		if !l.Carrier || l.Master != "" || l.NoARP || l.MAC == (announce.MAC{}) {
			continue
		}
		s.Links = append(s.Links, heartbeat.Link{
			Index: l.Index, Name: l.Name, Prefixes: l.Prefixes, Witnesses: witnesses(p, node, &l, w.gateways),
		})
	}
	placed := placer{interfaces: i.links, reach: w.interfaces(), unfit: unfit, unsure: unsure, left: maxPrefixes}
	placed.bySubnet = layer2.NewSelection(i.links, placed.reach, nil)
	for g := range p.Groups {
		if l := p.Groups[g].Layer2; l != nil && slices.Contains(l.Candidates, node) {
			s.Groups = append(s.Groups, placed.groups(&p.Groups[g])...)
		}
	}
	return s
}

// witnesses are the gateways and other nodes on a link.
func witnesses(p *announce.Program, node string, l *layer2.Interface, gateways []netip.Addr) []netip.Addr {
	var all []netip.Addr
	add := func(addr netip.Addr) {
		onLink := func(prefix netip.Prefix) bool { return prefix.Contains(addr) && prefix.Addr() != addr }
		if len(all) < maxWitnesses && slices.ContainsFunc(l.Prefixes, onLink) && !slices.Contains(all, addr) {
			all = append(all, addr)
		}
	}
	for _, addr := range gateways {
		add(addr)
	}
	for _, n := range p.Nodes {
		if n.Name == node {
			continue
		}
		for _, addr := range n.Addresses {
			add(addr)
		}
	}
	return all
}

// placer finds the interfaces on which addresses would be announced.
type placer struct {
	interfaces []layer2.Interface
	reach      map[netip.Addr]string
	bySubnet   *layer2.Selection
	unfit      map[uint16]bool
	unsure     map[uint16]bool
	left       int // addresses that there is room for
}

// groups are the addresses of a group, those on the same links together.
func (p *placer) groups(g *announce.Group) (out []heartbeat.Group) {
	selection := p.bySubnet
	if len(g.Layer2.Interfaces) > 0 {
		selection = layer2.NewSelection(p.interfaces, p.reach, g.Layer2.Interfaces)
	}
	for _, r := range g.Addresses {
		for addr := range r.All() {
			if p.left--; p.left < 0 {
				return out
			}
			chosen, _ := selection.Of(addr) // the announcer tells problems
			links := make([]int, 0, len(chosen))
			for _, i := range chosen {
				links = append(links, p.interfaces[i].Index)
			}
			if last := len(out) - 1; last >= 0 && slices.Equal(out[last].Links, links) {
				out[last].Addresses = append(out[last].Addresses, addr)
				continue
			}
			out = append(out, heartbeat.Group{
				Addresses: []netip.Addr{addr}, Candidates: g.Layer2.Candidates, Epoch: g.Layer2.Epoch, Links: links,
				Unfit: p.unfit[g.HealthCheckNodePort], Unsure: p.unsure[g.HealthCheckNodePort],
			})
		}
	}
	return out
}

// accord is what the candidates have agreed on, as far as this node knows.
type accord struct {
	decisions map[netip.Addr]heartbeat.Decision
	// macs are those of the fellows, by name and name of the own interface.
	macs map[string]map[string]announce.MAC
}

// newAccord asks the exchange.
func newAccord(x exchange) accord {
	a := accord{decisions: x.Decisions(), macs: make(map[string]map[string]announce.MAC)}
	for _, adjacency := range x.Adjacencies() {
		if a.macs[adjacency.Node] == nil {
			a.macs[adjacency.Node] = make(map[string]announce.MAC)
		}
		a.macs[adjacency.Node][adjacency.Interface] = adjacency.MAC
	}
	return a
}

// undecided reports whether it is not yet known who is to answer for some of the
// addresses.
func (a accord) undecided() bool {
	for _, d := range a.decisions {
		if d.Role == heartbeat.Undecided {
			return true
		}
	}
	return false
}

// owns reports whether the node answers for any address of the program.
func (a accord) owns(p *announce.Program, node string) bool {
	if len(a.decisions) == 0 { // nobody decides otherwise
		return p != nil && slices.ContainsFunc(p.Groups, func(g announce.Group) bool { return g.Layer2.OwnedBy(node) })
	}
	for _, d := range a.decisions {
		if d.Role == heartbeat.Own {
			return true
		}
	}
	return false
}

// takeovers are the addresses that the node owns without its program's saying so.
func (a accord) takeovers() []announce.Takeover {
	type key struct{ epoch, term uint32 }
	sets := make(map[key]*netipx.IPSetBuilder)
	for addr, d := range a.decisions {
		if !d.Claimed || d.Role != heartbeat.Own {
			continue
		}
		k := key{d.Epoch, d.Term}
		if sets[k] == nil {
			sets[k] = new(netipx.IPSetBuilder)
		}
		sets[k].Add(addr)
	}
	var out []announce.Takeover
	for k, b := range sets {
		set, err := b.IPSet()
		if err != nil {
			continue // all addresses are valid
		}
		t := announce.Takeover{Epoch: k.epoch, Term: k.term}
		for _, r := range set.Ranges() {
			t.Addresses = append(t.Addresses, announce.Range(r))
		}
		out = append(out, t)
	}
	slices.SortFunc(out, func(x, y announce.Takeover) int {
		return slices.Compare([]uint32{x.Epoch, x.Term}, []uint32{y.Epoch, y.Term})
	})
	return out
}

func equalTakeovers(a, b announce.Takeover) bool {
	return a.Epoch == b.Epoch && a.Term == b.Term && slices.Equal(a.Addresses, b.Addresses)
}

// hears are the names of the fellows that live, and that this node replaces should
// they cease to.
func hears(adjacencies []heartbeat.Adjacency) []string {
	var names []string
	for _, a := range adjacencies {
		if a.Minded {
			names = append(names, a.Node)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// farewellTime bounds how long a speaker that restarts waits for others to cover.
const farewellTime = 300 * time.Millisecond

// alone is the exchange of a node without fellows: the program decides.
type alone struct{}

func (alone) Set(heartbeat.State)                          {}
func (alone) Decisions() map[netip.Addr]heartbeat.Decision { return nil }
func (alone) Adjacencies() []heartbeat.Adjacency           { return nil }
func (alone) Counters() heartbeat.Counters                 { return heartbeat.Counters{} }
func (alone) Problems() []string                           { return nil }
func (alone) Farewell(context.Context)                     {}
