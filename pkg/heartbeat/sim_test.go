package heartbeat

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

// step is the resolution of time in the simulated LAN.
const step = 10 * time.Millisecond

// Hosts on the simulated LAN: nodes, and a client that is the witness.
const (
	maxNodes = 3
	client   = maxNodes
	hosts    = maxNodes + 1
)

// virtual is the address that the nodes share.
var virtual = netip.MustParseAddr("192.0.2.100")

// world is a LAN with nodes, whose speakers are cores, and a planner.
type world struct {
	now   time.Time
	nodes []*machine
	// reach[i][j]: frames of i arrive at j.
	reach [hosts][hosts]bool
	api   bool // the API server answers
	lives uint64
	// owner and epoch are what the planner has decided; late are programs that are
	// still to be written.
	owner int
	epoch uint32
	late  []lateWrite
	grace time.Duration
	noCover,
	noWitness bool
	// inspects: the network drops ARP whose sender is not the source of the frame.
	inspects bool
	trace    []string
}

type lateWrite struct {
	at   time.Time
	node int
}

// machine is a node.
type machine struct {
	index   int
	powered bool
	core    *core // nil: its speaker does not run
	program program
	next    time.Time
	// offline: it does not reach the API server.
	offline bool
	// releasing is what the speaker is told.
	releasing bool
}

// program is what the node's annotation and state file say.
type program struct {
	owner int
	epoch uint32
}

func nodeName(i int) string     { return string(rune('a' + i)) }
func nodeAddr(i int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(1 + i)}) }
func nodeMAC(i int) announce.MAC {
	return announce.MAC{2, 0, 0, 0, 0, byte(1 + i)}
}

var testKeys = announce.HeartbeatKeys{Current: []byte("0123456789abcdef0123456789abcdef")}

// newWorld is a LAN of n nodes; the first one owns the address.
func newWorld(n int) *world {
	w := &world{now: time.Unix(1_700_000_000, 0), api: true, grace: 2 * time.Minute}
	for i := range w.reach {
		for j := range w.reach[i] {
			w.reach[i][j] = true
		}
	}
	for i := range n {
		w.nodes = append(w.nodes, &machine{index: i, powered: true})
	}
	for _, m := range w.nodes {
		w.start(m.index)
	}
	return w
}

// start starts the speaker of a node that is on.
func (w *world) start(i int) {
	m := w.nodes[i]
	if !m.powered || m.core != nil {
		return
	}
	w.lives++
	m.core = newCore(w.lives)
	m.next = w.now
	w.tell(m)
}

// restart has the speaker say that it is about to end.
func (w *world) restart(i int) {
	m := w.nodes[i]
	s := m.core.state
	s.Restarting = true
	m.core.set(s, w.now)
	m.next = w.now
}

// kill ends the speaker, and the process that tells others nothing.
func (w *world) kill(i int) { w.nodes[i].core = nil }

func (w *world) powerOff(i int) { w.nodes[i].powered, w.nodes[i].core = false, nil }

func (w *world) powerOn(i int) {
	w.nodes[i].powered = true
	w.start(i)
}

// cut and heal are about both directions between two hosts.
func (w *world) cut(i, j int)  { w.reach[i][j], w.reach[j][i] = false, false }
func (w *world) heal(i, j int) { w.reach[i][j], w.reach[j][i] = true, true }

// isolate cuts a node off from all others, rejoin ends that.
func (w *world) isolate(i int) {
	for j := range hosts {
		w.cut(i, j)
	}
}

func (w *world) rejoin(i int) {
	for j := range hosts {
		w.heal(i, j)
	}
}

// candidates are the owner and the others, in order.
func (w *world) candidates(owner int) []string {
	names := []string{nodeName(owner)}
	for i := range w.nodes {
		if i != owner {
			names = append(names, nodeName(i))
		}
	}
	return names
}

// tell gives the speaker its state.
func (w *world) tell(m *machine) {
	if m.core == nil {
		return
	}
	s := State{Cluster: "cluster", Node: nodeName(m.index), Keys: testKeys, Releasing: m.releasing, Grace: w.grace, NoCover: w.noCover}
	l := Link{Index: 1, Prefixes: []netip.Prefix{netip.PrefixFrom(nodeAddr(m.index), 24)}}
	if !w.noWitness {
		l.Witnesses = []netip.Addr{nodeAddr(client)}
	}
	s.Links = []Link{l}
	for i := range w.nodes {
		s.Fellows = append(s.Fellows, announce.Node{Name: nodeName(i), Links: []announce.Link{
			{MAC: nodeMAC(i), Prefixes: []netip.Prefix{netip.PrefixFrom(nodeAddr(i), 24)}},
		}})
	}
	s.Groups = []Group{{Addresses: []netip.Addr{virtual}, Candidates: w.candidates(m.program.owner), Epoch: m.program.epoch, Links: []int{1}}}
	m.core.set(s, w.now)
	m.next = w.now
}

// online reports whether the node's speaker and the planner reach each other.
func (w *world) online(m *machine) bool { return w.api && !m.offline && m.core != nil }

// move is the planner's: the gainer is told first, the others a second later.
func (w *world) move(owner int) {
	if w.owner == owner {
		return
	}
	w.owner, w.epoch = owner, w.epoch+1
	for i := range w.nodes {
		at := w.now.Add(time.Second)
		if i == owner {
			at = w.now
		}
		w.late = append(w.late, lateWrite{at, i})
	}
}

