package heartbeat

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

func TestExchange(t *testing.T) {
	for _, n := range []int{2, 3} {
		synctest.Test(t, func(t *testing.T) {
			l := newLAN(t, n)
			l.settle()
			before := l.hosts[0].x.Counters()
			l.pass(10*time.Second, l.wantWell)
			after := l.hosts[0].x.Counters()
			// Ten a second for each fellow, and no more.
			if sent := after.Sent - before.Sent; sent < uint64(99*(n-1)) || sent > uint64(101*(n-1)) {
				t.Errorf("%d heartbeats to %d nodes in 10 s", sent, n-1)
			}
			if received := after.Received - before.Received; received < uint64(99*(n-1)) || received > uint64(101*(n-1)) {
				t.Errorf("%d heartbeats from %d nodes in 10 s", received, n-1)
			}
			for why, count := range after.Rejected {
				if why != string(rejectIntroduction) || count > uint64(3*(n-1)) {
					t.Errorf("%d rejected: %s", count, why)
				}
			}
			if after.Dropped > 0 || after.Takeovers > 0 {
				t.Errorf("counters %+v", after)
			}
		})
	}
}

// TestBadLAN: a LAN that loses, repeats, delays and reorders makes nobody take
// anything over.
func TestBadLAN(t *testing.T) {
	for seed := range uint64(5) {
		synctest.Test(t, func(t *testing.T) {
			l := newLAN(t, 3)
			random := rand.New(rand.NewPCG(seed, 0))
			l.mu.Lock()
			l.fate = func(datagram) (delays []time.Duration) {
				for random.IntN(10) > 0 && len(delays) < 3 {
					delays = append(delays, time.Duration(random.IntN(150))*time.Millisecond)
				}
				return delays
			}
			l.mu.Unlock()
			l.pass(time.Minute, func() {
				for _, h := range l.hosts[1:] {
					if h.role() == Own {
						t.Fatalf("node %s owns: %+v", nodeName(h.index), h.x.Adjacencies())
					}
				}
			})
			replays := l.hosts[0].x.Counters().Rejected[string(rejectReplay)]
			l.mu.Lock()
			l.fate = nil
			l.mu.Unlock()
			l.settle()
			if replays < 100 {
				t.Errorf("%d packets were late or repeated only", replays)
			}
		})
	}
}

// TestKilled: the process ends without a word, and its kernel says so.
func TestKilled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLAN(t, 3)
		l.settle()
		l.hosts[0].kill()
		took := l.after("covered", time.Second, func() bool { return l.hosts[1].role() == Cover })
		if took > 150*time.Millisecond {
			t.Errorf("covered after %v: the refusal was not heard", took)
		}
		l.pass(10*time.Second, func() {
			if l.hosts[1].role() != Cover || l.hosts[2].role() != Standby {
				t.Fatalf("roles %v and %v", l.hosts[1].role(), l.hosts[2].role())
			}
		})
		l.hosts[0].start()
		l.after("owned again", time.Second, func() bool { return l.hosts[0].role() == Own && l.hosts[1].role() == Standby })
		l.settle()
	})
}

func TestPowerOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLAN(t, 3)
		l.settle()
		l.hosts[0].powerOff()
		took := l.after("taken over", time.Second, func() bool { return l.hosts[1].role() == Own })
		if took > 500*time.Millisecond {
			t.Errorf("taken over after %v", took)
		}
		select {
		case <-l.hosts[1].changed:
		default:
			t.Error("Changed was not called")
		}
		if n := l.hosts[1].x.Counters().Takeovers; n != 1 {
			t.Errorf("%d takeovers", n)
		}
	})
}

// TestUnasked: where no question leaves this node, no answer is missing.
func TestUnasked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLAN(t, 2, func(h *host) {
			h.change = func(c *Config) { c.Prober = mute{} }
		})
		l.settle()
		l.hosts[0].powerOff()
		l.pass(10*time.Second, func() {
			if h := l.hosts[1]; h.hears(l.hosts[0]) == Dead || h.role() == Own {
				t.Fatalf("%v, and the role is %v", h.hears(l.hosts[0]), h.role())
			}
		})
	})
}

// mute is a Prober that asks nobody.
type mute struct{}

func (mute) Listen(map[int][]netip.Addr)             {}
func (mute) Ask(int, netip.Addr, announce.MAC) error { return errNoNeighbour }

