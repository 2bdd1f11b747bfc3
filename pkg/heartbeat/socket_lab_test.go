package heartbeat

import (
	"bytes"
	"errors"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

// TestLabRefusal: the kernel of a node without a speaker says so, and that spoils
// nothing for what follows.
func TestLabRefusal(t *testing.T) {
	eachFamily(t, func(t *testing.T, l *lab, f *family) {
		a, err := l.nodes[0].listen(cable(0), f.v4)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		arrivals := l.received(a)
		to := l.nodes[0].route(f, 0)
		for range 3 {
			if err := a.Send([]byte("nobody"), to); err != nil {
				t.Fatal(err)
			}
			if got := l.next(arrivals); got.refused != to.to {
				t.Fatalf("%+v, want a refusal of %v", got, to.to)
			}
		}
		b, err := l.nodes[1].listen(cable(0), f.v4)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		there := l.received(b)
		if err := a.Send([]byte("question"), to); err != nil {
			t.Fatal(err)
		}
		if got := l.next(there); string(got.data) != "question" || got.hops != hops || got.refused.IsValid() {
			t.Errorf("%+v", got)
		}
		if err := b.Send([]byte("answer"), l.nodes[1].route(f, 0)); err != nil {
			t.Fatal(err)
		}
		if got := l.next(arrivals); string(got.data) != "answer" || got.hops != hops || got.refused.IsValid() {
			t.Errorf("%+v", got)
		}
	})
}

// TestLabSocket: who has the port, on which interface, and how far a packet has come.
func TestLabSocket(t *testing.T) {
	eachFamily(t, func(t *testing.T, l *lab, f *family) {
		n := l.nodes[0]
		first, err := n.listen(cable(0), f.v4)
		if err != nil {
			t.Fatal(err)
		}
		defer first.Close()
		second, err := n.listen(cable(1), f.v4)
		if err != nil {
			t.Fatalf("on the other interface: %v", err)
		}
		defer second.Close()
		if _, err := n.listen(cable(0), f.v4); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("a second time: %v", err)
		}
		if _, err := n.listen("eth9", f.v4); !errors.Is(err, syscall.ENODEV) {
			t.Errorf("on no interface: %v", err)
		}
		arrivals := l.received(first)
		for _, hops := range []int{255, 254, 64, 1} {
			l.nodes[1].sender(f, hops)([]byte("data"))
			if got := l.next(arrivals); got.hops != hops {
				t.Errorf("hops %d, want %d", got.hops, hops)
			}
		}
		big := make([]byte, maxPacket)
		l.nodes[1].sender(f, hops)(big)
		if got := l.next(arrivals); got.n != len(big) {
			t.Errorf("%d octets, want %d", got.n, len(big))
		}
		_ = first.Close()
		for range arrivals { // ends
		}
	})
}

// TestLabAdmit: the kernel drops what is not of fellows, and counts it.
func TestLabAdmit(t *testing.T) {
	eachFamily(t, func(t *testing.T, l *lab, f *family) {
		c, err := l.nodes[0].listen(cable(0), f.v4)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		self, fellow, other := idOf("cluster", nodeName(0)), idOf("cluster", nodeName(1)), id(1)
		arrivals := l.received(c)
		send := l.nodes[1].sender(f, hops)
		good := forged(testKeys)
		for _, test := range []struct {
			self    id
			fellows []id
			dropped uint32
		}{
			{self, []id{fellow}, 1},
			{self, []id{other}, 3},
			{other, []id{fellow}, 5},
			{self, nil, 7},
			{self, []id{other, fellow}, 8},
		} {
			if err := c.Admit(test.self, test.fellows); err != nil {
				t.Fatal(err)
			}
			send(good)
			send([]byte("short")) // is dropped always
			if err := c.Admit(other, []id{other}); err != nil {
				t.Fatal(err)
			}
			end := (&packet{from: other, to: other, seq: uint64(test.dropped)}).append(nil)
			send(end)
			got := l.next(arrivals)
			if test.self == self && len(test.fellows) > 0 && test.fellows[len(test.fellows)-1] == fellow {
				if !bytes.Equal(got.data, good) {
					t.Errorf("%+v: %x", test, got.data)
				}
				got = l.next(arrivals)
			}
			if !bytes.Equal(got.data, end) || got.dropped != test.dropped {
				t.Errorf("%+v: %x, and %d were dropped", test, got.data, got.dropped)
			}
		}
	})
}

// TestLabForged: what passes the kernel and is not signed has no effect.
func TestLabForged(t *testing.T) {
	eachFamily(t, func(t *testing.T, l *lab, f *family) {
		l.start(f)
		bad := forged(announce.HeartbeatKeys{Current: testKey(9)})
		unsigned := forged(testKeys)
		unsigned[len(unsigned)-1]++
		l.nodes[1].sender(f, hops)(bad)
		l.nodes[1].sender(f, hops)(unsigned)
		l.nodes[1].sender(f, hops-1)(forged(testKeys))
		for _, why := range []rejection{rejectKey, rejectSignature, rejectHops} {
			l.until("rejected: "+string(why), func() bool { return l.nodes[0].x.Counters().Rejected[string(why)] == 1 })
		}
		l.nodes[1].sender(f, hops)([]byte("no heartbeat"))
		l.until("dropped", func() bool { return l.nodes[0].x.Counters().Dropped == 1 })
	})
}

// TestLabLifecycle: what happens to speakers, interfaces and addresses.
func TestLabLifecycle(t *testing.T) {
	eachFamily(t, func(t *testing.T, l *lab, f *family) {
		a, b := l.nodes[0], l.nodes[1]
		l.start(f)
		role := func(n *labNode) Role { return n.x.Decisions()[virtual].Role }

		b.x.Set(b.state(f)) // once more: nothing changes
		a.kill()
		killed := time.Now()
		l.until("covered", func() bool { return role(b) == Cover })
		t.Logf("covered after %v", time.Since(killed))
		a.start(a.state(f))
		l.untilUp()
		l.until("owned", func() bool { return role(a) == Own && role(b) == Standby })

		b.ip("link", "set", cable(1), "down")
		l.until("silent on one cable", func() bool { return a.hears(1) == Silent })
		if a.hears(0) != Up || role(b) != Standby {
			t.Errorf("the other cable: %v; the role is %v", a.hears(0), role(b))
		}
		b.up(1)
		l.untilUp()

		// Another interface of the same name: the one before takes its sockets along.
		a.ip("link", "del", cable(0))
		l.until("silent", func() bool { return a.hears(0) == Silent })
		l.connect(0)
		for _, n := range l.nodes {
			n.x.Set(n.state(f))
		}
		l.untilUp()

		// Another address, of which the fellow learns later.
		changed, before := *f, f.prefixes[1][0]
		changed.prefixes[1][0] = netip.PrefixFrom(before.Addr().Next(), before.Bits())
		b.ip("addr", "add", changed.prefixes[1][0].String(), "dev", cable(0), "nodad")
		b.ip("addr", "del", before.String(), "dev", cable(0))
		b.x.Set(b.state(&changed))
		a.x.Set(a.state(&changed))
		l.untilUp()

		for _, n := range l.nodes {
			if problems := n.x.Problems(); len(problems) > 0 {
				t.Errorf("problems %q", problems)
			}
		}
	})
}
