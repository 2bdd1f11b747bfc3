package layer2

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/layer2/internal/wire"
)

// role is a state in which the node's end has that role, and fellowMAC is the
// owner.
func (l *lab) role(role Role, addrs ...netip.Addr) State {
	l.t.Helper()
	s := l.state(Certain, addrs...)
	s.Groups[0].Role = role
	s.Groups[0].Owner = map[string]announce.MAC{l.n: fellowMAC}
	return s
}

func TestLabCover(t *testing.T) {
	l := newLab(t)
	l.a.Set(l.role(Cover, vip, vip6))
	l.until("covered", func(s Status) bool { return s.Covered == 2 })
	mac := l.nodeMAC()
	for _, test := range []struct {
		name    string
		addr    netip.Addr
		request []byte
		to      announce.MAC
	}{
		{"ARP", vip, arpRequest(l.mac, client, vip, broadcastMAC), l.mac},
		{"unicast ARP", vip, arpRequest(l.mac, client, vip, mac), l.mac},
		{"ARP probe", vip, wire.ARPProbe(l.mac, vip), l.mac},
		{"NDP", vip6, solicitation(l.mac, client6, vip6, nil, true, nil), l.mac},
		{"unreachability detection", vip6, solicitation(l.mac, client6, vip6, &mac, false, nil), l.mac},
		{"duplicate address detection", vip6, wire.NDPProbe(l.mac, vip6), announce.MAC{0x33, 0x33, 0, 0, 0, 1}},
	} {
		l.send(test.request)
		m := l.next(test.addr, true)
		if addr, by, _ := m.Claims(); addr != test.addr || by != fellowMAC || m.Source != mac || m.Destination != test.to {
			t.Errorf("%s: answer %+v", test.name, m)
		}
	}
	l.counts("6 answered in place of the owner", func(s Status) bool { return s.AnsweredFor == 6 })
	if s := l.a.Status(); s.Gratuitous+s.Probes+s.Answered != 0 {
		t.Errorf("status %+v", s)
	}
}

// TestLabAwaited: a Linux host that asks while nobody answers need not wait until
// it asks again.
func TestLabAwaited(t *testing.T) {
	for _, test := range []struct {
		name string
		role Role
		addr netip.Addr
	}{
		{"cover, ARP", Cover, vip}, {"cover, NDP", Cover, vip6}, {"takeover, ARP", Own, vip}, {"takeover, NDP", Own, vip6},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := newLab(t)
			in := l.host()
			// A second would be little time to tell one from the other.
			const again = 5 * time.Second
			in("sh", "-c", fmt.Sprintf("echo %[1]d >/proc/sys/net/ipv4/neigh/%[2]s/retrans_time_ms; echo %[1]d >/proc/sys/net/ipv6/neigh/%[2]s/retrans_time_ms", again.Milliseconds(), l.p))
			l.a.Set(l.role(Standby, test.addr))
			l.until("standing by", func(s Status) bool { return s.StandingBy == 1 })
			if test.addr.Is6() {
				l.reportedGroups("ff0200000000000000000001ff000010", 1)
			}
			mac := fellowMAC
			if test.role == Own {
				mac = l.nodeMAC()
			}
			entry := func() string {
				t.Helper()
				return in("ip", "neigh", "show", "to", test.addr.String(), "dev", l.p)
			}
			asked := time.Now()
			in("bash", "-c", fmt.Sprintf("echo >/dev/udp/%v/9", test.addr))
			if line := entry(); !strings.Contains(line, "INCOMPLETE") {
				t.Fatalf("resolved before there is an answer: %s", line)
			}
			changed := time.Now()
			l.a.Set(l.role(test.role, test.addr))
			line := entry()
			for !strings.Contains(line, mac.String()) && time.Since(asked) < again {
				line = entry()
			}
			t.Logf("after %v: %s", time.Since(changed).Round(time.Millisecond), line)
			if !strings.Contains(line, mac.String()) {
				t.Errorf("not resolved before the host asks again: %s", line)
			}
			l.counts("answered once", func(s Status) bool {
				return s.Answered+s.AnsweredFor == 1 && (s.AnsweredFor == 1) == (test.role == Cover)
			})
		})
	}
}

// TestLabTakeover measures what is on the wire when 2,000 addresses are taken over.
func TestLabTakeover(t *testing.T) {
	for name, first := range map[string]netip.Addr{
		"ARP": netip.MustParseAddr("192.0.2.1").Next(), "NDP": netip.MustParseAddr("2001:db8::1:0"),
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			var addrs []netip.Addr
			for addr := first; len(addrs) < 2000; addr = addr.Next() {
				addrs = append(addrs, addr)
			}
			selected := func(s State) State {
				s.Groups[0].Interfaces = []string{l.n}
				return s
			}
			l.a.Set(selected(l.role(Standby, addrs...)))
			l.until("standing by", func(s Status) bool { return s.StandingBy == len(addrs) })
			if first.Is6() {
				l.reported(len(addrs))
			}
			l.drain()
			began := time.Now()
			l.a.Set(selected(l.role(Own, addrs...)))
			seen := make(map[netip.Addr]int)
			frames, forms := 0, 1 // of a first round
			if first.Is4() {
				forms = 2
			}
			var last time.Time
			deadline := time.After(10 * time.Second)
			for frames < forms*len(addrs) {
				select {
				case s := <-l.frames:
					if _, by, _ := s.m.Claims(); by != l.nodeMAC() {
						continue
					}
					if frames++; seen[s.m.Target] == forms {
						t.Fatalf("%v is told again before all are told once", s.m.Target)
					}
					seen[s.m.Target]++
					last = s.at
				case <-deadline:
					t.Fatalf("%d of %d frames: the others are lost", frames, forms*len(addrs))
				}
			}
			t.Logf("2,000 addresses are claimed in %d frames within %v", frames, last.Sub(began).Round(time.Millisecond))
			if s := l.a.Status(); s.Failed != 0 {
				t.Errorf("status %+v", s)
			}
		})
	}
}

// TestLabCheck: the owner counts the checks that arrive.
func TestLabCheck(t *testing.T) {
	l := newLab(t)
	state := l.state(Certain, vip, vip6)
	state.Fellows = []announce.MAC{l.mac}
	l.a.Set(state)
	l.announced(2)
	mac := l.nodeMAC()
	l.send(check(l.mac, mac, vip), check(fellowMAC, mac, vip), check(l.mac, mac, vip6), arpRequest(l.mac, client, vip, broadcastMAC))
	for m := l.answer(); m.Target != client; m = l.answer() {
	}
	l.send(solicitation(l.mac, client6, vip6, nil, true, nil))
	for m := l.answer(); m.To != client6; m = l.answer() {
	}
	s := l.a.Status()
	if len(s.Checks) != 1 || s.Checks[l.mac] != (Checks{ARP: 1, NDP: 1}) || s.Claims != 0 {
		t.Errorf("status %+v", s)
	}
}
