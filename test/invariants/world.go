package invariants

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"go4.org/netipx"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

// world is what the API shows at the moment.
type world struct {
	options   Options
	services  map[types.UID]*service
	nodes     map[string]*node
	pools     map[types.UID]*pool
	peers     map[string]*v1alpha1.BGPPeer
	slices    map[string]*discoveryv1.EndpointSlice
	speakers  map[string]*corev1.Pod
	planTerm  string // of the planner's Lease
	everPods  bool   // speakers are Pods here
	endpoints map[string]map[string]bool
}

func newWorld(o Options) *world {
	return &world{
		options:  o,
		services: make(map[types.UID]*service),
		nodes:    make(map[string]*node),
		pools:    make(map[types.UID]*pool),
		peers:    make(map[string]*v1alpha1.BGPPeer),
		slices:   make(map[string]*discoveryv1.EndpointSlice),
		speakers: make(map[string]*corev1.Pod),
	}
}

// service is a Service with the addresses that its status shows.
type service struct {
	*corev1.Service
	addresses []netip.Addr
}

func newService(object *corev1.Service) *service {
	s := &service{Service: object}
	for _, ingress := range object.Status.LoadBalancer.Ingress {
		if a, err := netip.ParseAddr(ingress.IP); err == nil {
			s.addresses = append(s.addresses, a.Unmap())
		}
	}
	return s
}

func (s *service) id() string { return s.Namespace + "/" + s.Name }

// wants reports whether the Service is to have a load balancer of ours.
func (w *world) wants(s *service) bool {
	return s.Spec.Type == corev1.ServiceTypeLoadBalancer && s.DeletionTimestamp == nil && w.ours(s)
}

// ours reports whether the class leaves the Service to us, whatever its type.
func (w *world) ours(s *service) bool {
	class := ptr.Deref(s.Spec.LoadBalancerClass, "")
	return class == v1alpha1.LoadBalancerClass || class == "" && !w.options.RequireClass
}

func (s *service) local() bool {
	return s.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
}

// node is a Node with its program and its speaker's report.
type node struct {
	*corev1.Node
	announces map[netip.Addr]*role
	report    announce.Report
}

// role is how a node's program speaks of an address.
type role struct {
	bgp bool
	// owners are the nodes that answer on the LAN, by this program.
	owners []string
}

// owns reports whether the program makes the named node answer on the LAN.
func (r *role) owns(name string) bool { return r != nil && slices.Contains(r.owners, name) }

// maxRange bounds how many addresses of a range are looked at: a program is made
// of what Services have.
const maxRange = 1 << 16

func newNode(object *corev1.Node) *node {
	n := &node{Node: object, announces: make(map[netip.Addr]*role)}
	n.report, _ = announce.DecodeReport(object.Annotations[v1alpha1.NodeSpeaker])
	program, err := announce.Decode(object.Annotations[v1alpha1.NodeAnnouncements])
	if err != nil {
		return n // none, or one that its speaker does not obey either
	}
	for i := range program.Groups {
		g := &program.Groups[i]
		for _, r := range g.Addresses {
			count := 0
			for a := range r.All() {
				if count++; count > maxRange {
					break
				}
				n.take(a, g)
			}
		}
	}
	return n
}

func (n *node) take(a netip.Addr, g *announce.Group) {
	r := n.announces[a]
	if r == nil {
		r = &role{}
		n.announces[a] = r
	}
	r.bgp = r.bgp || g.BGP != nil
	if g.Layer2 != nil && len(g.Layer2.Candidates) > 0 && !slices.Contains(r.owners, g.Layer2.Candidates[0]) {
		r.owners = append(r.owners, g.Layer2.Candidates[0])
	}
}

// says is what the node's program says of the address, for the history.
func (n *node) says(a netip.Addr) string {
	r := n.announces[a]
	if r == nil {
		return "nothing"
	}
	var parts []string
	if r.bgp {
		parts = append(parts, "announced by BGP")
	}
	for _, o := range r.owners {
		parts = append(parts, "owned by "+o)
	}
	return strings.Join(parts, ", ")
}

