package ipam

import (
	"fmt"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

// fill gives out n addresses of the allocator.
func fill(b *testing.B, a *Allocator, n int) {
	b.Helper()
	for i := range n {
		if _, err := a.Assign(ref(claim(fmt.Sprint(i))), nil); err != nil {
			b.Fatal(err)
		}
	}
}

// turnOver releases and assigns, so that the number of assignments stays.
func turnOver(b *testing.B, a *Allocator, n int) {
	b.Helper()
	for i := 0; b.Loop(); i++ {
		// Far apart, so that free addresses are scattered.
		a.Forget(types.UID(fmt.Sprint(i * 7919 % n)))
		if _, err := a.Assign(ref(claim(fmt.Sprint(i * 7919 % n))), nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAssignInFull16(b *testing.B) {
	a := allocator(pool("lan", "198.18.0.0/16"))
	fill(b, a, 65536)
	turnOver(b, a, 65536)
}

func BenchmarkAssignInScattered16(b *testing.B) {
	a := allocator(pool("lan", "198.18.0.0/16"))
	fill(b, a, 65536)
	for i := 0; i < 65536; i += 2 {
		a.Forget(types.UID(fmt.Sprint(i)))
	}
	b.ResetTimer()
	for i := 0; b.Loop(); i++ {
		a.Forget(types.UID(fmt.Sprint(2*i%65536 + 1)))
		if _, err := a.Assign(ref(claim(fmt.Sprint(2*i%65536 + 1))), nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRefuseInFull16(b *testing.B) {
	a := allocator(pool("lan", "198.18.0.0/16"))
	fill(b, a, 65536)
	b.ResetTimer()
	for b.Loop() {
		if _, err := a.Assign(ref(claim("late")), nil); err == nil {
			b.Fatal("no refusal")
		}
	}
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
