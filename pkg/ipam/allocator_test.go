package ipam

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

func TestReleasedAddressRests(t *testing.T) {
	a := allocator(pool("lan", "203.0.113.1-203.0.113.3"))
	gets(t, a, claim("x"), "203.0.113.1")
	a.Forget("x")
	gets(t, a, claim("y"), "203.0.113.2")
	gets(t, a, claim("z"), "203.0.113.3")
	gets(t, a, claim("w"), "203.0.113.1")
	refused(t, a, claim("v"), PoolExhausted, `AddressPool "lan"`, "no free IPv4 address", "delete a Service")
}

func TestSearchGoesOnBehindAdoptedAddresses(t *testing.T) {
	a := allocator(pool("lan", "203.0.113.1-203.0.113.9"))
	a.Adopt([]Record{shows("x", "203.0.113.5")})
	gets(t, a, claim("y"), "203.0.113.6")
}

func TestRetiringAddressIsNotGivenOut(t *testing.T) {
	a := allocator(pool("lan", "203.0.113.1"))
	gets(t, a, claim("x"), "203.0.113.1")
	a.Release("x")
	refused(t, a, claim("y"), PoolExhausted)
	if a.Observe("x", addrs("203.0.113.1")) {
		t.Error("freed while the API still shows it")
	}
	refused(t, a, claim("y"), PoolExhausted)
	if !a.Observe("x", nil) {
		t.Error("not freed when the API no longer shows it")
	}
	gets(t, a, claim("y"), "203.0.113.1")
}

func TestAddressLeftForAnotherRetires(t *testing.T) {
	a := allocator(pool("lan", "203.0.113.1-203.0.113.2"))
	gets(t, a, claim("x"), "203.0.113.1")
	gets(t, a, claim("x", want("203.0.113.2")), "203.0.113.2")
	refused(t, a, claim("y"), PoolExhausted)
	a.Observe("x", addrs("203.0.113.2"))
	gets(t, a, claim("y"), "203.0.113.1")
	if got := join(a.Addresses("x")); got != "203.0.113.2" {
		t.Errorf("x has %s", got)
	}
}

func TestAddressStaysWhateverBecomesOfThePool(t *testing.T) {
	a := allocator(pool("lan", "203.0.113.1"))
	gets(t, a, claim("x"), "203.0.113.1")
	for name, pools := range map[string][]*v1alpha1.AddressPool{
		"deleted":   nil,
		"edited":    {pool("lan", "198.51.100.0/24")},
		"disabled":  {pool("lan", "203.0.113.1", spec(func(s *v1alpha1.AddressPoolSpec) { s.Disabled = true }))},
		"forbidden": {pool("lan", "203.0.113.1", spec(func(s *v1alpha1.AddressPoolSpec) { s.Namespaces = []string{"other"} }))},
		"malformed": {pool("lan", "203.0.113.1 x")},
	} {
		a.SetPools(Compile(pools), nil)
		t.Run(name, func(t *testing.T) { gets(t, a, claim("x"), "203.0.113.1") })
	}
	t.Run("named pool gone", func(t *testing.T) {
		a := allocator(pool("lan", "203.0.113.1"))
		gets(t, a, claim("x", from("lan")), "203.0.113.1")
		a.SetPools(Compile([]*v1alpha1.AddressPool{pool("new", "203.0.113.0/24"), pool("lan", "198.51.100.0/24")}), nil)
		gets(t, a, claim("x", from("lan")), "203.0.113.1")
	})
	t.Run("node with that address", func(t *testing.T) {
		a.SetNodes(map[netip.Addr]string{netip.MustParseAddr("203.0.113.1"): "n"})
		gets(t, a, claim("x"), "203.0.113.1")
	})
}

