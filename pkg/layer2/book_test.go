package layer2

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/layer2/internal/wire"
)

func TestBurst(t *testing.T) {
	s := newSim(t)
	s.set(one(Certain, vip, vip6))
	s.is(vip, announced)
	s.run(5 * time.Second)
	s.said(
		"0s eth0 announce 192.0.2.10", "0s eth0 reply 192.0.2.10", "0s eth0 announce 2001:db8::10",
		"250ms eth0 announce 192.0.2.10",
		"1.1s eth0 announce 192.0.2.10", "1.1s eth0 announce 2001:db8::10",
		"2.2s eth0 announce 192.0.2.10", "2.2s eth0 announce 2001:db8::10",
		"4.4s eth0 announce 192.0.2.10",
	)
	// The same state again changes nothing, nor does more caution.
	s.set(one(Certain, vip, vip6))
	s.set(one(Fresh, vip, vip6))
	s.set(one(Doubtful, vip, vip6))
	s.is(vip, announced)
	s.run(20 * time.Second)
	s.silent()
	s.run(time.Hour)
	// Once a minute each.
	if n := len(s.log); n < 118 || n > 120 {
		t.Errorf("%d refreshes of two addresses within an hour", n)
	}
	// Another node may own them: they are answered, and no more.
	quiet := one(Certain, vip, vip6)
	quiet.Groups[0].Quiet = true
	s.log = nil
	s.set(quiet)
	s.run(time.Hour)
	s.silent()
	s.claim(vip, fellowMAC)
	s.claim(vip, thiefMAC)
	s.run(time.Hour)
	s.unquestioned()
	s.silent()
	if answers := s.receive(asking(vip)["broadcast"]); len(answers) != 1 || answers[0].SenderMAC != nodeMAC {
		t.Errorf("answers %+v", answers)
	}
	s.set(one(Certain, vip, vip6))
	s.start = s.now
	s.run(0)
	s.said("0s eth0 announce 192.0.2.10", "0s eth0 reply 192.0.2.10", "0s eth0 announce 2001:db8::10")
	s.run(20 * time.Second)
	s.log = nil
	s.run(time.Hour)
	if n := len(s.log); n < 118 || n > 120 {
		t.Errorf("%d refreshes of two addresses within another hour", n)
	}
	s.log = nil
	s.set(State{})
	s.run(time.Hour)
	s.silent()
	if len(s.b.links)+len(s.b.entries)+len(s.b.wakes) > 0 {
		t.Errorf("an empty state leaves %+v", s.b)
	}
}

func TestBurstAgain(t *testing.T) {
	s := newSim(t)
	settle := func() {
		s.run(10 * time.Second)
		s.log = nil
		s.start = s.now
	}
	first := func(what string, at ...string) {
		t.Helper()
		s.run(20 * time.Millisecond)
		if diff := cmp.Diff(at, s.log); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
		settle()
	}
	state := one(Fresh, vip)
	s.set(state)
	settle()
	s.is(vip, announced)

	down := state
	down.Interfaces = []Interface{eth(0)}
	down.Interfaces[0].Carrier = false
	s.set(down)
	s.run(time.Minute)
	s.silent()
	if got := s.b.status().Announced; got != 0 {
		t.Errorf("%d announced without a carrier", got)
	}
	settle()
	s.set(state)
	s.is(vip, announced)
	first("link up", "0s eth0 announce 192.0.2.10", "0s eth0 reply 192.0.2.10")

	moved := state
	moved.Interfaces = []Interface{eth(0)}
	moved.Interfaces[0].MAC = otherNIC
	s.set(moved)
	if got := s.b.links[2].station.mac; got != otherNIC {
		t.Errorf("answers with %v after the MAC changed", got)
	}
	first("MAC change", "0s eth0 announce 192.0.2.10", "0s eth0 reply 192.0.2.10")

	recreated := state
	recreated.Interfaces = []Interface{eth(0)}
	recreated.Interfaces[0].Index = 99
	s.set(recreated)
	first("interface created anew", "0s eth0 announce 192.0.2.10", "0s eth0 reply 192.0.2.10")

	// A socket that was lost: the interface was down for a moment.
	l := s.b.links[99]
	s.b.closed(l, ipv4, s.now)
	s.run(time.Minute)
	s.silent()
	settle()
	s.b.opened(l, ipv4, s.now)
	first("socket again", "0s eth0 announce 192.0.2.10", "0s eth0 reply 192.0.2.10")

	// Another interface joins in by name: only there.
	both := recreated
	both.Interfaces = append(slices.Clone(recreated.Interfaces), eth(1))
	both.Groups = []Group{{Addresses: []netip.Addr{vip}, Caution: Fresh, Interfaces: []string{"eth*"}}}
	s.set(both)
	first("second interface", "0s eth1 announce 192.0.2.10", "0s eth1 reply 192.0.2.10")

	// On quite another interface it is a new address.
	away := both
	away.Groups = []Group{{Addresses: []netip.Addr{vip}, Caution: Fresh, Interfaces: []string{"eth2"}}}
	away.Interfaces = append(slices.Clone(both.Interfaces), eth(2))
	s.set(away)
	s.is(vip, probing)
	first("another interface", "0s eth2 probe 192.0.2.10")
	s.is(vip, announced)

	// With a plan that may be out of date, a fellow may have taken over.
	doubtful := one(Doubtful, vip)
	s.set(doubtful)
	settle()
	down.Groups = doubtful.Groups
	s.set(down)
	s.run(time.Second)
	s.set(doubtful)
	s.is(vip, probing)
	settle()
	s.is(vip, announced)
}

