package layer2

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/layer2/internal/wire"
)

// in is the state with another role, in which the owner is a fellow.
func in(role Role, state State) State {
	state.Groups = slices.Clone(state.Groups)
	for i := range state.Groups {
		g := &state.Groups[i]
		g.Role = role
		if g.Owner = nil; role == Cover {
			g.Owner = map[string]announce.MAC{"eth0": fellowMAC}
		}
	}
	return state
}

// receive gives a frame to the station of eth0, and returns the answers.
func (s *sim) receive(frame []byte) (answers []wire.Message) {
	s.t.Helper()
	for _, l := range s.b.links {
		if l.name != "eth0" {
			continue
		}
		m, tell := l.station.receive(frame, func(answer []byte) error {
			m, err := wire.ParseFrame(answer)
			answers = append(answers, m)
			return err
		})
		if tell {
			s.b.hear(l, &m, s.now)
		}
	}
	return answers
}

// asking are all ways to ask for the address.
func asking(addr netip.Addr) map[string][]byte {
	if addr.Is4() {
		return map[string][]byte{
			"broadcast": wire.ARPQuestion(thiefMAC, client, addr, announce.MAC{}),
			"unicast":   wire.ARPQuestion(thiefMAC, client, addr, nodeMAC),
			"probe":     wire.ARPProbe(thiefMAC, addr),
		}
	}
	return map[string][]byte{
		"multicast":                     wire.NDPQuestion(thiefMAC, client6, addr, announce.MAC{}),
		"unicast":                       wire.NDPQuestion(thiefMAC, client6, addr, nodeMAC),
		"duplicate address detection":   wire.NDPProbe(thiefMAC, addr),
		"unreachability without option": solicitation(thiefMAC, client6, addr, &nodeMAC, false, nil),
	}
}

func TestCover(t *testing.T) {
	s := newSim(t)
	state := in(Cover, one(Certain, vip, vip6))
	state.Interfaces = append(state.Interfaces, eth(1))
	state.Groups[0].Interfaces = []string{"eth*"}
	s.set(state)
	asked := uint64(0)
	for _, addr := range []netip.Addr{vip, vip6} {
		s.is(addr, aside)
		for name, question := range asking(addr) {
			asked++
			got := s.receive(question)
			if len(got) != 1 {
				t.Errorf("%v, %s: answers %+v", addr, name, got)
				continue
			}
			m := got[0]
			if claimed, by, ok := m.Claims(); !ok || claimed != addr || by != fellowMAC || m.Source != nodeMAC || addr.Is6() && !m.Override {
				t.Errorf("%v, %s: answer %+v", addr, name, m)
			}
			if multicast := m.Destination[0]&1 == 1; multicast != (name == "duplicate address detection") || !multicast && m.Destination != thiefMAC {
				t.Errorf("%v, %s: answer to %v", addr, name, m.Destination)
			}
		}
		// The interface on whose link the owner is not.
		l := s.b.links[3]
		l.station.receive(asking(addr)["unicast"], func(frame []byte) error { t.Errorf("answer on eth1: %x", frame); return nil })

		// The owner tells that it is back; a thief is the owner's to fight.
		for _, mac := range []announce.MAC{fellowMAC, thiefMAC} {
			s.claim(addr, mac)
			if addr.Is4() {
				s.receive(wire.ARPAnnouncement(mac, addr))
			} else {
				s.receive(wire.NDPAnnouncement(mac, addr))
			}
		}
		s.probe(addr, thiefMAC)
		s.is(addr, aside)
	}
	s.run(time.Hour)
	s.silent()
	s.conflicts()
	if got := s.b.status(); got.Covered != 2 || got.StandingBy+got.Announced+got.Held+got.Probing != 0 || got.AnsweredFor != asked || got.Answered+got.Claims != 0 {
		t.Errorf("status %+v, %d questions", got, asked)
	}

	// Another owner.
	state = in(Cover, state)
	state.Groups[0].Owner["eth0"] = lowFellow
	s.set(state)
	if got := s.receive(asking(vip)["broadcast"]); len(got) != 1 || got[0].SenderMAC != lowFellow {
		t.Errorf("answers %+v", got)
	}
	// None that is known.
	state = in(Cover, state)
	state.Groups[0].Owner = nil
	s.set(state)
	if got := s.receive(asking(vip)["broadcast"]); got != nil {
		t.Errorf("answers %+v", got)
	}
	if got := s.b.status(); got.Covered != 0 || got.StandingBy != 2 {
		t.Errorf("status %+v", got)
	}
}