func TestUserAsksForAnother(t *testing.T) {
	a := allocator(pool("one", "203.0.113.0/24"), pool("two", "198.51.100.0/24", spec(func(s *v1alpha1.AddressPoolSpec) {
		s.Protocols = []v1alpha1.Protocol{v1alpha1.ProtocolLayer2}
	})))
	gets(t, a, claim("x"), "203.0.113.0")
	gets(t, a, claim("x", from("two")), "198.51.100.0")
	gets(t, a, claim("x"), "198.51.100.0")
	gets(t, a, claim("x", func(c *Claim) { c.Protocol = v1alpha1.ProtocolBGP }), "203.0.113.1")
	refused(t, a, claim("x", from("three")), NoPool, `"three"`)
	gets(t, a, claim("x", func(c *Claim) { c.Protocol = v1alpha1.ProtocolBGP }), "203.0.113.1")
	gets(t, a, claim("x", want("203.0.113.77")), "203.0.113.77")
	gets(t, a, claim("x"), "203.0.113.77")
}

// TestPoolThatAllowsExternalIPsDisplacesNothing serves a Service before its
// external address is one of ours.
func TestPoolThatAllowsExternalIPsDisplacesNothing(t *testing.T) {
	lan := pool("lan", "203.0.113.0/29")
	allowing := []*v1alpha1.AddressPool{lan, pool("ext", "198.51.100.0/29", spec(func(s *v1alpha1.AddressPoolSpec) { s.AllowExternalIPs = true }))}
	external := func(texts ...string) func(*Claim) {
		return func(c *Claim) { c.External = addrs(texts...) }
	}
	a := allocator(lan)
	gets(t, a, claim("x", external("198.51.100.1")), "203.0.113.0")
	a.SetPools(Compile(allowing), nil)
	for range 2 {
		gets(t, a, claim("x", external("198.51.100.1")), "198.51.100.1 203.0.113.0")
	}
	gets(t, a, claim("x", external("198.51.100.2")), "198.51.100.2")
	gets(t, a, claim("x"), "198.51.100.2")

	restarted := NewAllocator()
	restarted.SetPools(Compile(allowing), []Record{shows("x", "203.0.113.0")})
	gets(t, restarted, claim("x", external("198.51.100.1")), "198.51.100.1 203.0.113.0")
}

func TestAdoption(t *testing.T) {
	a := allocator(pool("lan", "203.0.113.0/24"))
	a.SetNodes(map[netip.Addr]string{netip.MustParseAddr("203.0.113.9"): "n", netip.MustParseAddr("192.0.2.9"): "n"})
	record := func(name string, marked bool, texts ...string) Record {
		r := shows(name, texts...)
		r.Marked = marked
		return r
	}
	conflicts := a.Adopt([]Record{
		record("pooled", false, "203.0.113.1"),
		record("marked", true, "198.51.100.1"),
		record("foreign", false, "198.51.100.2"),
		record("node", false, "203.0.113.9"),
		record("markednode", true, "192.0.2.9"),
		record("second", false, "203.0.113.1", "203.0.113.2"),
	})
	for name, want := range map[string]string{
		"pooled": "203.0.113.1", "marked": "198.51.100.1", "foreign": "", "node": "", "markednode": "", "second": "203.0.113.2",
	} {
		if got := join(a.Addresses(claim(name).UID)); got != want {
			t.Errorf("%s has %q; want %q", name, got, want)
		}
	}
	if len(conflicts) != 1 || conflicts[0].String() != "203.0.113.1 is recorded by Service default/pooled, which has it, and by default/second" {
		t.Errorf("conflicts are %v", conflicts)
	}
	gets(t, a, claim("marked"), "198.51.100.1")
	refused(t, a, claim("thief", want("203.0.113.1")), AddressInUse, "default/pooled")

	t.Run("not of what was served since", func(t *testing.T) {
		gets(t, a, claim("pooled", want("203.0.113.50")), "203.0.113.50")
		a.Adopt([]Record{record("pooled", false, "203.0.113.1")})
		if got := join(a.Addresses("pooled")); got != "203.0.113.50" {
			t.Errorf("pooled has %s", got)
		}
	})
	t.Run("with new pools", func(t *testing.T) {
		a.SetPools(Compile([]*v1alpha1.AddressPool{pool("lan", "203.0.113.0/24"), pool("new", "198.51.100.2")}), []Record{record("foreign", false, "198.51.100.2")})
		refused(t, a, claim("thief", from("new")), PoolExhausted)
	})
}

