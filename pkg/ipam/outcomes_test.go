package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

// The pools of the table. Node n has 203.0.113.9, Service default/first has
// 203.0.113.8, and default/second has 192.0.2.40.
func tablePools() []*v1alpha1.AddressPool {
	leaving := metav1.Unix(1, 0)
	closed := func(s *v1alpha1.AddressPoolSpec) { s.AutoAssign = new(bool) }
	gold := &metav1.LabelSelector{MatchLabels: map[string]string{"tier": "gold"}}
	return []*v1alpha1.AddressPool{
		pool("main", "203.0.113.8-203.0.113.15"),
		pool("vip", "203.0.113.16/29", spec(func(s *v1alpha1.AddressPoolSpec) { s.Priority, s.Namespaces = 1, []string{"prod"} })),
		pool("six", "2001:db8::/64", spec(closed)),
		pool("both", "198.51.100.0/28 2001:db8:1::/64", spec(closed)),
		pool("lan", "198.51.100.16/28", spec(closed), spec(func(s *v1alpha1.AddressPoolSpec) { s.Protocols = []v1alpha1.Protocol{v1alpha1.ProtocolLayer2} })),
		pool("off", "198.51.100.32/28", spec(closed), spec(func(s *v1alpha1.AddressPoolSpec) { s.Disabled = true })),
		pool("leaving", "198.51.100.48/28", spec(closed), func(p *v1alpha1.AddressPool) { p.DeletionTimestamp = &leaving }),
		pool("broken", "198.51.100.64/33", spec(closed)),
		pool("gold", "198.51.100.80/28", spec(closed), spec(func(s *v1alpha1.AddressPoolSpec) { s.NamespaceSelector, s.ServiceSelector = gold, gold })),
		pool("buggy", "192.0.2.255 192.0.2.250", spec(closed), spec(func(s *v1alpha1.AddressPoolSpec) { s.AvoidBuggyIPs = true })),
		pool("external", "192.0.2.32/28 2001:db8:2::/64", spec(closed), spec(func(s *v1alpha1.AddressPoolSpec) { s.AllowExternalIPs = true })),
		pool("shadow", "203.0.113.8-203.0.113.9", spec(closed)), // main has these
		pool("tiny", "192.0.2.64", spec(closed)),
	}
}

// Changes of a Service.

type option func(*corev1.Service)

func note(key, value string) option {
	return func(s *corev1.Service) { metav1.SetMetaDataAnnotation(&s.ObjectMeta, key, value) }
}

func ofPool(name string) option       { return note(v1alpha1.ServicePool, name) }
func addresses(list string) option    { return note(v1alpha1.ServiceAddresses, list) }
func speaking(protocol string) option { return note(v1alpha1.ServiceProtocol, protocol) }
func keyed(key string) option         { return note(v1alpha1.ServiceShareKey, key) }

func loadBalancerIP(text string) option {
	return func(s *corev1.Service) { s.Spec.LoadBalancerIP = text }
}

func externals(texts ...string) option {
	return func(s *corev1.Service) { s.Spec.ExternalIPs = texts }
}

func in(namespace string) option { return func(s *corev1.Service) { s.Namespace = namespace } }

func labelled(key, value string) option {
	return func(s *corev1.Service) { s.Labels = map[string]string{key: value} }
}

func port(protocol corev1.Protocol, number int32) option {
	return func(s *corev1.Service) {
		s.Spec.Ports = []corev1.ServicePort{{Protocol: protocol, Port: number}}
	}
}

// local is externalTrafficPolicy Local with the selector, if it has one.
func local(app string) option {
	return func(s *corev1.Service) {
		s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
		if app != "" {
			s.Spec.Selector = map[string]string{"app": app}
		}
	}
}

func stack(policy corev1.IPFamilyPolicy, families ...corev1.IPFamily) option {
	return func(s *corev1.Service) { s.Spec.IPFamilyPolicy, s.Spec.IPFamilies = &policy, families }
}

