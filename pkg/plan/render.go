package plan

import (
	"fmt"
	"strings"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

// String renders the plan as text for people: what each node announces to
// whom, and for each address why the other nodes do not.
func (p *Plan) String() string {
	var b strings.Builder
	for _, name := range sortedKeys(p.Programs) {
		program := p.Programs[name]
		writeProgram(&b, name, &program)
	}
	for i := range p.Services {
		writeService(&b, &p.Services[i])
	}
	for i := range p.Moves {
		m := &p.Moves[i]
		fmt.Fprintf(&b, "moved from %s to %s: %d on the LAN: %s\n", m.From, m.To, m.Addresses, m.Why())
	}
	for _, pool := range p.Pools {
		fmt.Fprintf(&b, "pool %s: capacity %s, allocated %s, available %s\n", pool.Name, pool.Capacity, pool.Allocated, pool.Available)
		writeProblems(&b, pool.Problems)
	}
	for _, peer := range p.Peers {
		fmt.Fprintf(&b, "peer %s: desired %d, established %d\n", peer.Name, peer.Desired, peer.Established)
		writeProblems(&b, peer.Problems)
	}
	return b.String()
}

func writeProgram(b *strings.Builder, name string, p *announce.Program) {
	fmt.Fprintf(b, "node %s:", name)
	if p.RouterID.IsValid() {
		fmt.Fprintf(b, " router ID %s", p.RouterID)
	}
	b.WriteString("\n")
	for _, target := range p.Reach {
		fmt.Fprintf(b, "  finds its interface towards %s\n", target)
	}
	for i := range p.Nodes {
		writeFellow(b, &p.Nodes[i])
	}
	for i := range p.Peers {
		writePeer(b, &p.Peers[i])
	}
	for i := range p.Groups {
		writeGroup(b, &p.Groups[i])
	}
}

func writeFellow(b *strings.Builder, n *announce.Node) {
	fmt.Fprintf(b, "  knows %s:", n.Name)
	for _, a := range n.Addresses {
		fmt.Fprintf(b, " %s", a)
	}
	for _, mac := range n.MACs {
		fmt.Fprintf(b, " %s", mac)
	}
	for _, l := range n.Links {
		fmt.Fprintf(b, ", linked by %s", l.MAC)
		for _, p := range l.Prefixes {
			fmt.Fprintf(b, " %s", p)
		}
	}
	b.WriteString("\n")
}

func writePeer(b *strings.Builder, p *announce.Peer) {
	fmt.Fprintf(b, "  session %s: AS %d -> %s:%d AS %d", p.Name, p.LocalASN, p.Address, p.Port, p.PeerASN)
	if p.Source.IsValid() {
		fmt.Fprintf(b, " from %s", p.Source)
	}
	fmt.Fprintf(b, ", hold %v, restart %v", time.Duration(p.HoldTime), time.Duration(p.RestartTime))
	if p.Password != nil {
		fmt.Fprintf(b, ", password in %s/%s", p.Password.Name, p.Password.Key)
	}
	if p.Passive {
		b.WriteString(", passive")
	}
	if p.Multihop > 0 {
		fmt.Fprintf(b, ", multihop %d", p.Multihop)
	}
	if p.TTLSecurity {
		b.WriteString(", TTL security")
	}
	b.WriteString("\n")
}

func writeGroup(b *strings.Builder, g *announce.Group) {
	b.WriteString("  announce")
	for _, r := range g.Addresses {
		fmt.Fprintf(b, " %s", r)
	}
	fmt.Fprintf(b, " (pool %s)", g.Pool)
	if g.BGP != nil {
		fmt.Fprintf(b, " to %s, local-pref %d", strings.Join(g.BGP.Peers, ", "), g.BGP.LocalPref)
		if g.BGP.AggregationLength > 0 {
			fmt.Fprintf(b, ", folded to /%d", g.BGP.AggregationLength)
		}
		for _, c := range g.BGP.Communities {
			fmt.Fprintf(b, ", community %d:%d", c>>16, c&0xFFFF)
		}
		for _, c := range g.BGP.LargeCommunities {
			fmt.Fprintf(b, ", large community %d:%d:%d", c[0], c[1], c[2])
		}
	}
	if l := g.Layer2; l != nil {
		fmt.Fprintf(b, " on the LAN, candidates %s", strings.Join(l.Candidates, ", "))
		if len(l.Interfaces) > 0 {
			fmt.Fprintf(b, ", on %s", strings.Join(l.Interfaces, ", "))
		}
		if l.Probe {
			b.WriteString(", probed first")
		}
		if l.Epoch > 0 {
			fmt.Fprintf(b, ", epoch %d", l.Epoch)
		}
	}
	if g.HealthCheckNodePort > 0 {
		fmt.Fprintf(b, ", health check port %d", g.HealthCheckNodePort)
	}
	b.WriteString("\n")
}

func writeService(b *strings.Builder, s *Service) {
	announced, reason, message := s.Condition()
	fmt.Fprintf(b, "service %s/%s: Announced=%t %s: %s\n", s.Namespace, s.Name, announced, reason, message)
	for i := range s.Addresses {
		a := &s.Addresses[i]
		for _, n := range a.BGP() {
			fmt.Fprintf(b, "  %s on %s: %s\n", a.Range, n.Node, n.Verdict)
		}
		for _, n := range a.Layer2.Nodes() {
			fmt.Fprintf(b, "  %s on the LAN of %s: %s\n", a.Range, n.Node, n.Verdict)
		}
	}
}

func writeProblems(b *strings.Builder, problems []Problem) {
	for _, p := range problems {
		fmt.Fprintf(b, "  %s: %s\n", p.Reason, p.Message)
	}
}
