package ipam

import (
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

// many is the number of assignments that most benchmarks have.
const many = 100_000

// claims are those of n Services without special wishes. Their texts are owned by
// the caller, as those of cached Services are.
func claims(n int, change ...func(*Claim)) []Claim {
	all := make([]Claim, n)
	for i := range all {
		all[i] = claim(fmt.Sprintf("service-%d", i), change...)
		all[i].UID = uuid.NewUUID()
	}
	return all
}

// filled has served the claims.
func filled(b *testing.B, pools []*v1alpha1.AddressPool, claims []Claim) *Allocator {
	b.Helper()
	a := allocator(pools...)
	fill(b, a, claims)
	return a
}

// fill serves the claims.
func fill(b *testing.B, a *Allocator, claims []Claim) {
	b.Helper()
	for i := range claims {
		if _, err := a.Assign(&claims[i], nil); err != nil {
			b.Fatal(err)
		}
	}
}

// round is the number of Services that come or go while the clock runs. Between two
// rounds it stands still, and as many go or come.
const round = 64

// BenchmarkAllocate gives an address to a new Service, where 100,000 have one: in
// the same pool, or beside it in another.
func BenchmarkAllocate(b *testing.B) {
	for _, test := range []struct {
		name, addresses string
		beside          bool
	}{
		{"slash15", "198.18.0.0/15", false},
		{"slash8", "10.0.0.0/8", false},
		{"slash64", "2001:db8::/64", false},
		{"ten ranges", "10.0.0.0/18 10.0.64.0/20 10.0.80.1-10.0.95.254 10.0.96.0/19 10.0.128.0/20 10.0.144.1-10.0.159.255 10.0.160.0/19 10.0.192.0/18 10.1.0.1-10.1.127.255 10.2.0.0/17", false},
		{"slash24 beside", "203.0.113.0/24", true},
		{"slash8 beside", "10.0.0.0/8", true},
		{"slash64 beside", "2001:db8::/64", true},
	} {
		b.Run(test.name, func(b *testing.B) {
			first := pool("first", test.addresses, spec(func(s *v1alpha1.AddressPoolSpec) { s.Priority = 1 }))
			served := claims(many+round, ofFamily(test.addresses))
			if test.beside {
				served = claims(2*round, ofFamily(test.addresses))
			}
			a := filled(b, []*v1alpha1.AddressPool{first, pool("other", "198.18.0.0/15")}, served[:len(served)-round])
			if test.beside {
				fill(b, a, claims(many, from("other")))
			}
			into := make([]netip.Addr, 0, 1)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if i > 0 && i%round == 0 {
					b.StopTimer()
					for j := i - round; j < i; j++ {
						a.Forget(served[j%len(served)].UID)
					}
					b.StartTimer()
				}
				if _, err := a.Assign(&served[(i+len(served)-round)%len(served)], into); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// ofFamily makes claims of the family of the addresses.
func ofFamily(addresses string) func(*Claim) {
	return func(c *Claim) {
		if strings.Contains(addresses, ":") {
			c.Families = []corev1.IPFamily{corev1.IPv6Protocol}
		}
	}
}

// BenchmarkAgain asks for what a Service has already, as after each start.
func BenchmarkAgain(b *testing.B) {
	all := claims(many)
	a := filled(b, []*v1alpha1.AddressPool{pool("lan", "198.18.0.0/15")}, all)
	into := make([]netip.Addr, 0, 1)
	b.ReportAllocs()
	b.ResetTimer()
	for i := 0; b.Loop(); i++ {
		if _, err := a.Assign(&all[i%many], into); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRelease ends the hold of one of 100,000 Services, and sees that its
// status is empty.
func BenchmarkRelease(b *testing.B) {
	all := claims(many)
	a := filled(b, []*v1alpha1.AddressPool{pool("lan", "198.18.0.0/15")}, all)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i > 0 && i%round == 0 {
			b.StopTimer()
			for j := i - round; j < i; j++ {
				if _, err := a.Assign(&all[j%many], nil); err != nil {
					b.Fatal(err)
				}
			}
			b.StartTimer()
		}
		a.Release(all[i%many].UID)
		a.Observe(all[i%many].UID, nil)
	}
}

// BenchmarkPreferDualStack gives an address of each family, or of the one that there
// is, to one Service after another that comes and goes.
func BenchmarkPreferDualStack(b *testing.B) {
	for _, test := range []struct{ name, addresses string }{
		{"both", "198.18.0.0/15 2001:db8::/64"},
		{"one", "198.18.0.0/15"},
	} {
		b.Run(test.name, func(b *testing.B) {
			all := claims(many+1, dual, partial)
			a := filled(b, []*v1alpha1.AddressPool{pool("lan", test.addresses)}, all[:many])
			into := make([]netip.Addr, 0, 2)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				a.Forget(all[i%len(all)].UID)
				if _, err := a.Assign(&all[(i+many)%len(all)], into); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkAllocateScattered gives out the addresses between those that are taken.
func BenchmarkAllocateScattered(b *testing.B) {
	all := claims(65536)
	a := filled(b, []*v1alpha1.AddressPool{pool("lan", "198.18.0.0/16")}, all)
	for i := 0; i < len(all); i += 2 {
		a.Forget(all[i].UID)
	}
	into := make([]netip.Addr, 0, 1)
	b.ReportAllocs()
	b.ResetTimer()
	for i := 0; b.Loop(); i++ {
		c := &all[(2*i*7919+1)%len(all)]
		a.Forget(c.UID)
		if _, err := a.Assign(c, into); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRefuse asks for an address where there is none.
func BenchmarkRefuse(b *testing.B) {
	all := claims(65537)
	a := filled(b, []*v1alpha1.AddressPool{pool("lan", "198.18.0.0/16")}, all[:65536])
	b.ResetTimer()
	for b.Loop() {
		if _, err := a.Assign(&all[65536], nil); err == nil {
			b.Fatal("no refusal")
		}
	}
}

// BenchmarkShare lets a Service join, by key, an address that 50 others have.
func BenchmarkShare(b *testing.B) {
	all := claims(51)
	for i := range all {
		all[i].Terms = &Terms{Namespace: "default", Key: "k", Ports: []Port{{corev1.ProtocolTCP, int32(i)}}}
	}
	a := filled(b, []*v1alpha1.AddressPool{pool("lan", "198.18.0.0/16")}, all)
	into := make([]netip.Addr, 0, 1)
	b.ReportAllocs()
	b.ResetTimer()
	for b.Loop() {
		a.Forget(all[50].UID)
		if _, err := a.Assign(&all[50], into); err != nil {
			b.Fatal(err)
		}
	}
}

// recorded are n Services with an address in their status, which each of them shares
// with as many others.
func recorded(n, sharers int) []*corev1.Service {
	services := make([]*corev1.Service, n)
	addr := netip.MustParseAddr("198.18.0.0")
	for i := range services {
		services[i] = &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("service-%d", i), UID: uuid.NewUUID(), CreationTimestamp: metav1.Unix(int64(i*7919%n), 0)},
			Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Ports: []corev1.ServicePort{{Port: int32(i%sharers + 1)}}},
			Status: corev1.ServiceStatus{
				LoadBalancer: corev1.LoadBalancerStatus{Ingress: []corev1.LoadBalancerIngress{{IP: addr.String()}}},
				Conditions:   []metav1.Condition{{Type: v1alpha1.ConditionAnnounced, Status: metav1.ConditionTrue}},
			},
		}
		if i%sharers == sharers-1 {
			addr = addr.Next()
		}
	}
	return services
}

// BenchmarkAdopt takes over what 100,000 Services have recorded: one operation is
// all of them.
func BenchmarkAdopt(b *testing.B) {
	for _, sharers := range []int{1, 2, 10} {
		b.Run(fmt.Sprintf("%d per address", sharers), func(b *testing.B) {
			services := recorded(many, sharers)
			pools := Compile([]*v1alpha1.AddressPool{pool("lan", "198.18.0.0/15")})
			for b.Loop() {
				a := NewAllocator()
				if conflicts := a.SetPools(pools, Records(services)); len(conflicts) > 0 {
					b.Fatal(conflicts)
				}
			}
		})
	}
}

// BenchmarkSize reports the bytes of memory that an assignment takes, without the
// texts of its Service (names, UID), which are the API cache's.
func BenchmarkSize(b *testing.B) {
	all := claims(many)
	var before, after runtime.MemStats
	var a *Allocator
	for b.Loop() {
		a = nil
		runtime.GC()
		runtime.ReadMemStats(&before)
		a = filled(b, []*v1alpha1.AddressPool{pool("lan", "198.18.0.0/15")}, all)
		runtime.GC()
		runtime.ReadMemStats(&after)
	}
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/many, "B/assignment")
	runtime.KeepAlive(a)
	runtime.KeepAlive(all)
}

func BenchmarkCompile(b *testing.B) {
	var pools []*v1alpha1.AddressPool
	for i := range 1000 {
		pools = append(pools, pool(fmt.Sprintf("p%d", i), fmt.Sprintf("198.%d.%d.0/25 198.%d.%d.64/26 2001:db8:%x::/64", 18+i/256, i%256, 18+i/256, i%256, i)))
	}
	for b.Loop() {
		Compile(pools)
	}
}
