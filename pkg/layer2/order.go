package layer2

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"go4.org/netipx"
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
	var unplaced complaints
	for _, g := range s.Groups {
		var links []int
		var problem string
		if len(g.Interfaces) > 0 {
			links, problem = choose(s.Interfaces, s.Reach, g.Interfaces)
		}
		for _, addr := range g.Addresses {
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

// complaints are problems, each with the addresses that have it.
type complaints struct {
	texted map[string]*netipx.IPSetBuilder
}

func (c *complaints) add(problem string, addr netip.Addr) {
	if c.texted == nil {
		c.texted = make(map[string]*netipx.IPSetBuilder)
	}
	set := c.texted[problem]
	if set == nil {
		set = new(netipx.IPSetBuilder)
		c.texted[problem] = set
	}
	set.Add(addr)
}

// texts are the problems, each with the ranges of its addresses, in order.
func (c *complaints) texts() []string {
	out := make([]string, 0, len(c.texted))
	for problem, builder := range c.texted {
		out = append(out, fmt.Sprintf("%s: %s", rangesText(builder), problem))
	}
	slices.Sort(out)
	return out
}

// maxRanges are the ranges of addresses that a problem names.
const maxRanges = 4

func rangesText(builder *netipx.IPSetBuilder) string {
	ranges := rangesOf(builder)
	var texts []string
	for _, r := range ranges[:min(len(ranges), maxRanges)] {
		text := r.From().String()
		if r.To() != r.From() {
			text += "-" + r.To().String()
		}
		texts = append(texts, text)
	}
	if more := len(ranges) - maxRanges; more > 0 {
		texts = append(texts, fmt.Sprintf("and %d more ranges", more))
	}
	return strings.Join(texts, ", ")
}

// rangesOf are the ranges of the addresses that were added. The only error that
// the builder knows is an invalid address, which it then leaves out.
func rangesOf(builder *netipx.IPSetBuilder) []netipx.IPRange {
	set, _ := builder.IPSet()
	if set == nil {
		return nil
	}
	return set.Ranges()
}
