package plan

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

// scale is the size and kind of a large cluster.
type scale struct {
	nodes, services int
	dualStack       bool
	// segment is how many nodes share a LAN on which addresses are announced; 0 means
	// that they are announced by BGP.
	segment int
}

func (size scale) String() string {
	text := fmt.Sprintf("nodes=%d/services=%d", size.nodes, size.services)
	if size.dualStack {
		text += "/dual"
	}
	if size.segment > 0 {
		text += fmt.Sprintf("/segment=%d", size.segment)
	}
	return text
}

// state of a cluster in which half of the Services send traffic to local endpoints
// only, of which they have four. Neighbouring addresses are of different Services,
// and the objects come in no order, as from a cache.
func (size scale) state() *State {
	s := cluster(size.nodes)
	s.Pools[0].Spec.Addresses = []string{"198.18.0.0/15", "2001:db8::/64"}
	for i, n := range s.Nodes {
		n.Status.Addresses[0].Address = fmt.Sprintf("192.0.%d.%d", i/250, i%250+1)
		size.report(i, n)
	}
	if size.segment > 0 {
		s.Peers = nil
		s.Pools[0].Spec.Protocols = []v1alpha1.Protocol{v1alpha1.ProtocolLayer2}
	}
	for i := range size.services {
		size.addService(s, i)
	}
	random := rand.New(rand.NewPCG(1, 2))
	random.Shuffle(len(s.Services), func(i, j int) { s.Services[i], s.Services[j] = s.Services[j], s.Services[i] })
	random.Shuffle(len(s.EndpointSlices), func(i, j int) {
		s.EndpointSlices[i], s.EndpointSlices[j] = s.EndpointSlices[j], s.EndpointSlices[i]
	})
	return s
}

// segments is the number of LANs.
func (size scale) segments() int {
	if size.segment == 0 {
		return 1
	}
	return max(1, size.nodes/size.segment)
}

// addresses are a host's of a LAN, in both families. The LANs are of 2^10 addresses
// where there are many, and there is none larger than the only one.
func (size scale) addresses(lan, host int) (ipv4, ipv6 netip.Addr) {
	n := uint32(198<<24|18<<16) + uint32(lan<<10+host)
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}),
		netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 9: byte(lan), 14: byte(host >> 8), 15: byte(host)})
}

// report is that of the i-th node.
func (size scale) report(i int, n *corev1.Node) {
	eth0 := announce.Interface{Name: "eth0", MAC: announce.MAC{2, 0, 0, 0, byte(i >> 8), byte(i)}.String()}
	r := announce.Report{Version: "v1.0.0", Formats: []int{announce.FormatVersion}, Epoch: 1700000000000, Hash: "0123456789abcdef"}
	if size.segment == 0 {
		r.Sessions = []announce.Session{{Peer: "tor", State: announce.StateEstablished}}
	} else {
		bits := 22
		if size.segments() == 1 {
			bits = 15
		}
		ipv4, ipv6 := size.addresses(i%size.segments(), 1)
		eth0.Prefixes = []netip.Prefix{netip.PrefixFrom(ipv4, bits), netip.PrefixFrom(ipv6, 80)}
	}
	r.Interfaces = []announce.Interface{eth0}
	report(n, r)
}

func (size scale) addService(s *State, i int) {
	svc := s.addService(i)
	lan, host := i%size.segments(), 2+i/size.segments()
	ipv4, ipv6 := size.addresses(lan, host)
	svc.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv4Protocol}
	svc.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: ipv4.String()}}
	if size.dualStack {
		svc.Spec.IPFamilies = append(svc.Spec.IPFamilies, corev1.IPv6Protocol)
		svc.Status.LoadBalancer.Ingress = append(svc.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: ipv6.String()})
	}
	svc.Spec.Ports = []corev1.ServicePort{{Protocol: corev1.ProtocolTCP, Port: 80}}
	svc.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionAnnounced, Status: metav1.ConditionTrue, Reason: "Announced"}}
	if host%2 == 0 {
		return
	}
	svc.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	svc.Spec.HealthCheckNodePort = int32(30000 + i)
	slice := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{
		Namespace: svc.Namespace, Name: svc.Name, Labels: map[string]string{discoveryv1.LabelServiceName: svc.Name},
	}}
	for k := range 4 {
		// Nodes of the address's LAN.
		at := (lan + (i*7+k*131)*size.segments()) % size.nodes
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{
			NodeName: &s.Nodes[at].Name, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true)},
		})
	}
	s.EndpointSlices = append(s.EndpointSlices, slice)
}

