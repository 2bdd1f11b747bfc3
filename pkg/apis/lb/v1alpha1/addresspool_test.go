package v1alpha1_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"go4.org/netipx"
)

func TestAddressPoolValidation(t *testing.T) {
	testSpecs(t, "addresspools", "AddressPool", `addresses: [203.0.113.0/24]`, []specTest{
		{`addresses: ["203.0.113.0/24", "198.51.100.10-198.51.100.20", "198.51.100.7", "2001:db8:100::/64"]`, ""},
		{`addresses: ["2001:DB8::1", "2001:0db8:0::2-2001:db8::ffff", "2001:db8:0:1::/64", "2001:db8::1:0-2001:db8::2:0"]`, ""},
		{`addresses: ["198.51.100.7-198.51.100.7", "198.51.100.8/32", "2001:db8::/128"]`, ""},
		{`addresses: ["1:2:3:4:5:6:7::", "2:3:4:5:6:7::8", "3::2:3:4:5:6:7", "1:2:3:4:5:6:7:8"]`, ""},

		{`addresses: []`, `spec.addresses in body should have at least 1 items`},
		{`addresses: [""]`, `spec.addresses[0]`},
		{`addresses: [203.0.113.300]`, `spec.addresses[0]: Invalid value: "203.0.113.300": "203.0.113.300" is not an address: write a prefix (203.0.113.0/24), a range without spaces (198.51.100.10-198.51.100.20) or one address (198.51.100.7)`},
		{`addresses: [203.0.113.0/33]`, `"203.0.113.0/33" is not an address`},
		{`addresses: [203.0.113.0/255.255.255.0]`, `is not an address`},
		{`addresses: [203.0.113.07]`, `is not an address`},
		{`addresses: [web.example.com]`, `"web.example.com" is not an address`},
		{`addresses: ["203.0.113.1 - 203.0.113.9"]`, `a range without spaces`},
		{`addresses: ["203.0.113.1-9"]`, `is not an address`},
		{`addresses: ["203.0.113.1-"]`, `is not an address`},
		{`addresses: ["203.0.113.1-203.0.113.2-203.0.113.3"]`, `is not an address`},
		{`addresses: ["203.0.113.1-203.0.113.0/24"]`, `is not an address`},
		{`addresses: ["203.0.113.0/24-203.0.113.9"]`, `is not an address`},
		{`addresses: ["fe80::1%eth0"]`, `fe80::1%eth0 has a zone: addresses of a pool have none`},
		{`addresses: ["::ffff:203.0.113.1"]`, `::ffff:203.0.113.1 is an IPv4-mapped IPv6 address: write the IPv4 address`},
		{`addresses: ["::FFFF:cb00:7101"]`, `is an IPv4-mapped IPv6 address`},
		{`addresses: ["64:ff9b::203.0.113.1"]`, `64:ff9b::203.0.113.1 has a dotted part: write IPv6 in hexadecimal`},
		{`addresses: ["203.0.113.1-2001:db8::1"]`, `203.0.113.1-2001:db8::1 mixes IPv4 and IPv6`},
		{`addresses: ["203.0.113.7/24"]`, `203.0.113.7/24 has host bits set: write 203.0.113.0/24 for the prefix, or the address without a length`},
		{`addresses: ["2001:db8::1/64"]`, `2001:db8::1/64 has host bits set: write 2001:db8::/64`},
		{`addresses: ["203.0.113.9-203.0.113.1"]`, `range 203.0.113.9-203.0.113.1 is reversed: write the lower address first, 203.0.113.1-203.0.113.9`},
		{`addresses: ["2001:db8::1:0-2001:db8::ffff"]`, `range 2001:db8::1:0-2001:db8::ffff is reversed`},
		{`addresses: ["2001:db8:0:1::-2001:db8::ffff"]`, `is reversed`},

		{`addresses: [0.0.0.0]`, `0.0.0.0 holds addresses that cannot be announced: this network (0.0.0.0/8), loopback (127.0.0.0/8), link-local (169.254.0.0/16), multicast and reserved (224.0.0.0/3) are refused`},
		{`addresses: [0.0.0.0/0]`, `cannot be announced`},
		{`addresses: [127.0.0.1]`, `cannot be announced`},
		{`addresses: [126.0.0.0-128.0.0.0]`, `cannot be announced`},
		{`addresses: [169.253.0.0-169.255.0.0]`, `cannot be announced`},
		{`addresses: [223.255.255.255-224.0.0.0]`, `cannot be announced`},
		{`addresses: [255.255.255.255]`, `cannot be announced`},
		{`addresses: [1.0.0.0-126.255.255.255, 128.0.0.0-169.253.255.255, 169.255.0.0-223.255.255.255]`, ``},
		{`addresses: ["::"]`, `:: holds addresses that cannot be announced: unspecified, loopback and IPv4-mapped (::/64), link-local (fe80::/10) and multicast (ff00::/8) are refused`},
		{`addresses: ["::1"]`, `cannot be announced`},
		{`addresses: ["::/0"]`, `cannot be announced`},
		{`addresses: ["::fffe:0:0/95"]`, `cannot be announced`},
		{`addresses: ["fe80::1"]`, `cannot be announced`},
		{`addresses: ["fe00::-ff00::"]`, `cannot be announced`},
		{`addresses: ["ff02::1"]`, `cannot be announced`},
		{`addresses: ["0:0:0:1::-fe7f:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "fec0::-feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]`, ``},

		{`addresses: [203.0.113.0/24, 198.51.100.0/24, 203.0.113.7]`, `spec.addresses: Invalid value: entries overlap: ["203.0.113.0/24", "203.0.113.7"]. An address may be listed once; remove or shrink one of them`},
		{`addresses: [203.0.113.0/24, 203.0.113.0/24]`, `entries overlap: ["203.0.113.0/24", "203.0.113.0/24"]`},
		{`addresses: [203.0.113.1-203.0.113.9, 203.0.113.9-203.0.113.12]`, `entries overlap`},
		{`addresses: [203.0.113.1-203.0.113.9, 203.0.113.10-203.0.113.12]`, ``},
		{`addresses: ["2001:db8::/64", "2001:db8::ffff:ffff:ffff:ffff-2001:db8:0:1::"]`, `entries overlap`},
		{`addresses: ["2001:db8::1-2001:db8::f", "2001:DB8:0:0:0:0:0:F"]`, `entries overlap`},
		{`addresses: ["2001:db8::/63", "2001:db8:0:1::/64"]`, `entries overlap`},
		{`addresses: ["2001:db8::/64", "2001:db8:0:1::/64"]`, ``},

		{`{protocols: [Layer2], layer2: {interfaces: [eth0]}}`, ``},
		{`{protocols: [BGP], layer2: {interfaces: [eth0]}}`, `spec.layer2: Forbidden: layer2 is set, but protocols has no Layer2: add Layer2 to spec.protocols or remove spec.layer2`},
		{`{protocols: [Layer2], bgp: {}}`, `spec.bgp: Forbidden: bgp is set, but protocols has no BGP: add BGP to spec.protocols or remove spec.bgp`},
		{`{protocols: [BGP, BGP]}`, `spec.protocols[1]: Duplicate value`},
		{`{protocols: [ARP]}`, `supported values: "BGP", "Layer2"`},
		{`{protocols: []}`, `at least 1 items`},

		{`namespaces: [default, team-a]`, ``},
		{`namespaces: [Team_A]`, `spec.namespaces[0]: Invalid value: "Team_A": "Team_A" is not the name of a namespace: lower-case letters, digits and -`},
		{`namespaces: [""]`, `is not the name of a namespace`},

		{`drainDelay: 0s`, ``},
		{`drainDelay: 1h0m0s`, ``},
		{`drainDelay: 1.5s`, ``},
		{`drainDelay: -1s`, `spec.drainDelay: Invalid value: "-1s": "-1s" is refused: drainDelay is a duration of 0s to 1h, such as 10s`},
		{`drainDelay: 1h0m1s`, `"1h0m1s" is refused`},
		{`drainDelay: "10"`, `"10" is refused`},
		{`drainDelay: ""`, `"" is refused`},
		{`drainDelay: soon`, `"soon" is refused`},
		{`drainDelay: 999999h999999h`, `is refused`},
		{`drainDelay: 999999999999999999h`, `spec.drainDelay: Too long`},
		{`drainDelay: 10`, `spec.drainDelay in body must be of type string`},

		{`{protocols: [Layer2], layer2: {interfaces: [eth0, "eno*", "en[op]?", 192.0.2.7, "2001:db8::7", "02:00:00:00:00:01", "can-reach:192.0.2.1", "can-reach:2001:db8::1"]}}`, ``},
		{`{protocols: [Layer2], layer2: {interfaces: ["can-reach:gateway"]}}`, `spec.layer2.interfaces[0]: Invalid value: "can-reach:gateway": "can-reach:gateway": can-reach: is followed by one address, such as can-reach:192.0.2.1, without a zone or a length`},
		{`{protocols: [Layer2], layer2: {interfaces: ["can-reach:192.0.2.0/24"]}}`, `can-reach: is followed by one address`},
		{`{protocols: [Layer2], layer2: {interfaces: ["can-reach:"]}}`, `can-reach: is followed by one address`},
		{`{protocols: [Layer2], layer2: {interfaces: ["192.0.2.0/24"]}}`, `"192.0.2.0/24" is not an interface: write a name (eth0), a shell pattern (eno*), an address of the NIC, or can-reach:ADDRESS; no slash and no space`},
		{`{protocols: [Layer2], layer2: {interfaces: ["eth0 eth1"]}}`, `is not an interface`},
		{`{protocols: [Layer2], layer2: {interfaces: [eth0, eth0]}}`, `Duplicate value`},

		{`bgp: {advertisements: [{peers: [tor-a, tor-b.rack1]}]}`, ``},
		{`bgp: {advertisements: [{peers: [TOR]}]}`, `spec.bgp.advertisements[0].peers[0]: Invalid value: "TOR": "TOR" is not the name of a BGPPeer: lower-case letters, digits, - and .`},
		{`bgp: {advertisements: [{communities: ["64500:100", "0:0", "65535:65535", no-export, no-advertise, local-as, no-export-subconfed, no-peer, graceful-shutdown, blackhole]}]}`, ``},
		{`bgp: {advertisements: [{communities: ["64500:65536"]}]}`, `spec.bgp.advertisements[0].communities[0]: Invalid value: "64500:65536": "64500:65536" is not a community: write ASN:VALUE with both 0 to 65535 (64500:100; use largeCommunities for a 4-byte ASN), or no-export, no-advertise, local-as, no-export-subconfed, no-peer, graceful-shutdown, blackhole`},
		{`bgp: {advertisements: [{communities: ["4200000000:1"]}]}`, `use largeCommunities`},
		{`bgp: {advertisements: [{communities: ["no-exprot"]}]}`, `"no-exprot" is not a community`},
		{`bgp: {advertisements: [{communities: ["64500:007"]}]}`, `is not a community`},
		{`bgp: {advertisements: [{communities: ["64500:1:2"]}]}`, `is not a community`},
		{`bgp: {advertisements: [{largeCommunities: ["64500:1:2", "4294967295:4294967295:4294967295"]}]}`, ``},
		{`bgp: {advertisements: [{largeCommunities: ["64500:1"]}]}`, `"64500:1" is not a large community: write three numbers of 0 to 4294967295, such as 64500:1:2`},
		{`bgp: {advertisements: [{largeCommunities: ["4294967296:1:2"]}]}`, `is not a large community`},
		{`bgp: {advertisements: [{aggregationLength: 33}]}`, `should be less than or equal to 32`},
		{`bgp: {advertisements: [{aggregationLengthV6: 129}]}`, `should be less than or equal to 128`},
		{`bgp: {advertisements: [{localPref: 4294967295}]}`, ``},
		{`bgp: {advertisements: [{localPref: 4294967296}]}`, `should be less than or equal to 4294967295`},
		{`maxNextHops: -1`, `should be greater than or equal to 0`},
		{`sharing: Always`, `supported values`},
	})
}

