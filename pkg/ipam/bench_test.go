package ipam

import (
	"fmt"
	"net/netip"
	"runtime"
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
	for i := range claims {
		if _, err := a.Assign(&claims[i], nil); err != nil {
			b.Fatal(err)
		}
	}
	return a
}

// BenchmarkAllocate has an address given to a new Service, and taken from one that
// is gone, among 100,000 assignments in pools of different sizes.
func BenchmarkAllocate(b *testing.B) {
	for _, pool := range []*v1alpha1.AddressPool{
		pool("slash8", "10.0.0.0/8"),
		pool("slash15", "198.18.0.0/15"),
		pool("slash64", "2001:db8::/64"),
		pool("ten", "198.18.0.0/18 198.18.64.0/20 198.18.80.0/20 198.18.96.0/19 198.18.128.0/20 198.18.144.0/20 198.18.160.0/19 198.18.192.0/18 198.19.0.0/17 198.19.128.0/17"),
	} {
		b.Run(pool.Name, func(b *testing.B) {
			six := func(c *Claim) {
				if pool.Name == "slash64" {
					c.Families = []corev1.IPFamily{corev1.IPv6Protocol}
				}
			}
			all := claims(many+1, six)
			a := filled(b, []*v1alpha1.AddressPool{pool}, all[:many])
			into := make([]netip.Addr, 0, 1)
			b.ReportAllocs()
			b.ResetTimer()
			for i := 0; b.Loop(); i++ {
				// Far apart, so that free addresses are scattered.
				next, gone := &all[(i+many)%len(all)], &all[i%len(all)]
				a.Forget(gone.UID)
				if _, err := a.Assign(next, into); err != nil {
					b.Fatal(err)
				}
			}
		})
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

// BenchmarkRelease ends the hold of a Service, and sees that its status is empty.
func BenchmarkRelease(b *testing.B) {
	all := claims(many)
	a := filled(b, []*v1alpha1.AddressPool{pool("lan", "198.18.0.0/15")}, all)
	into := make([]netip.Addr, 0, 1)
	b.ReportAllocs()
	b.ResetTimer()
	for i := 0; b.Loop(); i++ {
		// Every second address is released; each of them is assigned again when all
		// are, so that there are half as many assignments at least.
		c := &all[2*i%many]
		if a.holdings[c.UID] == nil {
			if _, err := a.Assign(c, into); err != nil {
				b.Fatal(err)
			}
		}
		a.Release(c.UID)
		a.Observe(c.UID, nil)
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

// recorded are n Services with an address in their status.
func recorded(n int) []*corev1.Service {
	services := make([]*corev1.Service, n)
	addr := netip.MustParseAddr("198.18.0.0")
	for i := range services {
		services[i] = &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("service-%d", i), UID: uuid.NewUUID(), CreationTimestamp: metav1.Unix(int64(i*7919%n), 0)},
			Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Ports: []corev1.ServicePort{{Port: 80}}},
			Status: corev1.ServiceStatus{
				LoadBalancer: corev1.LoadBalancerStatus{Ingress: []corev1.LoadBalancerIngress{{IP: addr.String()}}},
				Conditions:   []metav1.Condition{{Type: v1alpha1.ConditionAnnounced, Status: metav1.ConditionTrue}},
			},
		}
		addr = addr.Next()
	}
	return services
}

// BenchmarkAdopt takes over what 100,000 Services have recorded: one operation is
// all of them.
func BenchmarkAdopt(b *testing.B) {
	services := recorded(many)
	pools := Compile([]*v1alpha1.AddressPool{pool("lan", "198.18.0.0/15")})
	b.ResetTimer()
	for b.Loop() {
		a := NewAllocator()
		if conflicts := a.SetPools(pools, Records(services)); len(conflicts) > 0 {
			b.Fatal(conflicts)
		}
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