func TestStandby(t *testing.T) {
	for _, test := range []struct {
		role Role
		mac  announce.MAC
		said []string
	}{
		{Cover, fellowMAC, []string{"0s eth0 reply 192.0.2.10", "0s eth0 announce 2001:db8::10"}},
		{Own, nodeMAC, []string{
			"0s eth0 reply 192.0.2.10",
			"0s eth0 announce 192.0.2.10", "0s eth0 reply 192.0.2.10",
			"0s eth0 announce 2001:db8::10", "0s eth0 announce 2001:db8::10",
		}},
	} {
		s := newSim(t)
		state := one(Certain, vip, vip6)
		s.set(in(Standby, state))
		s.run(time.Minute)
		ask := func() {
			t.Helper()
			for _, addr := range []netip.Addr{vip, vip6} {
				s.is(addr, aside)
				for name, question := range asking(addr) {
					if got := s.receive(question); got != nil {
						t.Errorf("%v, %s: answers %+v", addr, name, got)
					}
					s.claim(addr, thiefMAC)
				}
			}
		}
		ask()
		s.run(askTime) // they have given up, or ask again
		s.conflicts()
		if got := s.b.status(); got.StandingBy != 2 || got.Covered+got.Announced+got.Held+got.Probing != 0 || got.Claims != 0 {
			t.Errorf("status %+v", got)
		}
		s.receive(wire.ARPQuestion(thiefMAC, client, vip, announce.MAC{}))
		s.receive(wire.ARPQuestion(thiefMAC, client, vip, announce.MAC{}))
		s.receive(wire.NDPQuestion(thiefMAC, client6, vip6, announce.MAC{}))
		s.run(askTime - time.Millisecond)
		s.silent()

		var answers []wire.Message
		s.reply = func(_ *link, m *wire.Message) {
			if m.Destination == thiefMAC {
				answers = append(answers, *m)
			}
		}
		s.start = s.now
		s.b.dirty = false
		s.b.apply(compile(ptr(in(test.role, state))), s.now)
		if s.b.dirty {
			t.Error("the sockets have to be changed")
		}
		s.run(10 * time.Millisecond)
		slices.Sort(s.log)
		slices.Sort(test.said)
		s.said(test.said...)
		if len(answers) != 2 {
			t.Errorf("answers %+v", answers)
		}
		for _, m := range answers {
			if _, by, _ := m.Claims(); by != test.mac || m.Source != nodeMAC || m.Target != client && m.To != client6 {
				t.Errorf("answer %+v", m)
			}
		}
		if got := s.b.status(); got.Answered+got.AnsweredFor != 2 || (got.AnsweredFor == 2) != (test.role == Cover) {
			t.Errorf("status %+v", got)
		}
		// It is told once.
		s.run(10 * time.Second)
		s.log = nil
		s.set(in(Standby, state))
		s.set(in(test.role, state))
		answers = nil
		s.run(time.Second)
		if answers != nil {
			t.Errorf("answers %+v", answers)
		}
	}
}

func ptr[T any](v T) *T { return &v }

// TestAwaitedFirst: who waits is answered before the burst of thousands.
func TestAwaitedFirst(t *testing.T) {
	s := newSim(t)
	addrs := many(2000)
	last := addrs[len(addrs)-1]
	s.set(in(Standby, wide(2000, Certain)))
	s.receive(wire.ARPQuestion(thiefMAC, client, last, announce.MAC{}))
	s.set(wide(2000, Certain))
	s.run(time.Millisecond)
	if want := "0s eth0 reply " + last.String(); len(s.log) == 0 || s.log[0] != want {
		t.Errorf("%q is not said first", want)
	}
}

