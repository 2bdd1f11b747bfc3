package ipam

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/types"
)

// table is the book as a map. It looks at single addresses, so it can be asked
// about short ranges only, or about what is entered.
type table struct {
	tenants  map[netip.Addr][]*holding
	reserved map[netip.Addr]bool
	// struck are addresses that nobody has since strike and settle was not told.
	struck map[netip.Addr]bool
}

func (t *table) busy(addr netip.Addr) bool {
	return len(t.tenants[addr]) > 0 || t.reserved[addr] || t.struck[addr]
}

// free looks at no more addresses than are busy or avoided in a row.
func (t *table) free(from, to netip.Addr, avoid bool) netip.Addr {
	for addr := from; addr.IsValid() && !to.Less(addr); addr = addr.Next() {
		if !t.busy(addr) && !(avoid && buggy(addr)) {
			return addr
		}
	}
	return netip.Addr{}
}

// occupied are the addresses with tenants, in order.
func (t *table) occupied(from, to netip.Addr) (found []netip.Addr) {
	for addr, tenants := range t.tenants {
		if len(tenants) > 0 && addr.Is4() == from.Is4() && !addr.Less(from) && !to.Less(addr) {
			found = append(found, addr)
		}
	}
	slices.SortFunc(found, netip.Addr.Compare)
	return found
}