// TestAPIWitness: of two nodes without any other host, the one that takes over has to
// hear the API server.
func TestAPIWitness(t *testing.T) {
	for _, answers := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			var mu sync.Mutex
			asked, asking := 0, 0
			l := newLAN(t, 2, func(h *host) {
				h.state.Links[0].Witnesses = nil
				h.change = func(c *Config) {
					c.API = func(ctx context.Context) error {
						mu.Lock()
						asked++
						if asking++; asking > 1 {
							t.Error("the API server is asked twice at a time")
						}
						mu.Unlock()
						defer func() { mu.Lock(); asking--; mu.Unlock() }()
						if answers {
							return nil
						}
						<-ctx.Done()
						return ctx.Err()
					}
				}
			})
			l.settle()
			l.hosts[0].powerOff()
			if answers {
				l.after("taken over", 600*time.Millisecond, func() bool { return l.hosts[1].role() == Own })
				return
			}
			l.pass(5*time.Second, func() {
				if l.hosts[1].role() == Own {
					t.Fatal("taken over by a node that nobody else hears")
				}
			})
			if asked < 10 {
				t.Errorf("the API server was asked %d times", asked)
			}
		})
	}
}

// TestNeighbours: hosts that the kernel knows are witnesses where no others are.
func TestNeighbours(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLAN(t, 2, func(h *host) {
			h.state.Links[0].Witnesses = nil
			h.change = func(c *Config) {
				c.Neighbors = func(link int) []netip.Addr { return []netip.Addr{nodeAddr(0), bystander} }
			}
		})
		l.settle()
		l.hosts[0].powerOff()
		l.after("taken over", 600*time.Millisecond, func() bool { return l.hosts[1].role() == Own })
	})
}

func TestFarewell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLAN(t, 3)
		l.settle()
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		l.hosts[0].x.Farewell(ctx)
		if took := time.Since(start); took > 50*time.Millisecond {
			t.Errorf("it took %v", took)
		}
		synctest.Wait()
		if l.hosts[1].role() != Cover || l.hosts[0].role() != Own {
			t.Errorf("roles %v and %v", l.hosts[0].role(), l.hosts[1].role())
		}
	})
}

// TestFarewellUnheard: whoever cannot be told is not waited for longer than ctx.
func TestFarewellUnheard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLAN(t, 2)
		l.settle()
		l.mu.Lock()
		l.fate = func(f datagram) []time.Duration {
			if f.from == l.hosts[0].addr {
				return nil
			}
			return []time.Duration{lanDelay}
		}
		l.mu.Unlock()
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		l.hosts[0].x.Farewell(ctx)
		if took := time.Since(start); took != 200*time.Millisecond {
			t.Errorf("it took %v", took)
		}
	})
}

// TestFarewellAlone: where nobody can be told, there is nothing to wait for.
func TestFarewellAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLAN(t, 2)
		l.settle()
		l.hosts[1].powerOff()
		l.pass(time.Second, nil)
		for _, s := range []State{l.hosts[0].state, {}} {
			l.hosts[0].x.Set(s)
			start := time.Now()
			l.hosts[0].x.Farewell(t.Context())
			if took := time.Since(start); took > 0 {
				t.Errorf("it took %v", took)
			}
		}
	})
}

// TestSockets: what cannot be opened is told and tried again each second.
func TestSockets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLAN(t, 2, func(h *host) {
			if h.index == 1 {
				h.openErr = syscall.EADDRINUSE
			}
		})
		h := l.hosts[1]
		synctest.Wait()
		problems := h.x.Problems()
		if len(problems) != 1 || !strings.Contains(problems[0], "eth0") || !strings.Contains(problems[0], "7480") {
			t.Fatalf("problems %q", problems)
		}
		select {
		case <-h.changed:
		default:
			t.Error("Changed was not called")
		}
		l.pass(10*time.Second, nil)
		if n := h.opened(); n < 9 || n > 12 {
			t.Errorf("%d attempts in 10 s", n)
		}
		h.with(func() { h.openErr = nil })
		l.after("opened", 1100*time.Millisecond, func() bool { return len(h.x.Problems()) == 0 })
		l.settle()
		opens := h.opened()
		h.x.Set(h.state)
		l.pass(5*time.Second, l.wantWell)
		if h.opened() != opens {
			t.Error("a socket that works was opened again")
		}
	})
}

