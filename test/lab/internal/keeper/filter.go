package keeper

import (
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/internal/control"
)

// filter is what the LAN's switch loses. Unlike a cut it is not of a host but
// of a way through the switch, and neither end can tell.
type filter struct {
	drops map[control.DropRequest]bool
	loss  float64 // percent of all frames
}

// lossParts is how finely a loss is told.
const lossParts = 100_000

// ruleset is the filter as nftables of the family bridge, in place of an earlier
// one. ports are those of each host on the LAN. A frame to all is forwarded once for
// each port, and so lost for each by itself.
func (f *filter) ruleset(ports map[string][]string) string {
	var pairs, all []string
	for drop := range f.drops {
		for _, from := range ports[drop.From] {
			for _, to := range ports[drop.To] {
				pairs = append(pairs, fmt.Sprintf("%q . %q", from, to))
			}
		}
	}
	for _, names := range ports {
		for _, name := range names {
			all = append(all, strconv.Quote(name))
		}
	}
	slices.Sort(pairs)
	slices.Sort(all)
	var rules strings.Builder
	rules.WriteString("table bridge lab {}\ndelete table bridge lab\ntable bridge lab {\n")
	rules.WriteString("chain forward {\ntype filter hook forward priority 0\n")
	if len(pairs) > 0 {
		fmt.Fprintf(&rules, "iifname . oifname { %s } drop\n", strings.Join(pairs, ", "))
	}
	if lost := int(f.loss * lossParts / 100); lost > 0 {
		fmt.Fprintf(&rules, "iifname { %s } numgen random mod %d <= %d drop\n", strings.Join(all, ", "), lossParts, lost-1)
	}
	rules.WriteString("}\n}\n")
	return rules.String()
}

// changeFilter changes the filter and gives it to the kernel. The keeper's lock
// is held.
func (k *keeper) changeFilter(change func(*filter)) error {
	next := filter{drops: maps.Clone(k.filter.drops), loss: k.filter.loss}
	if next.drops == nil {
		next.drops = map[control.DropRequest]bool{}
	}
	change(&next)
	ports := make(map[string][]string)
	for name := range k.hosts {
		ports[name] = k.lanPorts(name)
	}
	nft := exec.Command("nft", "-f", "-")
	nft.Stdin = strings.NewReader(next.ruleset(ports))
	if out, err := nft.CombinedOutput(); err != nil {
		return fmt.Errorf("filter of the LAN: %w: %s", err, strings.TrimSpace(string(out)))
	}
	k.filter = next
	return nil
}

// lanPorts are the ports of a host on the LAN. The keeper's lock is held.
func (k *keeper) lanPorts(name string) []string {
	if name == FarHost {
		return nil
	}
	h := k.hosts[name]
	ports := []string{portName(name, control.Link{Name: "eth0", Bridge: lanBridge})}
	for _, l := range h.extra {
		ports = append(ports, portName(name, l))
	}
	return ports
}

// Drop loses the frames from one host to another, until Heal.
func (s *service) Drop(r control.DropRequest, _ *control.None) error {
	k := s.keeper
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, name := range []string{r.From, r.To} {
		if k.hosts[name] == nil || len(k.lanPorts(name)) == 0 {
			return fmt.Errorf("no host %q on the LAN", name)
		}
	}
	return k.changeFilter(func(f *filter) { f.drops[r] = true })
}

// Heal ends all drops.
func (s *service) Heal(control.None, *control.None) error {
	s.keeper.mu.Lock()
	defer s.keeper.mu.Unlock()
	return s.keeper.changeFilter(func(f *filter) { f.drops = nil })
}

// SetLoss makes the LAN lose a part of all frames.
func (s *service) SetLoss(percent float64, _ *control.None) error {
	if percent < 0 || percent > 100 {
		return fmt.Errorf("loss of %g %% is not between 0 and 100", percent)
	}
	s.keeper.mu.Lock()
	defer s.keeper.mu.Unlock()
	return s.keeper.changeFilter(func(f *filter) { f.loss = percent })
}
