package ipam

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

func TestCapacity(t *testing.T) {
	avoid := spec(func(s *v1alpha1.AddressPoolSpec) { s.AvoidBuggyIPs = true })
	for _, test := range []struct {
		pool *v1alpha1.AddressPool
		want string
	}{
		{pool("a", "203.0.113.0/24"), "256"},
		{pool("a", "203.0.113.0/24", avoid), "254"},
		{pool("a", "198.51.100.255", avoid), "0"},
		{pool("a", "198.51.100.254-198.51.101.1", avoid), "2"},
		{pool("a", "198.18.0.0/15", avoid), "130048"},
		{pool("a", "0.0.0.0/0", avoid), "4261412864"},
		{pool("a", "203.0.113.0/24 203.0.113.128/25 203.0.113.7"), "256"},
		{pool("a", "2001:db8::/64 203.0.113.1", avoid), "18446744073709551617"},
		{pool("a", "::/0"), "340282366920938463463374607431768211456"},
		{pool("a", "web"), "0"},
	} {
		if got := Compile([]*v1alpha1.AddressPool{test.pool}).Get("a").Capacity().String(); got != test.want {
			t.Errorf("%v has %s addresses; want %s", test.pool.Spec.Addresses, got, test.want)
		}
	}
}

func TestMalformedPoolDisturbsNoOther(t *testing.T) {
	pools := Compile([]*v1alpha1.AddressPool{
		pool("bad", "203.0.113.0/24 203.0.113.300 x-y"),
		pool("worse", ""),
		pool("selects", "198.51.100.0/24", spec(func(s *v1alpha1.AddressPoolSpec) {
			s.NamespaceSelector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Like"}}}
		})),
		pool("good", "203.0.113.0/25"),
	})
	for name, words := range map[string][]string{
		"bad":     {`AddressPool "bad"`, `"203.0.113.300"`, `"x-y"`, "write one like"},
		"worse":   {`AddressPool "worse"`, "is empty"},
		"selects": {`AddressPool "selects"`, "spec.namespaceSelector", "Like"},
	} {
		err := pools.Get(name).Err()
		for _, word := range words {
			if err == nil || !strings.Contains(err.Error(), word) {
				t.Errorf("pool %s: error %v does not say %q", name, err, word)
			}
		}
	}
	if name, ok := pools.Of(netip.MustParseAddr("203.0.113.7")); !ok || name != "good" {
		t.Errorf("203.0.113.7 belongs to %q; want good", name)
	}
	if err := pools.Get("good").Err(); err != nil {
		t.Error(err)
	}
}

// ready is the status of a pool with assignments whose spec of that generation
// was judged.
func ready(allocated string, status metav1.ConditionStatus, generation int64) func(*v1alpha1.AddressPool) {
	return func(p *v1alpha1.AddressPool) {
		p.Status.Allocated = allocated
		p.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: status, ObservedGeneration: generation}}
	}
}

func born(second int64) func(*v1alpha1.AddressPool) {
	return func(p *v1alpha1.AddressPool) { p.CreationTimestamp = metav1.Unix(second, 0) }
}

