package heartbeat

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

// BenchmarkReceive is the way of a packet from the buffer into the core.
func BenchmarkReceive(b *testing.B) {
	ring := newKeyring(testKeys)
	for name, table := range map[string][]claimed{"heartbeat": nil, "full": scattered(108, true, rank{})} {
		b.Run(name, func(b *testing.B) {
			w := newWorld(3)
			w.run(time.Second, nil)
			c := w.nodes[0].core
			a := c.adjacencies[0]
			m := packet{
				from: a.peer.id, to: c.self, link: a.segment, life: a.peer.life, echoLife: c.life, echoSeq: c.seq,
				table: a.peer.known, ack: a.peer.version, views: []view{{of: c.adjacencies[1].peer.id, link: a.segment}}, claims: table,
			}
			if table != nil {
				m.chunks = 1
			}
			m.seq = a.peer.seq
			var buffer []byte
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				m.seq++
				buffer = ring.sign(m.append(buffer[:0]), 0)
				b.StartTimer()
				got, newest, why := authenticate(&ring, buffer, hops)
				if why == accepted {
					why = c.receive(1, &got, newest, w.now)
				}
				if why != accepted {
					b.Fatal(why)
				}
			}
		})
	}
	b.Run("forged", func(b *testing.B) {
		forgery := forged(testKeys)
		forgery[len(forgery)-1]++
		b.ReportAllocs()
		for b.Loop() {
			if _, _, why := authenticate(&ring, forgery, hops); why != rejectSignature {
				b.Fatal(why)
			}
		}
	})
}

// BenchmarkSend is the way of a packet from the core to the socket.
func BenchmarkSend(b *testing.B) {
	ring := newKeyring(testKeys)
	w := newWorld(3)
	w.run(time.Second, nil)
	c := w.nodes[0].core
	now := w.now
	var buffer []byte
	sent := 0
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(interval)
		var out actions
		c.send(now, &out)
		for _, o := range out.packets {
			buffer = ring.sign(o.packet.append(buffer[:0]), o.newest)
			sent++
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(sent), "ns/packet")
}

// crowd is a node with so many fellows and addresses. Each is owned by one of them, in
// turn, and the node is the only other candidate.
func crowd(fellows, addresses int) State {
	prefix := netip.MustParsePrefix("10.0.0.1/8")
	s := State{Cluster: "cluster", Node: "self", Keys: testKeys, Grace: time.Minute}
	s.Links = []Link{{Index: 1, Name: "eth0", Prefixes: []netip.Prefix{prefix}, Witnesses: []netip.Addr{netip.MustParseAddr("10.255.0.1")}}}
	all := scattered(addresses, true, rank{})
	for i := range fellows {
		name := fmt.Sprintf("fellow%d", i)
		s.Fellows = append(s.Fellows, announce.Node{Name: name, Links: []announce.Link{
			{Name: "eth0", MAC: nodeMAC(i), Prefixes: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 255, 1, byte(i)}), 8)}},
		}})
		g := Group{Candidates: []string{name, "self"}, Epoch: 1, Links: []int{1}}
		for n := i; n < addresses; n += fellows {
			g.Addresses = append(g.Addresses, all[n].addresses.From())
		}
		s.Groups = append(s.Groups, g)
	}
	return s
}

// bystanders are the fellows of a core: they say that they live, and one after the other
// what they own.
type bystanders struct {
	ring   keyring
	seq    uint64
	buffer []byte
}

// speak lets each say so, at now.
func (f *bystanders) speak(t testing.TB, c *core, now time.Time) {
	for _, a := range c.adjacencies {
		f.seq++
		m := packet{
			from: a.peer.id, to: c.self, link: a.segment, life: 1, seq: f.seq, echoLife: c.life, echoSeq: max(c.seq, 1),
			table: 1, ack: a.peer.version,
		}
		chunks := [][]claimed{nil}
		if a.peer.known == 0 {
			chunks, _ = chunksOf(owned(c, a.peer))
			m.chunks = uint8(len(chunks))
		}
		for i, chunk := range chunks {
			m.claims, m.seq = chunk, f.seq
			if m.chunks > 0 {
				m.chunk = uint8(i)
			}
			f.seq++
			f.buffer = f.ring.sign(m.append(f.buffer[:0]), 0)
			got, newest, why := authenticate(&f.ring, f.buffer, hops)
			if why == accepted {
				why = c.receive(1, &got, newest, now)
			}
			if why != accepted {
				t.Fatal(why)
			}
		}
	}
}

// owned is what a fellow owns by the program.
func owned(c *core, p *peer) (table []claimed) {
	for _, e := range c.sorted {
		if e.group.program().owner == p.id {
			table = append(table, claimed{owner: p.id, rank: e.group.program().rank, addresses: announce.Single(e.addr)})
		}
	}
	return table
}

// BenchmarkRest is a second of a node with 6 fellows, without the calls of the kernel.
func BenchmarkRest(b *testing.B) {
	for _, addresses := range []int{100, 10_000} {
		b.Run(fmt.Sprint(addresses), func(b *testing.B) {
			now := time.Unix(1_700_000_000, 0)
			c := newCore(7)
			c.set(crowd(6, addresses), now)
			c.turn(now)
			others := bystanders{ring: newKeyring(testKeys)}
			ring, turns := newKeyring(testKeys), 0
			var buffer []byte
			second := func() {
				end := now.Add(time.Second)
				for now.Before(end) {
					others.speak(b, c, now)
					for next := now.Add(interval); now.Before(next); turns++ {
						out := c.turn(now)
						for _, o := range out.packets {
							buffer = ring.sign(o.packet.append(buffer[:0]), o.newest)
						}
						now = out.next
					}
				}
			}
			second()
			turns = 0
			b.ReportAllocs()
			for b.Loop() {
				second()
			}
			b.ReportMetric(float64(turns)/float64(b.N), "turns/op")
		})
	}
}

// BenchmarkTakeover is the time from the last question that nobody has answered until
// there is something to tell, by addresses of the fellow that is gone. No other time
// is in it than that of the decision.
func BenchmarkTakeover(b *testing.B) {
	for _, addresses := range []int{100, 10_000} {
		b.Run(fmt.Sprint(addresses), func(b *testing.B) {
			s := crowd(1, addresses)
			_, moment := dying(b, s, time.Time{})
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				c, _ := dying(b, s, moment)
				b.StartTimer()
				c.turn(moment)
				c.status(moment)
				c.listens()
				decisions := c.decisions(moment)
				if c.takeovers != uint64(addresses) || len(decisions) != addresses {
					b.Fatalf("%d takeovers of %d", c.takeovers, addresses)
				}
			}
		})
	}
}

// dying is a core whose fellow has gone, just before the moment; without a moment,
// just after it has taken over, and when that was.
func dying(b *testing.B, s State, moment time.Time) (*core, time.Time) {
	now := time.Unix(1_700_000_000, 0)
	c := newCore(7)
	c.set(s, now)
	c.settle(now)
	c.turn(now)
	(&bystanders{ring: newKeyring(testKeys)}).speak(b, c, now)
	for {
		if now = now.Add(time.Millisecond); now.Equal(moment) {
			return c, now
		}
		if c.turn(now); c.takeovers > 0 {
			return c, now
		}
		c.answered(1, s.Links[0].Witnesses[0], announce.MAC{2, 9}, true, now)
	}
}