// bounds is the expression for the first and last address of the entry $, see
// addresspool.go.
const bounds = `[[[$.substring(0, ($ + '-').replace('/', '-').indexOf('-')), $.substring($.indexOf('-') + 1, ($ + '/').indexOf('/'))].map(t, [t.contains(':') ? ('0x0' + t.replace('::', ':' + '0:0:0:0:0:0:'.substring(0, 18 - 2 * t.split(':').size())).replace(':', 'p0 0x0') + 'p0').split(' ', 8).map(h, uint(double(h))) : [0u, 0u, 0u, 0u, 0u, 0xffffu] + t.split('.', 4).map(o, uint(o))].map(h, [h[0] * 0x1000000000000u + h[1] * 0x100000000u + h[2] * 0x10000u + h[3], t.contains(':') ? h[4] * 0x1000000000000u + h[5] * 0x100000000u + h[6] * 0x10000u + h[7] : h[5] * 0x100000000u + h[6] * 0x1000000u + h[7] * 0x10000u + h[8] * 0x100u + h[9]])[0]), [[$.contains('/') ? cidr($).prefixLength() + ($.contains(':') ? 0 : 96) : 128].map(p, [64 - p, 128 - p].map(n, n <= 0 ? 0u : n >= 64 ? 0xffffffffffffffffu : uint(double('0x1p%d'.format([n]))) - 1u))[0]]]].map(b, [b[0][0][0], b[0][0][1], b[0][1][0] + b[1][0][0], b[0][1][1] + b[1][0][1]])[0]`

