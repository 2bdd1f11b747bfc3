package announce

import (
	"net/netip"
	"slices"
	"time"

	"go4.org/netipx"
)

// FormatVersion is the version of Program that this package writes. A change
// that an older speaker would misread needs a new version.
const FormatVersion = 1

// Program is everything that one node's speaker has to know, but passwords. An
// empty program means: announce nothing.
type Program struct {
	// Version of the format; see FormatVersion.
	Version int `json:"version"`
	// Epoch orders the programs of a node. It is the time of the plan in
	// milliseconds since 1970, raised where needed to exceed the epoch before.
	Epoch int64 `json:"epoch"`
	// Hash identifies the content: all of the program but Epoch and Hash.
	Hash string `json:"hash"`
	// Cluster is the UID of the namespace kube-system. A speaker never obeys
	// the stored program of another cluster.
	Cluster string `json:"cluster,omitempty"`
	// RouterID is the node's BGP identifier (RFC 6286), an IPv4 address.
	RouterID netip.Addr `json:"routerID,omitzero"`
	// Peers are the BGP sessions of the node, by name.
	Peers []Peer `json:"peers,omitempty"`
	// Reach are the targets of "can-reach:" that the planner wants to know the
	// node's interface for; the speaker answers in its Report.
	Reach []netip.Addr `json:"reach,omitempty"`
	// Nodes are, by name, the nodes that the program speaks of: the Layer-2
	// candidates of its addresses, and those that the node's own report asks
	// about, by a MAC address that it does not know.
	Nodes []Node `json:"nodes,omitempty"`
	// Groups are the addresses of the node, those that are announced alike
	// together.
	Groups []Group `json:"groups,omitempty"`
}

// Node is a node of the cluster as its fellows on the LAN see it.
type Node struct {
	Name string `json:"name"`
	// Addresses are the node's own, MACs those of its interfaces that could
	// announce.
	Addresses []netip.Addr `json:"addresses,omitempty"`
	MACs      []MAC        `json:"macs,omitempty"`
	// Links are the interfaces of a node that shares Layer-2 addresses with the
	// program's own, by MAC: over them the two exchange heartbeats.
	Links []Link `json:"links,omitempty"`
}

// Link is an interface of a node as its fellows on the LAN see it.
type Link struct {
	Name string `json:"name"`
	MAC  MAC    `json:"mac"`
	// Prefixes are the interface's addresses with their lengths, not masked; see
	// Interface.
	Prefixes []netip.Prefix `json:"prefixes"`
}

// Peer is a BGP session, resolved for the node.
type Peer struct {
	// Name of the BGPPeer.
	Name string `json:"name"`
	// LocalASN and PeerASN are the two AS numbers; equal ones make iBGP.
	LocalASN uint32 `json:"localASN"`
	PeerASN  uint32 `json:"peerASN"`
	// Address and Port of the router.
	Address netip.Addr `json:"address"`
	Port    uint16     `json:"port"`
	// Source is the local address of the session; the zero Addr leaves the
	// choice to the kernel.
	Source netip.Addr `json:"source,omitzero"`
	// Password is where the speaker finds the TCP MD5 password (RFC 2385).
	Password *SecretKey `json:"password,omitempty"`
	// HoldTime and ConnectRetry are BGP timers (RFC 4271 section 10).
	HoldTime     Duration `json:"holdTime"`
	ConnectRetry Duration `json:"connectRetry"`
	// Passive waits for the router to connect.
	Passive bool `json:"passive,omitempty"`
	// Multihop is the TTL to an eBGP router that is not directly connected; 0
	// means directly connected.
	Multihop uint8 `json:"multihop,omitempty"`
	// TTLSecurity is the Generalized TTL Security Mechanism (RFC 5082).
	TTLSecurity bool `json:"ttlSecurity,omitempty"`
	// RestartTime is that of Graceful Restart (RFC 4724); 0 turns it off.
	RestartTime Duration `json:"restartTime,omitempty"`
	// IPv4 and IPv6 are the address families of the session.
	IPv4 bool `json:"ipv4,omitempty"`
	IPv6 bool `json:"ipv6,omitempty"`
}

// SecretKey names a key of a Secret in the system namespace.
type SecretKey struct {
	Name string `json:"name"`
	Key  string `json:"key"`
}

