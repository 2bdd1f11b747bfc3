package plan

import (
	"net/netip"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

// maxRemembered bounds how many addresses are remembered: a range in an
// annotation may be malformed and span half of the Internet.
const maxRemembered = 1 << 18

// past is who announced an address on the LAN before.
type past struct {
	layer2 *announce.Layer2
	pool   string
	// epoch of the program that says so: newer ones win, for after an
	// interruption some nodes have the next plan already.
	epoch int64
}

// remember reads from the nodes' previous programs who announces what on the
// LAN now.
func remember(nodes []*node) map[netip.Addr]past {
	memory := make(map[netip.Addr]past)
	left := maxRemembered
	for _, n := range nodes {
		for i := range n.previous.Groups {
			g := &n.previous.Groups[i]
			if g.Layer2 == nil || len(g.Layer2.Candidates) == 0 {
				continue
			}
			entry := past{layer2: g.Layer2, pool: g.Pool, epoch: n.previous.Epoch}
			owns := g.Layer2.OwnedBy(n.object.Name)
			for _, r := range g.Addresses {
				for addr := range r.All() {
					if left--; left < 0 {
						return memory
					}
					known, ok := memory[addr]
					if !ok || known.epoch < entry.epoch || known.epoch == entry.epoch && owns {
						memory[addr] = entry
					}
				}
			}
		}
	}
	return memory
}
