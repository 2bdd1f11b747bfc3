package wire

import (
	"fmt"
	"net/netip"
	"strings"

	"go4.org/netipx"
)

// Expand lists the addresses of single ones, of ranges (FROM-TO) and of
// prefixes.
func Expand(items []string) ([]netip.Addr, error) {
	var all []netip.Addr
	for _, item := range items {
		r, err := parseRange(item)
		if err != nil {
			return nil, err
		}
		for a := r.From(); ; a = a.Next() {
			if len(all) == maxAddresses {
				return nil, fmt.Errorf("%s: more than %d addresses", item, maxAddresses)
			}
			all = append(all, a)
			if a == r.To() {
				break
			}
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no addresses")
	}
	return all, nil
}

func parseRange(item string) (netipx.IPRange, error) {
	if strings.Contains(item, "-") {
		return netipx.ParseIPRange(item)
	}
	if strings.Contains(item, "/") {
		prefix, err := netip.ParsePrefix(item)
		return netipx.RangeOfPrefix(prefix), err
	}
	a, err := netip.ParseAddr(item)
	return netipx.IPRangeFrom(a, a), err
}
