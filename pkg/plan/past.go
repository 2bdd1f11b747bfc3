package plan

import (
	"net/netip"
	"slices"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

// past is who announced an address on the LAN before.
type past struct {
	layer2 *announce.Layer2
	pool   string
	// epoch of the program that says so: newer ones win, for after an
	// interruption some nodes have the next plan already.
	epoch int64
}

func (p past) owner() string {
	if p.layer2 == nil {
		return ""
	}
	return p.layer2.Candidates[0]
}

// remember reads from the nodes' previous programs who announces these addresses
// on the LAN now. It goes by the addresses, not by the ranges: an annotation may be
// malformed, and a range in it span half of the Internet.
func remember(nodes []*node, addresses []netip.Addr) map[netip.Addr]past {
	slices.SortFunc(addresses, netip.Addr.Compare)
	memory := make(map[netip.Addr]past)
	for _, n := range nodes {
		for i := range n.previous.Groups {
			g := &n.previous.Groups[i]
			if g.Layer2 == nil || len(g.Layer2.Candidates) == 0 {
				continue
			}
			entry := past{layer2: g.Layer2, pool: g.Pool, epoch: n.previous.Epoch}
			owns := g.Layer2.OwnedBy(n.object.Name)
			for _, r := range g.Addresses {
				at, _ := slices.BinarySearchFunc(addresses, r.From(), netip.Addr.Compare)
				for ; at < len(addresses) && !r.To().Less(addresses[at]); at++ {
					known, ok := memory[addresses[at]]
					if !ok || known.epoch < entry.epoch || known.epoch == entry.epoch && owns {
						memory[addresses[at]] = entry
					}
				}
			}
		}
	}
	return memory
}