func TestProbe(t *testing.T) {
	for _, caution := range []Caution{Fresh, Doubtful} {
		s := newSim(t)
		s.set(one(caution, vip, vip6))
		s.is(vip, probing)
		s.run(299 * time.Millisecond)
		s.is(vip, probing)
		s.said(
			"0s eth0 probe 192.0.2.10", "0s eth0 probe 2001:db8::10",
			"100ms eth0 probe 192.0.2.10", "100ms eth0 probe 2001:db8::10",
			"200ms eth0 probe 192.0.2.10", "200ms eth0 probe 2001:db8::10",
		)
		s.run(2 * time.Millisecond)
		s.is(vip, announced)
		s.is(vip6, announced)
		s.said("300ms eth0 announce 192.0.2.10", "300ms eth0 reply 192.0.2.10", "300ms eth0 announce 2001:db8::10")
		s.conflicts()
	}
}

func TestProbeAnswered(t *testing.T) {
	for _, test := range []struct {
		name    string
		caution Caution
		by      announce.MAC
		probe   bool // simultaneously
		want    phase
		again   time.Duration // until the next probe, if held
		report  []announce.Conflict
	}{
		{"fresh, stranger", Fresh, thiefMAC, false, held, 10 * time.Second, []announce.Conflict{conflictOf(vip, thiefMAC, true, false)}},
		{"fresh, fellow", Fresh, fellowMAC, false, held, time.Second, []announce.Conflict{conflictOf(vip, fellowMAC, true, false)}},
		{"fresh, virtual router", Fresh, vrrpMAC, false, announced, 0, []announce.Conflict{conflictOf(vip, vrrpMAC, false, true)}},
		{"doubtful, stranger", Doubtful, thiefMAC, false, held, 10 * time.Second, []announce.Conflict{conflictOf(vip, thiefMAC, true, false)}},
		{"doubtful, fellow", Doubtful, fellowMAC, false, held, 10 * time.Second, []announce.Conflict{conflictOf(vip, fellowMAC, true, false)}},
		{"doubtful, virtual router", Doubtful, vrrpMAC, false, announced, 0, []announce.Conflict{conflictOf(vip, vrrpMAC, false, true)}},
		{"fresh, stranger probes", Fresh, thiefMAC, true, held, 10 * time.Second, []announce.Conflict{conflictOf(vip, thiefMAC, true, false)}},
		{"fresh, fellow probes", Fresh, fellowMAC, true, announced, 0, nil},
		{"doubtful, higher fellow probes", Doubtful, fellowMAC, true, announced, 0, nil},
		{"doubtful, lower fellow probes", Doubtful, lowFellow, true, held, time.Second, []announce.Conflict{conflictOf(vip, lowFellow, true, false)}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newSim(t)
			s.set(one(test.caution, vip))
			s.run(150 * time.Millisecond)
			answered := s.now
			if test.probe {
				s.probe(vip, test.by)
			} else {
				s.claim(vip, test.by)
			}
			s.run(500 * time.Millisecond)
			s.is(vip, test.want)
			s.conflicts(test.report...)
			if test.want != held {
				return
			}
			// Held without a word, until it is asked again and free.
			e := s.b.entries[vip]
			if got := e.recheckAt.Sub(answered); got < test.again || got > test.again+400*time.Millisecond {
				t.Errorf("asks again after %v", got)
			}
			if s.b.status().Held != 1 {
				t.Errorf("status %+v", s.b.status())
			}
			s.log = nil
			s.run(e.recheckAt.Sub(s.now) - time.Millisecond)
			s.silent()
			s.run(250 * time.Millisecond)
			s.is(vip, held) // until the round is over
			s.run(time.Second)
			s.is(vip, announced)
			s.conflicts()
		})
	}
}

