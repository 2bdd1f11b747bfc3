package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// MaxNeighbors is how many entries the neighbour tables of one family hold, by
// the kernel's default of net.ipv4.neigh.default.gc_thresh3. The limit counts
// the entries of all namespaces of the machine, and only the machine's first
// namespace can change it, which no lab does: tests with more addresses flush
// in between, or use Ask.
const MaxNeighbors = 1024

// NeighborState is a state of neighbour unreachability detection (RFC 4861
// section 7.3.2), by the names of the ip command.
type NeighborState string

// States of neighbours.
const (
	Incomplete NeighborState = "INCOMPLETE"
	Reachable  NeighborState = "REACHABLE"
	Stale      NeighborState = "STALE"
	Delay      NeighborState = "DELAY"
	Probe      NeighborState = "PROBE"
	Failed     NeighborState = "FAILED"
	Permanent  NeighborState = "PERMANENT"
	// Gone is the state in the event that removes an entry.
	Gone NeighborState = "GONE"
)

var neighborStates = map[int]NeighborState{
	netlink.NUD_INCOMPLETE: Incomplete, netlink.NUD_REACHABLE: Reachable, netlink.NUD_STALE: Stale,
	netlink.NUD_DELAY: Delay, netlink.NUD_PROBE: Probe, netlink.NUD_FAILED: Failed, netlink.NUD_PERMANENT: Permanent,
}

// Neighbor is an entry of a host's neighbour table.
type Neighbor struct {
	Address   netip.Addr
	MAC       string // empty if it is not known
	State     NeighborState
	Interface string
}

// String shows the entry as one line.
func (n Neighbor) String() string {
	return fmt.Sprintf("%s dev %s at %s %s", n.Address, n.Interface, cmp.Or(n.MAC, "?"), n.State)
}

func newNeighbor(n *netlink.Neigh, interfaces map[int]string) (Neighbor, bool) {
	state, known := neighborStates[n.State]
	address, ok := netip.AddrFromSlice(n.IP)
	return Neighbor{Address: address.Unmap(), MAC: n.HardwareAddr.String(), State: state, Interface: interfaces[n.LinkIndex]}, known && ok
}

// Neighbors returns the neighbour table of a host, sorted by address, without
// entries that need no resolution, as those of multicast.
func (l *Lab) Neighbors(ctx context.Context, host string) ([]Neighbor, error) {
	var neighbors []Neighbor
	err := l.netlink(ctx, host, func(h *netlink.Handle) error {
		interfaces, err := interfaceNames(h)
		if err != nil {
			return err
		}
		entries, err := neighborEntries(h)
		if err != nil {
			return err
		}
		for i := range entries {
			if n, ok := newNeighbor(&entries[i], interfaces); ok {
				neighbors = append(neighbors, n)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("neighbours of %s: %w", host, err)
	}
	slices.SortFunc(neighbors, func(a, b Neighbor) int { return a.Address.Compare(b.Address) })
	return neighbors, nil
}

// Neighbor returns the entry of one address; its State is Gone if there is
// none.
func (l *Lab) Neighbor(ctx context.Context, host string, address netip.Addr) (Neighbor, error) {
	all, err := l.Neighbors(ctx, host)
	i := slices.IndexFunc(all, func(n Neighbor) bool { return n.Address == address })
	if err != nil || i < 0 {
		return Neighbor{Address: address, State: Gone}, err
	}
	return all[i], nil
}

func neighborEntries(h *netlink.Handle) ([]netlink.Neigh, error) {
	var all []netlink.Neigh
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		entries, err := h.NeighList(0, family)
		if err != nil {
			return nil, err
		}
		all = append(all, entries...)
	}
	return all, nil
}

func interfaceNames(h *netlink.Handle) (map[int]string, error) {
	links, err := h.LinkList()
	if err != nil {
		return nil, err
	}
	names := make(map[int]string, len(links))
	for _, link := range links {
		names[link.Attrs().Index] = link.Attrs().Name
	}
	return names, nil
}

// FlushNeighbors empties the neighbour table of a host but for permanent
// entries.
func (l *Lab) FlushNeighbors(ctx context.Context, host string) error {
	err := l.netlink(ctx, host, func(h *netlink.Handle) error {
		entries, err := neighborEntries(h)
		if err != nil {
			return err
		}
		for i := range entries {
			if entries[i].State&(netlink.NUD_PERMANENT|netlink.NUD_NOARP) != 0 {
				continue
			}
			if err := h.NeighDel(&entries[i]); err != nil && !errors.Is(err, syscall.ENOENT) {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("flush neighbours of %s: %w", host, err)
	}
	return nil
}

// NeighborTimes are timers of neighbour unreachability detection.
type NeighborTimes struct {
	// Reachable is how long a confirmation lasts; the kernel draws between half
	// and one and a half of it. Its default is 30s.
	Reachable time.Duration
	// Delay is how long it waits for another confirmation before it probes, in
	// whole seconds. Its default is 5s.
	Delay time.Duration
}

// SetNeighborTimes sets the timers of an interface of a host, until its next
// boot.
func (l *Lab) SetNeighborTimes(ctx context.Context, host, iface string, times NeighborTimes) error {
	var script strings.Builder
	for _, family := range []string{"ipv4", "ipv6"} {
		for key, value := range map[string]int64{
			"base_reachable_time_ms": times.Reachable.Milliseconds(),
			"delay_first_probe_time": int64(times.Delay / time.Second),
		} {
			fmt.Fprintf(&script, "echo %d > /proc/sys/net/%s/neigh/%s/%s &&", value, family, iface, key)
		}
	}
	_, err := l.On(ctx, host, "sh", "-c", script.String()+"true")
	return err
}
