package ipam

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

// everywhere is a pool of all addresses, so that what is parsed is also served.
func everywhere() *Pools {
	return Compile([]*v1alpha1.AddressPool{pool("all", "0.0.0.0/0 ::/0", spec(func(s *v1alpha1.AddressPoolSpec) {
		s.AllowExternalIPs = true
		s.Protocols = []v1alpha1.Protocol{v1alpha1.ProtocolBGP, v1alpha1.ProtocolLayer2}
	}))})
}

// checkParsed fails where an address has a second name, or stands there twice.
func checkParsed(t *testing.T, what string, addresses []netip.Addr, unique bool) {
	t.Helper()
	for i, addr := range addresses {
		if !addr.IsValid() || addr.Is4In6() || addr.Zone() != "" {
			t.Fatalf("%s %v", what, addr)
		}
		if unique && slices.Contains(addresses[:i], addr) {
			t.Fatalf("%s %v twice", what, addr)
		}
	}
}

// checkEmpties forgets the Services, and fails unless that leaves nothing.
func checkEmpties(t *testing.T, a *Allocator, services ...*corev1.Service) {
	t.Helper()
	for _, s := range services {
		a.Forget(s.UID)
	}
	if len(a.book.blocks)+len(a.holdings)+len(a.keyed) > 0 {
		t.Fatalf("leaked: blocks %v, holdings %v, keys %v", a.book.blocks, a.holdings, a.keyed)
	}
}

func FuzzNewClaim(f *testing.F) {
	f.Add("203.0.113.1", "203.0.113.1,2001:db8::1", "BGP", "all", "key", "203.0.113.2", true)
	f.Add("", "::ffff:203.0.113.1", "", "", "", "::ffff:203.0.113.1,203.0.113.1", false)
	f.Add("fe80::1%x", ",", "Layer2", " ", " ", "web,0.0.0.0,fe80::1%x", true)
	f.Add("", "", "", "none", "", "2001:db8::1", false)
	f.Add("", "255.255.255.255,ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff,::1", "", "", "", "", true)
	pools := everywhere()
	f.Fuzz(func(t *testing.T, field, list, protocol, from, key, external string, six bool) {
		s := service(field, map[string]string{
			v1alpha1.ServiceAddresses: list, v1alpha1.ServiceProtocol: protocol,
			v1alpha1.ServicePool: from, v1alpha1.ServiceShareKey: key,
		}, corev1.IPv4Protocol)
		s.Spec.ExternalIPs = strings.Split(external, ",")
		if six {
			s.Spec.IPFamilies = append(s.Spec.IPFamilies, corev1.IPv6Protocol)
		}
		before := s.DeepCopy()
		claim, err := NewClaim(s, nil)
		if !equalServices(s, before) {
			t.Fatal("the Service was changed")
		}
		var refusal *Refusal
		if err != nil {
			if !errors.As(err, &refusal) || refusal.Message == "" {
				t.Fatalf("error %v is no refusal", err)
			}
			return
		}
		checkParsed(t, "requests", claim.Requested, true)
		checkParsed(t, "has the external", claim.External, true)
		if len(claim.Requested) > maxRequested {
			t.Fatalf("requests %d addresses", len(claim.Requested))
		}
		for _, addr := range claim.Requested {
			if !slices.Contains(claim.Families, familyOf(addr)) {
				t.Fatalf("requests %s of none of its families", addr)
			}
		}

		a := NewAllocator()
		a.SetPools(pools, nil)
		assignment, err := a.Assign(&claim, nil)
		if err == nil {
			checkParsed(t, "got", assignment.Addresses, true)
			for _, addr := range slices.Concat(claim.Requested, claim.External) {
				if !slices.Contains(assignment.Addresses, addr) {
					t.Fatalf("got %v without %s", assignment.Addresses, addr)
				}
			}
			if len(assignment.Addresses) < len(claim.Families) {
				t.Fatalf("got %v for %v", assignment.Addresses, claim.Families)
			}
		} else if claim.Pool == "" && len(claim.External) == 0 {
			t.Fatalf("refused: %v", err)
		}
		checkEmpties(t, a, s)
	})
}

// equalServices compares what NewClaim reads.
func equalServices(a, b *corev1.Service) bool {
	return slices.Equal(a.Spec.ExternalIPs, b.Spec.ExternalIPs) && slices.Equal(a.Spec.IPFamilies, b.Spec.IPFamilies) &&
		slices.Equal(a.Spec.Ports, b.Spec.Ports) && len(a.Annotations) == len(b.Annotations)
}

