package ipam

import (
	"net/netip"
	"testing"

	"go4.org/netipx"
)

func TestParseRange(t *testing.T) {
	for _, test := range []struct{ entry, want string }{
		{"203.0.113.0/24", "203.0.113.0-203.0.113.255"},
		{" 198.51.100.10 - 198.51.100.20 ", "198.51.100.10-198.51.100.20"},
		{"198.51.100.7", "198.51.100.7-198.51.100.7"},
		{"2001:db8::/127", "2001:db8::-2001:db8::1"},
		{"2001:db8::1-2001:db8::ff", "2001:db8::1-2001:db8::ff"},
	} {
		r, err := ParseRange(test.entry)
		if err != nil || r.String() != test.want {
			t.Errorf("%q is %v (%v); want %s", test.entry, r, err, test.want)
		}
	}
	for _, test := range []struct{ entry, want string }{
		{"", `"" is not an IP address: write one like 203.0.113.7 or 2001:db8::7`},
		{"web", `"web" is not an IP address: write one like 203.0.113.7 or 2001:db8::7`},
		{"203.0.113.0/33", `"203.0.113.0/33" is not a prefix: write one like 203.0.113.0/24`},
		{"203.0.113.7/24", `prefix "203.0.113.7/24" has bits set after its length: write 203.0.113.0/24, or 203.0.113.7 for the one address`},
		{"203.0.113.9-203.0.113.1", `range "203.0.113.9-203.0.113.1" ends before it begins: write 203.0.113.1-203.0.113.9`},
		{"203.0.113.9-2001:db8::1", `range "203.0.113.9-2001:db8::1" mixes IPv4 and IPv6: write one entry for each`},
		{"203.0.113.1-5", `"5" is not an IP address: write one like 203.0.113.7 or 2001:db8::7`},
		{"fe80::1%eth0", `address "fe80::1%eth0" has a zone: write it without`},
		{"::ffff:203.0.113.1", `address "::ffff:203.0.113.1" is IPv4-mapped: write 203.0.113.1`},
		{"::ffff:203.0.113.0/120", `prefix "::ffff:203.0.113.0/120" is IPv4-mapped: write the IPv4 prefix`},
		{"0.0.0.0", `address "0.0.0.0" is unspecified: write the address you mean`},
	} {
		if r, err := ParseRange(test.entry); err == nil || err.Error() != test.want {
			t.Errorf("%q is %v (%v); want error %s", test.entry, r, err, test.want)
		}
	}
}

func FuzzParseRange(f *testing.F) {
	for _, seed := range []string{
		"203.0.113.0/24", "198.51.100.10-198.51.100.20", "198.51.100.7", "2001:db8::/64",
		"2001:db8::1-2001:db8::ff", "::ffff:203.0.113.0/120", "fe80::1%eth0", "-", "/", "0.0.0.0/0", "::/0",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, entry string) {
		r, err := ParseRange(entry)
		if err != nil {
			if err.Error() == "" || r.IsValid() {
				t.Fatalf("%q: error %q with range %v", entry, err, r)
			}
			return
		}
		if !r.IsValid() || r.From().Zone() != "" || r.From().Is4In6() {
			t.Fatalf("%q parsed to %v", entry, r)
		}
		again, err := ParseRange(r.String())
		if err != nil && !r.From().IsUnspecified() || err == nil && again != r {
			t.Fatalf("%q parsed to %v, and that to %v (%v)", entry, r, again, err)
		}
		if n := capacity([]netipx.IPRange{r}, true); n.Sign() < 0 || n.Cmp(size(r)) > 0 {
			t.Fatalf("%q has %v addresses of %v", entry, n, size(r))
		}
	})
}

func FuzzParseAddr(f *testing.F) {
	for _, seed := range []string{"203.0.113.7", "2001:db8::7", "::", "::ffff:1.2.3.4", "fe80::1%a", " 1.2.3.4 ", "01.2.3.4"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		addr, err := ParseAddr(text)
		if err != nil {
			return
		}
		if again, err := netip.ParseAddr(addr.String()); err != nil || again != addr {
			t.Fatalf("%q parsed to %v, and that to %v (%v)", text, addr, again, err)
		}
	})
}
