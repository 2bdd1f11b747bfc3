package filter

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"go4.org/netipx"
	"golang.org/x/net/bpf"
)

// family is what differs between the programs.
type family struct {
	name  string
	write func(int, []netipx.IPRange) ([]bpf.RawInstruction, error)
	exact func(int, []span) *program
	first int // word
	// frames are about an address, and about an outsider's where they must have
	// a second one.
	frames func(addr, outsider netip.Addr) [][]byte
	random func(*rand.Rand) netip.Addr
}

// index is that of the interface that the programs are for.
const index = 70_000

func (f *family) compile(ranges []netipx.IPRange) ([]bpf.RawInstruction, error) {
	return f.write(index, ranges)
}

var families = []family{
	{"ARP", ARP, arp, ipv4, func(addr, outsider netip.Addr) [][]byte {
		return [][]byte{arpFrame(1, outsider, addr), arpFrame(2, addr, outsider)}
	}, random4},
	{"NDP", NDP, ndp, ipv6, func(addr, _ netip.Addr) [][]byte {
		return [][]byte{ndpFrame(135, addr), ndpFrame(136, addr)}
	}, random6},
	{"ARPFrom", ARPFrom, arpFrom, ipv4, func(addr, outsider netip.Addr) [][]byte {
		return [][]byte{arpFrame(1, addr, outsider), arpFrame(2, addr, outsider)}
	}, random4},
	{"NDPFrom", NDPFrom, ndpFrom, ipv6, func(addr, outsider netip.Addr) [][]byte {
		return [][]byte{
			sent(ndpFrame(135, outsider), addr), sent(ndpFrame(136, outsider), addr), sent(ndpFrame(136, addr), outsider),
		}
	}, random6},
}

var zero4 = netip.IPv4Unspecified()

func arpFrame(operation byte, sender, target netip.Addr) []byte {
	frame := make([]byte, 60)
	copy(frame[12:], []byte{8, 6, 0, 1, 8, 0, 6, 4, 0, operation})
	copy(frame[28:], sender.AsSlice())
	copy(frame[38:], target.AsSlice())
	return frame
}

func ndpFrame(message byte, target netip.Addr) []byte {
	frame := make([]byte, 78)
	copy(frame[12:], []byte{0x86, 0xdd, 0x60, 0, 0, 0, 0, 24, 58, 255})
	frame[54] = message
	copy(frame[62:], target.AsSlice())
	return frame
}

// sent is the NDP frame with that source.
func sent(frame []byte, source netip.Addr) []byte {
	copy(frame[22:], source.AsSlice())
	return frame
}

func random4(random *rand.Rand) netip.Addr { return address4(random.Uint32()) }

func address4(value uint32) netip.Addr {
	var octets [4]byte
	binary.BigEndian.PutUint32(octets[:], value)
	return netip.AddrFrom4(octets)
}

func address6(high, low uint64) netip.Addr {
	var octets [16]byte
	binary.BigEndian.PutUint64(octets[:], high)
	binary.BigEndian.PutUint64(octets[8:], low)
	return netip.AddrFrom16(octets)
}

// random6 favours words in which something happens.
func random6(random *rand.Rand) netip.Addr {
	word := func() uint64 {
		switch random.IntN(4) {
		case 0:
			return 0
		case 1:
			return 1<<32 - 1
		case 2:
			return random.Uint64N(4)
		}
		return uint64(random.Uint32())
	}
	return address6(word()<<32|word(), word()<<32|word())
}

// around is n addresses that differ in the lowest bits only.
func around(random *rand.Rand, start netip.Addr, n, bits int) []netipx.IPRange {
	var list []netipx.IPRange
	for range n {
		offset := random.Uint64N(1 << bits)
		base := numberOf(start)
		addr := address6(base.high, base.low|offset)
		if start.Is4() {
			addr = address4(uint32(base.low | offset))
		}
		list = append(list, netipx.IPRangeFrom(addr, addr))
	}
	return list
}

