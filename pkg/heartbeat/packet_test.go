package heartbeat

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"go4.org/netipx"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

func rangeFrom(t testing.TB, s string) announce.Range {
	t.Helper()
	var r announce.Range
	if err := r.UnmarshalText([]byte(s)); err != nil {
		t.Fatal(err)
	}
	return r
}

// samplePacket has all that a packet may have.
func samplePacket(t testing.TB) packet {
	t.Helper()
	p := packet{
		flags: flagStarting | flagReleasing, from: 1, to: 1 << 63, link: 0xfedcba98,
		life: 3, seq: 4, echoLife: 5, echoSeq: 6, table: 7, ack: 8, checks: 13,
		views: []view{{of: 9, link: 10, age: 0}, {of: 11, link: 12, age: 65535 * time.Millisecond}},
		chunk: 1, chunks: 3,
	}
	for _, c := range []struct {
		owner     id
		rank      rank
		addresses string
		unfit     bool
	}{
		{1, rank{1, 2}, "192.0.2.1", false},
		{1, rank{1, 2}, "192.0.2.3-192.0.3.4", false},
		{1, rank{1, 2}, "2001:db8::1", false},
		{1, rank{1, 2}, "2001:db8::2", true},
		{2, rank{1, 2}, "2001:db8::ffff:ffff-2001:db8::1:0:ffff", false},
		{2, rank{1, 3}, "2001:db8::2:0:0:0-2001:db8::2:0:0:1", false},
		{2, rank{2, 3}, "0.0.0.0-255.255.255.255", false},
		{0, rank{}, "203.0.113.1", true},
	} {
		p.claims = append(p.claims, claimed{c.owner, c.rank, rangeFrom(t, c.addresses), c.unfit})
	}
	return p
}

func TestPacket(t *testing.T) {
	for name, p := range map[string]packet{
		"all":   samplePacket(t),
		"least": {life: 1, seq: 1},
		"empty": {life: 1, seq: 1, chunks: 1},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parsePacket(p.append(nil))
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, p) {
				t.Errorf("got  %+v\nwant %+v", got, p)
			}
		})
	}
}

// TestPacketBytes holds the format against docs/reference/heartbeat.md.
func TestPacketBytes(t *testing.T) {
	p := packet{
		flags: flagRestarting, from: 0x0102030405060708, to: 0x1112131415161718, link: 0x21222324,
		life: 0x3132333435363738, seq: 0x4142434445464748, echoLife: 0x5152535455565758, echoSeq: 0x6162636465666768,
		table: 0x71727374, ack: 0x81828384, checks: 0x91,
		views: []view{{0x9192939495969798, 0xa1a2a3a4, 0xb1b2 * time.Millisecond}},
		chunk: 1, chunks: 2,
		claims: []claimed{
			{0xc1c2c3c4c5c6c7c8, rank{0xd1d2d3d4, 0xe1e2e3e4}, rangeFrom(t, "192.0.2.1"), true},
			{0xc1c2c3c4c5c6c7c8, rank{0xd1d2d3d4, 0xe1e2e3e4}, rangeFrom(t, "192.0.2.3-192.0.2.5"), true},
		},
	}
	want := []byte{
		0x42, 0x4c, 1, 2,
		1, 2, 3, 4, 5, 6, 7, 8,
		0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18,
		0x21, 0x22, 0x23, 0x24,
		0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37, 0x38,
		0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48,
		0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58,
		0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68,
		0x71, 0x72, 0x73, 0x74,
		0x81, 0x82, 0x83, 0x84,
		1, 1, 2, 0x91,
		0x91, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0xa1, 0xa2, 0xa3, 0xa4, 0xb1, 0xb2,
		0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xd1, 0xd2, 0xd3, 0xd4, 0xe1, 0xe2, 0xe3, 0xe4, 0x84, 2,
		192, 0, 2, 1, 0, 0, 0, 0,
		192, 0, 2, 3, 0, 0, 0, 2,
	}
	if got := p.append(nil); !bytes.Equal(got, want) {
		t.Errorf("got  %x\nwant %x", got, want)
	}
}

