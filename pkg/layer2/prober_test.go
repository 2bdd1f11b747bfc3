package layer2

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/layer2/internal/wire"
)

var (
	peer4     = netip.MustParseAddr("192.0.2.7")
	peer6     = netip.MustParseAddr("2001:db8::7")
	local6    = netip.MustParseAddr("fe80::7")
	elsewhere = netip.MustParseAddr("198.51.100.7")
)

// signs are what a Prober was answered.
type signs struct {
	mu   sync.Mutex
	list []ProbeAnswer
}

func (s *signs) answered(a ProbeAnswer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, a)
}

func (s *signs) take() []ProbeAnswer {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.list
	s.list = nil
	return out
}

// prober runs one on the fake until the test ends.
func (n *fakeNIC) prober(t *testing.T, answered func(ProbeAnswer)) *Prober {
	p := NewProber(answered)
	p.open = n.open
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return p
}

func hostsOn(hosts ...netip.Addr) []ProbeLink {
	return []ProbeLink{{Interface: eth(0), Hosts: hosts}}
}

func TestAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nic := new(fakeNIC)
		p := nic.prober(t, func(ProbeAnswer) {})
		p.Set(hostsOn(peer4, peer6, local6, elsewhere))
		synctest.Wait()
		group, groupMAC := wire.SolicitedNode(peer6)
		for _, test := range []struct {
			name string
			host netip.Addr
			mac  announce.MAC
			want wire.Message
		}{
			{"ARP", peer4, fellowMAC, wire.Message{Kind: wire.ARPRequest, Destination: fellowMAC, Sender: self, Target: peer4}},
			{"ARP, MAC unknown", peer4, announce.MAC{}, wire.Message{Kind: wire.ARPRequest, Destination: broadcastMAC, Sender: self, Target: peer4}},
			{"another subnet", elsewhere, fellowMAC, wire.Message{Kind: wire.ARPRequest, Destination: fellowMAC, Sender: self, Target: elsewhere}},
			{"NDP", peer6, fellowMAC, wire.Message{Kind: wire.Solicitation, Destination: fellowMAC, Sender: netip.MustParseAddr("2001:db8::1"), Target: peer6, To: peer6}},
			{"NDP, MAC unknown", peer6, announce.MAC{}, wire.Message{Kind: wire.Solicitation, Destination: groupMAC, Sender: netip.MustParseAddr("2001:db8::1"), Target: peer6, To: group}},
			{"link-local", local6.WithZone("eth0"), fellowMAC, wire.Message{Kind: wire.Solicitation, Destination: fellowMAC, Sender: netip.MustParseAddr("fe80::1"), Target: local6, To: local6}},
		} {
			if err := p.Ask(2, test.host, test.mac); err != nil {
				t.Errorf("%s: %v", test.name, err)
				continue
			}
			test.want.Source, test.want.SenderMAC = nodeMAC, nodeMAC
			if diff := cmp.Diff([]wire.Message{test.want}, nic.sent, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
				t.Errorf("%s (-want +got):\n%s", test.name, diff)
			}
			nic.sent = nil
		}
		time.Sleep(time.Hour)
		if nic.sent != nil || nic.opened() != 2 {
			t.Errorf("%d frames unasked, %d sockets", len(nic.sent), nic.opened())
		}
	})
}

func TestAskInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nic := &fakeNIC{openErr: unix.EPERM}
		p := nic.prober(t, func(ProbeAnswer) {})
		refused := func(host netip.Addr, want string) {
			t.Helper()
			if err := p.Ask(2, host, fellowMAC); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), host.String()) {
				t.Errorf("error %v, want %q", err, want)
			}
		}
		refused(peer4, "Run has not begun")
		links := hostsOn(peer4, peer6)
		links[0].Interface.Prefixes = links[0].Interface.Prefixes[:1]
		p.Set(links)
		synctest.Wait()
		refused(peer4, "no socket for ARP")
		refused(peer4.Next(), "not among the hosts of interface eth0")
		refused(peer6, "no address for NDP")
		links = hostsOn(peer4, peer6)
		links[0].Interface.MAC = announce.MAC{}
		p.Set(links)
		synctest.Wait()
		refused(peer4, "no MAC address")
		nic.fail(func() { nic.openErr = nil })
		p.Set(hostsOn(peer4))
		time.Sleep(reopenTime)
		synctest.Wait()
		if err := p.Ask(2, peer4, fellowMAC); err != nil {
			t.Error(err)
		}
		refused(peer6, "interface 2")
		if nic.sent = nil; p.Ask(3, peer4, fellowMAC) == nil {
			t.Error("asked on an interface that was not set")
		}
	})
}

func TestProbeAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nic, signs := new(fakeNIC), new(signs)
		p := nic.prober(t, signs.answered)
		p.Set(hostsOn(peer4, peer6))
		synctest.Wait()
		sign := func(addr netip.Addr, mac announce.MAC) []ProbeAnswer {
			return []ProbeAnswer{{Interface: 2, Host: addr, MAC: mac}}
		}
		reply := func(addr netip.Addr, mac announce.MAC) []ProbeAnswer {
			return []ProbeAnswer{{Interface: 2, Host: addr, MAC: mac, Reply: true}}
		}
		from := func(mac announce.MAC, frame []byte) []byte { wire.SetSource(frame, mac); return frame }
		broken := wire.NDPAnnouncement(fellowMAC, peer6)
		broken[56] ^= 1
		for _, test := range []struct {
			name  string
			frame []byte
			want  []ProbeAnswer
		}{
			{"ARP reply", wire.ARPAnswer(fellowMAC, peer4, nodeMAC, self), reply(peer4, fellowMAC)},
			{"ARP request", wire.ARPQuestion(fellowMAC, peer4, client, announce.MAC{}), sign(peer4, fellowMAC)},
			{"ARP reply to another", wire.ARPAnswer(fellowMAC, peer4, thiefMAC, client), sign(peer4, fellowMAC)},
			{"gratuitous ARP reply", wire.ARPGratuitousReply(fellowMAC, peer4), sign(peer4, fellowMAC)},
			{"NDP announcement", wire.NDPAnnouncement(fellowMAC, peer6), sign(peer6, fellowMAC)},
			{"ARP announcement", wire.ARPAnnouncement(fellowMAC, peer4), sign(peer4, fellowMAC)},
			{"another MAC", wire.ARPAnswer(thiefMAC, peer4, nodeMAC, self), reply(peer4, thiefMAC)},
			{"reply in another's name", from(thiefMAC, wire.ARPAnswer(fellowMAC, peer4, nodeMAC, self)), reply(peer4, fellowMAC)},
			{"another host's reply", wire.ARPAnswer(fellowMAC, client, nodeMAC, self), nil},
			{"another host's request", wire.ARPQuestion(thiefMAC, client, peer4, announce.MAC{}), nil},
			{"a probe for it", wire.ARPProbe(thiefMAC, peer4), nil},
			{"looped back", wire.ARPAnswer(nodeMAC, peer4, nodeMAC, self), nil},
			{"with the own MAC", from(thiefMAC, wire.ARPAnswer(nodeMAC, peer4, nodeMAC, self)), nil},
			{"advertisement", wire.NDPAnswer(fellowMAC, peer6, &wire.Message{Sender: client6, SenderMAC: nodeMAC}), reply(peer6, fellowMAC)},
			{"solicitation", wire.NDPQuestion(fellowMAC, peer6, client6, announce.MAC{}), sign(peer6, fellowMAC)},
			{"advertisement of another address", advertisementBy(fellowMAC, peer6, client6), sign(peer6, fellowMAC)},
			{"another host's advertisement", wire.NDPAnnouncement(fellowMAC, client6), nil},
			{"another host's solicitation", wire.NDPQuestion(thiefMAC, client6, peer6, announce.MAC{}), nil},
			{"duplicate address detection", wire.NDPProbe(thiefMAC, peer6), nil},
			{"wrong checksum", broken, nil},
			{"forwarded", solicitation(fellowMAC, peer6, client6, nil, true, func(p []byte) { p[21] = 254 }), nil},
			{"nonsense", []byte("nonsense"), nil},
		} {
			f := ipv6
			if len(test.frame) == 42 {
				f = ipv4
			}
			nic.socket(f).in <- test.frame
			synctest.Wait()
			if got := signs.take(); !slices.Equal(got, test.want) {
				t.Errorf("%s: %+v, want %+v", test.name, got, test.want)
			}
		}
	})
}