// TestReleasedAddressIsNotAdoptedAgain changes the pools while the API still
// shows an address that its Service has left.
func TestReleasedAddressIsNotAdoptedAgain(t *testing.T) {
	lan := Compile([]*v1alpha1.AddressPool{pool("lan", "203.0.113.1")})
	record := []Record{shows("x", "203.0.113.1")}
	a := NewAllocator()
	a.SetPools(lan, record)
	a.Release("x")
	a.SetPools(lan, record)
	if got := join(a.Addresses("x")); got != "" {
		t.Errorf("x has %s again", got)
	}
	a.Observe("x", nil)
	gets(t, a, claim("y"), "203.0.113.1")
}

func TestMistaken(t *testing.T) {
	a := allocator(pool("lan", "203.0.113.0/24"))
	a.SetNodes(map[netip.Addr]string{netip.MustParseAddr("192.0.2.9"): "n"})
	gets(t, a, claim("x"), "203.0.113.0")
	for _, test := range []struct {
		uid      types.UID
		recorded string
		marked   bool
		want     bool
	}{
		{"x", "203.0.113.0", true, false},
		{"x", "", true, true},
		{"x", "203.0.113.9", true, true},
		{"x", "203.0.113.0 203.0.113.9", true, true},
		{"none", "", true, false},
		{"none", "203.0.113.0", false, true},
		{"none", "198.51.100.1", true, true},
		{"none", "198.51.100.1", false, false},
		{"none", "192.0.2.9", true, false},
	} {
		record := Record{Owner: Owner{UID: test.uid}, Addresses: addrs(strings.Fields(test.recorded)...), Marked: test.marked}
		if got := a.Mistaken(record); got != test.want {
			t.Errorf("%s records %q, marked %v: mistaken is %v; want %v", test.uid, test.recorded, test.marked, got, test.want)
		}
	}
}

func TestFollow(t *testing.T) {
	a := allocator(pool("lan", "203.0.113.1-203.0.113.2"))
	foreign := func(texts ...string) Record { return shows("f", texts...) }
	a.Follow(foreign("203.0.113.1", "192.0.2.1"))
	gets(t, a, claim("x"), "203.0.113.2")
	refused(t, a, claim("y"), PoolExhausted)
	if a.Follow(foreign("203.0.113.1")) {
		t.Error("freed what is still recorded")
	}
	if !a.Follow(foreign()) {
		t.Error("nothing was freed")
	}
	gets(t, a, claim("y"), "203.0.113.1")
	a.Follow(foreign("203.0.113.1"))
	if got := join(a.Addresses("y")); got != "203.0.113.1" {
		t.Errorf("y lost its address to another controller: has %q", got)
	}
}

// TestNobodySharesWithAnotherController: what that does with the address is not
// known.
func TestNobodySharesWithAnotherController(t *testing.T) {
	on := func(ports ...int32) *Terms {
		terms := &Terms{Namespace: "default"}
		for _, port := range ports {
			terms.Ports = append(terms.Ports, Port{Number: port})
		}
		return terms
	}
	with := func(terms *Terms) func(*Claim) { return func(c *Claim) { c.Terms = terms } }
	a := allocator(pool("lan", "203.0.113.1", spec(func(s *v1alpha1.AddressPoolSpec) { s.Sharing = v1alpha1.SharingPorts })))
	record := shows("f", "203.0.113.1")
	record.Terms = on(80)
	a.Follow(record)
	refused(t, a, claim("x", with(on(81))), PoolExhausted)
	record.Foreign = true
	a.SetPools(a.pools, []Record{record})
	refused(t, a, claim("x", with(on(81))), PoolExhausted)
	gets(t, a, claim("f", with(on(80))), "203.0.113.1")
	gets(t, a, claim("x", with(on(81))), "203.0.113.1")
}

func TestRecordedAddressOfOneThatHoldsNothing(t *testing.T) {
	a := allocator(pool("lan", "203.0.113.0/28"))
	recorded := func(texts ...string) func(*Claim) {
		return func(c *Claim) { c.Recorded = addrs(texts...) }
	}
	gets(t, a, claim("x", recorded("203.0.113.7")), "203.0.113.7")
	gets(t, a, claim("y", recorded("203.0.113.7", "203.0.113.8"), from("lan")), "203.0.113.8")
}