// neighbourhoods are where blocks, words and the address space end.
var neighbourhoods = []struct{ name, from, to, around string }{
	{"tiny", "203.0.113.5", "203.0.113.9", "203.0.113.0"},
	{"one", "203.0.113.255", "203.0.113.255", "203.0.113.250"},
	{"end of word", "203.0.113.60", "203.0.113.70", "203.0.113.58"},
	{"end of block", "198.51.100.250", "198.51.101.5", "198.51.100.248"},
	{"first of all", "0.0.0.0", "0.0.0.12", "0.0.0.0"},
	{"last of all", "255.255.255.244", "255.255.255.255", "255.255.255.240"},
	{"IPv4", "0.0.0.0", "255.255.255.255", "0.0.0.0"},
	{"end of IPv4", "128.0.0.0", "255.255.255.255", "255.255.255.240"},
	{"first of IPv6", "::", "::c", "::"},
	{"last of IPv6", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fff4", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fff0"},
	{"IPv6", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::"},
	{"slash64", "2001:db8::", "2001:db8::ffff:ffff:ffff:ffff", "2001:db8::"},
	{"end of slash64", "2001:db8::ffff:ffff:ffff:fff0", "2001:db8:0:1::f", "2001:db8::ffff:ffff:ffff:fff0"},
}

// TestBookAgainstTable enters, strikes and reserves random addresses where things
// end, and compares the book with a map.
func TestBookAgainstTable(t *testing.T) {
	for seed, place := range neighbourhoods {
		t.Run(place.name, func(t *testing.T) {
			random := rand.New(rand.NewPCG(uint64(seed), 1))
			from, to := netip.MustParseAddr(place.from), netip.MustParseAddr(place.to)
			addresses := []netip.Addr{netip.MustParseAddr(place.around)}
			for next := addresses[0].Next(); next.IsValid() && len(addresses) < 32; next = next.Next() {
				addresses = append(addresses, next)
			}
			if last := to.Prev(); last.IsValid() {
				addresses = append(addresses, last)
			}
			addresses = append(addresses, to)
			checkBook(t, random, addresses, from, to)
		})
	}
}

func checkBook(t *testing.T, random *rand.Rand, addresses []netip.Addr, from, to netip.Addr) {
	var holdings []*holding
	for i := range 4 {
		holdings = append(holdings, &holding{owner: Owner{UID: types.UID(fmt.Sprint(i))}})
	}
	b := newBook()
	m := &table{tenants: map[netip.Addr][]*holding{}, reserved: map[netip.Addr]bool{}, struck: map[netip.Addr]bool{}}
	pick := func() netip.Addr { return addresses[random.IntN(len(addresses))] }
	settle := func(addr netip.Addr, reserved bool) {
		b.settle(addr, reserved)
		m.reserved[addr] = reserved
		delete(m.struck, addr)
	}
	for step := range 4000 {
		addr, h := pick(), holdings[random.IntN(len(holdings))]
		// The book fills, and empties again.
		op := random.IntN(8)
		if step/500%2 == 0 && op < 3 {
			op = 7
		}
		switch op {
		case 0, 1:
			b.strike(addr, h)
			before := m.tenants[addr]
			m.tenants[addr] = slices.DeleteFunc(before, func(other *holding) bool { return other == h })
			if len(before) > 0 && len(m.tenants[addr]) == 0 {
				m.struck[addr] = true
			}
		case 2, 3:
			settle(addr, false)
		case 4:
			settle(addr, random.IntN(2) == 0)
		default:
			b.enter(addr, h)
			if !slices.Contains(m.tenants[addr], h) {
				m.tenants[addr] = append(m.tenants[addr], h)
			}
			delete(m.struck, addr)
		}
		var got []*holding
		for _, tenant := range b.tenants(addr) {
			got = append(got, tenant.holding)
		}
		if !slices.Equal(got, m.tenants[addr]) {
			t.Fatalf("step %d: %s has tenants %v; want %v", step, addr, got, m.tenants[addr])
		}

		first, last := from, to
		if a, b := pick(), pick(); random.IntN(2) == 0 && a.Is4() == b.Is4() {
			first, last = earlier(a, b), later(a, b)
		}
		for _, avoid := range []bool{false, true} {
			if got, want := b.free(first, last, avoid), m.free(first, last, avoid); got != want {
				t.Fatalf("step %d: free from %s to %s is %v; want %v (avoid %v)", step, first, last, got, want, avoid)
			}
		}
		if step%16 == 0 {
			compareOccupied(t, b, m, first, last)
		}
	}
	for _, addr := range addresses {
		for _, h := range holdings {
			b.strike(addr, h)
		}
		settle(addr, false)
	}
	if len(b.blocks) > 0 {
		t.Errorf("the empty book has blocks %v", slices.Collect(maps.Keys(b.blocks)))
	}
}

func compareOccupied(t *testing.T, b *book, m *table, from, to netip.Addr) {
	t.Helper()
	want := m.occupied(from, to)
	var got []netip.Addr
	whole := b.occupied(from, to, func(addr netip.Addr, tenants []tenant) bool {
		got = append(got, addr)
		if len(tenants) != len(m.tenants[addr]) {
			t.Fatalf("%s is occupied by %d; want %d", addr, len(tenants), len(m.tenants[addr]))
		}
		return true
	})
	if !slices.Equal(got, want) || !whole {
		t.Fatalf("occupied from %s to %s are %v; want %v", from, to, got, want)
	}
	n := 0
	stopped := !b.occupied(from, to, func(netip.Addr, []tenant) bool { n++; return n < 2 })
	if n != min(2, len(want)) || stopped != (len(want) > 1) {
		t.Fatalf("went on for %d of %d addresses; stopped is %v", n, len(want), stopped)
	}
}

// TestFreeBehindFullBlocks fills the beginning of a range up to somewhere in a
// block, so that a search has to step over many.
func TestFreeBehindFullBlocks(t *testing.T) {
	for _, test := range []struct {
		from, to string
		full     int
		avoid    bool
		want     string
	}{
		{"10.0.0.0", "10.255.255.255", 20_000, false, "10.0.78.32"},
		{"10.0.0.0", "10.255.255.255", 256 * 50, false, "10.0.50.0"},
		{"10.0.0.0", "10.255.255.255", 256 * 50, true, "10.0.50.1"},
		{"10.0.0.0", "10.255.255.255", 256*50 - 1, true, "10.0.50.1"},
		{"10.0.0.0", "10.255.255.255", 256*50 - 1, false, "10.0.49.255"},
		{"10.0.0.0", "10.0.49.255", 256 * 50, false, "invalid IP"},
		{"10.0.0.0", "10.0.49.255", 256*50 - 1, true, "invalid IP"},
		{"255.255.240.0", "255.255.255.255", 4096, false, "invalid IP"},
		{"255.255.240.0", "255.255.255.255", 4095, false, "255.255.255.255"},
		{"255.255.240.0", "255.255.255.255", 4095, true, "invalid IP"},
		{"2001:db8::ffff:ffff:ffff:f000", "2001:db8:0:1::ffff", 4096, false, "2001:db8:0:1::"},
		{"2001:db8::ffff:ffff:ffff:f000", "2001:db8:0:1::ffff", 4096 + 300, true, "2001:db8:0:1::12c"},
		{"ffff:ffff:ffff:ffff:ffff:ffff:ffff:f000", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 4096, false, "invalid IP"},
		{"ffff:ffff:ffff:ffff:ffff:ffff:ffff:f000", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 4095, false, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
	} {
		b, h := newBook(), &holding{}
		from, to := netip.MustParseAddr(test.from), netip.MustParseAddr(test.to)
		addr := from
		for range test.full {
			b.enter(addr, h)
			addr = addr.Next()
		}
		if got := b.free(from, to, test.avoid).String(); got != test.want {
			t.Errorf("%s-%s with %d taken: %s is free (avoid %v); want %s", test.from, test.to, test.full, got, test.avoid, test.want)
		}
		n := 0
		b.occupied(from, to, func(netip.Addr, []tenant) bool { n++; return true })
		if n != test.full {
			t.Errorf("%s-%s has %d occupied; want %d", test.from, test.to, n, test.full)
		}
	}
}