// plan writes what is due, and makes takeovers official.
func (w *world) plan() {
	if !w.api {
		return
	}
	w.late = slices.DeleteFunc(w.late, func(l lateWrite) bool {
		m := w.nodes[l.node]
		if l.at.After(w.now) {
			return false
		}
		if !w.online(m) {
			return false // when it is back
		}
		m.program = program{w.owner, w.epoch}
		w.tell(m)
		return true
	})
	best, term := -1, uint32(0)
	for _, m := range w.nodes {
		if !w.online(m) {
			continue
		}
		e := m.core.entries[virtual]
		claims := e.role == Own && e.best.owner == m.core.self && e.best != e.group.program() && e.best.epoch == w.epoch
		if claims && e.best.term > term {
			best, term = m.index, e.best.term
		}
	}
	if best >= 0 {
		w.owner, w.epoch = best, w.epoch+1
		w.late = nil
		for i := range w.nodes {
			w.late = append(w.late, lateWrite{w.now.Add(100 * time.Millisecond), i})
		}
	}
}

// run lets time pass, and calls check after each step.
func (w *world) run(d time.Duration, check func()) {
	for end := w.now.Add(d); w.now.Before(end); {
		w.now = w.now.Add(step)
		w.plan()
		for _, m := range w.nodes {
			if m.core != nil && !m.next.After(w.now) {
				w.turn(m)
			}
		}
		if check != nil {
			check()
		}
	}
}

func (w *world) turn(m *machine) {
	out := m.core.turn(w.now)
	m.next = out.next
	if m.next.IsZero() {
		m.next = w.now.Add(time.Hour)
	}
	for _, o := range out.packets {
		to := w.hostAt(o.to)
		if to < 0 || !w.reach[m.index][to] || w.nodes[to].core == nil {
			continue
		}
		w.nodes[to].core.receive(1, &o.packet, 0, w.now)
		w.nodes[to].next = w.now // it has something to think about
	}
	for _, q := range out.asks {
		w.ask(m, q)
	}
	for _, c := range out.checks {
		for _, other := range w.nodes {
			if nodeMAC(other.index) == c.Owner && other.core != nil && w.reach[m.index][other.index] && !w.inspects {
				if other.core.arrived == nil {
					other.core.arrived = make(map[announce.MAC]uint8)
				}
				other.core.arrived[nodeMAC(m.index)]++
			}
		}
	}
	if out.api && w.api && !m.offline {
		m.core.apiAnswer(w.now)
		m.next = w.now
	}
}

func (w *world) hostAt(addr netip.Addr) int {
	for i := range hosts {
		if nodeAddr(i) == addr && (i < len(w.nodes) || i == client) {
			return i
		}
	}
	return -1
}

// ask is a question on the LAN, and its answer.
func (w *world) ask(m *machine, q ask) {
	host := w.hostAt(q.host)
	if host == client {
		if w.reach[m.index][client] && w.reach[client][m.index] {
			m.core.answered(1, q.host, announce.MAC{2, 9}, w.now)
		}
		return
	}
	for _, other := range w.nodes {
		if nodeMAC(other.index) != q.mac || !other.powered || !w.reach[m.index][other.index] || !w.reach[other.index][m.index] {
			continue
		}
		if other.index == host || q.host == virtual && w.role(other.index) == Own {
			m.core.answered(1, q.host, q.mac, w.now)
		}
	}
	m.next = w.now
}

// role is what the node does about the address.
func (w *world) role(i int) Role {
	m := w.nodes[i]
	if m.core == nil {
		return Undecided
	}
	return m.core.entries[virtual].role
}

// owners are the nodes that answer for the address with their own MAC.
func (w *world) owners() (owners []int) {
	for i := range w.nodes {
		if w.role(i) == Own {
			owners = append(owners, i)
		}
	}
	return owners
}

// served reports whether the client finds a living node behind the address.
func (w *world) served() bool {
	both := func(i int) bool { return w.reach[i][client] && w.reach[client][i] }
	for i, m := range w.nodes {
		switch w.role(i) {
		case Own:
			if both(i) {
				return true
			}
		case Cover:
			owner := slices.IndexFunc(w.nodes, func(o *machine) bool { return m.core.entries[virtual].best.owner == idOf("cluster", nodeName(o.index)) })
			if both(i) && both(owner) && w.nodes[owner].powered {
				return true
			}
		}
	}
	return false
}

func (w *world) String() string {
	var b strings.Builder
	for i, m := range w.nodes {
		fmt.Fprintf(&b, "%s ", nodeName(i))
		switch {
		case !m.powered:
			b.WriteString("off")
		case m.core == nil:
			b.WriteString("no speaker")
		default:
			e := m.core.entries[virtual]
			owner := "?"
			for j := range w.nodes {
				if e.best.owner == idOf("cluster", nodeName(j)) {
					owner = nodeName(j)
				}
			}
			fmt.Fprintf(&b, "%v (owner %s %d.%d; program %s %d)", e.role, owner, e.best.epoch, e.best.term, nodeName(m.program.owner), m.program.epoch)
			for _, a := range m.core.status(w.now) {
				fmt.Fprintf(&b, " %s:%v", a.Node, a.Liveness)
			}
		}
		b.WriteString("; ")
	}
	fmt.Fprintf(&b, "planner %s %d", nodeName(w.owner), w.epoch)
	return b.String()
}
