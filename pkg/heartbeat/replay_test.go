package heartbeat

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

// recorded are the frames that were sent so far.
func (l *lan) recorded() []datagram {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.seen)
}

// flood calls f again and again, until stop is called.
func (l *lan) flood(pause time.Duration, f func()) (stop func()) {
	ctx, cancel := context.WithCancel(l.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			time.Sleep(pause)
			f()
		}
	}()
	return func() { cancel(); <-done }
}

// received is how many packets the node has believed.
func (h *host) received() uint64 { return h.x.Counters().Received }

// TestReplay sends each packet again: to its receiver, to its sender and to all
// others. None is believed.
func TestReplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLAN(t, 3)
		l.settle()
		var before []Counters
		for _, h := range l.hosts {
			before = append(before, h.x.Counters())
		}
		frames := l.recorded()
		for _, f := range frames {
			for _, h := range l.hosts {
				l.deliver(datagram{f.from, h.addr, f.data}, hops)
			}
			synctest.Wait()
		}
		for i, h := range l.hosts {
			c := h.x.Counters()
			if c.Received != before[i].Received {
				t.Errorf("node %s believed %d of %d packets", nodeName(i), c.Received-before[i].Received, len(frames))
			}
			if n := c.Rejected[string(rejectReplay)] - before[i].Rejected[string(rejectReplay)]; n == 0 {
				t.Errorf("node %s: %+v", nodeName(i), c)
			}
			if n := c.Dropped - before[i].Dropped; n == 0 {
				t.Errorf("node %s let all packets through", nodeName(i))
			}
		}
		l.pass(time.Second, l.wantWell)
	})
}

// TestReplayUnfiltered: what the kernel would drop is not believed either.
func TestReplayUnfiltered(t *testing.T) {
	w := newWorld(3)
	w.run(time.Second, nil)
	now := w.now
	out := actions{}
	for out.packets == nil {
		now = now.Add(10 * time.Millisecond)
		out = w.nodes[0].core.turn(now)
	}
	for _, o := range out.packets {
		for i := range w.nodes {
			want := rejectReceiver
			if nodeAddr(i) == o.to {
				want = accepted
			}
			to := w.nodes[i].core
			if got := to.receive(1, &o.packet, 0, now); got != want {
				t.Errorf("packet to %v: node %s says %q, want %q", o.to, nodeName(i), got, want)
			}
			if want != accepted {
				continue
			}
			if got := to.receive(2, &o.packet, 0, now); got != rejectSender {
				t.Errorf("on another link: %q", got)
			}
			other := o.packet
			other.link++
			other.seq++
			if got := to.receive(1, &other, 0, now); got != rejectSender {
				t.Errorf("of another link: %q", got)
			}
		}
	}
}

// TestReplayFormerLife: when a process has begun anew, the packets of the one before
// are recent still, and do not bring it back.
func TestReplayFormerLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLAN(t, 2)
		l.settle()
		former := l.recorded()
		former = former[len(former)-20:] // of a second
		h := l.hosts[1]
		h.kill()
		h.start()
		l.after("back", 200*time.Millisecond, func() bool { return h.well() && l.hosts[0].hears(h) == Up })
		before := l.hosts[0].x.Counters()
		l.pass(100*time.Millisecond, func() {
			for _, f := range former {
				l.deliver(f, hops)
			}
		})
		after := l.hosts[0].x.Counters()
		if n := after.Received - before.Received; n > 3 {
			t.Errorf("%d packets were believed in 100 ms", n)
		}
		if n := after.Rejected[string(rejectReplay)] - before.Rejected[string(rejectReplay)]; n < 100 {
			t.Errorf("%d packets were noticed to be replayed", n)
		}
		l.pass(time.Second, l.wantWell)
	})
}

// TestReplayToNewProcess: all that a node has said for an hour is sent to a process
// that has just begun, while the node is off. It stays dead.
func TestReplayToNewProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLAN(t, 3)
		l.settle()
		l.pass(time.Minute, nil)
		frames := l.recorded()
		l.hosts[0].powerOff()
		l.hosts[1].kill()
		l.hosts[1].start()
		l.pass(3*time.Second, func() {
			for _, f := range frames[:min(len(frames), 50)] {
				l.deliver(f, hops)
			}
			frames = frames[min(len(frames), 50):]
			if l.hosts[1].hears(l.hosts[0]) > Unheard {
				t.Fatalf("%v", l.hosts[1].x.Adjacencies())
			}
		})
		if owner := l.hosts[1].role() == Own || l.hosts[2].role() == Own; !owner {
			t.Errorf("nobody owns: %v, %v", l.hosts[1].role(), l.hosts[2].role())
		}
	})
}

