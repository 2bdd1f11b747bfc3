package main

import (
	"net/netip"
	"testing"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab"
)

// MAC addresses for documentation (RFC 7042 section 2.1.2).
const (
	one = "00:00:5e:00:53:01"
	two = "00:00:5e:00:53:02"
)

var (
	start  = time.Unix(1000, 0)
	first  = netip.MustParseAddr("192.0.2.200")
	second = netip.MustParseAddr("2001:db8:2::2:0")
)

func at(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }

// gratuitous is a packet that claims an address, ms after the start.
func gratuitous(ms int, address netip.Addr, mac string) lab.Packet {
	p := lab.Packet{Time: at(ms), Kind: "arp-reply", Source: mac, SenderIP: address, SenderMAC: mac, TargetIP: address}
	if address.Is6() {
		p.Kind, p.SenderMAC, p.TargetMAC = "neighbor-advertisement", "", mac
	}
	return p
}

func request(ms int, address netip.Addr) lab.Packet {
	return lab.Packet{Time: at(ms), Kind: "arp-request", Source: two, SenderIP: netip.MustParseAddr("192.0.2.100"), SenderMAC: two, TargetIP: address}
}

// answered is a packet that claims an address to one who asked.
func answered(ms int, address netip.Addr, mac string) lab.Packet {
	p := gratuitous(ms, address, mac)
	p.TargetIP = netip.MustParseAddr("192.0.2.100")
	return p
}

func TestSoleClaimant(t *testing.T) {
	for name, test := range map[string]struct {
		packets []lab.Packet
		mac     string
		others  time.Duration
	}{
		"nobody": {[]lab.Packet{request(10, first), gratuitous(20, second, two)}, "", 0},
		"one":    {[]lab.Packet{answered(-10, first, two), answered(10, first, one), request(20, first)}, one, 0},
		"two for a while": {
			[]lab.Packet{answered(10, first, one), answered(15, first, two), answered(30, first, one), answered(35, first, two), answered(50, first, two)},
			two, 30 * time.Millisecond,
		},
	} {
		t.Run(name, func(t *testing.T) {
			if mac, others := soleClaimant(test.packets, first, start); mac != test.mac || others != test.others {
				t.Errorf("%q, others until %s; want %q, %s", mac, others, test.mac, test.others)
			}
		})
	}
}

func TestFirstClaims(t *testing.T) {
	got := firstClaims([]lab.Packet{
		gratuitous(-5, first, two),  // too early
		gratuitous(10, first, one),  // the old owner
		answered(20, first, two),    // not by itself
		gratuitous(30, first, two),  //
		gratuitous(40, first, two),  // not the first
		gratuitous(50, second, two), //
	}, one, start)
	if len(got) != 2 || got[first] != 30*time.Millisecond || got[second] != 50*time.Millisecond {
		t.Errorf("%v", got)
	}
}

func TestOwnershipCountsChanges(t *testing.T) {
	o := newOwnership([]netip.Addr{first, second})
	o.follow([]lab.Packet{gratuitous(0, first, one), answered(1, first, one), request(2, first)})
	o.follow([]lab.Packet{gratuitous(3, second, two), gratuitous(4, netip.MustParseAddr("192.0.2.1"), two)})
	if o.changes != 0 {
		t.Errorf("%d changes, want none", o.changes)
	}
	o.follow([]lab.Packet{answered(5, first, two), answered(6, first, one)})
	if o.changes != 2 || o.covered != 0 || o.of[first] != one || o.of[second] != two {
		t.Errorf("%d changes, %d covered, owners %v", o.changes, o.covered, o.of)
	}
	// Another node answers, but for the owner.
	covering := answered(7, first, one)
	covering.Source = two
	o.follow([]lab.Packet{covering})
	if o.changes != 2 || o.covered != 1 {
		t.Errorf("%d changes, %d covered", o.changes, o.covered)
	}
}
