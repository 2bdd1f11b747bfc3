package invariants

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

const (
	first  = "203.0.113.1"
	second = "203.0.113.2"
	onLan  = "192.0.2.200"
	v6     = "2001:db8:100::1"

	exclude = corev1.LabelNodeExcludeBalancers
)

// all nodes, as arguments.
var all = []string{"node1", "node2", "node3"}

// histories are one per row. Each rule has rows that violate it and rows that do
// not: a checker that cannot fail is a defect.
var histories = []struct {
	name    string
	happens func(*story)
	want    []Kind
	// disturbances that are to be told.
	disturbances int
}{
	{"Nothing happens", served, nil, 0},

	// Duplicate
	{"Two Services have an address", func(s *story) {
		served(s)
		s.service("other", first, port(80))
	}, []Kind{Duplicate}, 0},
	{"For a second two Services have an address", func(s *story) {
		served(s)
		s.service("other", first, port(80))
		s.pass(time.Second)
		s.service("other", second, nil)
		s.bgp(second, all...)
	}, nil, 1},
	{"Different ports, no key", func(s *story) {
		served(s)
		s.service("other", first, port(443))
	}, []Kind{Duplicate}, 0},
	{"Different ports, equal keys", func(s *story) {
		share(s, v1alpha1.SharingKey, port(80), port(443))
	}, nil, 0},
	{"Equal ports of different protocols, equal keys", func(s *story) {
		share(s, v1alpha1.SharingKey, port(80), func(svc *corev1.Service) {
			svc.Spec.Ports = []corev1.ServicePort{{Port: 80, Protocol: corev1.ProtocolUDP}}
		})
	}, nil, 0},
	{"Equal ports, equal keys", func(s *story) {
		share(s, v1alpha1.SharingKey, port(80), port(80))
	}, []Kind{Duplicate}, 0},
	{"Equal keys in two namespaces", func(s *story) {
		share(s, v1alpha1.SharingKey, port(80), both(port(443), elsewhere))
	}, []Kind{Duplicate}, 0},
	{"Equal keys in two namespaces, any namespace", func(s *story) {
		share(s, v1alpha1.SharingKeyAnyNamespace, port(80), both(port(443), elsewhere))
	}, nil, 0},
	{"Ports mode needs no key", func(s *story) {
		share(s, v1alpha1.SharingPorts, port(80), both(port(443), unkeyed))
	}, nil, 0},
	{"Never", func(s *story) {
		share(s, v1alpha1.SharingNever, port(80), port(443))
	}, []Kind{Duplicate}, 0},
	{"Cluster and Local", func(s *story) {
		share(s, v1alpha1.SharingKey, port(80), both(port(443), local))
	}, []Kind{Duplicate}, 0},
	{"Local with other Pods", func(s *story) {
		share(s, v1alpha1.SharingKey, both(port(80), local), both(port(443), local))
		s.endpoints("a", all...)
		s.endpoints("b", all...)
	}, []Kind{Duplicate}, 0},
	{"Local with the same Pods", func(s *story) {
		share(s, v1alpha1.SharingKey, both(port(80), local), both(port(443), local, func(svc *corev1.Service) {
			svc.Spec.Selector = map[string]string{"app": "a"}
		}))
		s.endpoints("a", all...)
		s.endpoints("b", all...)
	}, nil, 0},
	{"The pool becomes stricter", func(s *story) {
		share(s, v1alpha1.SharingKey, port(80), port(443))
		s.pass(10 * time.Second)
		s.pool("main", v1alpha1.AddressPoolSpec{Addresses: []string{"203.0.113.0/29"}, Sharing: v1alpha1.SharingNever})
		s.pass(20 * time.Second)
	}, nil, 0},
	{"Sharing begins after the pool became stricter", func(s *story) {
		share(s, v1alpha1.SharingKey, port(80), port(443))
		s.gone("b")
		s.pool("main", v1alpha1.AddressPoolSpec{Addresses: []string{"203.0.113.0/29"}, Sharing: v1alpha1.SharingNever})
		s.pass(10 * time.Second)
		s.service("c", first, both(port(443), annotate(v1alpha1.ServiceShareKey, "k")))
	}, []Kind{Duplicate}, 0},
	{"An edit makes ports collide", func(s *story) {
		share(s, v1alpha1.SharingKey, port(80), port(443))
		s.service("b", first, port(80))
	}, []Kind{Duplicate}, 0},
	{"A Service of another class", func(s *story) {
		served(s)
		s.service("other", first, func(svc *corev1.Service) { svc.Spec.LoadBalancerClass = ptr.To("example.com/other") })
	}, nil, 0},

	// Moved
	{"An address is replaced", func(s *story) {
		served(s)
		s.service("web", second, nil)
		s.bgp(first)
		s.bgp(second, all...)
	}, []Kind{Moved}, 0},
	{"An address vanishes", func(s *story) {
		served(s)
		s.service("web", "", nil)
		s.bgp(first)
		s.pass(5 * time.Second)
		s.service("web", first, nil)
		s.bgp(first, all...)
	}, []Kind{Moved}, 0},
	{"An address is replaced for a second", func(s *story) {
		served(s)
		s.service("web", second, nil)
		s.pass(time.Second)
		s.service("web", first, nil)
	}, nil, 1},
	{"An address is added that nobody asked for", func(s *story) {
		served(s)
		s.service("web", first+" "+second, nil)
		s.bgp(second, all...)
	}, []Kind{Moved}, 0},
	{"The user asks for another address", func(s *story) {
		served(s)
		s.service("web", first, func(svc *corev1.Service) { svc.Spec.LoadBalancerIP = second })
		s.pass(30 * time.Second) // it is taken all the while, say
		s.service("web", second, nil)
		s.bgp(first)
		s.bgp(second, all...)
	}, nil, 0},
	{"A request that changed nothing is no licence for ever", func(s *story) {
		served(s)
		s.service("web", first, func(svc *corev1.Service) { svc.Spec.LoadBalancerIP = first })
		s.pass(20 * time.Second)
		s.service("web", second, nil)
		s.bgp(first)
		s.bgp(second, all...)
	}, []Kind{Moved}, 0},
	{"The second family comes with a pool", func(s *story) {
		s.service("web", first, dual(corev1.IPFamilyPolicyPreferDualStack))
		s.bgp(first, all...)
		s.pass(10 * time.Second)
		s.pool("main", v1alpha1.AddressPoolSpec{Addresses: []string{"203.0.113.0/29", v6}})
		s.service("web", first+" "+v6, nil)
		s.bgp(v6, all...)
	}, nil, 0},
	{"The second family goes", func(s *story) {
		s.pool("main", v1alpha1.AddressPoolSpec{Addresses: []string{"203.0.113.0/29", v6}})
		s.service("web", first+" "+v6, dual(corev1.IPFamilyPolicyPreferDualStack))
		s.bgp(first, all...)
		s.bgp(v6, all...)
		s.pass(10 * time.Second)
		s.service("web", first, nil)
		s.bgp(v6)
	}, []Kind{Moved}, 0},
	{"Ports change, and the address with them", func(s *story) {
		served(s)
		s.service("web", first, port(443))
		s.service("web", second, nil)
		s.bgp(first)
		s.bgp(second, all...)
	}, []Kind{Moved}, 0},
	{"Ports of a shared address change, and the address with them", func(s *story) {
		share(s, v1alpha1.SharingKey, port(80), port(443))
		s.pass(10 * time.Second)
		s.service("b", first, port(80))
		s.pass(time.Second)
		s.service("b", second, nil)
		s.bgp(second, all...)
	}, nil, 0},
	{"The type changes", func(s *story) {
		served(s)
		s.service("web", "", func(svc *corev1.Service) { svc.Spec.Type = corev1.ServiceTypeClusterIP })
		s.bgp(first)
	}, nil, 0},
	{"A pool edit moves an address", func(s *story) {
		served(s)
		s.pool("main", v1alpha1.AddressPoolSpec{Addresses: []string{second}})
		s.service("web", second, nil)
		s.bgp(first)
		s.bgp(second, all...)
	}, []Kind{Moved}, 0},
	{"A new Service of the same name", func(s *story) {
		served(s)
		s.gone("web")
		s.service("web", second, func(svc *corev1.Service) { svc.UID = "another" })
		s.bgp(first)
		s.bgp(second, all...)
	}, nil, 0},

	// Leaked
	{"An address stays announced", func(s *story) {
		served(s)
		s.gone("web")
	}, []Kind{Leaked}, 0},
	{"An address is withdrawn", func(s *story) {
		served(s)
		s.gone("web")
		s.pass(5 * time.Second)
		s.bgp(first)
	}, nil, 0},
	{"A finalizer stays", func(s *story) {
		s.service("web", "", deleting(cleanupFinalizer))
	}, []Kind{Leaked}, 0},
	{"A finalizer goes", func(s *story) {
		s.service("web", "", deleting(cleanupFinalizer))
		s.pass(5 * time.Second)
		s.gone("web")
	}, nil, 0},
	{"Somebody else's finalizer", func(s *story) {
		s.service("web", "", deleting(cleanupFinalizer, "example.com/backup"))
	}, nil, 0},
	{"A Service keeps its address when it is no load balancer any more", func(s *story) {
		served(s)
		s.service("web", first, func(svc *corev1.Service) { svc.Spec.Type = corev1.ServiceTypeClusterIP })
		s.bgp(first)
	}, []Kind{Leaked}, 0},

	{"A pool that is being deleted stays", func(s *story) {
		served(s)
		s.deletePool("main")
		s.pass(20 * time.Second)
		s.gone("web")
		s.bgp(first)
	}, []Kind{Leaked}, 0},
	{"A pool that is being deleted is in use", func(s *story) {
		served(s)
		s.deletePool("main")
	}, nil, 0},

	// Miscounted
	{"A pool's count is wrong", func(s *story) {
		served(s)
		s.allocated(s.pools[0], 2)
	}, []Kind{Miscounted}, 0},
	{"A pool's count follows", func(s *story) {
		served(s)
		s.allocated(s.pools[0], 2)
		s.pass(5 * time.Second)
		s.count()
	}, nil, 0},
	{"A pool's count lags while Services come", func(s *story) {
		for i := range 6 {
			address := fmt.Sprintf("203.0.113.%d", i)
			s.service(fmt.Sprint("web", i), address, port(int32(80+i)))
			s.bgp(address, all...)
			s.allocated(s.pools[0], i)
			s.pass(5 * time.Second)
		}
		s.count()
	}, nil, 0},

	// Waiting
	{"A Service waits though there is an address", func(s *story) {
		s.service("web", "", nil)
	}, []Kind{Waiting}, 0},
	{"A Service waits for a while", func(s *story) {
		s.service("web", "", nil)
		s.pass(5 * time.Second)
		s.service("web", first, nil)
		s.bgp(first, all...)
	}, nil, 0},
	{"A Service waits for an empty pool", func(s *story) {
		s.pool("main", v1alpha1.AddressPoolSpec{Addresses: []string{first}})
		served(s)
		s.service("other", "", port(443))
	}, nil, 0},
	{"A Service waits for a disabled pool", func(s *story) {
		s.pool("main", v1alpha1.AddressPoolSpec{Addresses: []string{"203.0.113.0/29"}, Disabled: true})
		s.service("web", "", nil)
	}, nil, 0},
	{"A Service waits for the pool that it names", func(s *story) {
		s.service("web", "", annotate(v1alpha1.ServicePool, "none"))
	}, nil, 0},
	{"A Service waits for a free address that it names", func(s *story) {
		s.service("web", "", func(svc *corev1.Service) { svc.Spec.LoadBalancerIP = second })
	}, []Kind{Waiting}, 0},
	{"A Service waits for an address that another one has", func(s *story) {
		served(s)
		s.service("other", "", func(svc *corev1.Service) { svc.Spec.LoadBalancerIP = first })
	}, nil, 0},
	{"A Service asks for what is no address", func(s *story) {
		s.service("web", "", annotate(v1alpha1.ServiceAddresses, "somewhere"))
	}, nil, 0},
	{"Two families are required, one can be had", func(s *story) {
		s.service("web", "", dual(corev1.IPFamilyPolicyRequireDualStack))
	}, nil, 0},
	{"Two families are preferred, one can be had", func(s *story) {
		s.service("web", "", dual(corev1.IPFamilyPolicyPreferDualStack))
	}, []Kind{Waiting}, 0},

	// WrongNode and NotAnnounced, by BGP
	{"An excluded node announces", func(s *story) {
		served(s)
		s.node("node2", labelNode(exclude, ""))
	}, []Kind{WrongNode}, 0},
	{"The label says false", func(s *story) {
		served(s)
		s.node("node2", labelNode(exclude, "false"))
	}, nil, 0},
	{"An excluded node stops", func(s *story) {
		served(s)
		s.node("node2", labelNode(exclude, ""))
		s.pass(5 * time.Second)
		delete(s.said["node2"].bgp, first)
		s.node("node2", labelNode(exclude, ""))
	}, nil, 0},
	{"All nodes are excluded, and go on", func(s *story) {
		served(s)
		for _, name := range all {
			s.node(name, labelNode(exclude, ""))
		}
	}, nil, 0},
	{"All nodes drain, and go on", func(s *story) {
		served(s)
		for _, name := range all {
			s.node(name, annotateNode(v1alpha1.NodeDrain, "true"))
		}
	}, []Kind{WrongNode}, 0},
	{"A node is not ready, and announces", func(s *story) {
		served(s)
		s.node("node2", notReady)
	}, []Kind{WrongNode}, 0},
	{"Two of three nodes are not ready, and announce", func(s *story) {
		served(s)
		s.node("node2", notReady)
		s.node("node3", notReady)
	}, nil, 0},
	{"A node is not selected, and announces", func(s *story) {
		served(s)
		s.pool("main", v1alpha1.AddressPoolSpec{Addresses: []string{"203.0.113.0/29"}, NodeSelector: selector("rack", "a")})
		s.node("node1", labelNode("rack", "a"))
	}, []Kind{WrongNode}, 0},
	{"No node is selected, and all go on", func(s *story) {
		served(s)
		s.pool("main", v1alpha1.AddressPoolSpec{Addresses: []string{"203.0.113.0/29"}, NodeSelector: selector("rack", "a")})
	}, nil, 0},
	{"A node without endpoints announces", func(s *story) {
		s.service("web", first, local)
		s.endpoints("web", "node1")
		s.bgp(first, "node1", "node2")
	}, []Kind{WrongNode}, 0},
	{"The node with endpoints announces", func(s *story) {
		s.service("web", first, local)
		s.endpoints("web", "node1")
		s.bgp(first, "node1")
	}, nil, 0},
	{"There is no endpoint, and a node announces", func(s *story) {
		s.service("web", first, local)
		s.bgp(first, "node1")
	}, []Kind{WrongNode}, 0},
	{"A node does not announce", func(s *story) {
		served(s)
		s.bgp(first, "node1", "node3")
	}, []Kind{NotAnnounced}, 0},
	{"A node does not announce because its speaker is away", func(s *story) {
		s.pod("node2", false)
		s.service("web", first, nil)
		s.bgp(first, "node1", "node3")
	}, nil, 0},
	{"A speaker is away for long, and its node keeps the address", func(s *story) {
		served(s)
		s.pod("node2", false)
		s.pass(5 * time.Minute)
	}, nil, 0},
	{"No router, no announcement", func(s *story) {
		s.judge.Delete(s.now, &v1alpha1.BGPPeer{ObjectMeta: s.meta("tor")})
		s.service("web", first, nil)
	}, nil, 0},
	{"The pool is gone, and nodes go on", func(s *story) {
		served(s)
		s.poolGone("main")
	}, nil, 0},
	{"The pool is gone, and a draining node goes on", func(s *story) {
		served(s)
		s.poolGone("main")
		s.node("node2", annotateNode(v1alpha1.NodeDrain, "true"))
	}, []Kind{WrongNode}, 0},

	// WrongNode, NotAnnounced and Owners, on the LAN
	{"One owner", onLAN, nil, 0},
	{"Two owners", func(s *story) {
		onLAN(s)
		s.own("node2", onLan, "node2")
	}, []Kind{Owners}, 0},
	{"Two owners while they hand over", func(s *story) {
		onLAN(s)
		s.own("node2", onLan, "node2")
		s.pass(time.Second)
		s.own("node1", onLan, "node2")
	}, nil, 0},
	{"No owner", func(s *story) {
		s.service("web", onLan, annotate(v1alpha1.ServicePool, "lan"))
	}, []Kind{NotAnnounced}, 0},
	{"No owner, and no interface for it", func(s *story) {
		s.service("web", onLan, annotate(v1alpha1.ServicePool, "lan"))
		for _, name := range all {
			s.node(name, annotateNode(v1alpha1.NodeLayer2Interfaces, "eth9"))
		}
	}, nil, 0},
	{"The owner drains, and stays", func(s *story) {
		onLAN(s)
		s.node("node1", annotateNode(v1alpha1.NodeDrain, "true"))
	}, []Kind{WrongNode}, 0},
	{"The owner has lost its interface, and stays", func(s *story) {
		onLAN(s)
		s.node("node1", annotateNode(v1alpha1.NodeLayer2Interfaces, "eth9"))
	}, []Kind{WrongNode}, 0},
	{"The owner's speaker is away for a moment", func(s *story) {
		onLAN(s)
		s.pod("node1", false)
		s.pass(8 * time.Second)
		s.pod("node1", true)
	}, nil, 0},
	{"The owner's speaker is away for long", func(s *story) {
		onLAN(s)
		s.pod("node1", false)
	}, []Kind{WrongNode}, 0},
	{"The owner is not ready, and stays", func(s *story) {
		onLAN(s)
		s.node("node1", notReady)
	}, []Kind{WrongNode}, 0},
	{"The owner is not ready, and heard", func(s *story) {
		onLAN(s)
		s.node("node2", reports(func(r *announce.Report) { r.Hears = []string{"node1"} }))
		s.node("node1", notReady)
		s.pod("node1", false)
		s.pass(time.Hour)
	}, nil, 0},
	{"The owner's speaker is away for long, and heard", func(s *story) {
		onLAN(s)
		s.node("node3", reports(func(r *announce.Report) { r.Hears = []string{"node1"} }))
		s.pod("node1", false)
		s.pass(time.Hour)
	}, nil, 0},
	{"The owner does not forward, and stays", func(s *story) {
		onLAN(s)
		s.node("node1", reports(func(r *announce.Report) { r.NotForwarding = "503" }))
	}, []Kind{WrongNode}, 0},
	{"Two of three nodes do not forward, and the owner stays", func(s *story) {
		onLAN(s)
		s.node("node1", reports(func(r *announce.Report) { r.NotForwarding = "503" }))
		s.node("node3", reports(func(r *announce.Report) { r.NotForwarding = "503" }))
	}, nil, 0},
	{"No owner, and no node forwards", func(s *story) {
		s.service("web", onLan, annotate(v1alpha1.ServicePool, "lan"))
		for _, name := range all {
			s.node(name, reports(func(r *announce.Report) { r.NotForwarding = "503" }))
		}
	}, nil, 0},
	{"Two of three speakers are away for a while", func(s *story) {
		onLAN(s)
		s.pod("node1", false)
		s.pod("node2", false)
		s.pass(35 * time.Second)
		s.pod("node1", true)
		s.pod("node2", true)
	}, nil, 0},
	{"Two of three speakers are away for long", func(s *story) {
		onLAN(s)
		s.pod("node1", false)
		s.pod("node2", false)
		s.pass(35 * time.Second)
	}, []Kind{WrongNode}, 0},
	{"The owner is the only node left", func(s *story) {
		onLAN(s)
		for _, name := range all {
			s.node(name, labelNode(exclude, ""))
		}
	}, nil, 0},
}

