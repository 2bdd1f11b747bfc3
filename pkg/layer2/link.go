package layer2

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/layer2/internal/wire"
)

// family is IPv4 or IPv6, which differ in protocol and socket.
type family int

const (
	ipv4 family = iota
	ipv6
	families // how many there are
)

func familyOf(addr netip.Addr) family {
	if addr.Is4() {
		return ipv4
	}
	return ipv6
}

// String is the name of the protocol by which addresses of the family are
// resolved.
func (f family) String() string {
	if f == ipv4 {
		return "ARP"
	}
	return "NDP"
}

// link is an interface that announces.
type link struct {
	index int
	name  string
	names []string // name alone
	mac   announce.MAC
	// self are addresses of the node on the interface.
	self [families]netip.Addr
	// prefixes are those of the interface, shape counts their changes.
	prefixes []netip.Prefix
	shape    uint64
	station  *station
	places   map[netip.Addr]*place
	// open are the families with a socket. Nothing is queued for others.
	open     [families]bool
	suspects map[suspectKey]*suspect
	// watched are those of self that suspects are being asked for.
	watched [families]netip.Addr
	lanes   [families]lane
	used    uint64 // generation
	// moved means that the MAC address has changed.
	moved bool
}

// use makes the interface a link, or brings the link up to date.
func (b *book) use(i *Interface) {
	l := b.links[i.Index]
	if l != nil && l.used == b.generation {
		return
	}
	if l == nil {
		l = &link{
			index: i.Index,
			mac:   i.MAC,
			station: &station{
				own: b.own, checks: b.checks, counters: b.counters, clock: b.clock,
				mac: i.MAC, known: make(map[netip.Addr]duty),
			},
			places:   make(map[netip.Addr]*place),
			suspects: make(map[suspectKey]*suspect),
		}
		b.links[i.Index] = l
		b.dirty = true
	}
	l.used = b.generation
	if l.name != i.Name {
		l.name, l.names = i.Name, []string{i.Name}
	}
	if l.mac != i.MAC {
		l.mac, l.moved = i.MAC, true
		l.station.setMAC(i.MAC)
	}
	if !slices.Equal(l.prefixes, i.Prefixes) {
		l.prefixes = i.Prefixes
		l.shape++
		b.dirty = true
	}
	l.self = [families]netip.Addr{}
	for _, p := range i.Prefixes {
		addr := p.Addr().WithZone("")
		if f := familyOf(addr); !l.self[f].IsValid() || l.self[f].IsLinkLocalUnicast() {
			l.self[f] = addr
		}
	}
	for f := range families {
		if l.watched[f].IsValid() && l.watched[f] != l.self[f] {
			b.ignore(l, f)
		}
	}
}

// leave takes an address from a link.
func (b *book) leave(p *place) {
	p.cancel()
	if p.link.places[p.entry.addr] == p {
		delete(p.link.places, p.entry.addr)
		p.link.station.forget(p.entry.addr)
	}
	b.dirty = true
}

// opened says that the link has a socket for the family: it came up, and so did
// the switch's port, whose table may be empty.
func (b *book) opened(l *link, f family, now time.Time) {
	if b.links[l.index] != l {
		return
	}
	l.open[f] = true
	b.changed = true
	b.restart(l, now, f)
}

// closed says that the link has no socket for the family any more.
func (b *book) closed(l *link, f family, now time.Time) {
	l.open[f] = false
	b.changed = true
	for addr, p := range l.places {
		if familyOf(addr) == f {
			p.cancel()
		}
	}
	b.concludeAll(l, f, now)
}

// concludeAll ends the asking of those addresses of a link for which the other
// links are done.
func (b *book) concludeAll(l *link, f family, now time.Time) {
	for addr, p := range l.places {
		if familyOf(addr) == f {
			if p.entry.asking {
				b.conclude(p.entry, now)
			}
			b.schedule(p.entry)
		}
	}
}

// restart begins the bursts and probes on a link again, in the order of the
// addresses.
func (b *book) restart(l *link, now time.Time, which ...family) {
	for _, addr := range slices.SortedFunc(maps.Keys(l.places), netip.Addr.Compare) {
		if slices.Contains(which, familyOf(addr)) {
			p := l.places[addr]
			if p.entry.asking || p.entry.phase == announced {
				p.begin(now)
			}
			b.schedule(p.entry)
		}
	}
}

// ears is what a socket has to let through.
type ears struct {
	link   *link
	name   string // of the link, which may change it
	shape  uint64 // that, too
	family family

	addresses []netip.Addr
	// groups are the solicited-node multicast groups of the addresses.
	groups map[netip.Addr]announce.MAC
}

// wanted are the sockets that are needed now.
func (b *book) wanted() []ears {
	var out []ears
	for _, l := range b.links {
		for f := range families {
			e := ears{link: l, name: l.name, shape: l.shape, family: f, groups: make(map[netip.Addr]announce.MAC)}
			for addr := range l.places {
				if familyOf(addr) != f {
					continue
				}
				e.addresses = append(e.addresses, addr)
				if f == ipv6 {
					group, mac := wire.SolicitedNode(addr)
					e.groups[group] = mac
				}
			}
			if len(e.addresses) == 0 {
				continue
			}
			if l.watched[f].IsValid() {
				e.addresses = append(e.addresses, l.watched[f])
			}
			out = append(out, e)
		}
	}
	return out
}