// TestReplayToNewAdjacency: a fellow that is off seems to have another address, so that
// its adjacency is a new one. What it said before is out of date there, too.
func TestReplayToNewAdjacency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLAN(t, 2)
		l.settle()
		frames := l.recorded()
		l.hosts[0].powerOff()
		h := l.hosts[1]
		s := h.state
		s.Fellows = slices.Clone(s.Fellows)
		s.Fellows[0] = announce.Node{Name: nodeName(0), Links: []announce.Link{
			{Name: "eth0", MAC: nodeMAC(0), Prefixes: []netip.Prefix{netip.PrefixFrom(nodeAddr(200), 24)}},
		}}
		h.x.Set(s)
		before := h.received()
		for _, f := range frames {
			l.deliver(f, hops)
			synctest.Wait()
		}
		if n := h.received() - before; n > 0 {
			t.Errorf("%d of %d packets were believed", n, len(frames))
		}
	})
}

// TestOldIntroductions: a flood of packets of processes that are gone keeps neither a
// new process from being heard, nor a fellow from hearing that it is.
func TestOldIntroductions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLAN(t, 2)
		l.settle()
		for range 3 {
			l.hosts[1].kill()
			l.pass(100*time.Millisecond, nil)
			l.hosts[1].start()
			l.settle()
		}
		frames := l.recorded()
		l.hosts[0].kill() // it has forgotten whom it knew
		l.hosts[0].start()
		random := rand.New(rand.NewPCG(1, 2))
		defer l.flood(200*time.Microsecond, func() { l.deliver(frames[random.IntN(len(frames))], hops) })()
		l.after("up", time.Second, func() bool { return l.hosts[0].well() && l.hosts[1].well() })
		l.hosts[1].kill()
		l.hosts[1].start()
		l.after("up again", time.Second, func() bool { return l.hosts[0].well() && l.hosts[1].well() })
		for _, h := range l.hosts {
			before := h.x.Counters().Sent
			l.pass(time.Second, nil)
			if n := h.x.Counters().Sent - before; n > 110 {
				t.Errorf("node %s answered with %d packets in a second", nodeName(h.index), n)
			}
		}
		start := time.Now()
		parting, done := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer done()
		l.hosts[0].x.Farewell(parting)
		if took := time.Since(start); took > 100*time.Millisecond {
			t.Errorf("the farewell took %v", took)
		}
	})
}

// TestFlood: 10,000 bad packets a second, of all kinds, keep nobody from being heard.
func TestFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLAN(t, 3)
		l.settle()
		frames := l.recorded()
		random := rand.New(rand.NewPCG(1, 2))
		bad := func(to *host) (datagram, int) {
			f := frames[random.IntN(len(frames))]
			for f.to != to.addr {
				f = frames[random.IntN(len(frames))]
			}
			data := slices.Clone(f.data)
			switch random.IntN(4) {
			case 0: // from a router
				return datagram{f.from, to.addr, data}, hops - 1
			case 1:
				for i := range data {
					data[i] = byte(random.Uint32())
				}
			case 2:
				data[20+random.IntN(len(data)-20)] ^= 1 << random.IntN(8)
			case 3:
				data = data[:random.IntN(len(data))]
			}
			return datagram{f.from, to.addr, data}, hops
		}
		before := l.hosts[0].x.Counters()
		stop := l.flood(time.Millisecond, func() {
			for range 10 {
				for _, h := range l.hosts {
					f, hops := bad(h)
					l.deliver(f, hops)
					h.port().put(arrival{event: event{refused: bystander}})
				}
			}
		})
		l.pass(5*time.Second, l.wantWell)
		stop()
		c := l.hosts[0].x.Counters()
		if sent := c.Sent - before.Sent; sent < 95 || sent > 110 {
			t.Errorf("%d heartbeats in 5 s", sent)
		}
		if received := c.Received - before.Received; received < 95 || received > 110 {
			t.Errorf("%d heartbeats were heard in 5 s", received)
		}
		for _, why := range []rejection{rejectHops, rejectSignature, rejectKey, rejectMalformed} {
			if c.Rejected[string(why)] == before.Rejected[string(why)] {
				t.Errorf("nothing was rejected because of %q", why)
			}
		}
	})
}