// TestSocketFails: one that fails is opened again at once, and nobody notices; one
// that fails again and again is not tried all the time.
func TestSocketFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLAN(t, 2)
		l.settle()
		h := l.hosts[1]
		l.pass(2*time.Second, nil)
		_ = h.port().Close()
		l.pass(time.Second, l.wantWell)
		if h.opened() != 2 || len(h.x.Problems()) > 0 {
			t.Errorf("opened %d times; problems %q", h.opened(), h.x.Problems())
		}
		h.with(func() { h.readErr, h.opens = errors.New("the disk is full"), 0 })
		_ = h.port().Close()
		l.pass(10*time.Second, nil)
		if n := h.opened(); n < 9 || n > 12 {
			t.Errorf("opened %d times in 10 s", n)
		}
		if problems := h.x.Problems(); len(problems) != 1 || !strings.Contains(problems[0], "the disk is full") {
			t.Errorf("problems %q", problems)
		}
		h.with(func() { h.readErr = nil })
		l.settle()
	})
}

// TestSet: fellows, keys and links come and go.
func TestSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLAN(t, 3)
		l.settle()
		h := l.hosts[0]
		for name, s := range map[string]State{
			"nothing": {},
			"no keys": func() State { s := h.state; s.Keys = announce.HeartbeatKeys{}; return s }(),
			"no link": func() State { s := h.state; s.Links = nil; return s }(),
			"alone":   func() State { s := h.state; s.Fellows = nil; return s }(),
		} {
			h.x.Set(s)
			l.pass(100*time.Millisecond, nil)
			if len(h.x.Adjacencies()) > 0 {
				t.Errorf("%s: adjacencies %v", name, h.x.Adjacencies())
			}
			select {
			case <-h.port().closed:
			default:
				t.Errorf("%s: the socket is open", name)
			}
			h.x.Set(h.state)
			l.settle()
		}
		// One that leaves is not let through any more.
		s := h.state
		s.Fellows = slices.Clone(s.Fellows[:2])
		h.x.Set(s)
		before := h.x.Counters()
		l.pass(time.Second, nil)
		after := h.x.Counters()
		if after.Dropped < before.Dropped+8 || after.Received > before.Received+11 {
			t.Errorf("from %+v to %+v", before, after)
		}
	})
}

// TestConcurrency calls all methods at once, for the race detector.
func TestConcurrency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLAN(t, 3)
		l.settle()
		rotated := l.hosts[0].state
		rotated.Keys = announce.HeartbeatKeys{Current: testKey(1), Previous: testKeys.Current}
		var callers sync.WaitGroup
		for i, h := range l.hosts {
			for _, call := range []func(){
				func() { h.x.Set(h.state) },
				func() { s := rotated; s.Node = nodeName(i); s.Links = h.state.Links; h.x.Set(s) },
				func() { h.x.Decisions() }, func() { h.x.Adjacencies() },
				func() { h.x.Counters() }, func() { h.x.Problems() },
				func() { h.x.Answered(lanLink, nodeAddr(1-min(i, 1)), nodeMAC(1-min(i, 1)), true) },
				func() { _ = h.port().Close() },
			} {
				callers.Go(func() {
					for range 100 {
						call()
						time.Sleep(7 * time.Millisecond)
					}
				})
			}
		}
		callers.Wait()
		for _, h := range l.hosts {
			h.x.Set(h.state)
		}
		l.settle()
	})
}

// TestSuspended: a process that did not run for a while judges nothing before it has
// heard what came in meanwhile, also not by Set.
func TestSuspended(t *testing.T) {
	c := newCore(1)
	l := &lan{}
	now := time.Unix(1_700_000_000, 0)
	c.set(l.state(1, 2), now)
	c.settle(now)
	pass := func(d time.Duration) {
		for end := now.Add(d); now.Before(end); {
			now = now.Add(10 * time.Millisecond)
			c.turn(now)
			c.answered(lanLink, bystander, announce.MAC{2, 9}, true, now)
		}
	}
	c.receive(lanLink, &packet{from: idOf("cluster", "a"), to: c.self, link: segmentOf(netip.PrefixFrom(nodeAddr(0), 24)), life: 1, seq: 1, echoLife: 1}, 0, now)
	pass(300 * time.Millisecond)
	if role := c.entries[virtual].role; role != Standby {
		t.Fatalf("the role is %v", role)
	}
	now = now.Add(5 * time.Second)
	c.answered(lanLink, bystander, announce.MAC{2, 9}, true, now)
	c.set(l.state(1, 2), now)
	c.settle(now)
	if role := c.entries[virtual].role; role == Own {
		t.Error("taken over although nothing could have been heard")
	}
	pass(time.Second)
	if role := c.entries[virtual].role; role != Own {
		t.Errorf("the role is %v although nothing was heard", role)
	}
}