func TestHeldAgain(t *testing.T) {
	s := newSim(t)
	s.reply = func(l *link, m *wire.Message) {
		if m.Probe() && m.Target == vip {
			s.claim(vip, thiefMAC)
		}
	}
	s.set(one(Fresh, vip))
	s.run(time.Minute)
	s.is(vip, held)
	// Three probes each ten seconds at most, and the questions to the suspect.
	if s.count > 2*3*7 {
		t.Errorf("%d frames:\n%s", s.count, strings.Join(s.log, "\n"))
	}
	s.conflicts(conflictOf(vip, thiefMAC, true, false))

	// The plan becomes certain: announced at once, the conflict stays known.
	s.reply = nil
	s.log = nil
	s.start = s.now
	s.set(one(Certain, vip))
	s.is(vip, announced)
	s.run(10 * time.Millisecond)
	s.said("0s eth0 announce 192.0.2.10", "0s eth0 reply 192.0.2.10")
	s.conflicts(conflictOf(vip, thiefMAC, false, false))
	s.run(conflictTime)
	s.conflicts()
}

func TestProxy(t *testing.T) {
	s := newSim(t)
	s.reply = func(l *link, m *wire.Message) {
		if m.Probe() { // answers for everything
			s.claim(m.Target, thiefMAC)
		}
	}
	s.set(one(Fresh, vip, vip6))
	s.run(time.Second)
	s.is(vip, announced)
	s.is(vip6, announced)
	s.conflicts(conflictOf(vip, thiefMAC, false, true), conflictOf(vip6, thiefMAC, false, true))
	for addr, d := range s.b.links[2].station.known {
		if addr == self || d.stance != answers {
			t.Errorf("%v is still watched", addr)
		}
	}
	if s.b.links[2].watched != [families]netip.Addr{} {
		t.Error("the check has not ended")
	}

	// Without an address of its own the node cannot ask.
	s = newSim(t)
	s.reply = func(l *link, m *wire.Message) {
		if m.Probe() {
			s.claim(m.Target, thiefMAC)
		}
	}
	state := one(Fresh, vip)
	state.Interfaces[0].Prefixes = nil
	state.Groups[0].Interfaces = []string{"eth0"}
	s.set(state)
	s.run(time.Second)
	s.is(vip, held)

	// A host beside a proxy is still a host.
	s = newSim(t)
	s.reply = func(l *link, m *wire.Message) {
		if m.Probe() {
			s.claim(m.Target, thiefMAC)
			if m.Target == vip {
				s.claim(vip, otherNIC)
			}
		}
	}
	s.set(one(Fresh, vip))
	s.run(time.Second)
	s.is(vip, held)
	s.conflicts(conflictOf(vip, otherNIC, true, false))
}