func TestHistories(t *testing.T) {
	for _, test := range histories {
		t.Run(test.name, func(t *testing.T) {
			s := begin(t, Options{NoLeases: true})
			test.happens(s)
			s.pass(20 * time.Second)
			s.check(test.want...)
			if got := s.judge.Disturbances(); len(got) != test.disturbances {
				t.Errorf("%d disturbances, want %d: %v", len(got), test.disturbances, got)
			}
			if len(test.want) == 0 && len(s.judge.Open()) > 0 {
				t.Errorf("findings are left: %v", s.judge.Open())
			}
		})
	}
}

// TestRestored: a violation is told once, and nothing is left when all is as it
// should be again.
func TestRestored(t *testing.T) {
	s := begin(t, Options{NoLeases: true})
	served(s)
	s.service("other", first, nil)
	s.pass(time.Minute)
	if n := len(s.judge.Violations()); n != 1 {
		t.Errorf("%d violations, want 1", n)
	}
	s.gone("other")
	s.pass(time.Second)
	if open := s.judge.Open(); len(open) > 0 {
		t.Errorf("findings are left: %v", open)
	}
	v := s.judge.Violations()[0]
	if took := v.Time.Sub(v.Since); took < 1500*time.Millisecond || took > 2*time.Second {
		t.Errorf("told after %s", took)
	}
	if len(v.History) == 0 {
		t.Error("no history")
	}
}

