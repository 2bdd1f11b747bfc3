package layer2

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

// State is everything that an Announcer announces, and where. The zero State
// announces nothing.
type State struct {
	// Interfaces of the node, all of them: those that cannot announce are
	// needed to say why.
	Interfaces []Interface
	// Reach are the names of the interfaces through which the targets of
	// "can-reach:" are reached. A target that is missing cannot be reached.
	Reach map[netip.Addr]string
	// Groups are the addresses. One that is in several groups is of the first.
	Groups []Group
	// Fellows are MAC addresses of the cluster's nodes, which may rightly claim
	// the addresses: their owners before or after this node. Their checks are
	// counted.
	Fellows []announce.MAC
	// Bound are the addresses that kube-proxy has bound to the interface
	// kube-ipvs0 of this node; see Config.ARPIgnore. They are announced although
	// they are the node's own.
	Bound []netip.Addr
	// Gateways are the next hops of the node's routes. They are never announced:
	// the node and its neighbours would be cut off.
	Gateways []netip.Addr
}

// Interface is a network interface of the node.
type Interface struct {
	// Index and Name in the kernel.
	Index int
	Name  string
	// MAC is zero where the hardware address is not one of Ethernet.
	MAC announce.MAC
	// Carrier means that the interface is up and has a carrier.
	Carrier bool
	// Master is the bond or bridge that the interface is a member of. A member
	// is never used, for its master is.
	Master string
	// NoARP is the interface's flag: it has no neighbours.
	NoARP bool
	// Prefixes are the interface's addresses with their lengths, not masked. These
	// addresses are never announced.
	Prefixes []netip.Prefix
}

// Group is a set of addresses that are announced alike.
type Group struct {
	Addresses []netip.Addr
	// Interfaces are selectors; see Selection.
	Interfaces []string
	Caution    Caution
	Role       Role
	// Owner is, for Cover, the MAC address of the owner by the name of the node's
	// own interface on the same link. On others the node stands by.
	Owner map[string]announce.MAC
	// Round has addresses that are announced already announced anew when it changes:
	// another owner has given them up, and somebody may have learnt its MAC address.
	Round uint32
	// Quiet addresses are answered, and nothing is sent unasked: another node, which
	// this one does not hear, may own them, and would lose its traffic.
	Quiet bool
}

// Role says what the node does about the addresses of a Group.
type Role int

const (
	// Own addresses are announced and answered.
	Own Role = iota
	// Cover is to answer in place of the owner, which lives but does not answer for
	// the moment: with its MAC address, so that traffic goes on to it. Nothing is
	// sent unasked.
	Cover
	// Standby is to answer nothing, but to be ready: the sockets are as for the
	// other roles, and who asked within the last half second is answered when the
	// role changes, for he will ask again no earlier than a second after.
	Standby
)

// Caution says how much is known about an address that this node is to
// announce. It counts until the address is announced and the answers that are
// late are in, but for Doubtful. It says nothing in other roles than Own.
type Caution int

const (
	// Certain addresses are announced at once: the plan is current, whoever
	// claims them is wrong.
	Certain Caution = iota
	// Fresh addresses were nobody's before. The LAN is asked first (RFC 5227
	// section 2.1.1, RFC 4862 section 5.4), and the address is held while
	// anybody answers. A fellow does so who has it on an interface, or who was
	// its owner and has not been told yet: the LAN is asked again soon.
	Fresh
	// Doubtful addresses are of a plan that may be out of date. The LAN is asked
	// first, and the address is held while anybody answers. A fellow that claims
	// it later on wins, too.
	Doubtful
)

// equal reports whether the two states are the same, order included: states that
// differ in that only are carried out once more, which costs time and changes
// nothing.
func (s *State) equal(other *State) bool {
	return slices.EqualFunc(s.Interfaces, other.Interfaces, func(a, b Interface) bool {
		return a.Index == b.Index && a.Name == b.Name && a.MAC == b.MAC && a.Carrier == b.Carrier &&
			a.Master == b.Master && a.NoARP == b.NoARP && slices.Equal(a.Prefixes, b.Prefixes)
	}) && maps.Equal(s.Reach, other.Reach) && slices.EqualFunc(s.Groups, other.Groups, func(a, b Group) bool {
		return a.Caution == b.Caution && a.Role == b.Role && a.Round == b.Round && a.Quiet == b.Quiet && maps.Equal(a.Owner, b.Owner) &&
			slices.Equal(a.Interfaces, b.Interfaces) && slices.Equal(a.Addresses, b.Addresses)
	}) && slices.Equal(s.Fellows, other.Fellows) && slices.Equal(s.Bound, other.Bound) &&
		slices.Equal(s.Gateways, other.Gateways)
}