// FuzzTermsOf has two Services read, and holds what they agree on against a
// comparison of each pair of ports.
func FuzzTermsOf(f *testing.F) {
	f.Add("key", " key", "a", "b", []byte{0, 80, 1, 80}, []byte{1, 81}, false, false)
	f.Add("", "", "a", "a", []byte{2, 80, 2, 80, 3, 80}, []byte{3, 80}, true, true)
	f.Add("\x00", "", "a,b=c", "", []byte{}, []byte{9}, true, false)
	f.Fuzz(func(t *testing.T, key, otherKey, selector, otherSelector string, ports, otherPorts []byte, local, otherLocal bool) {
		one, two := negotiator("one", key, selector, ports, local), negotiator("two", otherKey, otherSelector, otherPorts, otherLocal)
		given := slices.Clone(one.Spec.Ports)
		a, b := TermsOf(one), TermsOf(two)
		if !slices.Equal(one.Spec.Ports, given) {
			t.Fatal("the Service was changed")
		}
		if !slices.IsSortedFunc(a.Ports, comparePorts) || len(a.Ports) != len(given) {
			t.Fatalf("ports %v are read as %v", given, a.Ports)
		}
		if !a.Equal(TermsOf(one)) || a.Equal(b) != b.Equal(a) || (a.Clash(b) == "") != (b.Clash(a) == "") || a.SameKey(b) != b.SameKey(a) {
			t.Fatalf("%+v and %+v do not agree on what they are to each other", a, b)
		}
		if want := strings.TrimSpace(key) != "" && strings.TrimSpace(key) == strings.TrimSpace(otherKey); a.SameKey(b) != want {
			t.Fatalf("same key is %v for %q and %q", !want, key, otherKey)
		}
		common := slices.ContainsFunc(a.Ports, func(p Port) bool { return slices.Contains(b.Ports, p) })
		alike := !local && !otherLocal || local && otherLocal && selector == otherSelector && selector != ""
		if clash := a.Clash(b); (clash == "") != (!common && alike) {
			t.Fatalf("%+v and %+v clash: %q", a, b, clash)
		}
	})
}

// negotiator is a Service with the ports, which are pairs of protocol and number.
func negotiator(name, key, selector string, ports []byte, local bool) *corev1.Service {
	s := service("", map[string]string{v1alpha1.ServiceShareKey: key})
	s.Name = name
	if selector != "" {
		s.Spec.Selector = map[string]string{"app": selector}
	}
	for i := 0; i+1 < len(ports); i += 2 {
		protocol := []corev1.Protocol{"", corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP}[ports[i]%4]
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Protocol: protocol, Port: int32(ports[i+1])})
	}
	if local {
		s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	}
	return s
}

// FuzzRecorded has statuses read that anybody may have written, and two Services
// adopted that record the same.
func FuzzRecorded(f *testing.F) {
	f.Add("203.0.113.1\n203.0.113.1\n::ffff:203.0.113.1", "Announced", "key", true)
	f.Add("web.example\n\nfe80::1%eth0\n0.0.0.0\n::", string(AddressConflict), "", false)
	f.Add("255.255.255.255\nffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff\n 203.0.113.1", "", "", true)
	pools := everywhere()
	f.Fuzz(func(t *testing.T, ingress, reason, key string, marked bool) {
		one := negotiator("one", key, "", []byte{1, 80}, false)
		for text := range strings.SplitSeq(ingress, "\n") {
			one.Status.LoadBalancer.Ingress = append(one.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: text, Hostname: text})
		}
		if marked {
			one.Status.Conditions = []metav1.Condition{{Type: "Other"}, {Type: v1alpha1.ConditionAnnounced, Reason: reason}}
		}
		two := one.DeepCopy()
		two.Name, two.UID, two.Spec.Ports[0].Port = "two", "two", 81

		recorded := Recorded(one)
		checkParsed(t, "recorded", recorded, false)
		if Marked(one) != marked || Settled(one) && !marked {
			t.Fatalf("marked %v, settled %v; want marked %v", Marked(one), Settled(one), marked)
		}
		records := Records([]*corev1.Service{two, one})
		if len(records) != 2 || records[0].Name != "one" {
			t.Fatalf("records are %+v", records)
		}
		a := NewAllocator()
		conflicts := a.SetPools(pools, records)
		mayShare := len(records[0].Terms.Key) > 0 || Settled(one)
		if (len(conflicts) > 0) == (mayShare && len(recorded) > 0) && len(recorded) > 0 {
			t.Fatalf("sharing is allowed: %v; conflicts are %v", mayShare, conflicts)
		}
		has := a.Addresses(one.UID)
		checkParsed(t, "adopted", has, true)
		for _, addr := range recorded {
			if !slices.Contains(has, addr) {
				t.Fatalf("%s is not adopted", addr)
			}
		}
		claim, err := NewClaim(one, nil)
		if err != nil {
			t.Fatal(err)
		}
		assignment, err := a.Assign(&claim, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, addr := range has {
			if addr.Is4() && !slices.Contains(assignment.Addresses, addr) {
				t.Fatalf("lost %s of %v", addr, has)
			}
		}
		a.Observe(one.UID, recorded)
		a.Release(one.UID)
		a.Observe(one.UID, nil)
		checkEmpties(t, a, one, two)
	})
}