// machine runs a program, with the kernel's metadata given.
func machine(t testing.TB, program []bpf.RawInstruction, packetType, from uint32) *bpf.VM {
	t.Helper()
	if len(program) > 4096 {
		t.Fatalf("%d instructions", len(program))
	}
	instructions, ok := bpf.Disassemble(program)
	if !ok {
		t.Fatal("instructions that are none")
	}
	for i, instruction := range instructions {
		if load, ok := instruction.(bpf.LoadExtension); ok {
			value := map[bpf.Extension]uint32{bpf.ExtType: packetType, bpf.ExtInterfaceIndex: from}
			instructions[i] = bpf.LoadConstant{Dst: bpf.RegA, Val: value[load.Num]}
		}
	}
	vm, err := bpf.NewVM(instructions)
	if err != nil {
		t.Fatal(err)
	}
	return vm
}

func accepts(t testing.TB, vm *bpf.VM, frame []byte) bool {
	t.Helper()
	length, err := vm.Run(frame)
	if err != nil {
		t.Fatal(err)
	}
	if length != 0 && length < len(frame) {
		t.Fatalf("the frame is cut at %d", length)
	}
	return length > 0
}

func contains(ranges []netipx.IPRange, addr netip.Addr) bool {
	return slices.ContainsFunc(ranges, func(r netipx.IPRange) bool { return r.Contains(addr) })
}

func parse(t testing.TB, text string) []netipx.IPRange {
	t.Helper()
	var list []netipx.IPRange
	for _, word := range strings.Fields(text) {
		if !strings.Contains(word, "-") {
			word += "-" + word
		}
		r, err := netipx.ParseIPRange(word)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, r)
	}
	return list
}

// questions is addresses at which a program may go wrong.
func (f *family) questions(random *rand.Rand, ranges []netipx.IPRange) []netip.Addr {
	list := []netip.Addr{zero4, address4(1), address4(1<<32 - 1), address4(1<<32 - 2)}
	if f.first == ipv6 {
		list = []netip.Addr{address6(0, 0), address6(0, 1), address6(1<<64-1, 1<<64-1), address6(1<<64-1, 1<<64-2)}
	}
	for _, r := range ranges {
		for _, addr := range []netip.Addr{r.From(), r.To(), r.From().Prev(), r.To().Next()} {
			if !addr.IsValid() || addr.Is4() != (f.first == ipv4) {
				continue
			}
			list = append(list, addr)
			for word := f.first; word < lastWord; word++ {
				low, high := numberOf(addr).floor(word), numberOf(addr).ceil(word)
				for _, n := range []number{low, high} {
					edge := address6(n.high, n.low)
					list = append(list, edge, edge.Next(), edge.Prev())
				}
			}
		}
	}
	for range 200 {
		list = append(list, f.random(random))
	}
	return slices.DeleteFunc(list, func(addr netip.Addr) bool { return !addr.IsValid() })
}

// judge holds the program for the ranges against looking at each of them. It
// returns the number of instructions and whether the set was widened.
func (f *family) judge(t *testing.T, random *rand.Rand, ranges []netipx.IPRange) (instructions int, widened bool) {
	t.Helper()
	program, err := f.compile(ranges)
	if err != nil {
		t.Fatal(err)
	}
	normal, err := normalize(ranges, f.first)
	if err != nil {
		t.Fatal(err)
	}
	widened = len(normal) > 0 && !f.exact(index, normal).fits()
	vm := machine(t, program, 0, index)
	questions := f.questions(random, ranges)
	// Where there is none, the set is everything, and everything is accepted.
	outsider := zero4
	for _, addr := range questions {
		if !contains(ranges, addr) {
			outsider = addr
		}
	}
	for _, addr := range questions {
		for i, frame := range f.frames(addr, outsider) {
			got, want := accepts(t, vm, frame), contains(ranges, addr)
			if want && !got || got && !want && !widened {
				t.Fatalf("%s in frame %d: accepted %t, in the set %t; of %v", addr, i, got, want, ranges)
			}
		}
	}
	return len(program), widened
}