// TestRotationOnLAN: keys change in all orders, and no heartbeat gets lost.
func TestRotationOnLAN(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLAN(t, 3)
		l.settle()
		random := rand.New(rand.NewPCG(1, 2))
		current := testKeys.Current
		for n := range byte(10) {
			keys := announce.HeartbeatKeys{Current: testKey(n), Previous: current}
			current = keys.Current
			for _, i := range random.Perm(len(l.hosts)) {
				h := l.hosts[i]
				h.state.Keys = keys
				h.x.Set(h.state)
				l.pass(time.Duration(random.IntN(300))*time.Millisecond, l.wantWell)
			}
			l.pass(300*time.Millisecond, l.wantWell) // a moment to learn it
		}
		for _, h := range l.hosts {
			if n := h.x.Counters().Rejected[string(rejectKey)]; n > 0 {
				t.Errorf("node %s: %d packets with an unknown key", nodeName(h.index), n)
			}
		}
		// The previous one is taken away, from one after the other.
		for _, h := range l.hosts {
			h.state.Keys.Previous = nil
			h.x.Set(h.state)
			l.pass(500*time.Millisecond, l.wantWell)
		}
	})
}

// TestNewKeyOnly: a node that never had the previous key meets one that still has it,
// and that knows nothing of the node.
func TestNewKeyOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLAN(t, 2, func(h *host) {
			h.state.Keys = announce.HeartbeatKeys{Current: testKey(2)}
			if h.index == 0 {
				h.state.Keys.Previous = testKey(1)
			}
		})
		l.settle()
	})
}

// TestNoKeyInCommon: nodes without a key in common do not hear each other, and say so.
func TestNoKeyInCommon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLAN(t, 2, func(h *host) { h.state.Keys = announce.HeartbeatKeys{Current: testKey(byte(h.index))} })
		l.pass(5*time.Second, nil)
		for _, h := range l.hosts {
			if n := h.x.Counters().Rejected[string(rejectKey)]; n < 40 {
				t.Errorf("%d rejected", n)
			}
		}
		// The kernel of the owner lives: the other one may not be able to hear it.
		if l.hosts[0].role() != Own || l.hosts[1].role() != Standby {
			t.Errorf("roles %v and %v", l.hosts[0].role(), l.hosts[1].role())
		}
	})
}

// TestBigTables: 3,000 addresses of each family without neighbours reach the others
// on a LAN that loses packets.
func TestBigTables(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var addrs []netip.Addr
		for _, c := range append(scattered(3000, true, rank{}), scattered(3000, false, rank{})...) {
			addrs = append(addrs, c.addresses.From())
		}
		l := newLAN(t, 2, func(h *host) { h.state.Groups[0].Addresses = append([]netip.Addr{virtual}, addrs...) })
		random := rand.New(rand.NewPCG(1, 2))
		l.mu.Lock()
		l.fate = func(datagram) []time.Duration {
			if random.IntN(5) == 0 {
				return nil
			}
			return []time.Duration{time.Duration(random.IntN(20)) * time.Millisecond}
		}
		l.mu.Unlock()
		l.after("told", 3*time.Second, func() bool {
			return slices.ContainsFunc(l.hosts[1].x.Adjacencies(), func(a Adjacency) bool { return a.Minded })
		})
		l.hosts[0].powerOff()
		l.pass(time.Second, nil)
		if n := l.hosts[1].x.Counters().Takeovers; n != 6001 {
			t.Errorf("%d addresses were taken over", n)
		}
	})
}

// TestTooManyAddresses: what heartbeats have no room for is told.
func TestTooManyAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var addrs []netip.Addr
		for _, c := range scattered(12_000, false, rank{}) {
			addrs = append(addrs, c.addresses.From())
		}
		l := newLAN(t, 2)
		l.settle()
		h := l.hosts[0]
		s := h.state
		s.Groups = slices.Clone(s.Groups)
		s.Groups[0].Addresses = addrs
		select {
		case <-h.changed:
		default:
		}
		h.x.Set(s)
		h.x.Decisions()
		synctest.Wait()
		problems := h.x.Problems()
		if len(problems) != 1 || !strings.Contains(problems[0], "node b") || !strings.Contains(problems[0], "1035 of 12000") {
			t.Errorf("problems %q", problems)
		}
		select {
		case <-h.changed:
		default:
			t.Error("Changed was not called")
		}
		h.x.Set(h.state)
		synctest.Wait()
		if problems := h.x.Problems(); len(problems) > 0 {
			t.Errorf("problems %q", problems)
		}
	})
}