// TestFloodOfAsks: what anybody may ask takes no more room, and keeps nobody from
// being answered for another address.
func TestFloodOfAsks(t *testing.T) {
	s := newSim(t)
	s.set(in(Standby, wide(10_000, Certain)))
	addrs := many(10_000)
	spoofed := func(i int) announce.MAC { return announce.MAC{2, 1, byte(i >> 16), byte(i >> 8), byte(i), 0} }
	asks := &s.b.links[2].station.asks
	s.receive(wire.ARPQuestion(thiefMAC, client, addrs[0], announce.MAC{}))
	victim := slices.IndexFunc(addrs, func(addr netip.Addr) bool { return asks.bucket(addr) != asks.bucket(addrs[0]) })
	for i := range 100_000 {
		s.now = s.now.Add(time.Microsecond)
		s.receive(wire.ARPQuestion(spoofed(i), client, addrs[victim], announce.MAC{}))
	}
	s.run(100 * time.Millisecond)
	if got := asks.take(addrs[0], s.now); len(got) != 1 || got[0].SenderMAC != thiefMAC {
		t.Errorf("remembered %+v", got)
	}
	got := asks.take(addrs[victim], s.now)
	for _, m := range got {
		if !slices.ContainsFunc([]int{99_999, 99_998, 99_997, 99_996}, func(i int) bool { return spoofed(i) == m.SenderMAC }) {
			t.Errorf("remembered %v of 100,000", m.SenderMAC)
		}
	}
	if len(got) != askers {
		t.Errorf("%d remembered", len(got))
	}

	m, err := wire.ParseFrame(wire.ARPQuestion(thiefMAC, client, addrs[0], announce.MAC{}))
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() { asks.put(addrs[0], &m, s.now) }); n != 0 {
		t.Errorf("%.0f allocations", n)
	}
	for i := range 100_000 {
		s.receive(wire.ARPQuestion(spoofed(i), client, addrs[i%len(addrs)], announce.MAC{}))
	}
	s.set(in(Cover, wide(10_000, Certain)))
	s.reply = func(*link, *wire.Message) {}
	s.run(100 * time.Millisecond)
	if n := s.count; n == 0 || n > askBuckets*askers {
		t.Errorf("%d answers", n)
	}
}

// TestRoleChanges: what is sent, and what is answered, after each change.
func TestRoleChanges(t *testing.T) {
	burst := []string{"0s eth0 announce 192.0.2.10", "0s eth0 reply 192.0.2.10", "250ms eth0 announce 192.0.2.10"}
	probes := []string{
		"0s eth0 probe 192.0.2.10", "100ms eth0 probe 192.0.2.10", "200ms eth0 probe 192.0.2.10",
		"300ms eth0 announce 192.0.2.10", "300ms eth0 reply 192.0.2.10",
	}
	for _, test := range []struct {
		name     string
		from, to Role
		caution  Caution
		said     []string
		answer   announce.MAC // zero is none
		phase    phase
	}{
		{"takeover", Standby, Own, Certain, burst, nodeMAC, announced},
		{"end of a cover by takeover", Cover, Own, Certain, burst, nodeMAC, announced},
		{"a plan of old", Standby, Own, Doubtful, probes, announce.MAC{}, probing},
		{"a new address", Cover, Own, Fresh, probes, announce.MAC{}, probing},
		{"handover", Own, Standby, Certain, nil, announce.MAC{}, aside},
		{"handover and restart", Own, Cover, Certain, nil, fellowMAC, aside},
		{"restart", Standby, Cover, Certain, nil, fellowMAC, aside},
		{"end of a restart", Cover, Standby, Certain, nil, announce.MAC{}, aside},
		{"caution of a standby", Standby, Standby, Doubtful, nil, announce.MAC{}, aside},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newSim(t)
			s.set(in(test.from, one(Certain, vip)))
			if test.from == Own {
				s.claim(vip, thiefMAC) // a conflict and a defence, which are forgotten
				s.claim(vip, fellowMAC)
			}
			s.log = nil
			s.b.changed, s.b.dirty = false, false
			s.b.apply(compile(ptr(in(test.to, one(test.caution, vip)))), s.now)
			if s.b.dirty || s.b.changed != (test.from != test.to) {
				t.Errorf("changed %v, dirty %v", s.b.changed, s.b.dirty)
			}
			s.is(vip, test.phase)
			var mac announce.MAC
			for _, m := range s.receive(wire.ARPQuestion(lowFellow, client, vip, announce.MAC{})) {
				mac = m.SenderMAC
			}
			if mac != test.answer {
				t.Errorf("answered with %v, want %v", mac, test.answer)
			}
			s.conflicts()
			s.run(301 * time.Millisecond)
			s.unquestioned()
			s.said(test.said...)
			if test.to == Own {
				s.is(vip, announced)
				return
			}
			s.run(time.Hour)
			s.silent()
		})
	}
}