func TestMembership(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for name, text := range map[string]string{
		"nothing":          "",
		"single":           "192.0.2.1 2001:db8::1",
		"neighbours":       "192.0.2.1 192.0.2.2 192.0.2.4 2001:db8::1 2001:db8::2 2001:db8::4",
		"overlapping":      "192.0.2.1-192.0.2.9 192.0.2.5-192.0.2.20 192.0.2.7 2001:db8::1-2001:db8::9 2001:db8::5-2001:db8::20",
		"unsorted":         "192.0.2.9 192.0.2.1 198.51.100.1-198.51.100.9 192.0.2.1 2001:db8::9 2001:db8::1",
		"first address":    "0.0.0.0 ::",
		"last address":     "255.255.255.255 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
		"both ends":        "0.0.0.0 255.255.255.255 :: ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
		"everything":       "0.0.0.0-255.255.255.255 ::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
		"all but one":      "0.0.0.0-192.0.2.0 192.0.2.2-255.255.255.255 ::-2001:db8:: 2001:db8::2-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
		"prefixes":         "192.0.2.0-192.0.2.255 2001:db8::-2001:db8:0:0:ffff:ffff:ffff:ffff 2001:db8:1::-2001:db8:1:ffff:ffff:ffff:ffff:ffff",
		"a word exactly":   "2001:db8::-2001:db8:ffff:ffff:ffff:ffff:ffff:ffff 2001:db9:0:1::-2001:db9:0:1:ffff:ffff:ffff:ffff",
		"across words":     "2001:db8::5-2001:db8:0:3::7 2001:db8:0:3::9-2001:db8:0:4:: 2001:db8:ffff:ffff:ffff:ffff:ffff:ffff-2001:db9::",
		"two within words": "2001:db8::1-2001:db8:0:0:1::1 2001:db8:0:0:1::3-2001:db8:0:0:2::1 2001:db8::5:1:0:0-2001:db8::6:1:0:0",
		"mapped":           "::ffff:192.0.2.1",
	} {
		t.Run(name, func(t *testing.T) {
			for _, f := range families {
				if _, widened := f.judge(t, random, parse(t, text)); widened {
					t.Errorf("%s: widened", f.name)
				}
			}
		})
	}
}

// Random ranges, of which most share ends or words with others.
func TestMembershipOfRandomRanges(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			for range 300 {
				var ranges []netipx.IPRange
				for range 1 + random.IntN(12) {
					from := f.random(random)
					to := from
					if random.IntN(2) == 0 {
						to = f.random(random)
					}
					if to.Less(from) {
						from, to = to, from
					}
					ranges = append(ranges, netipx.IPRangeFrom(from, to))
				}
				f.judge(t, random, ranges)
			}
		})
	}
}

func TestManyAddresses(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	for _, test := range []struct {
		name   string
		family family
		ranges []netipx.IPRange
		exact  bool
	}{
		{"400 anywhere", families[0], around(random, zero4, 400, 32), true},
		{"2000 in a /16", families[0], around(random, netip.MustParseAddr("10.1.0.0"), 2000, 16), false},
		{"2000 anywhere", families[0], around(random, zero4, 2000, 32), false},
		{"20000 anywhere", families[0], around(random, zero4, 20000, 32), false},
		{"800 in a /96", families[1], around(random, netip.MustParseAddr("2001:db8::"), 800, 32), true},
		{"200 in a /64", families[1], around(random, netip.MustParseAddr("2001:db8::"), 200, 63), true},
		{"100 anywhere", families[1], anywhere6(random, 100), true},
		{"2000 in a /96", families[1], around(random, netip.MustParseAddr("2001:db8::"), 2000, 32), false},
		{"2000 in a /64", families[1], around(random, netip.MustParseAddr("2001:db8::"), 2000, 63), false},
		{"2000 anywhere", families[1], anywhere6(random, 2000), false},
		{"20000 anywhere", families[1], anywhere6(random, 20000), false},
	} {
		t.Run(test.family.name+" "+test.name, func(t *testing.T) {
			f := test.family
			program, err := f.compile(test.ranges)
			if err != nil {
				t.Fatal(err)
			}
			vm, foreign := machine(t, program, 0, index), 0
			members := map[netip.Addr]bool{}
			for _, r := range test.ranges {
				members[r.From()] = true
				for _, frame := range f.frames(r.From(), zero4) {
					if !accepts(t, vm, frame) {
						t.Fatalf("%s is in the set and rejected", r.From())
					}
				}
			}
			for _, r := range test.ranges {
				if next := r.From().Next(); next.IsValid() && !members[next] && accepts(t, vm, f.frames(next, zero4)[0]) {
					foreign++
				}
			}
			if test.exact && foreign > 0 {
				t.Errorf("%d foreign addresses pass", foreign)
			}
			t.Logf("%d instructions; of the addresses behind those of the set, %d of %d pass", len(program), foreign, len(test.ranges))
		})
	}
}