const (
	four, sixth       = corev1.IPv4Protocol, corev1.IPv6Protocol
	single            = corev1.IPFamilyPolicySingleStack
	prefer            = corev1.IPFamilyPolicyPreferDualStack
	require           = corev1.IPFamilyPolicyRequireDualStack
	tcp, udp          = corev1.ProtocolTCP, corev1.ProtocolUDP
	goldenNamespace   = "golden"
	ordinaryNamespace = "default"
)

func requestOf(name string, options ...option) *corev1.Service {
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: ordinaryNamespace, Name: name, UID: types.UID(name)},
		Spec: corev1.ServiceSpec{
			Type:       corev1.ServiceTypeLoadBalancer,
			IPFamilies: []corev1.IPFamily{four},
			Ports:      []corev1.ServicePort{{Protocol: tcp, Port: 80}},
		},
	}
	for _, change := range options {
		change(s)
	}
	return s
}

// serve is what the provider does with a Service.
func serve(a *Allocator, s *corev1.Service) (Assignment, error) {
	labels := map[string]string{}
	if s.Namespace == goldenNamespace {
		labels["tier"] = "gold"
	}
	claim, err := NewClaim(s, labels)
	if err != nil {
		return Assignment{}, err
	}
	return a.Assign(&claim, nil)
}

// outcome is what came of a Service, in words: its addresses, what is missing, or
// why it is refused.
func outcome(assignment Assignment, err error) (text string, refusal *Refusal) {
	switch {
	case errors.As(err, &refusal):
		return string(refusal.Reason), refusal
	case err != nil:
		return err.Error(), nil
	case assignment.Missing != nil:
		return join(assignment.Addresses) + " but " + string(assignment.Missing.Reason), assignment.Missing
	}
	return join(assignment.Addresses), nil
}

// readable fails unless the message names a pool, an address or what else it is
// about, and says what to do.
func readable(t *testing.T, refusal *Refusal) {
	t.Helper()
	if refusal == nil {
		return
	}
	if !about.MatchString(refusal.Message) {
		t.Errorf("it is not said what this is about: %s", refusal.Message)
	}
	if !remedy.MatchString(refusal.Message) {
		t.Errorf("no remedy: %s", refusal.Message)
	}
}

var (
	about  = regexp.MustCompile(`AddressPool|annotation lb\.baremetal\.dev/|spec\.|is requested|address of node`)
	remedy = regexp.MustCompile(`: (request|create|add|use|write|remove|make|delete|enable|label|change|wait|correct|look|to share it)|; or |or name`)
)