func TestAvoidedAddressIsNotShared(t *testing.T) {
	ports := func(avoid bool) *v1alpha1.AddressPool {
		return pool("lan", "203.0.113.0", spec(func(s *v1alpha1.AddressPoolSpec) {
			s.Sharing, s.AvoidBuggyIPs = v1alpha1.SharingPorts, avoid
		}))
	}
	a := allocator(ports(false))
	gets(t, a, claim("x"), "203.0.113.0")
	a.SetPools(Compile([]*v1alpha1.AddressPool{ports(true)}), nil)
	refused(t, a, claim("y"), PoolExhausted)
	gets(t, a, claim("x"), "203.0.113.0")
}

func TestFreedAddressRestsBehindTheCursor(t *testing.T) {
	a := allocator(pool("lan", "203.0.113.1-203.0.113.4"))
	gets(t, a, claim("x"), "203.0.113.1")
	gets(t, a, claim("y", want("203.0.113.2")), "203.0.113.2")
	a.Forget("y")
	gets(t, a, claim("z"), "203.0.113.3")
	gets(t, a, claim("w"), "203.0.113.4")
	gets(t, a, claim("v"), "203.0.113.2")
}

func TestChoiceOfPool(t *testing.T) {
	with := func(f func(*v1alpha1.AddressPoolSpec)) func(*v1alpha1.AddressPool) { return spec(f) }
	labelled := &metav1.LabelSelector{MatchLabels: map[string]string{"tier": "gold"}}
	a := allocator(
		pool("auto", "203.0.113.0/28"),
		pool("better", "203.0.113.16/28", with(func(s *v1alpha1.AddressPoolSpec) { s.Priority = 1; s.Namespaces = []string{"prod"} })),
		pool("byhand", "203.0.113.32/28", with(func(s *v1alpha1.AddressPoolSpec) { s.AutoAssign = new(bool) })),
		pool("off", "203.0.113.48/28", with(func(s *v1alpha1.AddressPoolSpec) { s.Disabled = true })),
		pool("gold", "203.0.113.64/28", with(func(s *v1alpha1.AddressPoolSpec) { s.NamespaceSelector, s.ServiceSelector = labelled, labelled })),
		pool("buggy", "198.51.100.255-198.51.101.1", with(func(s *v1alpha1.AddressPoolSpec) { s.AvoidBuggyIPs = true })),
		pool("six", "2001:db8::/64"),
		pool("leaving", "192.0.2.1", func(p *v1alpha1.AddressPool) { now := metav1.NewTime(time.Unix(1, 0)); p.DeletionTimestamp = &now }),
	)
	a.SetNodes(map[netip.Addr]string{netip.MustParseAddr("203.0.113.0"): "node-a"})
	gold := func(c *Claim) { c.NamespaceLabels, c.Labels = labelled.MatchLabels, labelled.MatchLabels }

	gets(t, a, claim("auto"), "203.0.113.1")
	gets(t, a, claim("prod", func(c *Claim) { c.Namespace = "prod" }), "203.0.113.16")
	gets(t, a, claim("byhand", from("byhand")), "203.0.113.32")
	gets(t, a, claim("of-byhand", want("203.0.113.40")), "203.0.113.40")
	gets(t, a, claim("gold", from("gold"), gold), "203.0.113.64")
	gets(t, a, claim("buggy", from("buggy")), "198.51.101.1")
	gets(t, a, claim("dual", dual), "203.0.113.2 2001:db8::")
	gets(t, a, claim("partial", dual, partial, from("auto")), "203.0.113.3")

	refused(t, a, claim("r", from("better")), PoolForbidden, "spec.namespaces", `"default"`)
	refused(t, a, claim("r", from("off")), PoolDisabled, `"off"`)
	refused(t, a, claim("r", from("leaving")), PoolDisabled, "being deleted")
	refused(t, a, claim("r", want("203.0.113.50")), PoolDisabled, `"off"`)
	refused(t, a, claim("r", from("gold")), PoolForbidden, "spec.namespaceSelector")
	refused(t, a, claim("r", from("gold"), func(c *Claim) { c.NamespaceLabels = labelled.MatchLabels }), PoolForbidden, "spec.serviceSelector")
	refused(t, a, claim("r", from("buggy")), PoolExhausted)
	refused(t, a, claim("r", want("198.51.101.0")), PoolForbidden, "avoidBuggyIPs")
	refused(t, a, claim("r", from("none")), NoPool, "better, auto, buggy")
	refused(t, a, claim("r", from("auto"), func(c *Claim) { c.Protocol = v1alpha1.ProtocolLayer2 }), PoolForbidden, "Layer2")
	refused(t, a, claim("r", want("192.0.2.200")), NotInAnyPool, "192.0.2.200")
	refused(t, a, claim("r", want("203.0.113.0")), NodeAddress, `"node-a"`)
	refused(t, a, claim("r", want("203.0.113.5"), from("gold")), MalformedRequest, `"auto"`, `"gold"`)
	refused(t, a, claim("r", want("203.0.113.1")), AddressInUse, "default/auto", "request another one")
	refused(t, a, claim("r", dual, from("auto")), FamilyUnavailable, "IPv6")
}

