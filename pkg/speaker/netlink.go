package speaker

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

// linkTo is the index of the interface through which the kernel reaches the
// router, 0 if it does not.
func linkTo(router netip.Addr) int {
	routes, err := netlink.RouteGet(router.AsSlice())
	if err != nil || len(routes) == 0 {
		return 0
	}
	return routes[0].LinkIndex
}

// reach finds the interfaces through which the kernel reaches the targets of
// "can-reach:".
func reach(targets []netip.Addr) []announce.Reach {
	var out []announce.Reach
	for _, target := range targets {
		r := announce.Reach{Target: target}
		var err error
		if r.Interface, err = interfaceTo(target); err != nil {
			r.Error = fmt.Sprintf("can-reach:%s: %v", target, err)
		}
		out = append(out, r)
	}
	return out
}

func interfaceTo(target netip.Addr) (string, error) {
	routes, err := netlink.RouteGet(target.AsSlice())
	switch {
	case err != nil:
		return "", fmt.Errorf("not reached from this node: %w; add a route, or name the interface", err)
	case len(routes) == 0:
		return "", errors.New("not reached from this node: no route; add one, or name the interface")
	case routes[0].Type == unix.RTN_LOCAL:
		return "", errors.New("is an address of this node, which tells no interface; give the address of another host")
	case routes[0].Type != unix.RTN_UNICAST && routes[0].Type != unix.RTN_UNSPEC:
		return "", errors.New("not reached from this node: its route is no unicast route; give the address of another host")
	}
	link, err := netlink.LinkByIndex(routes[0].LinkIndex)
	if err != nil {
		return "", fmt.Errorf("not reached from this node: %w", err)
	}
	return link.Attrs().Name, nil
}

// elsewhere are addresses that nobody routes (RFC 5737, RFC 3849): the kernel's
// way to them is the default one. Nothing is sent there.
var elsewhere = []netip.Addr{netip.AddrFrom4([4]byte{198, 51, 100, 0}), netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 0xff, 0xff})}

// gateways are the node's default gateways.
func gateways() []netip.Addr {
	var out []netip.Addr
	for _, target := range elsewhere {
		routes, err := netlink.RouteGet(target.AsSlice())
		if err != nil {
			continue // there is none
		}
		for _, r := range routes {
			if gateway, ok := netip.AddrFromSlice(r.Gw); ok {
				out = append(out, gateway.Unmap())
			}
		}
	}
	return out
}

// watchInterfaces calls changed with what the kernel has, at the start and
// whenever it changes, and rerouted whenever routes change.
func watchInterfaces(ctx context.Context, changed func(inventory), rerouted func()) error {
	logger := klog.FromContext(ctx)
	for ctx.Err() == nil {
		if err := followInterfaces(ctx, changed, rerouted); err != nil && ctx.Err() == nil {
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
func followInterfaces(ctx context.Context, changed func(inventory), rerouted func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	lost := make(chan error, 3)
	onError := func(err error) {
		select {
		case lost <- err:
		default:
		}
	}
	links := make(chan netlink.LinkUpdate)
	addresses := make(chan netlink.AddrUpdate)
	routes := make(chan netlink.RouteUpdate)
	if err := netlink.LinkSubscribeWithOptions(links, ctx.Done(), netlink.LinkSubscribeOptions{ErrorCallback: onError}); err != nil {
		return fmt.Errorf("subscribing to links: %w", err)
	}
	if err := netlink.AddrSubscribeWithOptions(addresses, ctx.Done(), netlink.AddrSubscribeOptions{ErrorCallback: onError}); err != nil {
		cancel()
		drain(links)
		return fmt.Errorf("subscribing to addresses: %w", err)
	}
	if err := netlink.RouteSubscribeWithOptions(routes, ctx.Done(), netlink.RouteSubscribeOptions{ErrorCallback: onError}); err != nil {
		cancel()
		drain(links)
		drain(addresses)
		return fmt.Errorf("subscribing to routes: %w", err)
	}
	// The senders in netlink know no context: take what they have until they
	// close the channels.
	defer func() {
		cancel()
		go drain(links)
		go drain(addresses)
		go drain(routes)
	}()
	var last inventory
	for first, stale := true, true; ; first = false {
		if stale {
			now, err := listInterfaces()
			if err != nil {
				return err
			}
			if first || !reflect.DeepEqual(last, now) {
				changed(now)
				last = now
			}
		}
		stale = true
		select {
		case <-ctx.Done():
			return nil
		case err := <-lost:
			return fmt.Errorf("messages lost: %w", err)
		case _, ok := <-links:
			if !ok {
				return errors.New("subscription to links ended")
			}
		case _, ok := <-addresses:
			if !ok {
				return errors.New("subscription to addresses ended")
			}
		case _, ok := <-routes:
			if !ok {
				return errors.New("subscription to routes ended")
			}
			// The routes of Pods come and go: no reason to list everything.
			stale = false
			rerouted()
		}
	}
}

func drain[T any](c <-chan T) {
	for range c {
	}
}

func listInterfaces() (inventory, error) {
	kernelLinks, err := netlink.LinkList()
	if err != nil {
		return inventory{}, fmt.Errorf("listing links: %w", err)
	}
	kernelAddresses, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return inventory{}, fmt.Errorf("listing addresses: %w", err)
	}
	byIndex := make(map[int]netlink.Link, len(kernelLinks))
	for _, l := range kernelLinks {
		byIndex[l.Attrs().Index] = l
	}
	links := make([]link, 0, len(kernelLinks))
	for _, l := range kernelLinks {
		a := l.Attrs()
		links = append(links, link{
			index:    a.Index,
			name:     a.Name,
			kind:     l.Type(),
			mac:      a.HardwareAddr.String(),
			up:       a.RawFlags&unix.IFF_UP != 0,
			carrier:  a.RawFlags&unix.IFF_RUNNING != 0,
			loopback: a.RawFlags&unix.IFF_LOOPBACK != 0,
			noARP:    a.RawFlags&unix.IFF_NOARP != 0,
			master:   masterOf(a, byIndex),
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
	return takeStock(links, addresses), nil
}

// masterOf is the name of the bond, bridge or switch that takes the frames of the
// interface. A VRF is none: it concerns routes.
func masterOf(a *netlink.LinkAttrs, byIndex map[int]netlink.Link) string {
	master := byIndex[a.MasterIndex]
	if a.MasterIndex == 0 || master == nil || master.Type() == "vrf" {
		return ""
	}
	return master.Attrs().Name
}