// TestForgedRefusals: whoever says that a fellow's speaker is gone makes another node
// cover it, and nobody take anything over.
func TestForgedRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLAN(t, 3, func(h *host) { h.state.NoCover = h.index == 2 })
		l.settle()
		covered := false
		l.pass(5*time.Second, func() {
			for _, h := range l.hosts {
				for _, other := range l.hosts {
					h.port().put(arrival{event: event{refused: other.addr}})
				}
			}
			covered = covered || l.hosts[1].role() == Cover
			if l.hosts[0].role() != Own || l.hosts[1].role() == Own || l.hosts[2].role() != Standby {
				t.Fatalf("roles %v, %v and %v", l.hosts[0].role(), l.hosts[1].role(), l.hosts[2].role())
			}
		})
		if !covered {
			t.Error("the refusals had no effect at all: nothing is shown")
		}
		l.settle()
	})
}

// TestReplayToNewFellow: a fellow that the program takes away and brings back is known
// by what it says now, and not by what it said before.
func TestReplayToNewFellow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLAN(t, 2)
		l.settle()
		frames := l.recorded()
		l.pass(recentTime+2*interval, nil)
		l.hosts[0].powerOff()
		h := l.hosts[1]
		s := h.state
		s.Fellows = nil
		h.x.Set(s)
		synctest.Wait()
		h.x.Set(h.state)
		synctest.Wait()
		before := h.received()
		for _, f := range frames {
			l.deliver(f, hops)
			synctest.Wait()
		}
		if n := h.received() - before; n > 0 {
			t.Errorf("%d of %d packets were believed", n, len(frames))
		}
	})
}

// TestTwoLinks: packets of a fellow are in one order, whatever the link.
func TestTwoLinks(t *testing.T) {
	l := &lan{}
	s := l.state(1, 2)
	other := netip.MustParsePrefix("198.51.100.2/24")
	s.Links = append(s.Links, Link{Index: 2, Name: "eth1", Prefixes: []netip.Prefix{other}})
	s.Fellows[0].Links = append(s.Fellows[0].Links, announce.Link{
		Name: "eth1", MAC: announce.MAC{2, 1}, Prefixes: []netip.Prefix{netip.MustParsePrefix("198.51.100.1/24")},
	})
	s.Groups[0].Links = []int{1, 2}
	c := newCore(7)
	now := time.Unix(1_700_000_000, 0)
	c.set(s, now)
	c.turn(now)
	segments := map[int]linkID{1: segmentOf(s.Links[0].Prefixes[0]), 2: segmentOf(other)}
	sender := idOf(s.Cluster, nodeName(0))
	receive := func(link int, seq uint64, flags uint8, want rejection) {
		t.Helper()
		m := packet{flags: flags, from: sender, to: c.self, link: segments[link], life: 1, seq: seq, echoLife: 7, echoSeq: 1}
		if got := c.receive(link, &m, 0, now); got != want {
			t.Errorf("number %d on link %d: %q, want %q", seq, link, got, want)
		}
	}
	receive(1, 1000, flagReleasing, accepted)
	receive(2, 999, 0, rejectReplay) // of before this process knew the other one
	receive(2, 1001, 0, accepted)
	receive(1, 1003, 0, accepted)
	heard := c.byKey[adjacencyKey{sender, 2}].heard
	now = now.Add(interval)
	receive(2, 1002, flagReleasing|flagRestarting, accepted) // it was on its way for longer
	if a := c.byKey[adjacencyKey{sender, 2}]; !a.heard.After(heard) {
		t.Error("it is no sign of life on its link")
	}
	if p := c.peers[sender]; p.releasing() || p.restarting() {
		t.Error("what it says is out of date, and was believed")
	}
	receive(1, 1002, 0, rejectReplay)
	receive(2, 1004, flagReleasing, accepted)
	if p := c.peers[sender]; !p.releasing() {
		t.Error("what the last packet says was not believed")
	}
}

// TestGreetings: the latest process is answered, and every other packet at least is
// for the one that is known.
func TestGreetings(t *testing.T) {
	a := &adjacency{}
	want := func(want stamp) {
		t.Helper()
		if got := a.echoed(); got != want {
			t.Errorf("echoed %v, want %v", got, want)
		}
	}
	want(stamp{})
	for _, s := range []stamp{{5, 2}, {7, 3}, {7, 2}, {6, 9}} {
		a.greet(s)
	}
	want(stamp{7, 3})
	a.greet(stamp{5, 2})
	want(stamp{5, 2}) // nobody is known who waits for an echo
	a.echo = stamp{7, 9}
	a.greet(stamp{5, 2})
	want(stamp{7, 9})
	want(stamp{5, 2})
	want(stamp{7, 9})
	want(stamp{7, 9})
}