// TestOutcomes is the table of what a Service may ask for and what comes of it.
// Each row begins with the same pools.
func TestOutcomes(t *testing.T) {
	rows := []struct {
		name    string
		options []option
		want    string
		words   string
	}{
		{"nothing", nil, "203.0.113.10", ""},
		{"in a namespace with a better pool", []option{in("prod")}, "203.0.113.16", ""},

		{"IPv6", []option{stack(single, sixth)}, "FamilyUnavailable", `AddressPool "main" has no IPv6`},
		{"IPv6 of a pool", []option{stack(single, sixth), ofPool("six")}, "2001:db8::", ""},
		{"both preferred, one there", []option{stack(prefer, four, sixth)}, "203.0.113.10 but FamilyUnavailable", `"main" has no IPv6`},
		{"both preferred, the second there", []option{stack(prefer, four, sixth), ofPool("six")}, "2001:db8:: but FamilyUnavailable", `"six" has no IPv4`},
		{"both preferred and there", []option{stack(prefer, sixth, four), ofPool("both")}, "2001:db8:1:: 198.51.100.0", ""},
		{"both preferred, none there", []option{stack(prefer, four, sixth), ofPool("off")}, "PoolDisabled", `"off" is disabled`},
		{"both required, one there", []option{stack(require, four, sixth)}, "FamilyUnavailable", `"main" has no IPv6`},
		{"both required and there", []option{stack(require, four, sixth), ofPool("both")}, "198.51.100.0 2001:db8:1::", ""},

		{"a pool", []option{ofPool("both")}, "198.51.100.0", ""},
		{"no such pool", []option{ofPool("none")}, "NoPool", `there is no AddressPool "none"`},
		{"a disabled pool", []option{ofPool("off")}, "PoolDisabled", `AddressPool "off" is disabled (spec.disabled)`},
		{"a pool on its way out", []option{ofPool("leaving")}, "PoolDisabled", `AddressPool "leaving" is being deleted`},
		{"a malformed pool", []option{ofPool("broken")}, "PoolMalformed", `"198.51.100.64/33" is not a prefix`},
		{"a pool that another one covers", []option{ofPool("shadow")}, "FamilyUnavailable", `"shadow" has no IPv4 addresses of its own`},
		{"a pool of another namespace", []option{ofPool("vip")}, "PoolForbidden", `"vip" is not for namespace "default" (spec.namespaces)`},
		{"a pool of other namespaces, by label", []option{ofPool("gold"), labelled("tier", "gold")}, "PoolForbidden", "spec.namespaceSelector"},
		{"a pool of other Services, by label", []option{ofPool("gold"), in(goldenNamespace)}, "PoolForbidden", "spec.serviceSelector"},
		{"a pool whose labels fit", []option{ofPool("gold"), in(goldenNamespace), labelled("tier", "gold")}, "198.51.100.80", ""},
		{"avoidBuggyIPs", []option{ofPool("buggy")}, "192.0.2.250", ""},

		{"BGP", []option{speaking("BGP")}, "203.0.113.10", ""},
		{"Layer2 without a pool", []option{speaking("Layer2")}, "PoolForbidden", "does not speak Layer2"},
		{"Layer2 of a pool", []option{speaking("Layer2"), ofPool("lan")}, "198.51.100.16", ""},
		{"BGP of a pool on the LAN", []option{speaking("BGP"), ofPool("lan")}, "PoolForbidden", `"lan" does not speak BGP`},
		{"an unknown protocol", []option{speaking("OSPF")}, "MalformedRequest", "write BGP or Layer2"},

		{"an address", []option{addresses("203.0.113.12")}, "203.0.113.12", ""},
		{"an address, by the field", []option{loadBalancerIP("203.0.113.12")}, "203.0.113.12", ""},
		{"an address, twice", []option{addresses("203.0.113.12, 203.0.113.12"), loadBalancerIP("203.0.113.12")}, "203.0.113.12", ""},
		{"two that contradict", []option{addresses("203.0.113.12"), loadBalancerIP("203.0.113.13")}, "MalformedRequest", "remove one"},
		{"several of a family", []option{addresses("203.0.113.13,203.0.113.12")}, "203.0.113.13 203.0.113.12", ""},
		{"several, one taken", []option{addresses("203.0.113.13,203.0.113.8")}, "AddressInUse", "default/first"},
		{"one of each family", []option{stack(require, four, sixth), addresses("2001:db8::7,203.0.113.12")}, "203.0.113.12 2001:db8::7", ""},
		{"of one family, the other by search", []option{stack(require, four, sixth), addresses("198.51.100.7"), ofPool("both")}, "198.51.100.7 2001:db8:1::", ""},
		{"of a pool that is not automatic", []option{addresses("198.51.100.7")}, "198.51.100.7", ""},
		{"of another pool than named", []option{addresses("198.51.100.7"), ofPool("main")}, "MalformedRequest", `lies in AddressPool "both"`},
		{"taken", []option{addresses("203.0.113.8")}, "AddressInUse", `203.0.113.8 of AddressPool "main" is in use by Service default/first`},
		{"in no pool", []option{addresses("198.18.0.1")}, "NotInAnyPool", "198.18.0.1 lies in no AddressPool"},
		{"a node's", []option{addresses("203.0.113.9")}, "NodeAddress", `address of node "n"`},
		{"of a disabled pool", []option{addresses("198.51.100.33")}, "PoolDisabled", `"off"`},
		{"one that the pool avoids", []option{addresses("192.0.2.255")}, "PoolForbidden", "spec.avoidBuggyIPs"},
		{"of a family that it lacks", []option{addresses("2001:db8::7")}, "FamilyUnavailable", "add it to spec.ipFamilies"},

		{"malformed: a name", []option{addresses("web")}, "MalformedRequest", `"web" is not an IP address`},
		{"malformed: a range", []option{addresses("203.0.113.12-13")}, "MalformedRequest", "is not an IP address"},
		{"malformed: a prefix", []option{addresses("203.0.113.12/32")}, "MalformedRequest", "is not an IP address"},
		{"malformed: an empty entry", []option{addresses("203.0.113.12,")}, "MalformedRequest", `"" is not an IP address`},
		{"malformed: zeros", []option{addresses("203.0.113.012")}, "MalformedRequest", "is not an IP address"},
		{"malformed: a zone", []option{addresses("fe80::1%eth0")}, "MalformedRequest", "zone"},
		{"malformed: mapped", []option{addresses("::ffff:203.0.113.12")}, "MalformedRequest", "write 203.0.113.12"},
		{"malformed: too many", []option{addresses(strings.TrimSuffix(many65(), ","))}, "MalformedRequest", "request 64 at most"},
		{"malformed: the field", []option{loadBalancerIP("auto")}, "MalformedRequest", "spec.loadBalancerIP"},

		{"external, allowed", []option{externals("192.0.2.33")}, "192.0.2.33", ""},
		{"external, of both families", []option{stack(require, four, sixth), externals("192.0.2.33", "2001:db8:2::1")}, "192.0.2.33 2001:db8:2::1", ""},
		{"external, of a family that it lacks", []option{externals("2001:db8:2::1")}, "FamilyUnavailable", `2001:db8:2::1 of spec.externalIPs lies in AddressPool "external"`},
		{"external, outside all pools", []option{externals("198.18.0.1")}, "203.0.113.10", ""},
		{"external, not allowed", []option{externals("203.0.113.12")}, "203.0.113.10", ""},
		{"external, taken", []option{externals("192.0.2.40")}, "AddressInUse", `192.0.2.40 of AddressPool "external" is in use by Service default/second`},
		{"external and requested", []option{externals("192.0.2.33"), addresses("203.0.113.12")}, "203.0.113.12 192.0.2.33", ""},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			a := allocator(tablePools()...)
			a.SetNodes(map[netip.Addr]string{netip.MustParseAddr("203.0.113.9"): "n"})
			if _, err := serve(a, requestOf("first", addresses("203.0.113.8"))); err != nil {
				t.Fatal(err)
			}
			if _, err := serve(a, requestOf("second", addresses("192.0.2.40"))); err != nil {
				t.Fatal(err)
			}
			got, refusal := outcome(serve(a, requestOf("web", row.options...)))
			if got != row.want {
				t.Fatalf("%s (%v); want %s", got, refusal, row.want)
			}
			readable(t, refusal)
			if refusal != nil && !strings.Contains(refusal.Message, row.words) {
				t.Errorf("%q does not say %q", refusal.Message, row.words)
			}
		})
	}
}

