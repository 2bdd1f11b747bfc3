package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"go4.org/netipx"
)

// ParseRange parses an entry of an AddressPool's spec.addresses: a prefix
// ("203.0.113.0/24"), a range ("198.51.100.10-198.51.100.20") or an address. A
// prefix is taken whole. The error says what to write instead.
func ParseRange(entry string) (netipx.IPRange, error) {
	text := strings.TrimSpace(entry)
	if strings.Contains(text, "/") {
		return parsePrefix(text)
	}
	first, last, isRange := strings.Cut(text, "-")
	from, err := ParseAddr(first)
	if err != nil {
		return netipx.IPRange{}, err
	}
	if !isRange {
		return netipx.IPRangeFrom(from, from), nil
	}
	to, err := ParseAddr(last)
	if err != nil {
		return netipx.IPRange{}, err
	}
	switch {
	case from.Is4() != to.Is4():
		return netipx.IPRange{}, fmt.Errorf("range %q mixes IPv4 and IPv6: write one entry for each", text)
	case to.Less(from):
		return netipx.IPRange{}, fmt.Errorf("range %q ends before it begins: write %s-%s", text, to, from)
	}
	return netipx.IPRangeFrom(from, to), nil
}

func parsePrefix(text string) (netipx.IPRange, error) {
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return netipx.IPRange{}, fmt.Errorf("%q is not a prefix: write one like 203.0.113.0/24", text)
	}
	if prefix.Addr().Is4In6() {
		return netipx.IPRange{}, fmt.Errorf("prefix %q is IPv4-mapped: write the IPv4 prefix", text)
	}
	if masked := prefix.Masked(); masked != prefix {
		return netipx.IPRange{}, fmt.Errorf("prefix %q has bits set after its length: write %s, or %s for the one address", text, masked, prefix.Addr())
	}
	return netipx.RangeOfPrefix(prefix), nil
}

// ParseAddr parses an address of a pool or a request. It refuses zones and
// IPv4-mapped IPv6 addresses, which would be a second name of another address,
// and the unspecified address.
func ParseAddr(text string) (netip.Addr, error) {
	text = strings.TrimSpace(text)
	addr, err := netip.ParseAddr(text)
	switch {
	case err != nil:
		return netip.Addr{}, fmt.Errorf("%q is not an IP address: write one like 203.0.113.7 or 2001:db8::7", text)
	case addr.Zone() != "":
		return netip.Addr{}, fmt.Errorf("address %q has a zone: write it without", text)
	case addr.Is4In6():
		return netip.Addr{}, fmt.Errorf("address %q is IPv4-mapped: write %s", text, addr.Unmap())
	case addr.IsUnspecified():
		return netip.Addr{}, fmt.Errorf("address %q is unspecified: write the address you mean", text)
	}
	return addr, nil
}

// parseRanges parses all entries of a pool, and joins all errors, so that they
// can be mended in one pass.
func parseRanges(entries []string) (*netipx.IPSet, error) {
	var builder netipx.IPSetBuilder
	var errs []error
	for _, entry := range entries {
		r, err := ParseRange(entry)
		if err != nil {
			errs = append(errs, fmt.Errorf("spec.addresses entry %q: %w", entry, err))
			continue
		}
		builder.AddRange(r)
	}
	if len(entries) == 0 {
		errs = append(errs, errors.New("spec.addresses is empty: add a prefix, a range or an address"))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	set, err := builder.IPSet()
	if err != nil {
		return nil, fmt.Errorf("spec.addresses: %w", err)
	}
	return set, nil
}
