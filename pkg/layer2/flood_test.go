package layer2

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/layer2/internal/wire"
)

// TestLabFlood sends what a broken or hostile host might.
func TestLabFlood(t *testing.T) {
	l := newLab(t)
	l.a.Set(l.state(Certain, vip, vip6))
	l.announced(2)
	random := rand.New(rand.NewPCG(1, 2))
	spoofed := func() announce.MAC {
		n := random.Uint32()
		return announce.MAC{2, 1, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
	}
	mangled := func(frame []byte) []byte {
		frame = append([]byte{}, frame...)
		for range 1 + random.IntN(4) {
			frame[random.IntN(len(frame))] = byte(random.Uint32())
		}
		return frame[:14+random.IntN(len(frame)-13)]
	}
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	for range 100_000 / 5 {
		l.send(
			wire.ARPAnnouncement(spoofed(), vip),
			wire.ARPAnswer(spoofed(), self, spoofed(), vip),
			wire.NDPAnnouncement(spoofed(), vip6),
			mangled(arpRequest(spoofed(), client, vip, broadcastMAC)),
			mangled(solicitation(l.mac, client6, vip6, nil, true, nil)),
		)
	}
	l.drain()
	after := heap()
	if after > before+16<<20 {
		t.Errorf("the heap grew from %d to %d KiB", before>>10, after>>10)
	}
	last, last6 := client.Next(), client6.Next()
	l.send(arpRequest(l.mac, last, vip, broadcastMAC), solicitation(l.mac, last6, vip6, nil, true, nil))
	for answered, answered6 := false, false; !answered || !answered6; {
		m := l.answer()
		answered = answered || m.Target == last
		answered6 = answered6 || m.To == last6
	}
	s := l.a.Status()
	if s.Announced != 2 || len(s.Conflicts) != 2 || s.Claims == 0 {
		t.Errorf("status %+v", s)
	}
	t.Logf("after 100,000 frames: %+v; heap %d KiB, before %d KiB", s.Counters, after>>10, before>>10)
}

// TestLabNeighbour lets a Linux host resolve and confirm the addresses, through
// all states of RFC 4861 section 7.3.2.
func TestLabNeighbour(t *testing.T) {
	l := newLab(t)
	in := l.host()
	for _, f := range []string{"ipv4", "ipv6"} {
		dir := "/proc/sys/net/" + f + "/neigh/" + l.p
		in("sh", "-c", fmt.Sprintf("echo 1000 >%[1]s/base_reachable_time_ms; echo 1 >%[1]s/delay_first_probe_time", dir))
	}
	l.a.Set(l.state(Certain, vip, vip6))
	l.announced(2)
	mac := l.nodeMAC().String()
	for _, addr := range []netip.Addr{vip, vip6} {
		states := make(map[string]bool)
		var order []string
		deadline := time.Now().Add(20 * time.Second)
		confirmed := 0
		for confirmed < 2 && time.Now().Before(deadline) {
			in("sh", "-c", fmt.Sprintf("ip route get %[1]v >/dev/null; bash -c 'echo >/dev/udp/%[1]v/9' 2>/dev/null || true", addr))
			line := in("ip", "neigh", "show", "to", addr.String(), "dev", l.p)
			fields := strings.Fields(line)
			if len(fields) == 0 {
				continue
			}
			state := fields[len(fields)-1]
			if len(order) == 0 || order[len(order)-1] != state {
				order = append(order, state)
				if state == "REACHABLE" {
					confirmed++
				}
			}
			states[state] = true
			if state == "FAILED" || strings.Contains(line, "lladdr") && !strings.Contains(line, mac) {
				t.Fatalf("%v: %s", addr, line)
			}
		}
		if confirmed < 2 {
			t.Errorf("%v: not confirmed again: %v", addr, order)
		}
		t.Logf("%v: %s", addr, strings.Join(order, " "))
	}
	if n := l.a.Status().Answered; n < 4 {
		t.Errorf("%d answered: the addresses were confirmed by chance", n)
	}
}
