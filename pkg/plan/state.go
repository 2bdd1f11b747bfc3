package plan

import (
	"net/netip"
	"slices"
	"time"

	"go4.org/netipx"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

// State is all that a plan depends on. Compute changes none of it, and the
// order of the slices does not matter.
type State struct {
	// Cluster is the UID of the namespace kube-system.
	Cluster string

	Nodes          []*corev1.Node
	Services       []*corev1.Service
	EndpointSlices []*discoveryv1.EndpointSlice
	Namespaces     []*corev1.Namespace
	Pools          []*v1alpha1.AddressPool
	Peers          []*v1alpha1.BGPPeer
	// SpeakerPods are the Pods of speakers, those that are not ready included.
	// Where there is none at all, a Node with a speaker report has a speaker.
	SpeakerPods []*corev1.Pod

	// Previous holds the programs that the nodes have now, by node name.
	Previous map[string]announce.Program

	// Now is the time of the plan. SpeakersAway is since when speakers have not
	// been running, and NotReadySince since when nodes have not been ready, by node
	// name. They are needed only to lose patience: without them, a speaker that is
	// away is always waited for, and a node that is not ready never.
	Now           time.Time
	SpeakersAway  map[string]time.Time
	NotReadySince map[string]time.Time

	// Unwritable are the nodes whose announcements cannot be written, by name:
	// they get no further addresses on the LAN.
	Unwritable map[string]bool

	// LoadBalancerClass is the class that is ours; RequireClass leaves Services
	// without a class to another controller.
	LoadBalancerClass string
	RequireClass      bool
}

// Plan is the outcome of Compute.
type Plan struct {
	// Programs by node name, normalized, without an epoch. Nodes that neither
	// have nor had a speaker have no program.
	Programs map[string]announce.Program
	// Services that want a load balancer from us, by namespace and name.
	Services []Service
	// Pools and Peers by name.
	Pools []Pool
	Peers []Peer
	// Moves are the addresses on the LAN whose owners failed or were relieved, by
	// name of the former owner.
	Moves []Move
	// Next is when another plan may differ though nothing else has changed; zero
	// if time does not matter.
	Next time.Time

	addresses []*address // that some Service shows, ascending
}

// Serves reports whether one of the addresses is that of a Service in the plan.
// Services on their way out are not in it.
func (p *Plan) Serves(addresses *netipx.IPSet) bool {
	for _, r := range addresses.Ranges() {
		at, _ := slices.BinarySearchFunc(p.addresses, r.From(), func(a *address, from netip.Addr) int { return a.Compare(from) })
		for ; at < len(p.addresses) && !r.To().Less(p.addresses[at].Addr); at++ {
			if p.addresses[at].planned != nil {
				return true
			}
		}
	}
	return false
}

// Service is what the plan says about a Service.
type Service struct {
	Namespace, Name string
	// Addresses in the order of the Service's status; none while it waits.
	Addresses []Address
	// Refusal is why the Service does not get all that it asks for; nil if it
	// does, or has to wait a moment only.
	Refusal *Problem
}

// Address is what the plan says about an address of a Service.
type Address struct {
	announce.Range
	// Pool that the address belongs to; empty outside all pools.
	Pool string
	// Problem is why the address is not announced by anybody, whatever the
	// nodes; nil where the nodes decide.
	Problem *Problem
	// Layer2 is who answers on the LAN; nil where the pool does not speak Layer2.
	Layer2 *Ownership

	bgp      *nextHops // nil where the pool does not speak BGP
	pool     *pool
	address  *address
	service  *service
	foldable bool
	// shared is true where another Service, which is planned before, has the
	// first right to the address.
	shared bool
}

// BGP is a verdict for each node that has or had a speaker, by node name; nil
// where the pool does not speak BGP. The verdicts are made when they are asked
// for: to make those of all addresses and nodes would be most of a plan's work.
func (a *Address) BGP() []NodeVerdict {
	if a.bgp == nil {
		return nil
	}
	return slices.Collect(a.bgp.verdicts())
}

// NextHops are the names of the nodes that announce the address by BGP.
func (a *Address) NextHops() []string { return a.hops().all }

// LeaveOut records that a node's program has no room for the addresses, and
// returns the Services they are of.
func (p *Plan) LeaveOut(node string, ranges []announce.Range) []Service {
	var left netipx.IPSetBuilder
	for _, r := range ranges {
		left.AddRange(netipx.IPRange(r))
	}
	set, err := left.IPSet()
	if err != nil {
		return nil // the ranges of a program are valid
	}
	var concerned []Service
	for i := range p.Services {
		s := &p.Services[i]
		hit := false
		for j := range s.Addresses {
			a := &s.Addresses[j]
			if !set.Contains(a.From()) {
				continue
			}
			if a.bgp != nil && a.bgp.leaveOut(node) {
				hit = true
			}
			if a.Layer2.Owner() == node {
				a.Layer2.verdict = NoRoom
				hit = true
			}
		}
		if hit {
			concerned = append(concerned, *s)
		}
	}
	return concerned
}

// Problem is a reason (one word, for conditions) and a sentence that names the
// remedy.
type Problem struct{ Reason, Message string }

// NodeVerdict is the verdict on a node.
type NodeVerdict struct {
	Node    string
	Verdict Verdict
	// CutOff means that the node's speaker reports no established session to
	// any router that the address goes to: what it announces reaches nobody.
	CutOff bool
}

// Verdict is why a node announces an address, or why it does not.
type Verdict string

// Verdicts, in the order in which a node is judged.
const (
	// NoSpeaker: no speaker runs on the node.
	NoSpeaker Verdict = "NoSpeaker"
	// NotSelected: the pool's nodeSelector does not select the node.
	NotSelected Verdict = "NotSelected"
	// Excluded: the node has the label
	// node.kubernetes.io/exclude-from-external-load-balancers.
	Excluded Verdict = "Excluded"
	// Draining: the node has the annotation lb.baremetal.dev/drain.
	Draining Verdict = "Draining"
	// Deleting: the Node object is being deleted.
	Deleting Verdict = "Deleting"
	// NotReady: the node's Ready condition is not True.
	NotReady Verdict = "NotReady"
	// Unwritable: the node's announcements cannot be written.
	Unwritable Verdict = "Unwritable"
	// NoReport: the node's speaker runs, but has not told its interfaces.
	NoReport Verdict = "NoReport"
	// Leaving: the node's speaker is about to stop.
	Leaving Verdict = "Leaving"
	// NoInterface: none of the node's interfaces has a subnet that holds the
	// address, or is one of those that are named.
	NoInterface Verdict = "NoInterface"
	// NotForwarding: the node's speaker reports that kube-proxy is not healthy.
	NotForwarding Verdict = "NotForwarding"
	// NoPeer: no BGPPeer that takes the address selects the node.
	NoPeer Verdict = "NoPeer"
	// NoEndpoint: the Service sends traffic to local endpoints only, and the
	// node has none.
	NoEndpoint Verdict = "NoEndpoint"
	// SpeakerAway: the node's speaker is not running now, and the node did not
	// have the address before.
	SpeakerAway Verdict = "SpeakerAway"
	// Retains: the node's speaker is not running now. The address stays in the
	// node's program, so that a restart is not noticed.
	Retains Verdict = "Retains"
	// Heard: the node is not ready, or its speaker not running, says the control
	// plane. A node that stands by for the address hears it all the same: it answers
	// on the LAN, or that node does in its place.
	Heard Verdict = "Heard"
	// Surplus: the pool's maxNextHops is reached without the node.
	Surplus Verdict = "Surplus"
	// Spare: the node could answer on the LAN.
	Spare Verdict = "Spare"
	// Standby: the node is one of the next that will answer on the LAN.
	Standby Verdict = "Standby"
	// NoRoom: the address does not fit into the node's program any more.
	NoRoom Verdict = "NoRoom"
	// Kept: a label, the pool's nodeSelector or kube-proxy's health rules the node
	// out, but it announces the address still, for no other node is better.
	Kept Verdict = "Kept"
	// Announces: the node announces the address.
	Announces Verdict = "Announces"
)

// announces reports whether the node announces the address now.
func (v Verdict) announces() bool { return v == Announces || v == Kept || v == Heard }

// Pool is what the plan says about an AddressPool.
type Pool struct {
	Name string
	// Capacity, Allocated and Available are decimal numbers of addresses.
	Capacity, Allocated, Available string
	// InUse means that some Service, also one on its way out, shows an address of
	// the pool.
	InUse bool
	// Problems of the pool; none means Ready.
	Problems []Problem
}

// Peer is what the plan says about a BGPPeer.
type Peer struct {
	Name string
	// Desired and Established count nodes.
	Desired, Established int
	// Problems of the peer; none means Ready.
	Problems []Problem
}