func (n *node) ready() bool {
	return slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

func (n *node) draining() bool {
	return n.Annotations[v1alpha1.NodeDrain] == "true" || n.DeletionTimestamp != nil
}

// excluded follows Kubernetes: the label counts, unless it says false.
func (n *node) excluded() bool {
	value, found := n.Labels[corev1.LabelNodeExcludeBalancers]
	return found && !slices.Contains([]string{"0", "f", "F", "false", "FALSE", "False"}, value)
}

// pool is an AddressPool with its addresses.
type pool struct {
	*v1alpha1.AddressPool
	set *netipx.IPSet
}

func newPool(object *v1alpha1.AddressPool) *pool {
	var b netipx.IPSetBuilder
	for _, text := range object.Spec.Addresses {
		if p, err := netip.ParsePrefix(text); err == nil {
			b.AddPrefix(p)
		} else if r, err := netipx.ParseIPRange(text); err == nil {
			b.AddRange(r)
		} else if a, err := netip.ParseAddr(text); err == nil {
			b.Add(a)
		}
	}
	set, err := b.IPSet()
	if err != nil {
		set = &netipx.IPSet{} // the API server validates; what is malformed holds nothing
	}
	return &pool{AddressPool: object, set: set}
}

func (p *pool) speaks(protocol v1alpha1.Protocol) bool {
	if len(p.Spec.Protocols) == 0 {
		return protocol == v1alpha1.ProtocolBGP
	}
	return slices.Contains(p.Spec.Protocols, protocol)
}

// overlapped reports whether another pool has addresses of this one, too. Then it
// depends on the past which of them has what, and rules pass over both.
func (w *world) overlapped(p *pool) bool {
	for _, other := range w.pools {
		if other.UID != p.UID && other.set.Overlaps(p.set) {
			return true
		}
	}
	return false
}

// poolOf is the pool that the address belongs to, if there is just one.
func (w *world) poolOf(a netip.Addr) *pool {
	for _, p := range w.pools {
		if p.set.Contains(a) {
			if w.overlapped(p) {
				return nil
			}
			return p
		}
	}
	return nil
}

// holders are the Services that show each address, older ones first.
func (w *world) holders() map[netip.Addr][]*service {
	holders := make(map[netip.Addr][]*service)
	for _, s := range w.sorted() {
		for _, a := range s.addresses {
			if !slices.Contains(holders[a], s) {
				holders[a] = append(holders[a], s)
			}
		}
	}
	return holders
}

func (w *world) sorted() []*service {
	return slices.SortedFunc(maps.Values(w.services), func(a, b *service) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.id(), b.id()), cmp.Compare(a.UID, b.UID))
	})
}

func (w *world) nodeNames() []string { return slices.Sorted(maps.Keys(w.nodes)) }

// findEndpoints notes which nodes have an endpoint of each Service: a ready one or,
// where none is ready on any node, one that still serves while it terminates.
func (w *world) findEndpoints() {
	ready, serving := make(map[string]map[string]bool), make(map[string]map[string]bool)
	put := func(m map[string]map[string]bool, id, node string) {
		if m[id] == nil {
			m[id] = make(map[string]bool)
		}
		m[id][node] = true
	}
	for _, slice := range w.slices {
		id := slice.Namespace + "/" + slice.Labels[discoveryv1.LabelServiceName]
		for _, e := range slice.Endpoints {
			switch {
			case e.NodeName == nil:
			case ptr.Deref(e.Conditions.Ready, true):
				put(ready, id, *e.NodeName)
			case ptr.Deref(e.Conditions.Serving, false) && ptr.Deref(e.Conditions.Terminating, false):
				put(serving, id, *e.NodeName)
			}
		}
	}
	w.endpoints = serving
	maps.Copy(w.endpoints, ready)
}

// speakerRuns reports whether a speaker runs on the node.
func (w *world) speakerRuns(n *node) bool {
	if !w.everPods {
		return n.Annotations[v1alpha1.NodeSpeaker] != ""
	}
	for _, pod := range w.speakers {
		if pod.Spec.NodeName == n.Name && podRuns(pod) {
			return true
		}
	}
	return false
}

func podRuns(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp == nil && slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

func selects(selector *metav1.LabelSelector, set map[string]string) bool {
	if selector == nil {
		return true
	}
	compiled, err := metav1.LabelSelectorAsSelector(selector)
	return err == nil && compiled.Matches(labels.Set(set))
}