// many65 are 65 addresses.
func many65() string {
	var b strings.Builder
	for i := range 65 {
		fmt.Fprintf(&b, "198.18.0.%d,", i)
	}
	return b.String()
}

// TestSharingOutcomes is the table of who may share. The first Service requests
// the address, the second one requests it, too.
func TestSharingOutcomes(t *testing.T) {
	const never, key, anywhere, ports = v1alpha1.SharingNever, v1alpha1.SharingKey, v1alpha1.SharingKeyAnyNamespace, v1alpha1.SharingPorts
	both := func(options ...option) [2][]option { return [2][]option{options, options} }
	plus := func(pair [2][]option, first, second []option) [2][]option {
		return [2][]option{append(append([]option{}, pair[0]...), first...), append(append([]option{}, pair[1]...), second...)}
	}
	second := func(options ...option) [2][]option {
		return plus(both(), nil, append([]option{port(tcp, 443)}, options...))
	}
	sameKey := plus(both(keyed("k")), nil, []option{port(tcp, 443)})
	rows := []struct {
		name  string
		mode  v1alpha1.SharingMode
		pair  [2][]option
		want  string // shared, or the reason
		words string
	}{
		{"never, same key", never, sameKey, "AddressInUse", "the pool shares no address"},
		{"default is by key", "", sameKey, "shared", ""},
		{"same key", key, sameKey, "shared", ""},
		{"same key, same port", key, both(keyed("k")), "SharingConflict", "both have TCP port 80"},
		{"same key, TCP and UDP of a port", key, plus(both(keyed("k")), nil, []option{port(udp, 80)}), "shared", ""},
		{"no keys", key, second(), "AddressInUse", "give both the same annotation"},
		{"one key", key, second(keyed("k")), "SharingConflict", `("k" and "")`},
		{"two keys", key, plus(both(), []option{keyed("a")}, []option{keyed("b"), port(tcp, 443)}), "SharingConflict", `("b" and "a")`},
		{"same key, two namespaces", key, plus(sameKey, nil, []option{in("prod")}), "SharingConflict", "within one namespace only"},
		{"any namespace", anywhere, plus(sameKey, nil, []option{in("prod")}), "shared", ""},
		{"any namespace, no keys", anywhere, second(in("prod")), "AddressInUse", "give both the same annotation"},
		{"any namespace, same port", anywhere, plus(both(keyed("k")), nil, []option{in("prod")}), "SharingConflict", "both have TCP port 80"},
		{"ports", ports, second(in("prod")), "shared", ""},
		{"ports, two keys", ports, plus(both(), []option{keyed("a")}, []option{keyed("b"), port(tcp, 443)}), "shared", ""},
		{"ports, same port", ports, both(), "SharingConflict", "both have TCP port 80"},

		{"Cluster and Local", key, plus(sameKey, nil, []option{local("web")}), "SharingConflict", "spec.externalTrafficPolicy differs"},
		{"Local, same Pods", key, plus(sameKey, []option{local("web")}, []option{local("web")}), "shared", ""},
		{"Local, other Pods", key, plus(sameKey, []option{local("web")}, []option{local("api")}), "SharingConflict", "the same spec.selector"},
		{"Local, no selectors", key, plus(sameKey, []option{local("")}, []option{local("")}), "SharingConflict", "they have none"},
		{"Local, two namespaces", anywhere, plus(sameKey, []option{local("web")}, []option{local("web"), in("prod")}), "SharingConflict", "in one namespace"},
		{"Local, by ports", ports, plus(second(), []option{local("web")}, []option{local("web")}), "shared", ""},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			a := allocator(pool("lan", "203.0.113.0/29", spec(func(s *v1alpha1.AddressPoolSpec) { s.Sharing = row.mode })))
			request := addresses("203.0.113.5")
			if got, refusal := outcome(serve(a, requestOf("first", append(row.pair[0], request)...))); refusal != nil {
				t.Fatalf("the first: %s (%v)", got, refusal)
			}
			got, refusal := outcome(serve(a, requestOf("second", append(row.pair[1], request)...)))
			if got == "203.0.113.5" {
				got = "shared"
			}
			if got != row.want {
				t.Fatalf("%s (%v); want %s", got, refusal, row.want)
			}
			readable(t, refusal)
			if refusal != nil && !strings.Contains(refusal.Message, row.words) {
				t.Errorf("%q does not say %q", refusal.Message, row.words)
			}
		})
	}
}

