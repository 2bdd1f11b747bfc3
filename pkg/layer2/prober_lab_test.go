package layer2

import (
	"context"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/bpf"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/layer2/internal/wire"
)

// counted is a socket that counts what passes its filter.
type counted struct {
	socket
	frames *atomic.Int64
}

// Read is of socket.
func (c counted) Read(buffer []byte) (int, error) {
	n, err := c.socket.Read(buffer)
	if err == nil {
		c.frames.Add(1)
	}
	return n, err
}

// prober runs one on the node's end. Its sockets are open.
func (l *lab) prober(hosts ...netip.Addr) (p *Prober, answers chan ProbeAnswer, frames *atomic.Int64) {
	l.t.Helper()
	answers, frames = make(chan ProbeAnswer, 100), new(atomic.Int64)
	p = NewProber(func(a ProbeAnswer) { answers <- a })
	open, opened := p.open, make(chan struct{}, 100)
	p.open = func(index int, f family, program []bpf.RawInstruction) (socket, error) {
		s, err := open(index, f, program)
		opened <- struct{}{}
		return counted{s, frames}, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- p.Run(ctx) }()
	l.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			l.t.Errorf("Run: %v", err)
		}
	})
	p.Set([]ProbeLink{{Interface: l.state(Certain).Interfaces[0], Hosts: hosts}})
	for range families {
		<-opened
	}
	return p, answers, frames
}

// ask asks until the question is out: a socket may be about to be opened.
func (l *lab) ask(p *Prober, host netip.Addr, mac announce.MAC) {
	l.t.Helper()
	index := l.state(Certain).Interfaces[0].Index
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	deadline := time.After(10 * time.Second)
	for {
		err := p.Ask(index, host, mac)
		if err == nil {
			return
		}
		select {
		case <-poll.C:
		case <-deadline:
			l.t.Fatal(err)
		}
	}
}

// TestLabProber asks a Linux host.
func TestLabProber(t *testing.T) {
	l := newLab(t)
	in := l.host()
	p, answers, _ := l.prober(client, client6)
	// What the host asks us of its own accord would be a sign of life, too.
	in("sh", "-c", "for f in ipv4 ipv6; do echo 60 >/proc/sys/net/$f/neigh/"+l.p+"/delay_first_probe_time; done")
	answered := func(host netip.Addr) {
		t.Helper()
		select {
		case got := <-answers:
			if got.Host != host || got.MAC != l.mac {
				t.Errorf("answer %+v, want %v from %v", got, l.mac, host)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%v does not answer", host)
		}
	}
	// An interface that has come up hears nothing at first.
	appears := func(host netip.Addr) {
		t.Helper()
		again := time.NewTicker(100 * time.Millisecond)
		defer again.Stop()
		deadline := time.After(10 * time.Second)
		asked := 0
		for len(answers) == 0 {
			l.ask(p, host, l.mac)
			asked++
			select {
			case <-again.C:
			case <-deadline:
				t.Fatalf("%v does not answer", host)
			}
		}
		for range asked {
			select {
			case got := <-answers:
				if got.Host != host || got.MAC != l.mac {
					t.Errorf("answer %+v, want %v from %v", got, l.mac, host)
				}
			case <-again.C: // of the first questions, some are lost
			}
		}
	}
	for _, host := range []netip.Addr{client, client6} {
		appears(host)
		l.ask(p, host, announce.MAC{})
		answered(host)
		// A question to another MAC address is another host's.
		l.ask(p, host, fellowMAC)
		l.ask(p, host, l.mac)
		answered(host)
	}
	if len(answers) > 0 {
		t.Errorf("answer %+v to another host's question", <-answers)
	}

	// The host is cut off, and comes back.
	in("ip", "link", "set", l.p, "down")
	l.carrier(false)
	for _, host := range []netip.Addr{client, client6} {
		_ = p.Ask(l.state(Certain).Interfaces[0].Index, host, l.mac) // the kernel may say that the link is down
	}
	in("ip", "link", "set", l.p, "up")
	in("ip", "addr", "replace", client6.String()+"/64", "dev", l.p, "nodad")
	l.carrier(true)
	if len(answers) > 0 {
		t.Errorf("answer %+v from a host that is cut off", <-answers)
	}
	for _, host := range []netip.Addr{client, client6} {
		appears(host)
	}
}

// TestLabProberFilter: what others send wakes nobody.
func TestLabProberFilter(t *testing.T) {
	l := newLab(t)
	p, answers, frames := l.prober(client, client6)
	mac, other, other6 := l.nodeMAC(), client.Next(), client6.Next()
	node, node6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	for range 10 {
		l.send(
			wire.ARPAnswer(l.mac, other, mac, node), wire.ARPQuestion(l.mac, other, client, mac),
			wire.NDPAnswer(l.mac, other6, &wire.Message{Sender: node6, SenderMAC: mac}), wire.NDPQuestion(l.mac, other6, client6, mac),
			wire.ARPProbe(l.mac, client), wire.NDPProbe(l.mac, client6),
		)
	}
	for _, answer := range [][]byte{
		wire.ARPAnswer(l.mac, client, mac, node), wire.NDPAnswer(l.mac, client6, &wire.Message{Sender: node6, SenderMAC: mac}),
	} {
		l.send(answer)
		if got := <-answers; got.MAC != l.mac || got.Host != client && got.Host != client6 {
			t.Errorf("answer %+v", got)
		}
	}
	if n := frames.Load(); n != 2 {
		t.Errorf("%d frames pass the filter, want the host's two", n)
	}
	// The question is what the host gets.
	l.ask(p, client6, l.mac)
	if m := l.next(client6, false); m.Kind != wire.Solicitation || m.Sender != node6 || m.SenderMAC != mac || m.Destination != l.mac {
		t.Errorf("question %+v", m)
	}
}
