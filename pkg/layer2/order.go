package layer2

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"go4.org/netipx"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/layer2/internal/wire"
)

// order is a State, compiled for the book.
type order struct {
	interfaces []Interface
	wants      []want
	own        macs
	fellows    macs
	bound      map[netip.Addr]bool
	problems   []string
}

// want is an address, where it is to be announced, and by whom.
type want struct {
	addr    netip.Addr
	caution Caution
	role    Role
	round   uint32
	quiet   bool
	owner   map[string]announce.MAC
	// bound means that the kernels of all nodes may answer for the address.
	bound bool
	links []int // indexes into interfaces, ascending
}

// compile chooses the interfaces of all addresses.
func compile(s *State) *order {
	o := &order{
		interfaces: s.Interfaces, own: make(macs), fellows: macSet(s.Fellows), bound: make(map[netip.Addr]bool),
	}
	for _, i := range s.Interfaces {
		// A router elsewhere may have the same virtual address as one of this
		// node, and is no echo of it.
		if !wire.IsVirtualRouter(i.MAC) {
			o.own[i.MAC] = struct{}{}
		}
	}
	for _, addr := range s.Bound {
		o.bound[addr] = true
	}
	taken := o.taken(s.Gateways)
	total := 0
	for _, g := range s.Groups {
		total += len(g.Addresses)
	}
	o.wants = make([]want, 0, total)
	bySubnet := NewSelection(s.Interfaces, s.Reach, nil) // made once: nodes have many interfaces
	unplaced := make(complaints)
	for _, g := range s.Groups {
		selection := bySubnet
		if len(g.Interfaces) > 0 {
			selection = NewSelection(s.Interfaces, s.Reach, g.Interfaces)
		}
		for _, addr := range g.Addresses {
			if addr = addr.Unmap().WithZone(""); !isHost(addr) {
				unplaced.add("not the address of a host: remove it from the pool", addr)
				continue
			}
			if reason := taken[addr]; reason != "" {
				unplaced.add(reason, addr)
				continue
			}
			links, problem := selection.Of(addr)
			if problem != "" {
				unplaced.add(problem, addr)
			}
			o.wants = append(o.wants, want{
				addr: addr, caution: g.Caution, role: g.Role, round: g.Round, quiet: g.Quiet, owner: g.Owner, bound: addr.Is4() && o.bound[addr], links: links,
			})
		}
	}
	o.problems = unplaced.texts()
	return o
}

// taken are the addresses that the node must not announce, and why: whoever has
// them would be cut off.
func (o *order) taken(gateways []netip.Addr) map[netip.Addr]string {
	reasons := make(map[netip.Addr]string)
	for _, addr := range gateways {
		reasons[addr.Unmap().WithZone("")] = "a router's address, the next hop of a route of the node, is never announced: take it out of the pool"
	}
	for _, i := range o.interfaces {
		reason := fmt.Sprintf("an address of the node itself, on its interface %s, is never announced: take it out of the pool", i.Name)
		for _, p := range i.Prefixes {
			if addr := p.Addr().Unmap().WithZone(""); !o.bound[addr] {
				reasons[addr] = reason
			}
		}
	}
	return reasons
}

// isHost reports whether a host may have the address on a LAN.
func isHost(addr netip.Addr) bool {
	return addr.IsValid() && !addr.IsUnspecified() && !addr.IsMulticast() && !addr.IsLoopback()
}

// complaints are problems, each with the addresses that have it.
type complaints map[string][]netip.Addr

func (c complaints) add(problem string, addr netip.Addr) {
	c[problem] = append(c[problem], addr)
}

// texts are the problems, each with the ranges of its addresses, in order.
func (c complaints) texts() []string {
	var out []string
	for problem, addrs := range c {
		out = append(out, fmt.Sprintf("%s: %s", rangesText(addrs), problem))
	}
	slices.Sort(out)
	return out
}

// maxRanges are the ranges of addresses that a problem names.
const maxRanges = 4

func rangesText(addrs []netip.Addr) string {
	ranges := rangesOf(addrs)
	var texts []string
	for _, r := range ranges[:min(len(ranges), maxRanges)] {
		texts = append(texts, announce.Range(r).String())
	}
	if more := len(ranges) - maxRanges; more > 0 {
		texts = append(texts, fmt.Sprintf("and %d more ranges", more))
	}
	return strings.Join(texts, ", ")
}

// rangesOf are the addresses as ascending ranges. It sorts the addresses.
func rangesOf(addrs []netip.Addr) []netipx.IPRange {
	slices.SortFunc(addrs, netip.Addr.Compare)
	var out []netipx.IPRange
	for i := 0; i < len(addrs); {
		from, to := addrs[i], addrs[i]
		for i++; i < len(addrs) && (addrs[i] == to || addrs[i] == to.Next()); i++ {
			to = addrs[i]
		}
		out = append(out, netipx.IPRangeFrom(from, to))
	}
	return out
}
