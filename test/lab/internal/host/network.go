package host

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/internal/control"
)

// configureLinks sets up the interfaces that the keeper has put into the
// host's network namespace.
func configureLinks(links []control.Link) error {
	for _, l := range append([]control.Link{{Name: "lo"}}, links...) {
		link, err := netlink.LinkByName(l.Name)
		if err != nil {
			return fmt.Errorf("interface %s: %w", l.Name, err)
		}
		for _, a := range l.Addresses {
			address, err := netlink.ParseAddr(a)
			if err != nil {
				return fmt.Errorf("address of %s: %w", l.Name, err)
			}
			if address.IP.To4() == nil {
				// A host is to be reachable at once after its boot.
				address.Flags = unix.IFA_F_NODAD
			}
			if err := netlink.AddrReplace(link, address); err != nil {
				return fmt.Errorf("address %s of %s: %w", a, l.Name, err)
			}
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return fmt.Errorf("interface %s up: %w", l.Name, err)
		}
	}
	return nil
}

func parseRoute(r control.Route) (*netlink.Route, error) {
	route := &netlink.Route{Gw: net.ParseIP(r.Via), Protocol: unix.RTPROT_STATIC}
	if route.Gw == nil {
		return nil, fmt.Errorf("route to %s: gateway %q is not an address", r.Destination, r.Via)
	}
	if r.Destination == "default" {
		return route, nil
	}
	_, dst, err := net.ParseCIDR(r.Destination)
	if err != nil {
		return nil, fmt.Errorf("route to %s: %w", r.Destination, err)
	}
	route.Dst = dst
	return route, nil
}

func addRoutes(routes []control.Route) error {
	for _, r := range routes {
		route, err := parseRoute(r)
		if err != nil {
			return err
		}
		if err := netlink.RouteReplace(route); err != nil {
			return fmt.Errorf("route to %s via %s: %w", r.Destination, r.Via, err)
		}
	}
	return nil
}

func removeRoutes(routes []control.Route) error {
	for _, r := range routes {
		route, err := parseRoute(r)
		if err != nil {
			return err
		}
		if err := netlink.RouteDel(route); err != nil && !errors.Is(err, syscall.ESRCH) && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove route to %s: %w", r.Destination, err)
		}
	}
	return nil
}