// TestSharingRefusals has each kind of Service meet each other one in pools of each
// mode. Whatever the reason, a refusal names address, pool and Service, and says
// what to do; and what the first may share with the second, that may share with it.
func TestSharingRefusals(t *testing.T) {
	var kinds [][]option
	for _, namespace := range []string{ordinaryNamespace, "prod"} {
		for _, key := range []string{"", "a", "b"} {
			for _, port := range []option{port(tcp, 80), port(udp, 80)} {
				for _, policy := range []option{func(*corev1.Service) {}, local(""), local("web"), local("api")} {
					kinds = append(kinds, []option{in(namespace), keyed(key), port, policy})
				}
			}
		}
	}
	for _, mode := range []v1alpha1.SharingMode{v1alpha1.SharingNever, v1alpha1.SharingKey, v1alpha1.SharingKeyAnyNamespace, v1alpha1.SharingPorts} {
		pools := Compile([]*v1alpha1.AddressPool{pool("lan", "203.0.113.0/29", spec(func(s *v1alpha1.AddressPoolSpec) { s.Sharing = mode }))})
		meet := func(first, second []option) *Refusal {
			a := NewAllocator()
			a.SetPools(pools, nil)
			request := addresses("203.0.113.5")
			if got, refusal := outcome(serve(a, requestOf("first", append(first, request)...))); refusal != nil {
				t.Fatalf("the first: %s (%v)", got, refusal)
			}
			_, refusal := outcome(serve(a, requestOf("second", append(second, request)...)))
			return refusal
		}
		for i, one := range kinds {
			for _, other := range kinds[:i+1] {
				refusal, reverse := meet(one, other), meet(other, one)
				if (refusal == nil) != (reverse == nil) {
					t.Fatalf("mode %s: it matters who comes first: %v, %v", mode, refusal, reverse)
				}
				if refusal != nil {
					readable(t, refusal)
					checkRefusal(t, refusal, refusal.Reason, `203.0.113.5 of AddressPool "lan" is in use by Service`, "/first", "request another")
				}
			}
		}
	}
}