func anywhere6(random *rand.Rand, n int) []netipx.IPRange {
	var list []netipx.IPRange
	for range n {
		addr := address6(random.Uint64(), random.Uint64())
		list = append(list, netipx.IPRangeFrom(addr, addr))
	}
	return list
}

// A set that is too large is widened no more than it has to be: the largest gaps
// stay closed.
func TestWideningKeepsLargeGaps(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	ranges := around(random, netip.MustParseAddr("10.1.0.0"), 3000, 16)
	ranges = append(ranges, around(random, netip.MustParseAddr("192.0.2.0"), 20, 8)...)
	program, err := ARP(index, ranges)
	if err != nil {
		t.Fatal(err)
	}
	vm := machine(t, program, 0, index)
	for text, want := range map[string]bool{
		ranges[0].From().String(): true, "10.0.255.255": false, "10.2.0.0": false,
		"100.0.0.0":   false,
		"192.0.1.255": false, "192.0.3.0": false, "0.0.0.0": false, "255.255.255.255": false,
	} {
		if got := accepts(t, vm, arpFrame(1, zero4, netip.MustParseAddr(text))); got != want {
			t.Errorf("%s: accepted %t, want %t", text, got, want)
		}
	}
}

func TestSameProgramForTheSameSet(t *testing.T) {
	random := rand.New(rand.NewPCG(9, 10))
	for _, f := range families {
		var ranges []netipx.IPRange
		for range 3000 {
			addr := f.random(random)
			ranges = append(ranges, netipx.IPRangeFrom(addr, addr))
		}
		before := slices.Clone(ranges)
		first, err := f.compile(ranges)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(before, ranges) {
			t.Errorf("%s: the argument was changed", f.name)
		}
		random.Shuffle(len(ranges), func(i, j int) { ranges[i], ranges[j] = ranges[j], ranges[i] })
		second, err := f.compile(append(ranges, ranges[:100]...))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(first, second) {
			t.Errorf("%s: the order of the ranges makes a difference", f.name)
		}
	}
}

func TestInvalidRange(t *testing.T) {
	for _, f := range families {
		for _, r := range []netipx.IPRange{
			{},
			netipx.IPRangeFrom(address4(2), address4(1)),
			netipx.IPRangeFrom(address4(1), address6(0, 2)),
		} {
			if program, err := f.compile([]netipx.IPRange{r}); err == nil {
				t.Errorf("%s: %v compiles: %v", f.name, r, program)
			}
		}
	}
}