// TestSizesOfAnnouncements: what a Node has to carry in the largest clusters.
func TestSizesOfAnnouncements(t *testing.T) {
	for _, size := range []scale{{nodes: 1000, services: 10000, dualStack: true}, {nodes: 4, services: 10000, dualStack: true}} {
		for name, program := range Compute(size.state()).Programs {
			// What does not fit would be left out; see announce.EncodeFitting.
			text, err := announce.Encode(program)
			if err != nil || len(text) > announce.MaxEncoded/2 {
				t.Fatalf("%s: %s has %d bytes: %v", size, name, len(text), err)
			}
		}
	}
	s := scale{nodes: 4, services: 10000}.state()
	for _, svc := range s.Services {
		svc.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyCluster
	}
	for name, program := range Compute(s).Programs {
		if len(program.Groups) != 1 || len(program.Groups[0].Addresses) != 1 {
			t.Errorf("10,000 neighbours take %d groups on %s, want one with one range", len(program.Groups), name)
		}
	}
}

// TestSizesOfAnnouncementsOnTheLAN: owners are told by few groups, also when most of
// them have moved, by and by, more than once.
func TestSizesOfAnnouncementsOnTheLAN(t *testing.T) {
	size := scale{nodes: 4, services: 10000, segment: 4}
	s := size.state()
	for _, svc := range s.Services {
		svc.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyCluster
	}
	sizes := func(p *Plan) (groups, bytes int) {
		for name, program := range p.Programs {
			text, err := announce.Encode(program)
			if err != nil || len(text) > announce.MaxEncoded {
				t.Fatalf("%s: %s has %d bytes: %v", size, name, len(text), err)
			}
			groups, bytes = max(groups, len(program.Groups)), max(bytes, len(text))
		}
		return groups, bytes
	}
	groups, bytes := sizes(s.advance())
	t.Logf("new: %d groups, %d bytes", groups, bytes)
	if groups > 24 { // one for each order of three of four nodes
		t.Errorf("%d groups", groups)
	}
	for i := range 12 { // three rolling reboots
		setReady(s.Nodes[i%4], corev1.ConditionUnknown)
		s.advance()
		setReady(s.Nodes[i%4], corev1.ConditionTrue)
		s.advance()
	}
	groups, bytes = sizes(s.advance())
	t.Logf("after 12 failures: %d groups, %d bytes", groups, bytes)
	if bytes > announce.MaxEncoded/4 {
		t.Errorf("%d bytes", bytes)
	}
}

// BenchmarkComputeScale plans large clusters on top of their own plans: what one
// change costs.
func BenchmarkComputeScale(b *testing.B) {
	for _, nodes := range []int{10, 100, 1000} {
		for _, services := range []int{1000, 5000, 10000} {
			for _, dualStack := range []bool{false, true} {
				benchmarkCompute(b, scale{nodes: nodes, services: services, dualStack: dualStack})
			}
		}
	}
	for _, segment := range []int{32, 100, 1000} {
		benchmarkCompute(b, scale{nodes: 1000, services: 10000, segment: segment})
	}
}

func benchmarkCompute(b *testing.B, size scale) {
	b.Run(size.String(), func(b *testing.B) {
		s := size.state()
		s.advance()
		b.ReportAllocs()
		for b.Loop() {
			Compute(s)
		}
	})
}