// The bounds are written out where they are needed, for a CRD cannot define
// functions. The copies are equal.
func TestBoundsAreWrittenAlike(t *testing.T) {
	copies := 0
	walk(field.NewPath(""), loadCRD(t, "addresspools").structural, func(_ *field.Path, s *structuralschema.Structural) {
		for _, rule := range s.XValidations {
			for _, text := range []string{rule.Rule, rule.MessageExpression} {
				whole := strings.Count(text, strings.ReplaceAll(bounds, "$", "self")) + strings.Count(text, strings.ReplaceAll(bounds, "$", "e"))
				// Nothing else needs floats with an exponent.
				if parts := strings.Count(text, "'p0 0x0'"); parts != whole {
					t.Errorf("%d of %d bounds are written alike in %s", whole, parts, text)
				}
				copies += whole
			}
		}
	})
	if copies == 0 {
		t.Error("no bounds found")
	}
}

// The largest pool that the schema admits stays under the runtime cost limits.
func TestLargestPoolIsValidated(t *testing.T) {
	for name, format := range map[string]string{
		"ranges":   "2001:0db8:0000:0000:0000:0000:%04x:0000-2001:0db8:0000:0000:0000:0000:%04x:ffff",
		"prefixes": "2001:0db8:0000:0000:0000:%04x:%04x:0000/112",
		"gaps":     "2001:db8::%x:0-2001:db8::%x:ffff",
	} {
		var entries []any
		for i := range 64 {
			entries = append(entries, fmt.Sprintf(format, i+1, i+1))
		}
		c := loadCRD(t, "addresspools")
		obj := object(t, "AddressPool", `{}`)
		obj["spec"].(map[string]any)["addresses"] = entries
		if errs := c.create(obj); len(errs) > 0 {
			t.Errorf("%s: %v", name, errs)
		}
		// All overlap, so that the message is the longest too. Over 5 KiB the
		// API server shows the short message instead.
		for i := range entries {
			entries[i] = entries[0]
		}
		obj = object(t, "AddressPool", `{}`)
		obj["spec"].(map[string]any)["addresses"] = entries
		if errs := c.create(obj); len(errs) != 1 || !strings.Contains(errs[0].Error(), "entries overlap: ") {
			t.Errorf("%s: %v", name, errs)
		}
	}
}

