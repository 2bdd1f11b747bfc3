package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Route is a route in a host's kernel.
type Route struct {
	Prefix   netip.Prefix
	NextHops []netip.Addr // sorted; several share the traffic
	Weights  []int        // of the next hops, in the same order
	Protocol string       // who installed it: bird, bgp, static, ...
}

// String shows the route as one line.
func (r Route) String() string {
	var hops []string
	for i, h := range r.NextHops {
		hops = append(hops, fmt.Sprintf("%s*%d", h, r.Weights[i]))
	}
	return fmt.Sprintf("%s via %s proto %s", r.Prefix, strings.Join(hops, " "), r.Protocol)
}

// Routes returns the router's kernel routes to a prefix and to all that lie in
// it.
func (l *Lab) Routes(ctx context.Context, prefix string) ([]Route, error) {
	return l.RoutesOn(ctx, Router, prefix)
}

// NextHops returns the nodes that the router sends an address to, or an empty
// list if it has no route for exactly this address.
func (l *Lab) NextHops(ctx context.Context, address string) ([]netip.Addr, error) {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return nil, err
	}
	host := netip.PrefixFrom(ip, ip.BitLen())
	routes, err := l.Routes(ctx, host.String())
	if err != nil {
		return nil, err
	}
	for _, r := range routes {
		if r.Prefix == host {
			return r.NextHops, nil
		}
	}
	return nil, nil
}

// RoutesOn is Routes for any host.
func (l *Lab) RoutesOn(ctx context.Context, host, prefix string) ([]Route, error) {
	p, err := netip.ParsePrefix(prefix)
	if err != nil {
		return nil, err
	}
	family := "-4"
	if p.Addr().Is6() {
		family = "-6"
	}
	text, err := l.On(ctx, host, "ip", "-j", family, "route", "show", "root", prefix)
	if err != nil {
		return nil, err
	}
	type hop struct {
		Gateway string `json:"gateway"`
		Via     struct {
			Host string `json:"host"`
		} `json:"via"`
		Weight int `json:"weight"`
	}
	var lines []struct {
		hop
		Dst      string `json:"dst"`
		Protocol string `json:"protocol"`
		NextHops []hop  `json:"nexthops"`
	}
	if err := json.Unmarshal([]byte(text), &lines); err != nil {
		return nil, fmt.Errorf("routes of %s: %w", host, err)
	}
	byPrefix := map[netip.Prefix]*Route{}
	var order []*Route
	for _, line := range lines {
		dst, err := parsePrefix(line.Dst)
		if err != nil {
			continue // "default"
		}
		r := byPrefix[dst]
		if r == nil {
			r = &Route{Prefix: dst, Protocol: line.Protocol}
			byPrefix[dst] = r
			order = append(order, r)
		}
		// IPv6 may show each next hop as a route of its own.
		for _, h := range append([]hop{line.hop}, line.NextHops...) {
			if h.Gateway == "" {
				h.Gateway = h.Via.Host
			}
			if via, err := netip.ParseAddr(h.Gateway); err == nil {
				at, _ := slices.BinarySearchFunc(r.NextHops, via, netip.Addr.Compare)
				r.NextHops = slices.Insert(r.NextHops, at, via)
				r.Weights = slices.Insert(r.Weights, at, max(h.Weight, 1))
			}
		}
	}
	var routes []Route
	for _, r := range order {
		routes = append(routes, *r)
	}
	return routes, nil
}

func parsePrefix(s string) (netip.Prefix, error) {
	if ip, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(ip, ip.BitLen()), nil
	}
	return netip.ParsePrefix(s)
}

// Birdc runs a command of BIRD's client on the router.
func (l *Lab) Birdc(ctx context.Context, args ...string) (string, error) {
	return l.On(ctx, Router, append([]string{"/usr/sbin/birdc", "-s", "/run/bird.ctl"}, args...)...)
}