func TestFrames(t *testing.T) {
	change := func(frame []byte, offset int, octets ...byte) []byte {
		copy(frame[offset:], octets)
		return frame
	}
	ours4, ours6 := netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("2001:db8::10")
	theirs4, theirs6 := netip.MustParseAddr("192.0.2.11"), netip.MustParseAddr("2001:db8::11")
	request := func() []byte { return arpFrame(1, theirs4, ours4) }
	solicited := func() []byte { return ndpFrame(135, ours6) }
	set := []netipx.IPRange{netipx.IPRangeFrom(ours4, ours4), netipx.IPRangeFrom(ours6, ours6)}
	for _, f := range families {
		program, err := f.compile(set)
		if err != nil {
			t.Fatal(err)
		}
		vm := machine(t, program, 0, index)
		for name, test := range map[string]struct {
			frame []byte
			want  string
		}{
			"request for us":                     {request(), "ARP"},
			"request without padding":            {request()[:42], "ARP"},
			"request cut in the target":          {request()[:41], ""},
			"probe for us":                       {arpFrame(1, zero4, ours4), "ARP"},
			"request by us":                      {arpFrame(1, ours4, theirs4), "ARP ARPFrom"},
			"announcement of ours":               {arpFrame(1, ours4, ours4), "ARP ARPFrom"},
			"reply by us":                        {arpFrame(2, ours4, theirs4), "ARP ARPFrom"},
			"reply to us":                        {arpFrame(2, theirs4, ours4), ""},
			"request for others":                 {arpFrame(1, theirs4, theirs4), ""},
			"operation 3 by us":                  {arpFrame(3, ours4, ours4), ""},
			"operation 257 by us":                {change(arpFrame(1, ours4, ours4), 20, 1), ""},
			"another hardware type":              {change(request(), 15, 6), ""},
			"another protocol type":              {change(request(), 16, 9), ""},
			"another hardware length":            {change(request(), 18, 8), ""},
			"another protocol length":            {change(request(), 19, 16), ""},
			"tagged ARP":                         {change(request(), 12, 0x81, 0), ""},
			"solicitation":                       {solicited(), "NDP"},
			"solicitation, class and flow label": {change(solicited(), 14, 0x6f, 0xff), "NDP"},
			"solicitation cut in the target":     {solicited()[:77], ""},
			"advertisement":                      {ndpFrame(136, ours6), "NDP NDPFrom"},
			"redirect":                           {ndpFrame(137, ours6), ""},
			"router advertisement":               {ndpFrame(134, ours6), ""},
			"code":                               {change(solicited(), 55, 1), ""},
			"forwarded":                          {change(solicited(), 21, 254), ""},
			"hop-by-hop options":                 {change(solicited(), 20, 0), ""},
			"version 5":                          {change(solicited(), 14, 0x5f), ""},
			"version 7":                          {change(solicited(), 14, 0x70), ""},
			"solicitation for others":            {ndpFrame(135, theirs6), ""},
			"solicitation by us for others":      {sent(ndpFrame(135, theirs6), ours6), "NDPFrom"},
			"solicitation by us for us":          {sent(solicited(), ours6), "NDP NDPFrom"},
			"advertisement by us of others":      {sent(ndpFrame(136, theirs6), ours6), "NDPFrom"},
			"advertisement of ours by others":    {sent(ndpFrame(136, ours6), theirs6), "NDP NDPFrom"},
			"advertisement of others":            {sent(ndpFrame(136, theirs6), theirs6), ""},
			"redirect by us":                     {sent(ndpFrame(137, theirs6), ours6), ""},
			"forwarded, by us":                   {change(sent(solicited(), ours6), 21, 254), ""},
			"request by us cut in the sender":    {arpFrame(1, ours4, theirs4)[:31], ""},
			"tagged solicitation":                {change(solicited(), 12, 0x81, 0), ""},
			"an empty frame":                     {nil, ""},
			"a frame that ends in the EtherType": {request()[:13], ""},
		} {
			if got, want := accepts(t, vm, test.frame), slices.Contains(strings.Fields(test.want), f.name); got != want {
				t.Errorf("%s: %s: accepted %t", f.name, name, got)
			}
		}
		for name, vm := range map[string]*bpf.VM{
			"outgoing":            machine(t, program, packetOutgoing, index),
			"another host's":      machine(t, program, packetOtherHost, index),
			"a VLAN interface's":  machine(t, program, 0, index+1),
			"another interface's": machine(t, program, 0, 1),
		} {
			if accepts(t, vm, arpFrame(1, ours4, ours4)) || accepts(t, vm, sent(solicited(), ours6)) {
				t.Errorf("%s: %s frame is accepted", f.name, name)
			}
		}
		for packetType := range uint32(3) { // for us, broadcast, multicast
			vm := machine(t, program, packetType, index)
			if !accepts(t, vm, arpFrame(1, ours4, ours4)) && !accepts(t, vm, sent(solicited(), ours6)) {
				t.Errorf("%s: packet type %d is rejected", f.name, packetType)
			}
		}
	}
}

func BenchmarkCompile(b *testing.B) {
	random := rand.New(rand.NewPCG(11, 12))
	for _, test := range []struct {
		family family
		ranges func(n int) []netipx.IPRange
		where  string
	}{
		{families[0], func(n int) []netipx.IPRange { return around(random, zero4, n, 32) }, "anywhere"},
		{families[1], func(n int) []netipx.IPRange {
			return around(random, netip.MustParseAddr("2001:db8::"), n, 63)
		}, "in a 64"},
		{families[1], func(n int) []netipx.IPRange { return anywhere6(random, n) }, "anywhere"},
	} {
		for _, n := range []int{1, 100, 400, 800, 2001, 10000} {
			ranges := test.ranges(n)
			b.Run(fmt.Sprintf("%s/%d %s", test.family.name, n, test.where), func(b *testing.B) {
				b.ReportAllocs()
				var program []bpf.RawInstruction
				for b.Loop() {
					var err error
					if program, err = test.family.compile(ranges); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(len(program)), "instructions")
			})
		}
	}
}