// special holds what no pool may hold.
var special = func() *netipx.IPSet {
	var b netipx.IPSetBuilder
	for _, prefix := range []string{"0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "::/64", "fe80::/10", "ff00::/8"} {
		b.AddPrefix(netip.MustParsePrefix(prefix))
	}
	set, err := b.IPSet()
	if err != nil {
		panic(err)
	}
	return set
}()

// parseEntry is what the rules say about one entry, in Go.
func parseEntry(entry string) (netipx.IPRange, bool) {
	if strings.Contains(entry, ".") == strings.Contains(entry, ":") || strings.ContainsAny(entry, "%") {
		return netipx.IPRange{}, false
	}
	var r netipx.IPRange
	if strings.Contains(entry, "/") {
		prefix, err := netip.ParsePrefix(entry)
		if err != nil || prefix.Addr().Is4In6() || prefix != prefix.Masked() {
			return r, false
		}
		r = netipx.RangeOfPrefix(prefix)
	} else {
		first, last, isRange := strings.Cut(entry, "-")
		if !isRange {
			last = first
		}
		from, err := netip.ParseAddr(first)
		if err != nil || from.Is4In6() {
			return r, false
		}
		to, err := netip.ParseAddr(last)
		if err != nil || to.Is4In6() {
			return r, false
		}
		r = netipx.IPRangeFrom(from, to)
	}
	if !r.IsValid() || special.OverlapsRange(r) {
		return r, false
	}
	return r, true
}

