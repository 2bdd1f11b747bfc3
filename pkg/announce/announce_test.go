package announce

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go4.org/netipx"
)

var byValue = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b Range) bool { return a == b }),
}

// sample is a program that uses every field.
func sample() Program {
	p := Program{
		Epoch:    1_700_000_000_000,
		Cluster:  "6f1f2f6e-0000-4000-8000-000000000001",
		RouterID: netip.MustParseAddr("192.0.2.11"),
		Peers: []Peer{
			{
				Name: "tor-b", LocalASN: 64512, PeerASN: 64500,
				Address: netip.MustParseAddr("2001:db8:2::1"), Port: 179, Source: netip.MustParseAddr("2001:db8:2::11"),
				Password: &SecretKey{Name: "tor", Key: "password"},
				HoldTime: Duration(9 * time.Second), ConnectRetry: Duration(5 * time.Second),
				Passive: true, Multihop: 3, TTLSecurity: true, RestartTime: Duration(30 * time.Second),
				IPv4: true, IPv6: true,
			},
			{
				Name: "tor-a", LocalASN: 64512, PeerASN: 64512,
				Address: netip.MustParseAddr("192.0.2.1"), Port: 1790,
				HoldTime: Duration(90 * time.Second), ConnectRetry: Duration(5 * time.Second), IPv4: true,
			},
		},
		Groups: []Group{
			{
				Pool: "b", HealthCheckNodePort: 30123,
				BGP:       &BGP{Peers: []string{"tor-b", "tor-a"}, LocalPref: 100},
				Addresses: []Range{Single(netip.MustParseAddr("2001:db8:100::7"))},
			},
			{
				Pool: "a",
				BGP: &BGP{
					Peers: []string{"tor-a"}, AggregationLength: 24, LocalPref: 200,
					Communities: []uint32{0xFFFFFF01, 64500<<16 | 1}, LargeCommunities: []LargeCommunity{{64500, 1, 2}},
				},
				Addresses: []Range{
					Single(netip.MustParseAddr("203.0.113.2")),
					Single(netip.MustParseAddr("203.0.113.1")),
				},
			},
		},
	}
	p.Normalize()
	return p
}

func TestRoundTrip(t *testing.T) {
	want := sample()
	value, err := Encode(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(value)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, byValue); diff != "" {
		t.Errorf("decoded program differs (-want +got):\n%s", diff)
	}
}

