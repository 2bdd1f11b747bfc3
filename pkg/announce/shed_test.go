package announce

import (
	"net/netip"
	"testing"
)

func TestShed(t *testing.T) {
	group := func(change func(*Group), ranges ...string) Group {
		g := Group{Pool: "main", BGP: &BGP{Peers: []string{"tor"}, LocalPref: 100}}
		for _, text := range ranges {
			var r Range
			if err := r.UnmarshalText([]byte(text)); err != nil {
				t.Fatal(err)
			}
			g.Addresses = append(g.Addresses, r)
		}
		if change != nil {
			change(&g)
		}
		return g
	}
	port := func(g *Group) { g.HealthCheckNodePort = 30000 }
	program := func(change func(*Program), groups ...Group) *Program {
		p := &Program{
			Cluster: "c", RouterID: netip.MustParseAddr("192.0.2.1"), Peers: []Peer{{Name: "tor"}},
			Nodes: []Node{{Name: "a"}, {Name: "b"}}, Groups: groups,
		}
		if change != nil {
			change(p)
		}
		p.Normalize()
		return p
	}
	before := program(nil, group(nil, "203.0.113.1-203.0.113.9", "203.0.113.20"), group(port, "203.0.113.30"))
	for name, test := range map[string]struct {
		next *Program
		lost string
		only bool
	}{
		"nothing":                {before, "", true},
		"one":                    {program(nil, group(nil, "203.0.113.1-203.0.113.9"), group(port, "203.0.113.30")), "203.0.113.20-203.0.113.20", true},
		"the middle of a range":  {program(nil, group(nil, "203.0.113.1-203.0.113.4", "203.0.113.6-203.0.113.9", "203.0.113.20"), group(port, "203.0.113.30")), "203.0.113.5-203.0.113.5", true},
		"a group":                {program(nil, group(nil, "203.0.113.1-203.0.113.9", "203.0.113.20")), "203.0.113.30-203.0.113.30", true},
		"all":                    {program(func(p *Program) { p.Nodes = nil }), "203.0.113.1-203.0.113.9 203.0.113.20-203.0.113.20 203.0.113.30-203.0.113.30", true},
		"one more":               {program(nil, group(nil, "203.0.113.1-203.0.113.9", "203.0.113.20-203.0.113.21"), group(port, "203.0.113.30")), "", false},
		"one is announced anew":  {program(nil, group(nil, "203.0.113.1-203.0.113.9"), group(port, "203.0.113.20", "203.0.113.30")), "", false},
		"other attributes":       {program(nil, group(func(g *Group) { g.BGP.LocalPref = 0 }, "203.0.113.1")), "", false},
		"another peer":           {program(func(p *Program) { p.Peers[0].PeerASN = 1 }, group(nil, "203.0.113.1")), "", false},
		"another router ID":      {program(func(p *Program) { p.RouterID = netip.MustParseAddr("192.0.2.2") }, group(nil, "203.0.113.1")), "", false},
		"another cluster":        {program(func(p *Program) { p.Cluster = "d" }, group(nil, "203.0.113.1")), "", false},
		"something to reach":     {program(func(p *Program) { p.Reach = []netip.Addr{netip.MustParseAddr("192.0.2.3")} }), "", false},
		"a node more":            {program(func(p *Program) { p.Nodes = append(p.Nodes, Node{Name: "c"}) }), "", false},
		"another MAC of a node":  {program(func(p *Program) { p.Nodes[0].MACs = []MAC{{1}} }), "", false},
		"other addresses at all": {program(nil, group(nil, "203.0.113.40")), "", false},
	} {
		lost, only := before.Shed(test.next)
		text := ""
		if only {
			for i, r := range lost.Ranges() {
				if i > 0 {
					text += " "
				}
				text += r.String()
			}
		}
		if only != test.only || text != test.lost {
			t.Errorf("%s: lost %q, only %t; want %q, %t", name, text, only, test.lost, test.only)
		}
	}
}