func TestOverlap(t *testing.T) {
	const yes, no = metav1.ConditionTrue, metav1.ConditionFalse
	for _, test := range []struct {
		name   string
		a, b   *v1alpha1.AddressPool
		winner string
	}{
		{"by name", pool("a", "203.0.113.0/24"), pool("b", "203.0.113.128/25"), "a"},
		{"by age", pool("a", "203.0.113.0/24", born(2)), pool("b", "203.0.113.128/25", born(1)), "b"},
		{"by assignments", pool("a", "203.0.113.0/24", born(1), ready("0", yes, 1)), pool("b", "203.0.113.128/25", born(2), ready("3", yes, 1)), "b"},
		{"older edited into another", pool("a", "203.0.113.0/24", born(1), ready("9", yes, 0)), pool("b", "203.0.113.128/25", born(2), ready("3", yes, 1)), "b"},
		{"loser stays loser", pool("a", "203.0.113.0/24", born(1), ready("9", no, 1)), pool("b", "203.0.113.128/25", born(2), ready("3", yes, 0)), "b"},
		{"both judged", pool("a", "203.0.113.0/24", born(1), ready("9", yes, 1)), pool("b", "203.0.113.128/25", born(2), ready("3", yes, 1)), "a"},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, order := range [][]*v1alpha1.AddressPool{{test.a, test.b}, {test.b, test.a}} {
				pools := Compile(order)
				if got, _ := pools.Of(netip.MustParseAddr("203.0.113.200")); got != test.winner {
					t.Errorf("the common part belongs to %s; want %s", got, test.winner)
				}
				if got, _ := pools.Of(netip.MustParseAddr("203.0.113.1")); got != "a" {
					t.Errorf("a's own part belongs to %q", got)
				}
				loser := map[string]string{"a": "b", "b": "a"}[test.winner]
				conflicts := pools.Get(loser).Conflicts()
				if len(conflicts) != 1 || conflicts[0].String() != `203.0.113.128/25 belongs to AddressPool "`+test.winner+`"` {
					t.Errorf("%s reports %v", loser, conflicts)
				}
				if got := pools.Get(test.winner).Conflicts(); len(got) != 0 {
					t.Errorf("the winner reports %v", got)
				}
			}
		})
	}
}

// TestOwnershipMatchesModel compares the parts with a table of single addresses.
func TestOwnershipMatchesModel(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	base := netip.MustParseAddr("203.0.113.0").As4()
	at := func(i int) netip.Addr { b := base; b[3] = byte(i); return netip.AddrFrom4(b) }
	for range 500 {
		var objects []*v1alpha1.AddressPool
		owner := [256]string{}
		for i := range 1 + random.IntN(6) {
			name := string(rune('a' + i))
			var entries []string
			for range 1 + random.IntN(4) {
				first := random.IntN(256)
				last := first + random.IntN(256-first)
				entries = append(entries, at(first).String()+"-"+at(last).String())
				for j := first; j <= last; j++ {
					if owner[j] == "" {
						owner[j] = name
					}
				}
			}
			objects = append(objects, pool(name, strings.Join(entries, " "), born(int64(i))))
		}
		random.Shuffle(len(objects), func(i, j int) { objects[i], objects[j] = objects[j], objects[i] })
		pools := Compile(objects)
		counts := map[string]int64{}
		for i, want := range owner {
			if got, _ := pools.Of(at(i)); got != want {
				t.Fatalf("%v belongs to %q; want %q", at(i), got, want)
			}
			counts[want]++
		}
		for _, name := range pools.Names() {
			if got := pools.Get(name).Capacity().Int64(); got != counts[name] {
				t.Fatalf("pool %s has %d addresses; want %d", name, got, counts[name])
			}
		}
	}
}

func TestNamesAreInOrderOfPriority(t *testing.T) {
	high := spec(func(s *v1alpha1.AddressPoolSpec) { s.Priority = 5 })
	low := spec(func(s *v1alpha1.AddressPoolSpec) { s.Priority = -5 })
	pools := Compile([]*v1alpha1.AddressPool{pool("a", "203.0.113.1", low), pool("c", "203.0.113.2"), pool("b", "203.0.113.3"), pool("d", "203.0.113.4", high)})
	if got := pools.Names(); !slices.Equal(got, []string{"d", "b", "c", "a"}) {
		t.Errorf("the order is %v", got)
	}
}

func TestAlike(t *testing.T) {
	a := pool("a", "203.0.113.0/24", ready("1", metav1.ConditionTrue, 1))
	for name, change := range map[string]func(*v1alpha1.AddressPool){
		"spec":       func(p *v1alpha1.AddressPool) { p.Generation++ },
		"incumbency": func(p *v1alpha1.AddressPool) { p.Status.Allocated = "0" },
		"deletion":   func(p *v1alpha1.AddressPool) { now := metav1.NewTime(time.Unix(1, 0)); p.DeletionTimestamp = &now },
	} {
		b := a.DeepCopy()
		change(b)
		if Alike(a, b) {
			t.Errorf("a change of %s makes no difference", name)
		}
	}
	b := a.DeepCopy()
	b.Status.Allocated = "2"
	if !Alike(a, b) {
		t.Error("one more assignment makes a difference")
	}
}
