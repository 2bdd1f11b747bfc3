package wire

import (
	"net/netip"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

// Kind is the sort of a Message.
type Kind uint8

// The kinds of messages. The zero Kind is none of them.
const (
	ARPRequest    Kind = iota + 1 // ARP, operation 1
	ARPReply                      // ARP, operation 2
	Solicitation                  // Neighbor Solicitation, ICMPv6 type 135
	Advertisement                 // Neighbor Advertisement, ICMPv6 type 136
)

// String is the name of the kind, for logs.
func (k Kind) String() string {
	switch k {
	case ARPRequest:
		return "ARP request"
	case ARPReply:
		return "ARP reply"
	case Solicitation:
		return "neighbor solicitation"
	case Advertisement:
		return "neighbor advertisement"
	}
	return "unknown"
}

// Message is what an ARP packet or a Neighbor Solicitation or Advertisement says.
type Message struct {
	Kind Kind
	// Source and Destination are those of the Ethernet header.
	Source      announce.MAC
	Destination announce.MAC
	// Sender is the sender protocol address of ARP, or the IPv6 source. It is
	// unspecified in a probe.
	Sender netip.Addr
	// SenderMAC is the sender hardware address of ARP. For NDP it is the
	// link-layer address option (source in a Solicitation, target in an
	// Advertisement), or Source where there is none.
	SenderMAC announce.MAC
	// Target is the target protocol address of ARP, or the target of NDP.
	Target netip.Addr
	// To is the IPv6 destination; ARP has none.
	To netip.Addr
	// Override, Solicited and Router are the flags of an Advertisement.
	Override, Solicited, Router bool
}

// Claims is the address that the sender says is its own, and the MAC under which
// it says so: the target of an Advertisement, the sender of all else. A probe
// claims nothing.
func (m *Message) Claims() (addr netip.Addr, by announce.MAC, ok bool) {
	addr = m.Sender
	if m.Kind == Advertisement {
		addr = m.Target
	}
	if !addr.IsValid() || addr.IsUnspecified() || addr.IsMulticast() {
		return netip.Addr{}, announce.MAC{}, false
	}
	return addr, m.SenderMAC, true
}

// Asks is the address that the sender wants resolved. A gratuitous ARP request
// tells and asks nothing (RFC 5227 section 3).
func (m *Message) Asks() (netip.Addr, bool) {
	switch {
	case m.Kind == Solicitation, m.Kind == ARPRequest && m.Sender != m.Target:
		return m.Target, true
	}
	return netip.Addr{}, false
}

// Probe tells whether the sender wants to know if its Target is free: an ARP
// probe (RFC 5227 section 2.1.1) or a solicitation of duplicate address detection
// (RFC 4862 section 5.4.2).
func (m *Message) Probe() bool {
	return (m.Kind == ARPRequest || m.Kind == Solicitation) && m.Sender.IsUnspecified()
}
