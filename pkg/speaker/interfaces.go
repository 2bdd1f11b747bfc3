package speaker

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
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
	mac      string
	up       bool
	loopback bool
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

// nic is an interface that could announce.
type nic struct {
	announce.Interface
	index int
	// hop6 is its address as next hop of IPv6 prefixes, zero if it has none.
	hop6 netip.Addr
}

func reported(nics []nic) []announce.Interface {
	out := make([]announce.Interface, 0, len(nics))
	for _, n := range nics {
		out = append(out, n.Interface)
	}
	return out
}

// announcing are the interfaces that could announce: those that are up and have
// a global address with a subnet. That leaves out the interfaces of Pods, which
// have no address on the node, and those that carry single addresses.
func announcing(links []link, addresses []address) []nic {
	var out []nic
	for _, l := range links {
		if !l.up || l.loopback {
			continue
		}
		i := nic{Interface: announce.Interface{Name: l.name, MAC: l.mac}, index: l.index}
		for _, a := range addresses {
			if a.link == l.index && a.prefix.Addr().IsGlobalUnicast() && a.prefix.Bits() < a.prefix.Addr().BitLen() {
				i.Prefixes = append(i.Prefixes, a.prefix)
				if addr := a.prefix.Addr(); addr.Is6() && !a.passing && (!i.hop6.IsValid() || addr.Less(i.hop6)) {
					i.hop6 = addr
				}
			}
		}
		slices.SortFunc(i.Prefixes, netip.Prefix.Compare)
		i.Prefixes = slices.Compact(i.Prefixes)
		i.Prefixes = i.Prefixes[:min(len(i.Prefixes), maxOnLink)]
		if len(i.Prefixes) > 0 {
			out = append(out, i)
		}
	}
	slices.SortFunc(out, func(a, b nic) int { return strings.Compare(a.Name, b.Name) })
	return out[:min(len(out), maxInterfaces)]
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

// linkTo is the index of the interface through which the kernel reaches the
// router, 0 if it does not.
func linkTo(router netip.Addr) int {
	routes, err := netlink.RouteGet(router.AsSlice())
	if err != nil || len(routes) == 0 {
		return 0
	}
	return routes[0].LinkIndex
}

// watchInterfaces calls changed with the interfaces that could announce, at the
// start and whenever they change.
func watchInterfaces(ctx context.Context, changed func([]nic)) error {
	logger := klog.FromContext(ctx)
	for ctx.Err() == nil {
		if err := followInterfaces(ctx, changed); err != nil && ctx.Err() == nil {
			logger.Error(err, "Watching the network interfaces failed")
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	}
	return nil
}

// followInterfaces returns when the kernel's messages are lost, for which the
// remedy is to begin anew.
func followInterfaces(ctx context.Context, changed func([]nic)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	lost := make(chan error, 2)
	onError := func(err error) {
		select {
		case lost <- err:
		default:
		}
	}
	links := make(chan netlink.LinkUpdate)
	addresses := make(chan netlink.AddrUpdate)
	if err := netlink.LinkSubscribeWithOptions(links, ctx.Done(), netlink.LinkSubscribeOptions{ErrorCallback: onError}); err != nil {
		return fmt.Errorf("subscribing to links: %w", err)
	}
	if err := netlink.AddrSubscribeWithOptions(addresses, ctx.Done(), netlink.AddrSubscribeOptions{ErrorCallback: onError}); err != nil {
		cancel()
		drain(links)
		return fmt.Errorf("subscribing to addresses: %w", err)
	}
	// The senders in netlink know no context: take what they have until they
	// close the channels.
	defer func() {
		cancel()
		go drain(links)
		go drain(addresses)
	}()
	var last []nic
	for first := true; ; first = false {
		interfaces, err := listInterfaces()
		if err != nil {
			return err
		}
		if first || !slices.EqualFunc(last, interfaces, sameInterface) {
			changed(interfaces)
			last = interfaces
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-lost:
			return fmt.Errorf("messages lost: %w", err)
		case _, ok := <-links:
			if !ok {
				return fmt.Errorf("subscription to links ended")
			}
		case _, ok := <-addresses:
			if !ok {
				return fmt.Errorf("subscription to addresses ended")
			}
		}
	}
}

func drain[T any](c <-chan T) {
	for range c {
	}
}

func sameInterface(a, b nic) bool {
	return a.Name == b.Name && a.MAC == b.MAC && a.index == b.index && a.hop6 == b.hop6 && slices.Equal(a.Prefixes, b.Prefixes)
}

func listInterfaces() ([]nic, error) {
	kernelLinks, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("listing links: %w", err)
	}
	kernelAddresses, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("listing addresses: %w", err)
	}
	links := make([]link, 0, len(kernelLinks))
	for _, l := range kernelLinks {
		a := l.Attrs()
		links = append(links, link{
			index:    a.Index,
			name:     a.Name,
			mac:      a.HardwareAddr.String(),
			up:       a.Flags&net.FlagUp != 0,
			loopback: a.Flags&net.FlagLoopback != 0,
		})
	}
	addresses := make([]address, 0, len(kernelAddresses))
	for _, a := range kernelAddresses {
		ip, ok := netip.AddrFromSlice(a.IP)
		if !ok {
			continue
		}
		bits, _ := a.Mask.Size()
		addresses = append(addresses, address{
			link:    a.LinkIndex,
			prefix:  netip.PrefixFrom(ip.Unmap(), bits),
			passing: a.Flags&passing != 0,
		})
	}
	return announcing(links, addresses), nil
}
