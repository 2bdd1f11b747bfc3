package layer2

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// traps finds addresses for which the kernel of every node answers ARP.
//
// kube-proxy in its mode IPVS binds the addresses to the interface kube-ipvs0 of
// every node. With arp_ignore 0 the kernel answers requests that come in on any
// interface for any address of the node, so that clients get as many answers as
// there are nodes. The greater one of the values for all and for the interface
// counts. IPv6 has no such trap: solicitations are answered on the interface
// only that has the address.
func traps(o *order, arpIgnore func(name string) (int, error)) []string {
	if len(o.bound) == 0 {
		return nil
	}
	addresses := make(map[int][]netip.Addr) // by index into interfaces
	for _, w := range o.wants {
		if !w.bound || w.role != Own { // the owner tells
			continue
		}
		for _, i := range w.links {
			addresses[i] = append(addresses[i], w.addr)
		}
	}
	if len(addresses) == 0 {
		return nil
	}
	all, err := arpIgnore("all")
	var out []string
	for i, addrs := range addresses {
		name := o.interfaces[i].Name
		one, err1 := arpIgnore(name)
		switch {
		case err != nil || err1 != nil || max(all, one) >= 1:
		default:
			out = append(out, fmt.Sprintf("%s: bound to kube-ipvs0 while arp_ignore of %s is 0, so that every node answers ARP for them: "+
				"run kube-proxy with --ipvs-strict-arp (strictARP: true)", rangesText(addrs), name))
		}
	}
	slices.Sort(out)
	return out
}

// readARPIgnore reads net.ipv4.conf.NAME.arp_ignore.
func readARPIgnore(name string) (int, error) {
	text, err := os.ReadFile(filepath.Join("/proc/sys/net/ipv4/conf", name, "arp_ignore"))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}