// Group is a set of addresses that are announced alike. An address that is
// announced in several ways is in several groups.
type Group struct {
	// Pool that the addresses come from.
	Pool string `json:"pool"`
	// BGP says to whom and with which attributes the addresses are announced.
	BGP *BGP `json:"bgp,omitempty"`
	// Layer2 says which nodes may answer for the addresses on the LAN. A group
	// has either BGP or Layer2.
	Layer2 *Layer2 `json:"layer2,omitempty"`
	// HealthCheckNodePort is that of the Service under externalTrafficPolicy
	// Local: 200 on it means that the node has ready endpoints.
	HealthCheckNodePort uint16 `json:"healthCheckNodePort,omitempty"`
	// Addresses are disjoint, ascending ranges.
	Addresses []Range `json:"addresses"`
}

// BGP is how a group's addresses are announced by BGP, with this node as the
// next hop.
type BGP struct {
	// Peers are names in Program.Peers.
	Peers []string `json:"peers"`
	// AggregationLength is the prefix length that addresses are folded into;
	// 0 means the full length.
	AggregationLength uint8 `json:"aggregationLength,omitempty"`
	// LocalPref is the LOCAL_PREF towards iBGP peers.
	LocalPref uint32 `json:"localPref"`
	// Communities (RFC 1997) and LargeCommunities (RFC 8092).
	Communities      []uint32         `json:"communities,omitempty"`
	LargeCommunities []LargeCommunity `json:"largeCommunities,omitempty"`
}

// Layer2 is how a group's addresses are announced by ARP and NDP.
type Layer2 struct {
	// Candidates are names in Program.Nodes, in order: the first one owns the
	// addresses and answers for them, the others stand by.
	Candidates []string `json:"candidates"`
	// Interfaces are names, shell patterns, addresses of an interface, or
	// "can-reach:ADDRESS"; none means the interface whose subnet holds the
	// address.
	Interfaces []string `json:"interfaces,omitempty"`
	// Probe means that the owner is the first one of these addresses: it asks
	// the LAN whether another host uses them before it answers.
	Probe bool `json:"probe,omitempty"`
	// Epoch counts the owners that the planner gave these addresses after the
	// first one. Of two nodes that both think they own an address, the one with
	// the greater epoch is right; candidates that take over without the planner
	// count terms within an epoch.
	Epoch uint32 `json:"epoch,omitempty"`
}

// LargeCommunity is a large community: global administrator and two local data
// parts (RFC 8092 section 3).
type LargeCommunity [3]uint32

// NextEpoch is the epoch of a program that follows one of epoch previous (0 if
// there was none): monotone even when the clock steps back.
func NextEpoch(now time.Time, previous int64) int64 {
	return max(now.UnixMilli(), previous+1)
}

// Contains reports whether the program speaks of the address.
func (p *Program) Contains(addr netip.Addr) bool {
	return slices.ContainsFunc(p.Groups, func(g Group) bool { return g.Contains(addr) })
}

// Addresses are those of the groups that match, for many questions.
func (p *Program) Addresses(match func(*Group) bool) *netipx.IPSet {
	var b netipx.IPSetBuilder
	for i := range p.Groups {
		if g := &p.Groups[i]; match(g) {
			for _, r := range g.Addresses {
				b.AddRange(netipx.IPRange(r))
			}
		}
	}
	set, err := b.IPSet()
	if err != nil {
		return &netipx.IPSet{} // an invalid range holds nothing
	}
	return set
}

// Includes reports whether the program has all addresses of the other one's groups
// that match in such groups.
func (p *Program) Includes(other *Program, match func(*Group) bool) bool {
	return holds(p.ranges(match), other.ranges(match))
}

// ranges are those of the groups that match, as a set: ascending and apart.
func (p *Program) ranges(match func(*Group) bool) []Range {
	var all []Range
	for i := range p.Groups {
		if g := &p.Groups[i]; match(g) {
			all = append(all, g.Addresses...)
		}
	}
	return joined(all)
}

// Owned are the addresses that the program, as that of the named node, makes it
// answer for on the LAN.
func (p *Program) Owned(node string) *netipx.IPSet {
	return p.Addresses(func(g *Group) bool { return g.Layer2.OwnedBy(node) })
}

// OwnedBy reports whether the node is the owner. Nobody owns what is not
// announced on the LAN.
func (l *Layer2) OwnedBy(node string) bool {
	return l != nil && len(l.Candidates) > 0 && l.Candidates[0] == node
}

// Contains reports whether the address is one of the group's.
func (g *Group) Contains(addr netip.Addr) bool {
	_, found := slices.BinarySearchFunc(g.Addresses, addr, func(r Range, a netip.Addr) int {
		switch {
		case r.To().Less(a):
			return -1
		case a.Less(r.From()):
			return 1
		}
		return 0
	})
	return found
}