// TestClocks: nothing is a violation while nobody could mend it.
func TestClocks(t *testing.T) {
	duplicate := func(s *story) { s.service("other", first, nil) }
	t.Run("API server away", func(t *testing.T) {
		s := begin(t, Options{NoLeases: true})
		served(s)
		s.judge.Connect(s.now, false)
		duplicate(s)
		s.pass(time.Minute)
		s.check()
		s.judge.Connect(s.now, true)
		s.pass(5 * time.Second)
		s.check()
		s.pass(2 * time.Second)
		s.check(Duplicate)
	})
	t.Run("Suspended", func(t *testing.T) {
		s := begin(t, Options{NoLeases: true})
		served(s)
		id := s.judge.Suspend(s.now, "maintenance")
		duplicate(s)
		s.pass(time.Minute)
		s.check()
		s.judge.Resume(s.now, id)
		s.pass(2 * time.Second)
		s.check(Duplicate)
	})
	t.Run("Permitted", func(t *testing.T) {
		s := begin(t, Options{NoLeases: true})
		served(s)
		id := s.judge.Permit(s.now, Duplicate, "Service default/oth.*", "forged")
		duplicate(s)
		s.pass(time.Minute)
		s.check()
		s.judge.EndPermit(s.now, id)
		s.pass(2 * time.Second)
		s.check(Duplicate)
	})
	t.Run("Another one permitted", func(t *testing.T) {
		s := begin(t, Options{NoLeases: true})
		served(s)
		s.judge.Permit(s.now, Duplicate, "Service default/o", "forged")
		duplicate(s)
		s.pass(2 * time.Second)
		s.check(Duplicate)
	})
	t.Run("The watcher stood still", func(t *testing.T) {
		s := begin(t, Options{NoLeases: true})
		served(s)
		duplicate(s)
		s.now = s.now.Add(time.Minute)
		s.pass(tick)
		s.check()
	})
}