// TestPacketAge: what a packet has no room for is told as far as it goes.
func TestPacketAge(t *testing.T) {
	p := packet{life: 1, seq: 1, views: []view{{age: time.Hour}, {age: 1500 * time.Microsecond}}}
	got, err := parsePacket(p.append(nil))
	if err != nil {
		t.Fatal(err)
	}
	if got.views[0].age != 65535*time.Millisecond || got.views[1].age != time.Millisecond {
		t.Errorf("ages %v", got.views)
	}
}

func TestPacketRefusals(t *testing.T) {
	whole := samplePacket(t)
	// Where the parts of the sample begin.
	const (
		runs  = headerLength + 2*viewLength
		first = runs + runLength
		run6  = first + 2*8
	)
	set := func(at int, octets ...byte) func([]byte) []byte {
		return func(b []byte) []byte { copy(b[at:], octets); return b }
	}
	cut := func(n int) func([]byte) []byte { return func(b []byte) []byte { return b[:n] } }
	for name, test := range map[string]struct {
		mangle func([]byte) []byte
		want   error
	}{
		"nothing":             {cut(0), errPacketShort},
		"cut header":          {cut(headerLength - 1), errPacketShort},
		"magic":               {set(0, 0x43), errPacketMagic},
		"version 0":           {set(2, 0), errPacketVersion},
		"later version":       {set(2, packetVersion+1), errPacketVersion},
		"unknown flag":        {set(3, knownFlags+1), errPacketContent},
		"no life":             {set(24, make([]byte, 8)...), errPacketContent},
		"no number":           {set(32, make([]byte, 8)...), errPacketContent},
		"too many views":      {set(64, maxViews+1), errPacketContent},
		"missing views":       {cut(headerLength + 2*viewLength - 1), errPacketShort},
		"chunk of none":       {set(65, 1, 0), errPacketContent},
		"chunk beyond":        {set(65, 3, 3), errPacketContent},
		"claims and no chunk": {set(65, 0, 0), errPacketContent},
		"cut run":             {cut(runs + runLength - 1), errPacketShort},
		"octets":              {set(runs+16, 5), errPacketContent},
		"empty run":           {set(runs+17, 0), errPacketContent},
		"missing addresses":   {cut(first + 15), errPacketShort},
		"run too long":        {set(runs+17, 255), errPacketShort},
		"end of IPv4":         {set(first, 255, 255, 255, 255, 0, 0, 0, 1), errPacketContent},
		"end of IPv6": {set(run6+runLength, append(bytes.Repeat([]byte{255}, 16), 0, 0, 0, 1)...),
			errPacketContent},
		"mapped IPv4": {set(run6+runLength, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 192, 0, 2, 1), errPacketContent},
		"up to mapped IPv4": {set(run6+runLength, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 254, 255, 255, 255, 255, 0, 0, 0, 1),
			errPacketContent},
		"trailing octet": {func(b []byte) []byte { return append(b, 0) }, errPacketShort},
		"run that joins": {func([]byte) []byte {
			p := packet{life: 1, seq: 1, chunks: 1}
			c := claimed{owner: 1, rank: rank{1, 1}, addresses: rangeFrom(t, "192.0.2.1")}
			return appendRun(appendRun(p.append(nil), []claimed{c}), []claimed{c})
		}, errPacketContent},
		"rank of nobody": {func([]byte) []byte {
			p := packet{life: 1, seq: 1, chunks: 1}
			return appendRun(p.append(nil), []claimed{{rank: rank{1, 0}, addresses: rangeFrom(t, "192.0.2.1"), unfit: true}})
		}, errPacketContent},
		"run that says nothing": {func([]byte) []byte {
			p := packet{life: 1, seq: 1, chunks: 1}
			return appendRun(p.append(nil), []claimed{{addresses: rangeFrom(t, "192.0.2.1")}})
		}, errPacketContent},
		"too long": {func([]byte) []byte { return make([]byte, maxPacket-trailerLength+1) }, errPacketLong},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := parsePacket(test.mangle(whole.append(nil))); !errors.Is(err, test.want) {
				t.Errorf("%v, want %v", err, test.want)
			}
		})
	}
}

