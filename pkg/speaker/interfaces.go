package speaker

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/layer2"
)

// Bounds of a report.
const (
	maxInterfaces = 32
	maxOnLink     = 16
)

// link is an interface as the kernel tells, and address one of its addresses.
type link struct {
	index    int
	name     string
	kind     string
	mac      string
	up       bool
	carrier  bool
	loopback bool
	noARP    bool
	master   string // of a bond or bridge that it is a member of
}

type address struct {
	link   int
	prefix netip.Prefix // the address, not masked
	// passing: the address is temporary (RFC 8981), deprecated, or not yet or
	// never usable.
	passing bool
}

// passing are the flags of an IPv6 address that is no next hop.
const passing = unix.IFA_F_TEMPORARY | unix.IFA_F_DEPRECATED | unix.IFA_F_TENTATIVE | unix.IFA_F_DADFAILED

// ipvsInterface is where kube-proxy binds the addresses of Services in its IPVS
// mode.
const ipvsInterface = "kube-ipvs0"

// inventory is what the kernel has.
type inventory struct {
	// nics are the interfaces that could announce, and links all of them.
	nics  []nic
	links []layer2.Interface
	// bound are the addresses that kube-proxy has bound, in its IPVS mode.
	bound []netip.Addr
}

// nic is an interface that could announce.
type nic struct {
	announce.Interface
	index int
	// noARP: it has no neighbours to announce to, only next hops.
	noARP bool
	// hop6 is its address as next hop of IPv6 prefixes, zero if it has none.
	hop6 netip.Addr
}

// addressed is 1 if the interface has a global address, else 0.
func (n *nic) addressed() int {
	if len(n.Prefixes) > 0 && !n.Prefixes[0].Addr().IsLinkLocalUnicast() {
		return 1
	}
	return 0
}

func reported(nics []nic) []announce.Interface {
	out := make([]announce.Interface, 0, len(nics))
	for _, n := range nics {
		if !n.noARP {
			out = append(out, n.Interface)
		}
	}
	return out
}

// takeStock sorts what the kernel tells.
func takeStock(links []link, addresses []address) inventory {
	byLink := make(map[int][]address)
	for _, a := range addresses {
		byLink[a.link] = append(byLink[a.link], a)
	}
	out := inventory{nics: announcing(links, byLink)}
	for _, l := range links {
		if l.loopback {
			continue
		}
		if l.name == ipvsInterface {
			for _, a := range byLink[l.index] {
				out.bound = append(out.bound, a.prefix.Addr())
			}
			continue
		}
		i := layer2.Interface{Index: l.index, Name: l.name, Carrier: l.up && l.carrier, Master: l.master, NoARP: l.noARP}
		i.MAC, _ = announce.ParseMAC(l.mac) // zero if it is none of Ethernet
		for _, a := range byLink[l.index] {
			i.Prefixes = append(i.Prefixes, a.prefix)
		}
		slices.SortFunc(i.Prefixes, netip.Prefix.Compare)
		out.links = append(out.links, i)
	}
	slices.SortFunc(out.links, func(a, b layer2.Interface) int { return cmp.Compare(a.Index, b.Index) })
	slices.SortFunc(out.bound, netip.Addr.Compare)
	return out
}

// withoutAddress are the kinds of interfaces that could announce, if they are
// named, though the node has no address there. It leaves out the interfaces of
// Pods and tunnels.
var withoutAddress = []string{"device", "bond", "bridge", "team", "vlan", "macvlan"}

// announcing are the interfaces that could announce: those that are up and have
// a global address with a subnet, and others of a kind that is connected to a
// LAN.
func announcing(links []link, addresses map[int][]address) []nic {
	var out []nic
	for _, l := range links {
		if !l.up || l.loopback || l.master != "" || l.name == ipvsInterface {
			continue
		}
		i := nic{Interface: announce.Interface{Name: l.name, MAC: l.mac, NoCarrier: !l.carrier}, index: l.index, noARP: l.noARP}
		for _, a := range addresses[l.index] {
			if a.prefix.Addr().IsGlobalUnicast() && a.prefix.Bits() < a.prefix.Addr().BitLen() {
				i.Prefixes = append(i.Prefixes, a.prefix)
				if addr := a.prefix.Addr(); addr.Is6() && !a.passing && (!i.hop6.IsValid() || addr.Less(i.hop6)) {
					i.hop6 = addr
				}
			}
		}
		slices.SortFunc(i.Prefixes, netip.Prefix.Compare)
		i.Prefixes = slices.Compact(i.Prefixes)
		i.Prefixes = i.Prefixes[:min(len(i.Prefixes), maxOnLink)]
		if len(i.Prefixes) == 0 {
			if l.noARP || !slices.Contains(withoutAddress, l.kind) {
				continue
			}
			i.Prefixes = linkLocal(addresses[l.index])
		}
		out = append(out, i)
	}
	// Where there are too many, those with addresses are worth more.
	slices.SortFunc(out, func(a, b nic) int {
		return cmp.Or(cmp.Compare(b.addressed(), a.addressed()), strings.Compare(a.Name, b.Name))
	})
	out = out[:min(len(out), maxInterfaces)]
	slices.SortFunc(out, func(a, b nic) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// linkLocal is the first link-local address of IPv6 that can be used.
func linkLocal(addresses []address) (first []netip.Prefix) {
	for _, a := range addresses {
		usable := a.prefix.Addr().Is6() && a.prefix.Addr().IsLinkLocalUnicast() && !a.passing
		if usable && (first == nil || a.prefix.Compare(first[0]) < 0) {
			first = []netip.Prefix{a.prefix}
		}
	}
	return first
}

// lost reports whether an interface that could announce cannot any more, or not
// all that it could.
func lost(before, now []nic) bool {
	return slices.ContainsFunc(before, func(b nic) bool {
		return !b.NoCarrier && !slices.ContainsFunc(now, func(n nic) bool {
			return n.Name == b.Name && n.MAC == b.MAC && !n.NoCarrier && slices.Equal(n.Prefixes, b.Prefixes)
		})
	})
}

// nextHop6 is the next hop of IPv6 prefixes over a session between IPv4
// addresses: the IPv6 address of the interface through which the kernel reaches
// the router, or else of one on the router's link.
func nextHop6(nics []nic, router netip.Addr, through int) netip.Addr {
	for _, n := range nics {
		if n.index == through && n.hop6.IsValid() {
			return n.hop6
		}
	}
	for _, n := range nics {
		if n.hop6.IsValid() && slices.ContainsFunc(n.Prefixes, func(p netip.Prefix) bool { return p.Contains(router) }) {
			return n.hop6
		}
	}
	return netip.Addr{}
}

// strandedOn is the interface without a carrier that has the source address while the
// router is reached through another one: the session lives, and its next hop does not.
func strandedOn(links []layer2.Interface, source netip.Addr, through int) string {
	name := ""
	for _, l := range links {
		if slices.ContainsFunc(l.Prefixes, func(p netip.Prefix) bool { return p.Addr() == source }) {
			if l.Carrier || l.Index == through {
				return ""
			}
			name = l.Name
		}
	}
	return name
}
