package heartbeat

import (
	"net/netip"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

// State is all that decides with whom heartbeats are exchanged, and what about.
type State struct {
	// Cluster is the UID of the cluster, Node the name of the node itself.
	Cluster, Node string
	// Keys authenticate. Without any there are no heartbeats, and the programs
	// alone say who owns what.
	Keys announce.HeartbeatKeys
	// Fellows are the nodes that the program speaks of. The node's own entry is
	// passed over, and so are those that share no address with it.
	Fellows []announce.Node
	// Links are the node's own interfaces that could announce.
	Links []Link
	// Groups are the addresses that the node is a candidate of.
	Groups []Group
	// Releasing: the node is not to own addresses any more. It keeps each of them
	// until another candidate has claimed it.
	Releasing bool
	// Starting: this node does not answer for all that it owns yet. Who covers for it goes
	// on.
	Starting bool
	// Restarting: the process is about to end, and another one to begin.
	Restarting bool
	// Grace is how long a fellow's speaker may be away while its kernel answers.
	Grace time.Duration
	// NoCover: never answer with another node's MAC address. A speaker that is
	// away has lost its addresses then, as if its node were dead.
	NoCover bool
	// APILink is the index of the interface towards the API server; 0 if that is
	// not known.
	APILink int
}

// Link is an interface of the node itself.
type Link struct {
	Index    int
	Name     string
	Prefixes []netip.Prefix
	// Witnesses are hosts on the link, besides the fellows, whose answers show
	// that this node is not the one that is cut off.
	Witnesses []netip.Addr
}

// Group is a set of addresses with the same candidates.
type Group struct {
	Addresses []netip.Addr
	// Candidates are names of nodes in order, the node itself among them; the
	// first one owns the addresses unless another one has claimed them since.
	Candidates []string
	// Epoch is that of announce.Layer2.
	Epoch uint32
	// Links are the indexes of the interfaces on which this node would announce
	// the addresses. None means that it cannot.
	Links []int
	// Unfit: this node has nobody to serve the addresses with. It gives them to a
	// candidate that has, and keeps them as long as there is none.
	Unfit bool
	// Unsure: it is not known for certain that this node has somebody. It does not take the
	// addresses from one that has nobody: that would gain nothing if it has nobody either.
	Unsure bool
}

// Role is what a node does about an address.
type Role int

const (
	// Undecided: the fellows have not been heard yet, and nothing is answered.
	Undecided Role = iota
	// Standby: another node answers.
	Standby
	// Cover: the owner's speaker is away and its kernel lives; this node answers
	// with the owner's MAC address.
	Cover
	// Own: this node answers.
	Own
)

// String is the name of the role, for logs.
func (r Role) String() string {
	switch r {
	case Own:
		return "own"
	case Cover:
		return "cover"
	case Standby:
		return "standby"
	default:
		return "undecided"
	}
}

// Decision is what to do about an address.
type Decision struct {
	Role Role
	// Owner is the name of the node that owns the address, as far as is known.
	Owner string
	// Epoch and Term order the claims of owners.
	Epoch, Term uint32
	// Claimed means that the node owns the address because it took it over, and
	// the program does not say so.
	Claimed bool
	// Agreed means that all other candidates have been heard and nobody objects.
	Agreed bool
	// Deaf means that nobody is heard on the links of an address that the node owns:
	// another candidate that hears the node may have taken it over without this node's
	// hearing that. Whoever has claimed it is not yet for some seconds.
	Deaf bool
	// Round grows when the address is to be announced anew, because another owner
	// has given it up.
	Round uint32
}

// Liveness is what is known of a fellow on one link. The greater one counts where
// there are several links.
type Liveness int

const (
	// Dead: neither speaker nor kernel answer.
	Dead Liveness = iota
	// Unheard: neither has been heard yet, or there is doubt at this moment.
	Unheard
	// Silent: its kernel answers and its speaker does not.
	Silent
	// Serving: no heartbeats arrive, and yet its speaker answers ARP or NDP.
	Serving
	// Up: heartbeats arrive.
	Up
)

// String is the name of the liveness, for reports and metrics.
func (l Liveness) String() string {
	return [...]string{Dead: "dead", Unheard: "unheard", Silent: "silent", Serving: "serving", Up: "up"}[l]
}

// Adjacency is a fellow on a link.
type Adjacency struct {
	Node      string
	Link      int // index of the interface
	Interface string
	MAC       announce.MAC // of the fellow's interface
	Liveness  Liveness
	// Minded means that the fellow lives and hears this node, and that this node knows
	// what it owns: it notices when that has to be taken over.
	Minded bool
}
