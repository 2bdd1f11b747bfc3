package wire

import (
	"net"
	"net/netip"
	"reflect"
	"testing"
)

var (
	askerMAC = net.HardwareAddr{0, 0, 0x5e, 0, 0x53, 1}
	ownerMAC = net.HardwareAddr{0, 0, 0x5e, 0, 0x53, 2}
	asker4   = netip.MustParseAddr("192.0.2.1")
	asker6   = netip.MustParseAddr("2001:db8::1")
	owner4   = netip.MustParseAddr("192.0.2.2")
	owner6   = netip.MustParseAddr("2001:db8::2")
)

// TestRequestAndAnswer: what is asked is read as it was meant, and so is the
// answer.
func TestRequestAndAnswer(t *testing.T) {
	for name, test := range map[string]struct {
		sender, target netip.Addr
		to             net.HardwareAddr
		option         bool
		destination    string // of the request
		answerTo       string
	}{
		"ARP":                     {asker4, owner4, nil, true, "ff:ff:ff:ff:ff:ff", askerMAC.String()},
		"ARP probe":               {netip.IPv4Unspecified(), owner4, nil, true, "ff:ff:ff:ff:ff:ff", askerMAC.String()},
		"ARP unicast":             {asker4, owner4, ownerMAC, true, ownerMAC.String(), askerMAC.String()},
		"NDP":                     {asker6, owner6, nil, true, "33:33:ff:00:00:02", askerMAC.String()},
		"NDP without option":      {asker6, owner6, nil, false, "33:33:ff:00:00:02", askerMAC.String()},
		"NDP unicast":             {asker6, owner6, ownerMAC, true, ownerMAC.String(), askerMAC.String()},
		"NDP duplicate detection": {netip.IPv6Unspecified(), owner6, nil, false, "33:33:ff:00:00:02", "33:33:00:00:00:01"},
	} {
		t.Run(name, func(t *testing.T) {
			asked := parse(request(askerMAC, test.sender, test.target, test.to, test.option))
			if asked.Malformed != "" || asked.TargetIP != test.target || asked.SenderIP != test.sender || asked.Destination != test.destination {
				t.Errorf("request: %s", &asked)
			}
			if got := asked.SenderMAC != ""; got != (test.option || test.target.Is4()) {
				t.Errorf("request with link-layer address: %t", got)
			}
			frame, err := answer(&asked, ownerMAC, ownerMAC)
			if err != nil {
				t.Fatal(err)
			}
			told := parse(frame)
			address, mac, ok := told.Claim()
			if !ok || address != test.target || mac != ownerMAC.String() || told.Destination != test.answerTo {
				t.Errorf("answer: %s", &told)
			}
		})
	}
}

func TestGratuitous(t *testing.T) {
	for _, frame := range [][]byte{
		gratuitous(owner4, ownerMAC, ownerMAC, false), gratuitous(owner4, ownerMAC, ownerMAC, true), gratuitous(owner6, ownerMAC, ownerMAC, false),
	} {
		p := parse(frame)
		if address, mac, ok := p.Claim(); !ok || !p.Gratuitous() || address != owner4 && address != owner6 || mac != ownerMAC.String() {
			t.Errorf("%s", &p)
		}
	}
}

// TestGarble: equal seeds make equal frames, all kinds come, and none claims a
// victim's address in a way that a kernel could obey.
func TestGarble(t *testing.T) {
	o := GarbleOptions{
		Victims:   []string{"198.51.100.0/28", "2001:db8:1::/124"},
		Strangers: []string{"192.0.2.251-192.0.2.254", "2001:db8:2::d:0-2001:db8:2::d:f"},
		Seed:      7,
	}
	victims, err := Expand(o.Victims)
	if err != nil {
		t.Fatal(err)
	}
	isVictim := map[netip.Addr]bool{}
	for _, v := range victims {
		isVictim[v] = true
	}
	g, err := newGarbler(o, askerMAC)
	if err != nil {
		t.Fatal(err)
	}
	again, err := newGarbler(o, askerMAC)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for range 50_000 {
		kind, frame := g.next()
		if _, same := again.next(); !reflect.DeepEqual(frame, same) {
			t.Fatalf("%s: another frame from the same seed", kind)
		}
		seen[kind] = true
		if len(frame) < etherHeader || len(frame) > etherHeader+etherMaximum {
			t.Errorf("%s: %d bytes", kind, len(frame))
		}
		p := parse(frame)
		if address, _, ok := p.Claim(); ok && isVictim[address] {
			t.Errorf("%s: claims a victim: %s", kind, &p)
		}
	}
	if len(seen) != len(garbleKinds) {
		t.Errorf("%d kinds of %d", len(seen), len(garbleKinds))
	}
}

func TestExpand(t *testing.T) {
	got, err := Expand([]string{"192.0.2.7", "192.0.2.254-192.0.3.1", "2001:db8::/127"})
	if err != nil || len(got) != 7 || got[4] != netip.MustParseAddr("192.0.3.1") {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range [][]string{nil, {"x"}, {"192.0.2.9-192.0.2.1"}, {"2001:db8::/64"}} {
		if got, err := Expand(bad); err == nil {
			t.Errorf("%q: %d addresses", bad, len(got))
		}
	}
}
