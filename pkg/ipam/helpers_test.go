package ipam

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

// pool is an AddressPool with the addresses, which are separated by spaces.
func pool(name, addresses string, change ...func(*v1alpha1.AddressPool)) *v1alpha1.AddressPool {
	p := &v1alpha1.AddressPool{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), Generation: 1},
		Spec:       v1alpha1.AddressPoolSpec{Addresses: strings.Fields(addresses)},
	}
	for _, f := range change {
		f(p)
	}
	return p
}

// spec changes the spec of a pool.
func spec(f func(*v1alpha1.AddressPoolSpec)) func(*v1alpha1.AddressPool) {
	return func(p *v1alpha1.AddressPool) { f(&p.Spec) }
}

// allocator has the pools.
func allocator(pools ...*v1alpha1.AddressPool) *Allocator {
	a := NewAllocator()
	a.SetPools(Compile(pools), nil)
	return a
}

// claim is that of an IPv4 Service whose UID is its name.
func claim(name string, change ...func(*Claim)) Claim {
	c := Claim{
		Owner:    Owner{UID: types.UID(name), Namespace: "default", Name: name},
		Families: []corev1.IPFamily{corev1.IPv4Protocol},
		Terms:    &Terms{Namespace: "default"},
	}
	for _, f := range change {
		f(&c)
	}
	return c
}

func dual(c *Claim) {
	c.Families = []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}
}

func partial(c *Claim) { c.Partial = true }

func want(addresses ...string) func(*Claim) {
	return func(c *Claim) { c.Requested = addrs(addresses...) }
}

func from(pool string) func(*Claim) {
	return func(c *Claim) { c.Pool = pool }
}

func addrs(texts ...string) (parsed []netip.Addr) {
	for _, text := range texts {
		parsed = append(parsed, netip.MustParseAddr(text))
	}
	return parsed
}

func join(addresses []netip.Addr) string {
	var texts []string
	for _, addr := range addresses {
		texts = append(texts, addr.String())
	}
	return strings.Join(texts, " ")
}

// gets fails unless the claim is given the addresses.
func gets(t *testing.T, a *Allocator, c Claim, wanted string) {
	t.Helper()
	assignment, err := a.Assign(&c, nil)
	if err != nil {
		t.Fatalf("%s: %v; want %s", c.Owner, err, wanted)
	}
	if got := join(assignment.Addresses); got != wanted {
		t.Fatalf("%s got %s; want %s", c.Owner, got, wanted)
	}
}

// refused fails unless the claim is refused for the reason, in these words.
func refused(t *testing.T, a *Allocator, c Claim, reason Reason, words ...string) {
	t.Helper()
	assignment, err := a.Assign(&c, nil)
	var refusal *Refusal
	if !errors.As(err, &refusal) {
		t.Fatalf("%s got %s (error %v); want %s", c.Owner, join(assignment.Addresses), err, reason)
	}
	checkRefusal(t, refusal, reason, words...)
}

func checkRefusal(t *testing.T, refusal *Refusal, reason Reason, words ...string) {
	t.Helper()
	if refusal.Reason != reason {
		t.Errorf("refused with %v; want %s", refusal, reason)
	}
	for _, word := range words {
		if !strings.Contains(refusal.Message, word) {
			t.Errorf("refusal %q does not say %q", refusal.Message, word)
		}
	}
}

// ref is the address of a value.
func ref[T any](value T) *T { return &value }

// shows is the record of a Service with the addresses.
func shows(name string, addresses ...string) Record {
	return Record{
		Owner:     Owner{UID: types.UID(name), Namespace: "default", Name: name},
		Addresses: addrs(addresses...),
		Terms:     &Terms{Namespace: "default"},
	}
}