func TestDefence(t *testing.T) {
	s := newSim(t)
	s.set(one(Fresh, vip))
	s.run(8 * time.Second)
	s.log, s.start = nil, s.now
	for range 12 {
		s.claim(vip, thiefMAC)
		s.run(time.Second)
	}
	s.unquestioned()
	s.said("0s eth0 announce 192.0.2.10", "10s eth0 announce 192.0.2.10")
	s.is(vip, announced)
	s.conflicts(conflictOf(vip, thiefMAC, false, false))
	if s.b.counters.claims.Load() != 12 {
		t.Errorf("%d claims counted", s.b.counters.claims.Load())
	}
	s.run(conflictTime - 2*time.Second)
	s.conflicts(conflictOf(vip, thiefMAC, false, false))
	s.run(2 * time.Second)
	s.conflicts()
}

func TestFellowClaims(t *testing.T) {
	for _, caution := range []Caution{Certain, Fresh} {
		s := newSim(t)
		s.set(one(caution, vip))
		s.run(8 * time.Second)
		s.log, s.start = nil, s.now
		s.claim(vip, fellowMAC)
		s.run(999 * time.Millisecond)
		s.silent()
		s.run(time.Millisecond)
		s.said("1s eth0 announce 192.0.2.10")
		s.claim(vip, fellowMAC)
		s.run(9999 * time.Millisecond)
		s.silent()
		s.run(time.Millisecond)
		s.said("11s eth0 announce 192.0.2.10")
		s.conflicts()
		// The handover: who is told to stop says nothing.
		s.run(7 * time.Second)
		s.log = nil
		s.claim(vip, fellowMAC)
		s.set(State{Interfaces: []Interface{eth(0)}})
		s.run(time.Minute)
		s.silent()
	}

	s := newSim(t)
	s.set(one(Certain, vip))
	s.run(8 * time.Second)
	s.set(one(Doubtful, vip))
	s.is(vip, announced)
	s.log = nil
	s.claim(vip, fellowMAC)
	s.is(vip, held)
	s.conflicts(conflictOf(vip, fellowMAC, true, false))
	s.run(9 * time.Second)
	s.unquestioned()
	s.silent()
	s.run(2 * time.Second)
	s.is(vip, announced)
	s.claim(vip, fellowMAC)
	s.is(vip, held)
	s.log, s.start = nil, s.now
	s.set(one(Fresh, vip)) // the plan is back: ask at once
	s.run(time.Second)
	s.is(vip, announced)
	s.conflicts()
}

func TestNewFellow(t *testing.T) {
	s := newSim(t)
	state := one(Fresh, vip)
	state.Fellows = nil
	s.set(state)
	s.claim(vip, fellowMAC)
	s.run(time.Second)
	s.is(vip, held)
	s.set(one(Fresh, vip)) // the planner has heard of the node
	s.run(time.Second)
	s.is(vip, announced)
	s.conflicts()
}

func many(n int) []netip.Addr {
	out := make([]netip.Addr, 0, n)
	addr := netip.MustParseAddr("10.0.0.1")
	for range n {
		out = append(out, addr)
		addr = addr.Next()
	}
	return out
}

func wide(n int, caution Caution) State {
	s := one(caution, many(n)...)
	s.Interfaces[0].Prefixes = []netip.Prefix{netip.MustParsePrefix("10.255.0.1/8")}
	return s
}

