package layer2

import (
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/layer2/internal/wire"
)

// TestCheck: who stands by checks the owner, who counts it.
func TestCheck(t *testing.T) {
	owner := newSim(t)
	owned := one(Certain, vip, vip6)
	owned.Interfaces[0].MAC = fellowMAC
	owned.Fellows = []announce.MAC{nodeMAC}
	owner.set(owned)
	owner.run(time.Minute)
	owner.log = nil

	standby := newSim(t)
	standby.set(in(Standby, one(Certain, vip, vip6)))
	for range 3 { // one is on its way until it is sent
		for _, addr := range []netip.Addr{vip, vip6} {
			if err := standby.b.check(2, addr, fellowMAC); err != nil {
				t.Error(err)
			}
		}
	}
	count := 0
	standby.b.turn(standby.now, func(_ *link, _ family, frame []byte) error {
		count++
		if m, err := wire.ParseFrame(frame); err != nil || m.Source != nodeMAC || m.SenderMAC != fellowMAC || m.Destination != fellowMAC {
			t.Errorf("check %+v, %v", m, err)
		}
		owner.receive(frame)
		return nil
	})
	if count != 2 {
		t.Errorf("%d checks", count)
	}
	want := map[announce.MAC]Checks{nodeMAC: {ARP: 1, NDP: 1}}
	if diff := cmp.Diff(want, owner.b.status().Checks); diff != "" {
		t.Errorf("checks (-want +got):\n%s", diff)
	}

	// What counts not, and what nobody reacts to.
	from := func(source, destination, owner announce.MAC, addr netip.Addr) []byte {
		frame := check(source, owner, addr)
		wire.SetDestination(frame, destination)
		return frame
	}
	for name, frame := range map[string][]byte{
		"looped back":         from(fellowMAC, fellowMAC, fellowMAC, vip),
		"of a stranger":       from(thiefMAC, fellowMAC, fellowMAC, vip),
		"to all":              from(nodeMAC, broadcastMAC, fellowMAC, vip),
		"of another address":  from(nodeMAC, fellowMAC, fellowMAC, vip.Next()),
		"that claims nothing": from(nodeMAC, fellowMAC, fellowMAC, netip.IPv4Unspecified()),
	} {
		owner.receive(frame)
		if diff := cmp.Diff(want, owner.b.status().Checks); diff != "" {
			t.Errorf("%s: checks (-want +got):\n%s", name, diff)
		}
	}
	owner.silent()
	owner.conflicts()
	owner.set(in(Standby, owned))
	owner.receive(check(nodeMAC, fellowMAC, vip))
	if diff := cmp.Diff(want, owner.b.status().Checks); diff != "" {
		t.Errorf("of another node's address: checks (-want +got):\n%s", diff)
	}

	// Another fellow changes nothing; one that has gone is forgotten.
	owned.Fellows = append(owned.Fellows, lowFellow)
	owner.set(owned)
	if diff := cmp.Diff(want, owner.b.status().Checks); diff != "" {
		t.Errorf("checks (-want +got):\n%s", diff)
	}
	owned.Fellows = owned.Fellows[1:]
	owner.set(owned)
	if got := owner.b.status().Checks; got != nil {
		t.Errorf("checks %+v", got)
	}
}

func TestCheckOfNothing(t *testing.T) {
	s := newSim(t)
	s.set(in(Standby, one(Certain, vip)))
	s.b.closed(s.b.links[2], ipv4, s.now)
	for _, test := range []struct {
		index int
		addr  netip.Addr
		err   string
	}{
		{9, vip, "interface 9"},
		{2, vip.Next(), "does not stand by"},
		{2, vip, "no socket"},
	} {
		if err := s.b.check(test.index, test.addr, fellowMAC); err == nil || !strings.Contains(err.Error(), test.err) || !strings.Contains(err.Error(), test.addr.String()) {
			t.Errorf("%v on %d: %v, want %q", test.addr, test.index, err, test.err)
		}
	}
	s.set(one(Certain, vip))
	if err := s.b.check(2, vip, fellowMAC); err == nil {
		t.Error("the owner checks itself")
	}
	// What is queued when the role changes is not sent any more.
	s.set(in(Standby, one(Certain, vip)))
	if err := s.b.check(2, vip, fellowMAC); err != nil {
		t.Error(err)
	}
	s.set(in(Cover, one(Certain, vip)))
	s.run(time.Second)
	s.silent()
	if err := s.b.check(2, vip, fellowMAC); err != nil {
		t.Error(err)
	}
	s.start = s.now
	s.run(time.Second)
	s.said("0s eth0 reply 192.0.2.10")
}

func TestAnnouncerChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nic := new(fakeNIC)
		a := nic.start(t)
		a.Set(in(Standby, one(Certain, vip)))
		synctest.Wait()
		if err := a.Check(2, netip.MustParseAddr("::ffff:192.0.2.10"), fellowMAC); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if said := nic.said(); len(said) != 1 || said[0] != "reply 192.0.2.10" {
			t.Errorf("said %q", said)
		}
		if err := a.Check(2, vip6, fellowMAC); err == nil {
			t.Error("check of an address that is not in the state")
		}
	})
}
