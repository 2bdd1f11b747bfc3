package announce

import (
	"bytes"
	"fmt"
	"iter"
	"net"
	"net/netip"
	"strings"
	"time"

	"go4.org/netipx"
)

// Range is an inclusive range of addresses of one family. Its text is
// "203.0.113.1-203.0.113.9", or the address alone where there is only one.
type Range netipx.IPRange

// Single is the range of one address.
func Single(addr netip.Addr) Range {
	return Range(netipx.IPRangeFrom(addr, addr))
}

// From is the first address of the range, To the last.
func (r Range) From() netip.Addr { return netipx.IPRange(r).From() }

// To is the last address of the range.
func (r Range) To() netip.Addr { return netipx.IPRange(r).To() }

// All are the addresses of the range, ascending. There may be very many.
func (r Range) All() iter.Seq[netip.Addr] {
	return func(yield func(netip.Addr) bool) {
		for addr := r.From(); yield(addr) && addr != r.To(); addr = addr.Next() {
		}
	}
}

// String is the text of the range.
func (r Range) String() string {
	if r.From() == r.To() {
		return r.From().String()
	}
	return r.From().String() + "-" + r.To().String()
}

// MarshalText implements encoding.TextMarshaler.
func (r Range) MarshalText() ([]byte, error) {
	return []byte(r.String()), nil
}

// UnmarshalText implements encoding.TextUnmarshaler. It refuses reversed and
// mixed ranges, zones and IPv4-mapped IPv6 addresses.
func (r *Range) UnmarshalText(text []byte) error {
	first, last, isRange := strings.Cut(string(text), "-")
	from, err := parseAddr(first)
	if err != nil {
		return err
	}
	to := from
	if isRange {
		if to, err = parseAddr(last); err != nil {
			return err
		}
	}
	parsed := netipx.IPRangeFrom(from, to)
	if !parsed.IsValid() {
		return fmt.Errorf("address range %q is reversed or mixes families", text)
	}
	*r = Range(parsed)
	return nil
}

func parseAddr(text string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("address %q: %w", text, err)
	}
	if addr.Zone() != "" || addr.Is4In6() {
		return netip.Addr{}, fmt.Errorf("address %q: zones and IPv4-mapped addresses are not allowed", text)
	}
	return addr, nil
}

// Duration is a time.Duration whose text is that of Go: "9s", "300ms".
type Duration time.Duration

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) {
	return []byte(time.Duration(d).String()), nil
}

// UnmarshalText implements encoding.TextUnmarshaler; negative values are refused.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	if err != nil {
		return err
	}
	if parsed < 0 {
		return fmt.Errorf("duration %q is negative", text)
	}
	*d = Duration(parsed)
	return nil
}

// MAC is an Ethernet address. Its text is "02:00:5e:00:53:01".
type MAC [6]byte

// ParseMAC reads an Ethernet address; longer hardware addresses are refused.
func ParseMAC(text string) (MAC, error) {
	hardware, err := net.ParseMAC(text)
	if err != nil {
		return MAC{}, err
	}
	if len(hardware) != len(MAC{}) {
		return MAC{}, fmt.Errorf("hardware address %q is not one of Ethernet", text)
	}
	return MAC(hardware), nil
}

// String is the text of the address.
func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// Compare orders addresses.
func (m MAC) Compare(other MAC) int { return bytes.Compare(m[:], other[:]) }

// MarshalText implements encoding.TextMarshaler.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (m *MAC) UnmarshalText(text []byte) error {
	parsed, err := ParseMAC(string(text))
	if err != nil {
		return err
	}
	*m = parsed
	return nil
}