func TestRequireDualStackIsAllOrNothing(t *testing.T) {
	a := allocator(pool("four", "203.0.113.1"))
	refused(t, a, claim("x", dual), FamilyUnavailable, "IPv6")
	gets(t, a, claim("y"), "203.0.113.1")
}

func TestPartialClaimSaysWhatIsMissing(t *testing.T) {
	a := allocator(pool("four", "203.0.113.1"))
	assignment, err := a.Assign(ref(claim("x", dual, partial)), nil)
	if err != nil || assignment.Missing == nil || assignment.Missing.Reason != FamilyUnavailable {
		t.Fatalf("got %v, missing %v (%v)", assignment.Addresses, assignment.Missing, err)
	}
	refused(t, a, claim("y", dual, partial), PoolExhausted)
}

func TestNoPoolTellsOfEach(t *testing.T) {
	refused(t, allocator(), claim("x"), NoPool, "create one with IPv4 addresses")
	off := spec(func(s *v1alpha1.AddressPoolSpec) { s.Disabled = true })
	refused(t, allocator(pool("a", "2001:db8::/64"), pool("b", "203.0.113.1", off), pool("bad", "x"), pool("c", "2001:db8:1::/64"), pool("d", "2001:db8:2::/64")),
		claim("x"), PoolDisabled, `"b" is disabled`, `"bad"`, "and 2 more AddressPools will not do")
}

func TestRefusalIsAnEventReason(t *testing.T) {
	err := refuse(PoolExhausted, "none left")
	if err.Error() != "PoolExhausted: none left" || strings.ContainsAny(string(err.Reason), " :") {
		t.Error(err)
	}
}

// TestReportedAddressesOfNodes are not given out, but a Service may have one: kube-vip
// puts addresses of Services on interfaces.
func TestReportedAddressesOfNodes(t *testing.T) {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", Annotations: map[string]string{
		v1alpha1.NodeSpeaker: `{"version":"v1","formats":[1],"interfaces":[{"name":"eth0","prefixes":["192.0.2.1/24","203.0.113.1/24","203.0.113.2/32"]}]}`,
	}}}
	broken := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "b", Annotations: map[string]string{v1alpha1.NodeSpeaker: "{"}}}
	a := NewAllocator()
	a.SetReported(ReportedAddresses(node, broken))
	a.SetPools(Compile([]*v1alpha1.AddressPool{pool("lan", "203.0.113.1-203.0.113.3")}), []Record{shows("migrated", "203.0.113.2")})
	refused(t, a, claim("picks", want("203.0.113.1")), NodeAddress, `node "n"`)
	gets(t, a, claim("migrated"), "203.0.113.2")
	gets(t, a, claim("new"), "203.0.113.3")
	refused(t, a, claim("late"), PoolExhausted)
	a.SetReported(nil)
	gets(t, a, claim("late"), "203.0.113.1")
}
