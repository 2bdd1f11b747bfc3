package layer2

import (
	"fmt"
	"net/netip"
	"sync/atomic"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/layer2/internal/wire"
)

// Checks counts those of a fellow.
type Checks struct{ ARP, NDP uint64 }

// checks counts the frames of fellows that speak with this node's MAC address. They
// prove that the network lets through what a node sends in place of another one:
// with ARP inspection, switches drop packets whose sender is not the Ethernet
// source. There is room for fellows only.
type checks struct {
	byMAC atomic.Pointer[map[announce.MAC]*[families]atomic.Uint64]
}

// admit makes these the fellows. Whoever stays keeps his counts.
func (c *checks) admit(fellows macs) {
	byMAC := make(map[announce.MAC]*[families]atomic.Uint64, len(fellows))
	for mac := range fellows {
		if byMAC[mac] = c.of(mac); byMAC[mac] == nil {
			byMAC[mac] = new([families]atomic.Uint64)
		}
	}
	c.byMAC.Store(&byMAC)
}

// of is nil for whoever is no fellow.
func (c *checks) of(mac announce.MAC) *[families]atomic.Uint64 {
	byMAC := c.byMAC.Load()
	if byMAC == nil {
		return nil
	}
	return (*byMAC)[mac]
}

func (c *checks) snapshot() map[announce.MAC]Checks {
	byMAC := c.byMAC.Load()
	if byMAC == nil {
		return nil
	}
	var out map[announce.MAC]Checks
	for mac, counts := range *byMAC {
		n := Checks{ARP: counts[ipv4].Load(), NDP: counts[ipv6].Load()}
		if n == (Checks{}) {
			continue
		}
		if out == nil {
			out = make(map[announce.MAC]Checks)
		}
		out[mac] = n
	}
	return out
}

// check counts a frame that another host has sent to this node alone, with the
// node's own MAC address as the sender's, about an address of the node. The
// station's lock is held.
func (s *station) check(m *wire.Message) {
	addr, _, claims := m.Claims()
	d, known := s.known[addr]
	if !claims || !known || d.stance != listens && d.stance != answers || !s.own.has(m.Destination) {
		return
	}
	if counts := s.checks.of(m.Source); counts != nil {
		counts[familyOf(addr)].Add(1)
	}
}

// check is a frame that tells the owner alone what it knows: that it has the
// address. It is like those that cover for the owner.
func check(own, owner announce.MAC, addr netip.Addr) []byte {
	frame := wire.NDPAnnouncement(owner, addr)
	if addr.Is4() {
		frame = wire.ARPGratuitousReply(owner, addr)
	}
	wire.SetSource(frame, own)
	wire.SetDestination(frame, owner)
	return frame
}

// Arrived counts the checks of fellows about addresses of this node, modulo 256, by
// the MAC address of the sender.
func (a *Announcer) Arrived() map[announce.MAC]uint8 {
	out := make(map[announce.MAC]uint8)
	for mac, n := range a.book.checks.snapshot() {
		out[mac] = uint8(n.ARP + n.NDP)
	}
	return out
}

// check puts one into the queue.
func (b *book) check(index int, addr netip.Addr, owner announce.MAC) error {
	l := b.links[index]
	if l == nil {
		return fmt.Errorf("check of %v: interface %d has no address to stand by for", addr, index)
	}
	p := l.places[addr]
	switch {
	case p == nil || p.entry.phase != aside:
		return fmt.Errorf("check of %v: this node does not stand by for it on interface %s", addr, l.name)
	case !p.open():
		return fmt.Errorf("check of %v: interface %s has no socket for %v yet", addr, l.name, familyOf(addr))
	}
	p.check(owner)
	return nil
}