// FuzzPacket: what is not refused has one encoding, and costs no more memory than
// its length allows.
func FuzzPacket(f *testing.F) {
	sample := samplePacket(f)
	f.Add(sample.append(nil))
	f.Add((&packet{life: 1, seq: 1}).append(nil))
	f.Add((&packet{life: 1, seq: 1, chunks: maxChunks}).append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parsePacket(b)
		if err != nil {
			if !reflect.DeepEqual(p, packet{}) {
				t.Errorf("%v, and yet %+v", err, p)
			}
			return
		}
		if got := p.append(nil); !bytes.Equal(got, b) {
			t.Errorf("encoded as %x\nfrom       %x", got, b)
		}
		if len(p.views) > maxViews || len(p.claims) > maxPacket/8 {
			t.Errorf("%d views and %d claims in %d bytes", len(p.views), len(p.claims), len(b))
		}
		for _, c := range p.claims {
			if from, to := c.addresses.From(), c.addresses.To(); to.Less(from) || from.Is4() != to.Is4() {
				t.Errorf("range %v to %v", from, to)
			}
		}
	})
}

// scattered are n claims to single addresses of a family, none beside another.
func scattered(n int, v4 bool, rank rank) []claimed {
	table := make([]claimed, n)
	for i := range table {
		octets := [16]byte{0: 0x20, 1: 1}
		binary.BigEndian.PutUint32(octets[12:], uint32(2*i+1))
		addr := netip.AddrFrom16(octets)
		if v4 {
			addr = netip.AddrFrom4([4]byte(octets[12:]))
		}
		table[i] = claimed{owner: 1, rank: rank, addresses: announce.Single(addr)}
	}
	return table
}

func TestChunks(t *testing.T) {
	ranks := func(table []claimed) []claimed {
		for i := range table {
			table[i].rank.term = uint32(i)
		}
		return table
	}
	for name, test := range map[string]struct {
		table          []claimed
		chunks, untold int
	}{
		"none":             {nil, 1, 0},
		"one":              {scattered(1, true, rank{}), 1, 0},
		"IPv4":             {scattered(2000, true, rank{}), 19, 0},
		"IPv6":             {scattered(2000, false, rank{}), 47, 0},
		"both":             {append(scattered(2000, true, rank{}), scattered(2000, false, rank{})...), 66, 0},
		"ranks":            {ranks(scattered(2000, true, rank{})), 59, 0},
		"full":             {scattered(108*maxChunks, true, rank{}), maxChunks, 0},
		"one more":         {scattered(108*maxChunks+1, true, rank{}), maxChunks, 1},
		"far more of IPv6": {scattered(20_000, false, rank{}), maxChunks, 20_000 - 43*maxChunks},
	} {
		t.Run(name, func(t *testing.T) {
			chunks, left := chunksOf(test.table)
			if len(chunks) != test.chunks || len(left) != test.untold {
				t.Errorf("%d chunks and %d left, want %d and %d", len(chunks), len(left), test.chunks, test.untold)
			}
			p := packet{life: 1, seq: 1, chunks: uint8(len(chunks)), views: make([]view, maxViews)}
			var got []claimed
			for i, chunk := range chunks {
				p.chunk, p.claims = uint8(i), chunk
				b := newKeyring(testKeys).sign(p.append(nil), 0)
				if len(b) > maxPacket {
					t.Errorf("chunk %d makes a packet of %d bytes", i, len(b))
				}
				m, err := parsePacket(b[:len(b)-trailerLength])
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, m.claims...)
			}
			if !slices.Equal(slices.Concat(got, left), test.table) {
				t.Error("the chunks are not the table")
			}
		})
	}
}

// TestRangeOf holds the arithmetic against one address after the other.
func TestRangeOf(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		var octets [16]byte
		for i := range octets {
			octets[i] = []byte{0, 1, 0xff, 0xff, byte(random.Uint32())}[random.IntN(5)]
		}
		from := netip.AddrFrom16(octets)
		if random.IntN(2) == 0 {
			from = netip.AddrFrom4([4]byte(octets[12:]))
		}
		follow := random.Uint32N(300)
		to, fits := from, true
		for range follow {
			if to = to.Next(); !to.IsValid() {
				fits = false
				break
			}
		}
		fits = fits && !from.Is4In6() && !to.Is4In6()
		r, ok := rangeOf(from, follow)
		if ok != fits || ok && netipx.IPRange(r) != netipx.IPRangeFrom(from, to) {
			t.Errorf("%v and %d more: %v, %v; want %v to %v, %v", from, follow, r, ok, from, to, fits)
		}
	}
}