func acceptable(entries []string) bool {
	var ranges []netipx.IPRange
	for _, entry := range entries {
		r, ok := parseEntry(entry)
		if !ok {
			return false
		}
		for _, other := range ranges {
			if r.Overlaps(other) {
				return false
			}
		}
		ranges = append(ranges, r)
	}
	return true
}

func checkAgainstNetipx(t *testing.T, c *crd, entries []string) {
	t.Helper()
	list := make([]any, len(entries))
	for i, entry := range entries {
		list[i] = entry
	}
	obj := object(t, "AddressPool", `{}`)
	obj["spec"].(map[string]any)["addresses"] = list
	errs := c.create(obj)
	if want := acceptable(entries); want != (len(errs) == 0) {
		t.Errorf("%q: netipx says acceptable=%t, the rules say %v", entries, want, errs)
	}
	for _, err := range errs {
		// An expression that fails to evaluate says so instead of our message.
		if strings.Contains(err.Detail, "no such") || strings.Contains(err.Detail, "failed rule") || strings.Contains(err.Detail, "rule:") || strings.Contains(err.Detail, "rror") {
			t.Errorf("%q: %v", entries, err)
		}
	}
}

// Random pools in a small space, where neighbours touch, nest and cross, get
// the same answer as from netipx.
func TestOverlapAgreesWithNetipx(t *testing.T) {
	c := loadCRD(t, "addresspools")
	rng := rand.New(rand.NewPCG(1, 2))
	bases := []netip.Addr{
		netip.MustParseAddr("203.0.113.0"), netip.MustParseAddr("126.255.255.240"), netip.MustParseAddr("198.50.255.250"),
		netip.MustParseAddr("2001:db8::"), netip.MustParseAddr("2001:db8:0:1::"), netip.MustParseAddr("2001:db8:0:0:ffff:ffff:ffff:fff8"),
		netip.MustParseAddr("fdff:ffff:ffff:ffff:7fff:ffff:ffff:fff0"),
	}
	address := func() netip.Addr {
		addr := bases[rng.IntN(len(bases))]
		for range rng.IntN(24) {
			addr = addr.Next()
		}
		return addr
	}
	text := func(addr netip.Addr) string {
		switch rng.IntN(4) {
		case 0:
			return addr.StringExpanded()
		case 1:
			return strings.ToUpper(addr.String())
		default:
			return addr.String()
		}
	}
	rounds := 3000
	if testing.Short() {
		rounds = 300
	}
	good := 0
	for range rounds {
		var entries []string
		for range 1 + rng.IntN(4) {
			addr := address()
			switch rng.IntN(3) {
			case 0:
				entries = append(entries, text(addr))
			case 1:
				other := address()
				if other.Less(addr) && rng.IntN(8) > 0 {
					addr, other = other, addr
				}
				entries = append(entries, text(addr)+"-"+text(other))
			case 2:
				bits := addr.BitLen() - rng.IntN(6)
				if rng.IntN(8) == 0 {
					bits = rng.IntN(addr.BitLen() + 1)
				}
				prefix := netip.PrefixFrom(addr, bits)
				if rng.IntN(8) > 0 {
					prefix = prefix.Masked()
				}
				entries = append(entries, fmt.Sprintf("%s/%d", text(prefix.Addr()), bits))
			}
		}
		if acceptable(entries) {
			good++
		}
		checkAgainstNetipx(t, c, entries)
	}
	if good < rounds/10 {
		t.Errorf("only %d of %d pools were acceptable: the generator tests nothing", good, rounds)
	}
}

func FuzzAddresses(f *testing.F) {
	for _, seed := range []string{
		"203.0.113.0/24,203.0.113.7", "198.51.100.10-198.51.100.20", "2001:db8::/64,2001:db8:0:1::/64",
		"::ffff:1.2.3.4", "64:ff9b::1.2.3.4", "1:2:3:4:5:6:7::", "::2:3:4:5:6:7:8", "1::-2::,1:8000::", "-", "/", "::/1-", "a-b-c", "1.2.3.4/-1", "1.2.3.4/024",
	} {
		f.Add(seed)
	}
	c := loadCRD(f, "addresspools")
	f.Fuzz(func(t *testing.T, list string) {
		entries := strings.Split(strings.ToValidUTF8(list, "?"), ",")
		if len(entries) > 8 {
			return
		}
		for _, entry := range entries {
			if len(entry) == 0 || len(entry) > 95 {
				return
			}
		}
		checkAgainstNetipx(t, c, entries)
	})
}