// TestLeases: what only a program can mend waits for it, and the other program
// does not make up for it.
func TestLeases(t *testing.T) {
	run := func(t *testing.T, held ...string) *story {
		s := begin(t, Options{})
		renew := func(d time.Duration, names ...string) {
			for range int(d / time.Second * 2) {
				for _, name := range names {
					s.lease(name, "replica")
				}
				s.pass(500 * time.Millisecond)
			}
		}
		renew(3*time.Second, leaseNames[:]...)
		served(s)
		s.service("other", first, nil) // the allocator's
		s.node("node2", annotateNode(v1alpha1.NodeDrain, "true"))
		renew(30*time.Second, held...)
		return s
	}
	run(t).check()
	run(t, leaseNames[allocator]).check(Duplicate)
	run(t, leaseNames[planner]).check(WrongNode)
	run(t, leaseNames[:]...).check(Duplicate, WrongNode)
}

// BenchmarkTick judges 1000 Services, half of which wait: a checker runs beside
// what it checks, on the same machine.
func BenchmarkTick(b *testing.B) {
	s := begin(b, Options{NoLeases: true})
	s.pool("main", v1alpha1.AddressPoolSpec{Addresses: []string{"198.51.0.0/16"}})
	address := netip.MustParseAddr("198.51.0.1")
	for i := range 1000 {
		text := ""
		if i%2 == 0 {
			text, address = address.String(), address.Next()
			s.said["node1"].bgp[text] = true
		}
		svc := &corev1.Service{ObjectMeta: s.meta(fmt.Sprint("web", i)), Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeLoadBalancer, IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol},
		}}
		if text != "" {
			svc.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: text}}
		}
		s.judge.Set(s.now, svc)
	}
	s.node("node1", nil)
	for b.Loop() {
		s.judge.dirty = true
		s.judge.Tick(s.now)
	}
}