// advertisementBy is one for target whose source is another address of the host.
func advertisementBy(mac announce.MAC, source, target netip.Addr) []byte {
	return solicitation(mac, source, target, &nodeMAC, false, func(p []byte) {
		p[54] = 136
		sum := uint32(p[56])<<8 | uint32(p[57]) // of a type that is one less
		sum -= 1 << 8
		p[56], p[57] = byte(sum>>8), byte(sum)
	})
}

func TestProberSockets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nic, signs := new(fakeNIC), new(signs)
		p := nic.prober(t, signs.answered)
		opened := func(want int) {
			t.Helper()
			synctest.Wait()
			if got := nic.opened(); got != want {
				t.Errorf("%d sockets opened, want %d", got, want)
			}
		}
		answer := wire.ARPAnswer(fellowMAC, peer4, nodeMAC, self)
		p.Set([]ProbeLink{{Interface: eth(0)}, {Interface: eth(1)}})
		opened(0)
		p.Set(hostsOn(peer4))
		opened(1)
		p.Set(hostsOn(peer4))
		first := nic.socket(ipv4)
		before := first.filter()
		p.Set(hostsOn(peer4, peer4.Next()))
		opened(1)
		if slices.Equal(before, first.filter()) {
			t.Error("the filter is the old one")
		}
		p.Set(hostsOn(peer4.Next()))
		synctest.Wait()
		first.in <- answer // judged by the filter before
		synctest.Wait()
		if got := signs.take(); got != nil {
			t.Errorf("answers %+v", got)
		}

		// The interface goes down: told to the reader, or to who asks.
		p.Set(hostsOn(peer4))
		synctest.Wait()
		first.in <- nil
		time.Sleep(reopenTime)
		opened(2)
		nic.fail(func() { nic.writeErr = unix.ENETDOWN })
		if err := p.Ask(2, peer4, fellowMAC); err == nil {
			t.Error("no error")
		}
		nic.fail(func() { nic.writeErr = nil })
		time.Sleep(reopenTime)
		opened(3)
		synctest.Wait()
		if err := p.Ask(2, peer4, fellowMAC); err != nil {
			t.Error(err)
		}
		nic.socket(ipv4).in <- answer
		synctest.Wait()
		if got := signs.take(); len(got) != 1 {
			t.Errorf("answers %+v", got)
		}

		// The filter is refused.
		nic.fail(func() { nic.filterErr = unix.ENOMEM })
		var scattered []netip.Addr
		for i := range 100 {
			scattered = append(scattered, netip.AddrFrom4([4]byte{192, 0, 2, byte(2 * i)}))
		}
		p.Set(hostsOn(scattered...))
		time.Sleep(reopenTime)
		opened(4)

		// Nobody is left to ask.
		last := nic.socket(ipv4)
		p.Set(nil)
		time.Sleep(time.Hour)
		opened(4)
		select {
		case <-last.closed:
		default:
			t.Error("the socket is still open")
		}
	})
}

// TestProberStops: what cannot be opened is no reason to hang.
func TestProberStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nic := &fakeNIC{openErr: unix.ENODEV}
		p := nic.prober(t, func(ProbeAnswer) {})
		p.Set(hostsOn(peer4, peer6))
		time.Sleep(9500 * time.Millisecond)
		if n := nic.opened(); n != 20 {
			t.Errorf("%d attempts in 9.5 s", n)
		}
	})
}

// TestProberConcurrent is for the race detector.
func TestProberConcurrent(t *testing.T) {
	nic := new(fakeNIC)
	p := nic.prober(t, func(ProbeAnswer) {})
	var workers sync.WaitGroup
	for i := range 4 {
		workers.Go(func() {
			for n := range 50 {
				p.Set(hostsOn(many(1 + (i+n)%5)...))
				_ = p.Ask(2, many(1)[0], fellowMAC) // it may not be there
				if s := nic.socket(ipv4); s != nil {
					select {
					case s.in <- wire.ARPAnnouncement(thiefMAC, many(1)[0]):
					case <-s.closed:
					}
				}
			}
		})
	}
	workers.Wait()
}