// TestSharingWithoutRequest is who joins whom if nobody requests an address.
func TestSharingWithoutRequest(t *testing.T) {
	for _, row := range []struct {
		name   string
		mode   v1alpha1.SharingMode
		pool   string
		first  []option
		second []option
		want   string
	}{
		{"same key", v1alpha1.SharingKey, "203.0.113.0/29", []option{keyed("k")}, []option{keyed("k"), port(tcp, 443)}, "203.0.113.0"},
		{"same key, same port", v1alpha1.SharingKey, "203.0.113.0/29", []option{keyed("k")}, []option{keyed("k")}, "203.0.113.1"},
		{"no key", v1alpha1.SharingKey, "203.0.113.0/29", nil, []option{port(tcp, 443)}, "203.0.113.1"},
		{"ports, as long as there are addresses", v1alpha1.SharingPorts, "203.0.113.0/29", nil, []option{port(tcp, 443)}, "203.0.113.1"},
		{"ports, when there are none", v1alpha1.SharingPorts, "203.0.113.0", nil, []option{port(tcp, 443)}, "203.0.113.0"},
		{"ports, same port", v1alpha1.SharingPorts, "203.0.113.0", nil, nil, "PoolExhausted"},
		{"never", v1alpha1.SharingNever, "203.0.113.0", []option{keyed("k")}, []option{keyed("k"), port(tcp, 443)}, "PoolExhausted"},
	} {
		t.Run(row.name, func(t *testing.T) {
			a := allocator(pool("lan", row.pool, spec(func(s *v1alpha1.AddressPoolSpec) { s.Sharing = row.mode })))
			if got, refusal := outcome(serve(a, requestOf("first", row.first...))); got != "203.0.113.0" {
				t.Fatalf("the first: %s (%v)", got, refusal)
			}
			if got, refusal := outcome(serve(a, requestOf("second", row.second...))); got != row.want {
				t.Errorf("%s (%v); want %s", got, refusal, row.want)
			}
		})
	}
}
