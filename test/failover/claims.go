package main

import (
	"net/netip"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab"
)

// soleClaimant looks at who has claimed an address since a time, be it unasked
// or as an answer. It returns the MAC address of the last claim, and how long
// after that time the last claim for any other one came; 0 if none did. Times
// are those of the capture.
func soleClaimant(packets []lab.Packet, address netip.Addr, since time.Time) (mac string, others time.Duration) {
	last := make(map[string]time.Time)
	for i := range packets {
		if claimed, by, ok := packets[i].Claim(); ok && claimed == address && packets[i].Time.After(since) {
			last[by], mac = packets[i].Time, by
		}
	}
	for by, at := range last {
		if by != mac {
			others = max(others, at.Sub(since))
		}
	}
	return mac, others
}

// firstClaims is when each address was first claimed after a time, unasked and
// for another MAC address than one.
func firstClaims(packets []lab.Packet, not string, since time.Time) map[netip.Addr]time.Duration {
	first := make(map[netip.Addr]time.Duration)
	for i := range packets {
		p := &packets[i]
		address, mac, ok := p.Claim()
		if !ok || mac == not || !p.Gratuitous() || p.Time.Before(since) {
			continue
		}
		if _, seen := first[address]; !seen {
			first[address] = p.Time.Sub(since)
		}
	}
	return first
}

// ownership follows which MAC address the addresses of a set are claimed for.
type ownership struct {
	of      map[netip.Addr]string // empty: no claim was heard yet
	changes int
	covered int // claims that another host has sent
}

func newOwnership(addresses []netip.Addr) *ownership {
	o := &ownership{of: make(map[netip.Addr]string)}
	for _, address := range addresses {
		o.of[address] = ""
	}
	return o
}

// follow takes up packets in the order of their time.
func (o *ownership) follow(packets []lab.Packet) {
	for i := range packets {
		address, mac, ok := packets[i].Claim()
		if !ok {
			continue
		}
		before, ours := o.of[address]
		if !ours {
			continue
		}
		if packets[i].Source != mac {
			o.covered++
		}
		if mac == before {
			continue
		}
		if before != "" {
			o.changes++
		}
		o.of[address] = mac
	}
}