func TestPace(t *testing.T) {
	s := newSim(t)
	s.set(wide(2000, Certain))
	seen := make(map[netip.Addr]time.Duration)
	perSlot := make(map[int64]int)
	round1 := false
	s.reply = func(l *link, m *wire.Message) {
		at := s.now.Sub(s.start)
		perSlot[at.Milliseconds()/10]++
		if _, again := seen[m.Target]; !again {
			seen[m.Target] = at
			if round1 {
				t.Error("a later round before the first one of all")
			}
		} else if m.Kind == wire.ARPRequest {
			round1 = true
		}
	}
	s.run(320 * time.Millisecond)
	if len(seen) != 2000 {
		t.Errorf("%d of 2000 addresses within 320 ms", len(seen))
	}
	s.run(20 * time.Second)
	for slot, n := range perSlot {
		if n > slotFrames+1 {
			t.Errorf("%d frames in the slot at %d ms", n, slot*10)
		}
	}
	// The refreshes: no bunches.
	s.run(time.Minute)
	perSecond := make(map[int64]int)
	last := make(map[netip.Addr]time.Time)
	s.reply = func(l *link, m *wire.Message) {
		perSecond[s.now.Unix()]++
		if before, ok := last[m.Target]; ok && s.now.Sub(before).Round(time.Second) != refreshTime {
			t.Errorf("%v refreshed after %v", m.Target, s.now.Sub(before))
		}
		last[m.Target] = s.now
	}
	s.run(5 * time.Minute)
	if len(last) != 2000 {
		t.Errorf("%d of 2000 addresses refreshed", len(last))
	}
	most := slices.Max(slices.Collect(maps.Values(perSecond)))
	if most > 70 {
		t.Errorf("%d refreshes in one second, 33 on average", most)
	}
	t.Logf("at most %d refreshes in one second, 33 on average", most)
}

func TestProbePace(t *testing.T) {
	s := newSim(t)
	s.set(wide(2000, Fresh))
	s.reply = func(*link, *wire.Message) {}
	s.run(800 * time.Millisecond)
	if got := s.b.status(); got.Announced != 2000 {
		t.Errorf("after 800 ms: %d announced, %d probing", got.Announced, got.Probing)
	}
}

func TestRefused(t *testing.T) {
	s := newSim(t)
	s.refuse = unix.ENOBUFS
	s.set(one(Certain, vip))
	s.run(10 * time.Second)
	s.silent()
	s.refuse = nil
	s.start = s.now
	s.run(100 * time.Millisecond)
	if len(s.log) != 2 || !strings.HasSuffix(s.log[1], "eth0 reply 192.0.2.10") {
		t.Errorf("the first round is lost: %q", s.log)
	}
	// Probes that were never sent prove nothing.
	s = newSim(t)
	s.refuse = unix.ENOBUFS
	s.set(one(Fresh, vip))
	s.run(10 * time.Second)
	s.is(vip, probing)
	if got := s.b.counters.failed.Load(); got > 300 {
		t.Errorf("%d attempts in 10 s", got)
	}
}

func TestClosedInterface(t *testing.T) {
	s := newSim(t)
	state := one(Fresh, vip)
	state.Interfaces = append(state.Interfaces, eth(1))
	state.Groups[0].Interfaces = []string{"eth*"}
	s.set(state)
	s.run(50 * time.Millisecond)
	s.b.closed(s.b.links[3], ipv4, s.now) // does not hinder the other one
	s.run(time.Second)
	s.is(vip, announced)

	s = newSim(t)
	s.b.apply(compile(&state), s.now) // no socket at all
	s.b.dirty = false
	s.run(time.Minute)
	s.silent()
	s.is(vip, probing)
	if got := s.b.status(); got.Announced+got.Probing+got.Held != 0 {
		t.Errorf("without sockets: %+v", got)
	}
}

func TestHostileLAN(t *testing.T) {
	s := newSim(t)
	addrs := many(2000)
	s.set(wide(2000, Fresh))
	s.reply = func(*link, *wire.Message) {}
	s.run(10 * time.Second)
	for i := range 200_000 {
		mac := announce.MAC{2, 1, byte(i >> 16), byte(i >> 8), byte(i), 0}
		s.claim(addrs[i%len(addrs)], mac)
		if i%100 == 0 {
			s.run(time.Millisecond)
		}
	}
	s.run(time.Second)
	l := s.b.links[2]
	got := s.b.status()
	if len(got.Conflicts) != maxConflicts || got.Announced != 2000 {
		t.Errorf("%d conflicts, %d announced", len(got.Conflicts), got.Announced)
	}
	if len(l.suspects) > maxSuspects {
		t.Errorf("%d suspects", len(l.suspects))
	}
	queued := 0
	for _, lane := range l.lanes {
		for _, q := range lane.ready {
			queued += len(q.jobs)
		}
	}
	if queued > 2*2000+maxSuspects {
		t.Errorf("%d jobs wait", queued)
	}
	s.run(conflictTime)
	s.conflicts()
}