// TestRoleElsewhere: a role changes at the same time as the interfaces.
func TestRoleElsewhere(t *testing.T) {
	s := newSim(t)
	state := one(Certain, vip)
	state.Groups[0].Interfaces = []string{"eth*"}
	s.set(in(Standby, state))
	both := state
	both.Interfaces = []Interface{eth(0), eth(1)}
	s.set(both)
	s.run(10 * time.Millisecond)
	slices.Sort(s.log) // which interface is the first is open
	s.said("0s eth0 announce 192.0.2.10", "0s eth0 reply 192.0.2.10", "0s eth1 announce 192.0.2.10", "0s eth1 reply 192.0.2.10")
	both.Groups = in(Cover, both).Groups
	none := both
	none.Interfaces = nil
	s.set(none)
	s.run(10 * time.Second)
	s.set(both)
	s.run(time.Hour)
	s.silent()
	if got := s.receive(asking(vip)["broadcast"]); len(got) != 1 || got[0].SenderMAC != fellowMAC {
		t.Errorf("answers %+v", got)
	}
	// The interface is renamed, so that the owner is elsewhere.
	both.Interfaces = []Interface{eth(0), eth(1)}
	both.Interfaces[0].Name = "eth7"
	s.set(both)
	s.b.links[2].station.receive(asking(vip)["unicast"], func(frame []byte) error { t.Errorf("answer on eth7: %x", frame); return nil })
	// Its sockets, its carrier and its MAC address are no reason to send anything.
	s.b.closed(s.b.links[2], ipv4, s.now)
	s.b.dirty = true
	s.run(time.Second)
	both.Interfaces = []Interface{eth(0), eth(1)}
	both.Interfaces[0].MAC = thiefMAC
	s.set(both)
	s.run(time.Hour)
	s.silent()
}

// TestTrapOfOwner: that the kernels of all nodes answer is the owner's to tell.
func TestTrapOfOwner(t *testing.T) {
	for role, want := range map[Role]int{Own: 1, Cover: 0, Standby: 0} {
		state := in(role, one(Certain, vip))
		state.Bound = []netip.Addr{vip}
		if got := traps(compile(&state), func(string) (int, error) { return 0, nil }); len(got) != want {
			t.Errorf("role %d: %q", role, got)
		}
	}
}

func TestRolesDiffer(t *testing.T) {
	cover := in(Cover, one(Certain, vip))
	if same := in(Cover, one(Certain, vip)); !cover.equal(&same) {
		t.Error("equal states differ")
	}
	other := in(Cover, one(Certain, vip))
	other.Groups[0].Owner["eth0"] = lowFellow
	for _, other := range []State{in(Own, cover), in(Standby, cover), other} {
		if cover.equal(&other) {
			t.Errorf("equal to %+v", other.Groups)
		}
	}
}

// TestStandbySockets: the sockets are there before they are needed, and a change of
// role leaves them alone.
func TestStandbySockets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nic := new(fakeNIC)
		a := nic.start(t)
		state := one(Certain, vip, vip6)
		a.Set(in(Standby, state))
		time.Sleep(time.Second)
		socket, socket6 := nic.socket(ipv4), nic.socket(ipv6)
		if socket == nil || socket6 == nil || len(socket6.groups) != 1 {
			t.Fatalf("sockets %+v", nic.sockets)
		}
		socket.in <- wire.ARPQuestion(thiefMAC, client, vip, announce.MAC{})
		socket6.in <- wire.NDPQuestion(thiefMAC, client6, vip6, announce.MAC{})
		synctest.Wait()
		if said := nic.said(); said != nil {
			t.Errorf("said %q", said)
		}
		a.Set(in(Cover, state))
		synctest.Wait()
		said := nic.said()
		slices.Sort(said)
		if diff := cmp.Diff([]string{"announce 2001:db8::10", "reply 192.0.2.10"}, said); diff != "" {
			t.Errorf("said (-want +got):\n%s", diff)
		}
		a.Set(state)
		synctest.Wait()
		if said := strings.Join(nic.said(), "\n"); !strings.Contains(said, "announce 192.0.2.10\nreply 192.0.2.10") {
			t.Errorf("said %s", said)
		}
		a.Set(in(Standby, state))
		if said := nic.said(); said != nil {
			t.Errorf("said %q after Set", said)
		}
		time.Sleep(time.Hour)
		if said := nic.said(); said != nil || nic.opened() != 2 {
			t.Errorf("said %q, %d sockets opened", said, nic.opened())
		}
	})
}
