package layer2

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"go4.org/netipx"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

// order is a State, compiled for the book.
type order struct {
	interfaces []Interface
	wants      []want
	own        macs
	fellows    macs
	problems   []string
}

// want is an address and where it is to be announced.
type want struct {
	addr    netip.Addr
	caution Caution
	links   []int // indexes into interfaces, ascending
}

// compile chooses the interfaces of all addresses.
func compile(s *State) *order {
	o := &order{interfaces: s.Interfaces, own: make(macs), fellows: macSet(s.Fellows)}
	for _, i := range s.Interfaces {
		o.own[i.MAC] = struct{}{}
	}
	total := 0
	for _, g := range s.Groups {
		total += len(g.Addresses)
	}
	o.wants = make([]want, 0, total)
	subnets := newSubnets(s.Interfaces)
	unplaced := make(complaints)
	for _, g := range s.Groups {
		var links []int
		var problem string
		if len(g.Interfaces) > 0 {
			links, problem = choose(s.Interfaces, s.Reach, g.Interfaces)
		}
		for _, addr := range g.Addresses {
			if addr = addr.Unmap().WithZone(""); !isHost(addr) {
				unplaced.add("not the address of a host: remove it from the pool", addr)
				continue
			}
			if len(g.Interfaces) == 0 {
				links, problem = subnets.choose(addr)
			}
			if problem != "" {
				unplaced.add(problem, addr)
			}
			o.wants = append(o.wants, want{addr: addr, caution: g.Caution, links: links})
		}
	}
	o.problems = unplaced.texts()
	return o
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
