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
}

// announcing are the interfaces that could announce: those that are up and have
// a global address with a subnet. That leaves out the interfaces of Pods, which
// have no address on the node, and those that carry single addresses.
func announcing(links []link, addresses []address) []announce.Interface {
	var out []announce.Interface
	for _, l := range links {
		if !l.up || l.loopback {
			continue
		}
		i := announce.Interface{Name: l.name, MAC: l.mac}
		for _, a := range addresses {
			if a.link == l.index && a.prefix.Addr().IsGlobalUnicast() && a.prefix.Bits() < a.prefix.Addr().BitLen() {
				i.Prefixes = append(i.Prefixes, a.prefix)
			}
		}
		slices.SortFunc(i.Prefixes, netip.Prefix.Compare)
		i.Prefixes = slices.Compact(i.Prefixes)
		i.Prefixes = i.Prefixes[:min(len(i.Prefixes), maxOnLink)]
		if len(i.Prefixes) > 0 {
			out = append(out, i)
		}
	}
	slices.SortFunc(out, func(a, b announce.Interface) int { return strings.Compare(a.Name, b.Name) })
	return out[:min(len(out), maxInterfaces)]
}

// nextHop6 is the IPv6 address of the interface that is on the router's link,
// for IPv6 prefixes over a session between IPv4 addresses.
func nextHop6(interfaces []announce.Interface, router netip.Addr) netip.Addr {
	for _, i := range interfaces {
		if !slices.ContainsFunc(i.Prefixes, func(p netip.Prefix) bool { return p.Contains(router) }) {
			continue
		}
		for _, p := range i.Prefixes {
			if p.Addr().Is6() {
				return p.Addr()
			}
		}
	}
	return netip.Addr{}
}

// watchInterfaces calls changed with the interfaces that could announce, at the
// start and whenever they change.
func watchInterfaces(ctx context.Context, changed func([]announce.Interface)) error {
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
func followInterfaces(ctx context.Context, changed func([]announce.Interface)) error {
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
	var last []announce.Interface
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

func sameInterface(a, b announce.Interface) bool {
	return a.Name == b.Name && a.MAC == b.MAC && slices.Equal(a.Prefixes, b.Prefixes)
}

func listInterfaces() ([]announce.Interface, error) {
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
		addresses = append(addresses, address{link: a.LinkIndex, prefix: netip.PrefixFrom(ip.Unmap(), bits)})
	}
	return announcing(links, addresses), nil
}
