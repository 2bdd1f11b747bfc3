package plan

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"go4.org/netipx"
	corev1 "k8s.io/api/core/v1"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/ipam"
)

// TestRememberAgainstAsking: the book knows of each address what each program
// would say if it were asked.
func TestRememberAgainstAsking(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	addr := func() netip.Addr { return netip.AddrFrom4([4]byte{198, 18, 0, byte(random.IntN(64))}) }
	for range 200 {
		var services []*corev1.Service
		for range random.IntN(40) {
			services = append(services, &corev1.Service{Status: corev1.ServiceStatus{LoadBalancer: corev1.LoadBalancerStatus{
				Ingress: []corev1.LoadBalancerIngress{{IP: addr().String()}, {IP: "2001:db8::" + fmt.Sprint(random.IntN(9))}},
			}}})
		}
		var nodes []*node
		for i := range 8 {
			n := &node{object: &corev1.Node{}}
			n.object.Name = fmt.Sprint("node", i)
			for range random.IntN(4) {
				g := announce.Group{BGP: &announce.BGP{}}
				if random.IntN(3) == 0 {
					g = announce.Group{Layer2: &announce.Layer2{Candidates: []string{"node1"}}}
				}
				for range 1 + random.IntN(5) {
					from, to := addr(), addr()
					if random.IntN(2) == 0 || to.Less(from) {
						to = from
					}
					g.Addresses = append(g.Addresses, announce.Range(netipx.IPRangeFrom(from, to)))
				}
				g.Addresses = append(g.Addresses, announce.Range(netipx.MustParseIPRange("2001:db8::-2001:db8:ffff::5")))
				n.previous.Groups = append(n.previous.Groups, g)
			}
			nodes = append(nodes, n)
		}
		_, book := readServices(&State{Services: services}, ipam.Compile(nil))
		book.remember(nodes)
		for _, a := range book.sorted {
			var announcers, candidates []int
			for i, n := range nodes {
				if n.previous.Addresses(announcedByBGP).Contains(a.Addr) {
					announcers = append(announcers, i)
				}
				if n.previous.Addresses(announcedOnLAN).Contains(a.Addr) {
					candidates = append(candidates, i)
				}
			}
			if !slices.Equal(a.announcers, announcers) || !slices.Equal(a.candidates, candidates) || (a.before.layer2 != nil) != (len(candidates) > 0) {
				t.Fatalf("%s is announced by %v and has the candidates %v, want %v and %v", a.Addr, a.announcers, a.candidates, announcers, candidates)
			}
		}
	}
}

// TestThePastIsToldByTheGreatestEpoch of the address, then by the newest program, then
// by the owner's own.
func TestThePastIsToldByTheGreatestEpoch(t *testing.T) {
	of := func(epoch uint32, program int64, owns bool) past {
		return past{layer2: &announce.Layer2{Candidates: []string{"a"}, Epoch: epoch}, epoch: program, owns: owns}
	}
	ascending := []past{{}, of(0, 1, false), of(0, 1, true), of(0, 9, false), of(1, 2, false), of(1, 2, true), of(1, 3, false), of(2, 1, false)}
	for i := range ascending {
		for j := range i {
			if !ascending[i].supersedes(ascending[j]) {
				t.Errorf("%d does not supersede %d", i, j)
			}
			if j > 0 && ascending[j].supersedes(ascending[i]) {
				t.Errorf("%d supersedes %d", j, i)
			}
		}
	}
}
