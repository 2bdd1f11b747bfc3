package layer2

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/layer2/internal/wire"
)

// TestOtherFamily: what the kernel refuses for one family is no matter of the
// other one.
func TestOtherFamily(t *testing.T) {
	s := newSim(t)
	s.refuses = func(_ *link, f family, _ []byte) bool { return f == ipv6 }
	s.set(one(Certain, vip6))
	s.run(time.Second)
	s.silent()
	s.set(one(Fresh, vip6, vip))
	s.run(301 * time.Millisecond)
	s.is(vip, announced)
	s.run(10 * time.Second)
	if got := s.b.mutes(); len(got) != 1 || !strings.Contains(got[0], "interface eth0") || !strings.Contains(got[0], "NDP") {
		t.Errorf("problems %q", got)
	}
	s.b.changed = false
	s.refuses = nil
	s.run(time.Second)
	if got := s.b.mutes(); got != nil || !s.b.changed {
		t.Errorf("problems %q after the repair, changed %v", got, s.b.changed)
	}
}

// TestOtherLink: nor is it one of another link.
func TestOtherLink(t *testing.T) {
	s := newSim(t)
	s.refuses = func(l *link, _ family, _ []byte) bool { return l.name == "eth1" }
	state := one(Fresh, vip)
	state.Interfaces = append(state.Interfaces, eth(1))
	state.Groups[0].Interfaces = []string{"eth*"}
	s.set(state)
	s.run(muteTime - time.Millisecond)
	s.is(vip, probing) // eth1 may recover
	s.run(100 * time.Millisecond)
	s.is(vip, announced)
	if got := s.b.mutes(); len(got) != 1 {
		t.Errorf("problems %q", got)
	}
	// Another address does not wait.
	next := vip.Next()
	state.Groups[0].Addresses = append(state.Groups[0].Addresses, next)
	s.set(state)
	s.run(301 * time.Millisecond)
	s.is(next, announced)

	// It is made known there as soon as that is possible.
	s.refuses = nil
	s.log = nil
	s.run(100 * time.Millisecond)
	if got := strings.Join(s.log, "\n"); strings.Count(got, "eth1 announce") != 2 {
		t.Errorf("eth1 recovered: %s", got)
	}
	s.set(State{})
	s.run(time.Second)
	if got := s.b.mutes(); got != nil {
		t.Errorf("problems %q", got)
	}
}

// TestRefusedAddress: one address that a filter keeps from being sent does not
// hold up the others, whatever they have to say.
func TestRefusedAddress(t *testing.T) {
	s := newSim(t)
	s.refuses = func(_ *link, _ family, frame []byte) bool {
		m, err := wire.ParseFrame(frame)
		return err == nil && m.Target == vip
	}
	others := many(3)
	state := one(Certain, vip)
	s.set(state)
	s.run(time.Second)
	state.Groups = append(state.Groups, Group{Addresses: others, Interfaces: []string{"eth0"}})
	s.set(state)
	s.run(6 * time.Second)
	for _, addr := range others {
		if got := strings.Count(strings.Join(s.log, "\n"), " announce "+addr.String()); got != len(bursts[ipv4]) {
			t.Errorf("%v: %d rounds", addr, got)
		}
	}
	s.log = nil
	s.run(2 * time.Minute)
	for _, addr := range others {
		if got := strings.Count(strings.Join(s.log, "\n"), " announce "+addr.String()); got < 1 {
			t.Errorf("%v is not refreshed", addr)
		}
	}
	s.refuses = nil
	s.log = nil
	s.run(time.Second)
	if !strings.Contains(strings.Join(s.log, "\n"), "reply "+vip.String()) {
		t.Errorf("the refused one is forgotten: %q", s.log)
	}
}

// TestPaceOfSmallTurns: the pace holds for what comes little by little.
func TestPaceOfSmallTurns(t *testing.T) {
	s := newSim(t)
	s.reply = func(*link, *wire.Message) {}
	s.set(wide(6000, Certain))
	s.run(30 * time.Second)
	perSlot := make(map[int64]int)
	s.reply = func(*link, *wire.Message) { perSlot[s.now.Sub(s.start).Milliseconds()/10]++ }
	s.start = s.now
	for i, addr := range many(6000) {
		s.claim(addr, thiefMAC)
		if i%60 == 59 {
			s.run(100 * time.Microsecond)
		}
	}
	s.run(2 * time.Second)
	total := 0
	for slot, n := range perSlot {
		total += n
		if n > slotFrames {
			t.Errorf("%d frames in the 10 ms at %d ms", n, 10*slot)
		}
	}
	if total < 6000 {
		t.Errorf("%d frames", total)
	}
}

// TestLateTimers: a busy node keeps the pace on average, and sends two slots at
// once at most.
func TestLateTimers(t *testing.T) {
	s := newSim(t)
	s.set(wide(2000, Certain))
	count, most := 0, 0
	for turn := range 35 {
		s.now = s.start.Add(time.Duration(turn) * slotTime)
		if turn%5 > 0 { // late by four fifths of a slot
			s.now = s.now.Add(slotTime * 4 / 5)
		}
		before := count
		s.b.turn(s.now, func(*link, family, []byte) error { count++; return nil })
		most = max(most, count-before)
	}
	if count < 4000 || most > slotFrames {
		t.Errorf("%d frames after 350 ms, %d at once", count, most)
	}
	// What was missed for long is not made up for.
	s.set(wide(4000, Certain))
	count = 0
	for _, late := range []time.Duration{10 * slotTime, 10*slotTime + 2, 10*slotTime + 4} {
		s.b.turn(s.now.Add(late), func(*link, family, []byte) error { count++; return nil })
	}
	if count > 2*slotFrames {
		t.Errorf("%d frames after a long pause", count)
	}
}

// TestQueueMoves: a frame may be answered, and more be queued, while it is sent.
func TestQueueMoves(t *testing.T) {
	s := newSim(t)
	s.set(one(Certain, vip))
	queue := &s.b.links[2].lanes[ipv4].ready[atOnce]
	stale := job{place: &place{ticket: 1}}
	for range 2000 { // so long that it is moved to the front when more is put into it
		queue.push(stale)
	}
	seen := 0
	s.reply = func(_ *link, m *wire.Message) {
		seen++
		queue.push(stale)
	}
	s.run(100 * time.Millisecond)
	if seen != 2 {
		t.Errorf("%d frames, want both forms of one announcement", seen)
	}
}

func TestMuteSocket(t *testing.T) {
	s := newSim(t)
	s.refuse = unix.EPERM
	s.set(one(Fresh, vip))
	s.run(10 * time.Second)
	s.is(vip, probing)
	if got := s.b.mutes(); len(got) != 1 || !strings.Contains(got[0], unix.EPERM.Error()) {
		t.Errorf("problems %q", got)
	}
	s.refuse = nil
	s.run(400 * time.Millisecond)
	s.is(vip, announced)
}
