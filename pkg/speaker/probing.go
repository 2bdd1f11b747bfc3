package speaker

import (
	"context"
	"net/netip"
	"slices"
	"sync"

	"github.com/vishvananda/netlink"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/layer2"
)

// probing lets the exchange of heartbeats ask hosts on the LAN, by whatever
// interfaces there are.
type probing struct {
	prober *layer2.Prober

	mu    sync.Mutex
	links []layer2.Interface
	hosts map[int][]netip.Addr
}

// setLinks says what interfaces there are.
func (p *probing) setLinks(links []layer2.Interface) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.links = links
	p.set()
}

// Listen is of heartbeat.Prober.
func (p *probing) Listen(hosts map[int][]netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hosts = hosts
	p.set()
}

// set passes on both; the lock is held.
func (p *probing) set() {
	var all []layer2.ProbeLink
	for _, l := range p.links {
		if hosts := p.hosts[l.Index]; len(hosts) > 0 {
			all = append(all, layer2.ProbeLink{Interface: l, Hosts: hosts})
		}
	}
	p.prober.Set(all)
}

// Ask is of heartbeat.Prober.
func (p *probing) Ask(link int, host netip.Addr, mac announce.MAC) error {
	return p.prober.Ask(link, host, mac)
}

// neighbors are hosts that the kernel has spoken with on a link, those that it is
// sure of first.
func neighbors(link int) []netip.Addr {
	const known = netlink.NUD_REACHABLE | netlink.NUD_STALE | netlink.NUD_DELAY | netlink.NUD_PROBE
	entries, err := netlink.NeighList(link, netlink.FAMILY_ALL)
	if err != nil {
		return nil // there are other witnesses
	}
	slices.SortStableFunc(entries, func(a, b netlink.Neigh) int {
		return b.State&netlink.NUD_REACHABLE - a.State&netlink.NUD_REACHABLE
	})
	var out []netip.Addr
	for _, e := range entries {
		addr, ok := netip.AddrFromSlice(e.IP)
		if ok && e.State&known != 0 && len(out) < maxWitnesses && !addr.Unmap().IsMulticast() {
			out = append(out, addr.Unmap())
		}
	}
	return out
}

// alive asks the API server for a sign of life.
func (c *client) alive(ctx context.Context) error {
	return c.rest.Get().AbsPath("/livez").Do(ctx).Error()
}