// The text of a program is what other speakers read: it changes only with the
// format's version.
func TestEncodedText(t *testing.T) {
	p := Program{
		Epoch:    1_700_000_000_000,
		RouterID: netip.MustParseAddr("192.0.2.11"),
		Peers: []Peer{{
			Name: "tor", LocalASN: 64512, PeerASN: 64500, Address: netip.MustParseAddr("192.0.2.1"), Port: 179,
			HoldTime: Duration(9 * time.Second), ConnectRetry: Duration(5 * time.Second), IPv4: true,
		}},
		Groups: []Group{{
			Pool: "main", BGP: &BGP{Peers: []string{"tor"}, LocalPref: 100},
			Addresses: []Range{Single(netip.MustParseAddr("203.0.113.1")), Single(netip.MustParseAddr("203.0.113.2"))},
		}},
	}
	p.Normalize()
	got, err := Encode(p)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"version":1,"epoch":1700000000000,"hash":"` + p.Hash + `","routerID":"192.0.2.11",` +
		`"peers":[{"name":"tor","localASN":64512,"peerASN":64500,"address":"192.0.2.1","port":179,"holdTime":"9s","connectRetry":"5s","ipv4":true}],` +
		`"groups":[{"pool":"main","bgp":{"peers":["tor"],"localPref":100},"addresses":["203.0.113.1-203.0.113.2"]}]}`
	if got != want {
		t.Errorf("encoded text:\n%s\nwant:\n%s", got, want)
	}
}

func TestNormalizeIsCanonical(t *testing.T) {
	want := sample()
	random := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		got := sample()
		random.Shuffle(len(got.Peers), func(i, j int) { got.Peers[i], got.Peers[j] = got.Peers[j], got.Peers[i] })
		// Every address in a group of its own, in any order.
		var groups []Group
		for _, g := range got.Groups {
			for _, r := range g.Addresses {
				for addr := r.From(); ; addr = addr.Next() {
					single := g
					single.Addresses = []Range{Single(addr)}
					groups = append(groups, single)
					if addr == r.To() {
						break
					}
				}
			}
		}
		random.Shuffle(len(groups), func(i, j int) { groups[i], groups[j] = groups[j], groups[i] })
		got.Groups, got.Hash = groups, ""
		got.Normalize()
		if diff := cmp.Diff(want, got, byValue); diff != "" {
			t.Fatalf("another order gave another program (-want +got):\n%s", diff)
		}
	}
}

func TestHashCoversContentOnly(t *testing.T) {
	a, b := sample(), sample()
	b.Epoch++
	b.Normalize()
	if a.Hash != b.Hash {
		t.Error("the hash depends on the epoch")
	}
	b.Groups[0].BGP.LocalPref++
	b.Normalize()
	if a.Hash == b.Hash {
		t.Error("the hash does not depend on the local preference")
	}
}

func TestTenThousandNeighboursTakeOneEntry(t *testing.T) {
	p := Program{Groups: []Group{{Pool: "big", BGP: &BGP{}}}}
	addr := netip.MustParseAddr("198.18.0.0")
	for range 10_000 {
		p.Groups[0].Addresses = append(p.Groups[0].Addresses, Single(addr))
		addr = addr.Next()
	}
	p.Normalize()
	if n := len(p.Groups[0].Addresses); n != 1 {
		t.Errorf("%d entries, want 1", n)
	}
}

func TestNextEpoch(t *testing.T) {
	now := time.UnixMilli(1000)
	for _, test := range []struct{ previous, want int64 }{{0, 1000}, {999, 1000}, {1000, 1001}, {5000, 5001}} {
		if got := NextEpoch(now, test.previous); got != test.want {
			t.Errorf("NextEpoch after %d is %d, want %d", test.previous, got, test.want)
		}
	}
}

// scattered is a program of n ranges that cannot be joined, starting at first.
func scattered(n int) Program {
	p := Program{Groups: []Group{{Pool: "scattered", BGP: &BGP{}}}}
	random := rand.New(rand.NewPCG(3, 4))
	addr := netip.MustParseAddr("2001:db8::")
	for range n {
		// Random gaps, for regular ones compress to nothing.
		raw := addr.As16()
		raw[4], raw[5], raw[6], raw[7] = byte(random.Uint32()), byte(random.Uint32()), byte(random.Uint32()), byte(random.Uint32())
		raw[8], raw[9], raw[15] = byte(random.Uint32()), byte(random.Uint32()), byte(random.Uint32())
		p.Groups[0].Addresses = append(p.Groups[0].Addresses, Single(netip.AddrFrom16(raw)))
	}
	p.Normalize()
	return p
}

func TestLargeProgramsAreCompressed(t *testing.T) {
	p := scattered(2_000)
	value, err := Encode(p)
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasPrefix(value, "{") {
		t.Errorf("%d bytes are plain JSON", len(value))
	}
	got, err := Decode(value)
	if err != nil {
		t.Fatal(err)
	}
	if got.Hash != p.Hash {
		t.Error("decoded program differs")
	}
}

func TestEncodeFittingLeavesOutNewAddressesFirst(t *testing.T) {
	p := scattered(30_000)
	if _, err := Encode(p); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("Encode: %v, want ErrTooLarge", err)
	}
	// The last addresses in order are those announced before.
	ranges := p.Groups[0].Addresses
	old := make(map[netip.Addr]bool)
	for _, r := range ranges[len(ranges)-1000:] {
		old[r.From()] = true
	}
	value, fitted, left, err := EncodeFitting(p, func(a netip.Addr) bool { return old[a] })
	if err != nil {
		t.Fatal(err)
	}
	if len(value) > MaxEncoded {
		t.Errorf("%d bytes", len(value))
	}
	if len(value) < MaxEncoded*95/100 {
		t.Errorf("only %d of %d bytes are used", len(value), MaxEncoded)
	}
	if len(left) == 0 || len(left)+len(fitted.Groups[0].Addresses) != len(ranges) {
		t.Errorf("%d ranges left out and %d kept of %d", len(left), len(fitted.Groups[0].Addresses), len(ranges))
	}
	for addr := range old {
		if !fitted.Contains(addr) {
			t.Fatalf("%s was announced before and is left out", addr)
		}
	}
	decoded, err := Decode(value)
	if err != nil || decoded.Hash != fitted.Hash {
		t.Errorf("decoding what was fitted: %v", err)
	}
}

func TestDecodeRefuses(t *testing.T) {
	valid, err := Encode(sample())
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"empty":             "",
		"not JSON":          "{",
		"not base64":        "!!",
		"not gzip":          "aGVsbG8=",
		"too large":         strings.Repeat("a", MaxEncoded+1),
		"trailing data":     valid + "{}",
		"unknown field":     strings.Replace(valid, `"epoch"`, `"epok":1,"epoch"`, 1),
		"edited by hand":    strings.Replace(valid, "203.0.113.1", "203.0.113.0", 1),
		"reversed range":    strings.Replace(valid, "203.0.113.1-203.0.113.2", "203.0.113.2-203.0.113.1", 1),
		"mixed range":       strings.Replace(valid, "203.0.113.1-203.0.113.2", "203.0.113.1-2001:db8::1", 1),
		"IPv4-mapped":       strings.Replace(valid, "203.0.113.1-203.0.113.2", "::ffff:203.0.113.1", 1),
		"zone":              strings.Replace(valid, "2001:db8:100::7", "fe80::1%eth0", 1),
		"unknown peer":      strings.Replace(valid, `"peers":["tor-a"]`, `"peers":["tor-c"]`, 1),
		"negative duration": strings.Replace(valid, `"holdTime":"9s"`, `"holdTime":"-9s"`, 1),
		"port out of range": strings.Replace(valid, `"port":179`, `"port":65536`, 1),
	} {
		if value == valid {
			t.Fatalf("%s: the value is the valid one", name)
		}
		if _, err := Decode(value); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestDecodeTellsUnknownVersions(t *testing.T) {
	_, err := Decode(`{"version":2,"something":"new"}`)
	var unknown UnknownVersionError
	if !errors.As(err, &unknown) || unknown.Version != 2 {
		t.Errorf("error %v, want an UnknownVersionError of version 2", err)
	}
}

func TestContains(t *testing.T) {
	p := sample()
	for text, want := range map[string]bool{
		"203.0.113.0": false, "203.0.113.1": true, "203.0.113.2": true, "203.0.113.3": false,
		"2001:db8:100::7": true, "2001:db8:100::8": false,
	} {
		if got := p.Contains(netip.MustParseAddr(text)); got != want {
			t.Errorf("Contains(%s) = %t", text, got)
		}
	}
}

func TestReportRoundTrip(t *testing.T) {
	want := Report{
		Version: "v0.1.0", Formats: []int{FormatVersion}, Epoch: 7, Hash: "abc", Error: "some",
		Interfaces: []Interface{{Name: "eth0", MAC: "02:00:00:00:00:01", Prefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.11/24")}}},
		Sessions:   []Session{{Peer: "tor", State: StateEstablished}, {Peer: "two", State: "active", Error: "connection refused"}},
		Hears:      []string{"a", "b"}, NotForwarding: "kube-proxy answers 503",
		Takeovers: []Takeover{{Epoch: 3, Term: 2, Addresses: []Range{Single(netip.MustParseAddr("203.0.113.1"))}}},
	}
	value, err := EncodeReport(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeReport(value)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, byValue, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("decoded report differs (-want +got):\n%s", diff)
	}
	if _, err := DecodeReport(strings.Repeat(" ", maxReport+1)); err == nil {
		t.Error("an oversized report is read")
	}
}

// FuzzDecode: whatever is read is canonical, and comes out as it went in.
func FuzzDecode(f *testing.F) {
	plain, err := Encode(sample())
	if err != nil {
		f.Fatal(err)
	}
	packed, err := Encode(scattered(1_000))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(plain)
	f.Add(packed)
	f.Add(`{"version":1,"epoch":0,"hash":""}`)
	f.Add(`{"version":2}`)
	f.Fuzz(func(t *testing.T, value string) {
		p, err := Decode(value)
		if err != nil {
			return
		}
		p.Normalize()
		again, err := Encode(p)
		if err != nil {
			t.Fatalf("what was decoded cannot be encoded: %v", err)
		}
		q, err := Decode(again)
		if err != nil {
			t.Fatalf("what was encoded cannot be decoded: %v", err)
		}
		if diff := cmp.Diff(p, q, byValue); diff != "" {
			t.Fatalf("round trip differs:\n%s", diff)
		}
	})
}

// FuzzRange: the text of a range and its value are two forms of one thing.
func FuzzRange(f *testing.F) {
	for _, seed := range []string{"203.0.113.1", "203.0.113.1-203.0.113.9", "2001:db8::-2001:db8::ffff", "-", "1.2.3.4-", "::ffff:1.2.3.4"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var r Range
		if r.UnmarshalText([]byte(text)) != nil {
			return
		}
		if !netipx.IPRange(r).IsValid() {
			t.Fatalf("%q gives the invalid range %v", text, r)
		}
		var again Range
		if err := again.UnmarshalText([]byte(r.String())); err != nil || again != r {
			t.Fatalf("%q: %v becomes %v (%v)", text, r, again, err)
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	for _, n := range []int{1, 2_000} {
		b.Run(fmt.Sprintf("ranges=%d", n), func(b *testing.B) {
			p := scattered(n)
			for b.Loop() {
				if _, err := Encode(p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkEncodeFitting encodes what is twice as much as fits.
func BenchmarkEncodeFitting(b *testing.B) {
	p := scattered(30_000)
	had := make(map[netip.Addr]bool)
	for _, r := range p.Groups[0].Addresses[:10_000] {
		had[r.From()] = true
	}
	for b.Loop() {
		if _, _, _, err := EncodeFitting(p, func(a netip.Addr) bool { return had[a] }); err != nil {
			b.Fatal(err)
		}
	}
}

// TestEqualProgramsHaveEqualHashes: NormalizeAfter relies on it, field by field.
func TestEqualProgramsHaveEqualHashes(t *testing.T) {
	full := sample()
	full.Reach = []netip.Addr{netip.MustParseAddr("192.0.2.1")}
	full.Nodes = []Node{{
		Name: "a", Addresses: full.Reach, MACs: []MAC{{2, 0, 0, 0, 0, 1}},
		Links: []Link{{MAC: MAC{2, 0, 0, 0, 0, 1}, Prefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")}}},
	}}
	full.Groups = append(full.Groups, Group{
		Pool: "c", Layer2: &Layer2{Candidates: []string{"a", "b"}, Interfaces: []string{"eth0"}, Probe: true, Epoch: 3},
		Addresses: []Range{Single(netip.MustParseAddr("203.0.113.9"))},
	})
	full.Normalize()
	text, err := json.Marshal(full)
	if err != nil {
		t.Fatal(err)
	}
	decode := func() (p Program) {
		if err := json.Unmarshal(text, &p); err != nil {
			t.Fatal(err)
		}
		return p
	}
	if same := decode(); !same.equal(&full) {
		t.Fatal("a copy of a program is not equal to it")
	}
	var count int
	eachField(reflect.ValueOf(&full).Elem(), "Program", func(string, reflect.Value) { count++ })
	for i := range count {
		changed, at := decode(), 0
		var name string
		eachField(reflect.ValueOf(&changed).Elem(), "Program", func(path string, v reflect.Value) {
			if at == i {
				name = path
				change(t, v)
			}
			at++
		})
		equal := changed.equal(&full)
		if same := changed.contentHash() == full.contentHash(); equal != same {
			t.Errorf("with another %s, equal is %t, and that the hashes are equal %t", name, equal, same)
		}
	}
}

// eachField calls visit for each field, at any depth, that holds a plain value.
func eachField(v reflect.Value, path string, visit func(path string, v reflect.Value)) {
	switch v.Interface().(type) {
	case netip.Addr, netip.Prefix, Range:
		visit(path, v)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			eachField(v.Elem(), path, visit)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			eachField(v.Field(i), path+"."+v.Type().Field(i).Name, visit)
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			eachField(v.Index(i), path, visit)
		}
	default:
		visit(path, v)
	}
}

func change(t *testing.T, v reflect.Value) {
	t.Helper()
	switch value := v.Interface().(type) {
	case netip.Addr:
		v.Set(reflect.ValueOf(netip.MustParseAddr("2001:db8::ffff")))
	case netip.Prefix:
		v.Set(reflect.ValueOf(netip.PrefixFrom(value.Addr().Next(), value.Bits())))
	case Range:
		v.Set(reflect.ValueOf(Single(value.To().Next())))
	case string:
		v.SetString(value + "x")
	case bool:
		v.SetBool(!value)
	default:
		switch {
		case v.CanInt():
			v.SetInt(v.Int() + 1)
		case v.CanUint():
			v.SetUint(v.Uint() ^ 1)
		default:
			t.Fatalf("no way to change a %T", value)
		}
	}
}

// TestJoinedAgainstIPSet: joined is a set.
func TestJoinedAgainstIPSet(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	addr := func() netip.Addr {
		if random.IntN(3) == 0 {
			return netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: byte(random.IntN(30))})
		}
		return netip.AddrFrom4([4]byte{255, 255, 255, byte(200 + random.IntN(56))})
	}
	for range 2000 {
		var (
			ranges []Range
			set    netipx.IPSetBuilder
		)
		for range random.IntN(8) {
			r := netipx.IPRangeFrom(addr(), addr())
			ranges = append(ranges, Range(r))
			if r.IsValid() {
				set.AddRange(r)
			}
		}
		want, err := set.IPSet()
		if err != nil {
			t.Fatal(err)
		}
		got := joined(ranges)
		if again := joined(got); !slices.Equal(got, again) || !slices.EqualFunc(got, want.Ranges(), func(a Range, b netipx.IPRange) bool { return a == Range(b) }) {
			t.Fatalf("%v joined are %v, want %v", ranges, got, want.Ranges())
		}
	}
}
