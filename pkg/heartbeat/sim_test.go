package heartbeat

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

// virtual is the address that the nodes share.
var virtual = netip.MustParseAddr("192.0.2.100")

// world is a LAN with nodes, whose speakers are cores, a client, which is the
// witness, and a planner. It jumps from one moment at which something is due to the
// next one, and is deterministic.
type world struct {
	now   time.Time
	nodes []machine
	// reach says whose frames arrive where: that of i at j is i*hosts+j. The client is
	// the last host.
	reach   []bool
	healed  time.Time // when that grew last
	frames  []frame   // under way
	api     bool      // the API server answers
	planner planner
	stirred bool // the planner may have something to do
	lives   uint64
	sent    int // frames so far
	asked   int // questions so far

	rules *rules
	trace []string
}

// rules are what does not change while a world goes on.
type rules struct {
	// grid is the resolution of time.
	grid  time.Duration
	grace time.Duration
	// loss: one of so many frames is lost. 0: none is.
	loss int
	noCover, noWitness, noAPI,
	// apiLink: the API server is reached by the interface that announces.
	apiLink,
	// inspects: the network drops ARP whose sender is not the source of the frame.
	inspects,
	// noRefusal: kernels do not say that nobody listens.
	noRefusal bool
	// slowClient: the client takes a moment to answer.
	slowClient bool
	// second: all nodes have a second interface, on which the address is announced, too.
	second bool
	// groups are those of a node; nil: all share one address, as the program says.
	groups func(node int) []Group
}

// machine is a node.
type machine struct {
	index   int
	powered bool
	// host is its interface, known what the others' programs say of it; severed: its
	// second one has no cable.
	host, known station
	severed     bool
	core        *core // nil: its speaker does not run
	program     program
	next        time.Time // when its speaker has something to do
	// taken is of whom its process took the address, claims how often it has.
	taken  int
	claims uint64
	// stopped: its process does not run until then; began is since when it runs.
	stopped, began time.Time
	// offline: it does not reach the API server; slow: its speaker does not hear of
	// new programs; releasing: it is told to give its addresses away; unfit: it has nobody to
	// serve the address with, unsure: that it has is not certain; keyless: it has no key; mute: its heartbeats are filtered, and so are those of others at it;
	// bare: its link has no carrier.
	// kept is since when it is not.
	kept                                                         time.Time
	offline, slow, releasing, unfit, unsure, keyless, mute, bare bool
}

// frame is something that is under way to a node.
type frame struct {
	at   time.Time
	to   int
	link int
	kind frameKind
	// host is the address that it is about, mac who has it.
	host netip.Addr
	mac  announce.MAC
	// unasked: it is a sign of life, and no reply.
	unasked bool
	packet  *packet
	asked   time.Time
}

type frameKind int

const (
	heartbeat frameKind = iota
	answerOf            // of a host, to a question
	refusalOf           // of a kernel, of a heartbeat
	answerOfAPI
)

// program is what the annotation and the state file of a node say of the address.
type program struct {
	epoch uint32
	order order
}

// order are the candidates; it ends at the first that is nobody.
type order [3]int8

const nobody = -1

func orderOf(nodes ...int) order {
	o := order{nobody, nobody, nobody}
	for at, i := range nodes[:min(len(nodes), len(o))] {
		o[at] = int8(i)
	}
	return o
}

func (o order) nodes() (all []int) {
	for _, i := range o {
		if i == nobody {
			break
		}
		all = append(all, int(i))
	}
	return all
}

func (o order) has(node int) bool { return slices.Contains(o[:], int8(node)) }

func (p program) owner() int { return int(p.order[0]) }

func nodeName(i int) string     { return string(rune('a' + i)) }
func nodeID(i int) id           { return nodeIDs[i] }
func nodeAddr(i int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(1 + i)}) }
func nodeMAC(i int) announce.MAC {
	return announce.MAC{2, 0, 0, 0, 0, byte(1 + i)}
}

// on is the node's interface on the link: the second one never changes.
func (s station) on(link, node int) station {
	if link == 1 {
		return s
	}
	return station{netip.AddrFrom4([4]byte{198, 51, 100, byte(1 + node)}), announce.MAC{2, 0, 0, 0, 1, byte(1 + node)}}
}

var nodeIDs = func() (ids [16]id) {
	for i := range ids {
		ids[i] = idOf("cluster", nodeName(i))
	}
	return ids
}()

var testKeys = announce.HeartbeatKeys{Current: []byte("0123456789abcdef0123456789abcdef")}

// newWorld is a LAN of n nodes; the first one owns the address.
func newWorld(n int, change ...func(*rules)) *world {
	r := &rules{grid: 10 * time.Millisecond, grace: 2 * time.Minute}
	for _, f := range change {
		f(r)
	}
	w := &world{now: time.Unix(1_700_000_000, 0), api: true, rules: r, nodes: make([]machine, n)}
	w.reach = slices.Repeat([]bool{true}, (n+1)*(n+1))
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	w.planner = newPlanner(program{order: orderOf(all...)}, n)
	for i := range w.nodes {
		host := station{nodeAddr(i), nodeMAC(i)}
		w.nodes[i] = machine{index: i, powered: true, program: w.planner.program, host: host, known: host}
	}
	for i := range w.nodes {
		w.start(i)
		w.run(30*time.Millisecond, nil) // so that their intervals are not the same
	}
	return w
}

func (w *world) client() int { return len(w.nodes) }

// reaches reports whether frames of i arrive at j; meets whether they do both ways.
func (w *world) reaches(i, j int) bool { return w.reach[i*(len(w.nodes)+1)+j] }
func (w *world) meets(i, j int) bool   { return w.reaches(i, j) && w.reaches(j, i) }

// cut and heal are about frames of i to j, separate and join about both ways.
func (w *world) cut(i, j int)      { w.reach[i*(len(w.nodes)+1)+j] = false }
func (w *world) heal(i, j int)     { w.reach[i*(len(w.nodes)+1)+j], w.healed = true, w.now }
func (w *world) separate(i, j int) { w.cut(i, j); w.cut(j, i) }
func (w *world) join(i, j int)     { w.heal(i, j); w.heal(j, i) }

// isolate cuts a node off from all others, rejoin ends that.
func (w *world) isolate(i int) {
	for j := range w.client() + 1 {
		w.separate(i, j)
	}
}

// deafen has nothing arrive at a node that others send.
func (w *world) deafen(i int) {
	for j := range w.client() + 1 {
		w.cut(j, i)
	}
}

func (w *world) rejoin(i int) {
	for j := range w.client() + 1 {
		w.join(i, j)
	}
}

// start starts the speaker of a node that is on.
func (w *world) start(i int) {
	m := &w.nodes[i]
	if !m.powered || m.core != nil {
		return
	}
	w.lives++
	m.core, m.began, m.claims = newCore(w.lives), w.now, 0
	w.tell(m)
}

// restart has the speaker say that it is about to end.
func (w *world) restart(i int) {
	m := &w.nodes[i]
	s := m.core.state
	s.Restarting = true
	m.core.set(s, w.now)
	m.next = w.now
}

// kill ends the speaker, which tells nobody.
func (w *world) kill(i int) {
	m := &w.nodes[i]
	m.core, m.stopped = nil, time.Time{}
	w.frames = slices.DeleteFunc(slices.Clone(w.frames), func(f frame) bool { return f.to == i })
}

func (w *world) powerOff(i int) {
	w.kill(i)
	w.nodes[i].powered = false
}

func (w *world) powerOn(i int) {
	w.nodes[i].powered, w.healed = true, w.now
	w.start(i)
}

// stop has the process not run for a while. What comes in waits for it.
func (w *world) stop(i int, d time.Duration) {
	m := &w.nodes[i]
	m.stopped = w.now.Add(d)
	m.began = m.stopped
}

// steady reports whether the node's process has run for a while.
func (w *world) steady(i int) bool {
	m := &w.nodes[i]
	return m.core != nil && w.now.Sub(m.began) > 400*time.Millisecond
}

// change changes a node, and tells its speaker.
func (w *world) change(i int, f func(m *machine)) {
	f(&w.nodes[i])
	w.tell(&w.nodes[i])
}

// tell gives the speaker its state.
func (w *world) tell(m *machine) {
	if m.core == nil {
		return
	}
	s := State{Cluster: "cluster", Node: nodeName(m.index), Releasing: m.releasing, Grace: w.rules.grace, NoCover: w.rules.noCover}
	if !m.keyless {
		s.Keys = testKeys
	}
	if w.rules.apiLink {
		s.APILink = 1
	}
	links := []int{1}
	switch {
	case w.rules.second:
		links = append(links, 2)
	case m.bare:
		links = nil
	}
	for _, index := range links {
		l := Link{Index: index, Prefixes: []netip.Prefix{netip.PrefixFrom(m.host.on(index, m.index).addr, 24)}}
		if index == 1 && !w.rules.noWitness {
			l.Witnesses = []netip.Addr{nodeAddr(w.client())}
		}
		s.Links = append(s.Links, l)
	}
	for i := range w.nodes {
		n := announce.Node{Name: nodeName(i)}
		for index := 1; index <= 2; index++ {
			at := w.nodes[i].known.on(index, i)
			n.Links = append(n.Links, announce.Link{MAC: at.mac, Prefixes: []netip.Prefix{netip.PrefixFrom(at.addr, 24)}})
		}
		s.Fellows = append(s.Fellows, n)
	}
	switch {
	case w.rules.groups != nil:
		s.Groups = w.rules.groups(m.index)
	case m.program.order.has(m.index):
		g := Group{Addresses: []netip.Addr{virtual}, Epoch: m.program.epoch, Links: links, Unfit: m.unfit, Unsure: m.unsure}
		for _, i := range m.program.order.nodes() {
			g.Candidates = append(g.Candidates, nodeName(i))
		}
		s.Groups = []Group{g}
	}
	m.core.set(s, w.now)
	m.core.settle(w.now)
	m.next = w.now
}

// online reports whether the node's speaker and the API server reach each other.
func (w *world) online(m *machine) bool {
	return w.api && !m.offline && m.core != nil && !m.stopped.After(w.now)
}

// run lets time pass. check is told for how long things stay as they are.
func (w *world) run(d time.Duration, check func(time.Duration)) {
	w.stirred = true
	for end := w.now.Add(d); w.now.Before(end); {
		w.settle()
		next := w.due()
		if next.After(end) {
			next = end
		}
		if check != nil {
			check(next.Sub(w.now))
		}
		w.now = next
	}
}

// settle does all that is due.
func (w *world) settle() {
	w.plan()
	for again := true; again; {
		again = w.deliver()
		for i := range w.nodes {
			m := &w.nodes[i]
			if m.core != nil && !m.next.After(w.now) && !m.stopped.After(w.now) {
				w.turn(m)
				again = true
			}
		}
	}
	w.plan()
}

// due is when the next thing is.
func (w *world) due() time.Time {
	next := w.now.Add(time.Hour)
	sooner := func(at time.Time) {
		if at.Before(next) {
			next = at
		}
	}
	for i := range w.nodes {
		if m := &w.nodes[i]; m.core != nil {
			sooner(latest(m.next, m.stopped))
		}
	}
	for i := range w.frames {
		sooner(w.frames[i].at)
	}
	if at := w.planner.next; w.api && at.After(w.now) {
		sooner(at)
	}
	return w.now.Add(max(next.Sub(w.now)+w.rules.grid-1, w.rules.grid) / w.rules.grid * w.rules.grid)
}

// deliver hands over the frames that have arrived. A process that was stopped looks
// at the time first, and then at what has come in.
func (w *world) deliver() (any bool) {
	for i := 0; i < len(w.frames); i++ {
		f := w.frames[i]
		if f.at.After(w.now) {
			continue
		}
		m := &w.nodes[f.to]
		w.frames = slices.Concat(w.frames[:i], w.frames[i+1:])
		i--
		if m.stopped.After(w.now) {
			f.at = m.stopped.Add(w.rules.grid)
			w.frames = append(w.frames, f)
			continue
		}
		w.hand(m, &f)
		any = true
	}
	return any
}

func (w *world) hand(m *machine, f *frame) {
	if m.core == nil {
		return
	}
	switch f.kind {
	case heartbeat:
		m.core.receive(f.link, f.packet, 0, w.now)
	case answerOf:
		m.core.answered(f.link, f.host, f.mac, !f.unasked, w.now)
	case refusalOf:
		m.core.refused(f.link, f.host, w.now)
	case answerOfAPI:
		m.core.apiAnswer(f.asked, w.now)
	}
	// There would be a turn after each frame; those that do nothing are left out.
	if c := m.core; c.dirty || c.untold || slices.ContainsFunc(c.adjacencies, func(a *adjacency) bool { return a.hurried }) {
		m.next = w.now
	}
}

// send sends a frame that is there after so long, or is lost.
func (w *world) send(f frame, after time.Duration) {
	if w.sent++; w.rules.loss > 0 && f.kind != answerOfAPI && scramble(w.sent)%w.rules.loss == 0 {
		return
	}
	f.at = w.now.Add(after)
	if m := &w.nodes[f.to]; after == 0 && !m.stopped.After(w.now) {
		w.hand(m, &f)
		return
	}
	w.frames = append(slices.Clip(w.frames), f)
}

// scramble makes something without a pattern of a number.
func scramble(i int) int {
	x := uint64(i) * 0x9e3779b97f4a7c15
	x = (x ^ x>>32) * 0xd6e8feb86659fd93
	return int((x ^ x>>32) >> 33)
}

func (w *world) turn(m *machine) {
	owner := nobody
	if w.entry(m.index) != nil {
		owner = w.ownerAt(m.index)
	}
	out := m.core.turn(w.now)
	if m.core.takeovers > m.claims {
		m.claims, m.taken = m.core.takeovers, owner
	}
	w.stirred = w.stirred || m.core.news || m.core.changed || !m.stopped.IsZero()
	m.core.news, m.core.changed, m.stopped = false, false, time.Time{}
	m.next = out.next
	if m.next.IsZero() {
		m.next = w.now.Add(time.Hour)
	}
	for i := range out.packets {
		w.beat(m, &out.packets[i])
	}
	for _, q := range out.asks {
		w.ask(m, q)
	}
	for _, c := range out.checks {
		w.check(m, c)
	}
	if out.api && w.api && !m.offline {
		w.send(frame{to: m.index, kind: answerOfAPI, asked: w.now}, 2*w.rules.grid)
	}
}

// beat is a heartbeat on its way.
func (w *world) beat(m *machine, o *outgoing) {
	to := w.hostAt(o.link, o.to)
	if to < 0 || to == w.client() || !w.passes(o.link, m.index, to) || m.bare {
		return
	}
	switch other := &w.nodes[to]; {
	case !other.powered || other.bare || other.mute || m.mute:
	case other.core != nil:
		w.send(frame{to: to, link: o.link, kind: heartbeat, packet: &o.packet}, 0)
	case w.passes(o.link, to, m.index) && !w.rules.noRefusal:
		w.send(frame{to: m.index, link: o.link, kind: refusalOf, host: o.to}, w.rules.grid)
	}
}

// passes reports whether frames of i arrive at j on the link.
func (w *world) passes(link, i, j int) bool {
	if link == 2 {
		return !w.nodes[i].severed && !w.nodes[j].severed
	}
	return w.reaches(i, j)
}

func (w *world) hostAt(link int, addr netip.Addr) int {
	if addr == nodeAddr(w.client()) {
		return w.client()
	}
	for i := range w.nodes {
		if w.nodes[i].host.on(link, i).addr == addr {
			return i
		}
	}
	return -1
}

// ask is a question on the LAN. The client's answer is there before those of the
// nodes.
func (w *world) ask(m *machine, q ask) {
	w.asked++
	if m.bare {
		return
	}
	host := w.hostAt(q.link, q.host)
	if q.mac == (announce.MAC{}) { // to all
		for i := range w.nodes {
			if i != m.index && w.nodes[i].core != nil && !w.nodes[i].bare && w.passes(q.link, m.index, i) {
				at := m.host.on(q.link, m.index)
				w.send(frame{to: i, link: q.link, kind: answerOf, host: at.addr, mac: at.mac, unasked: true}, w.rules.grid)
			}
		}
	}
	if host == w.client() {
		if w.meets(m.index, host) {
			after := time.Duration(0)
			if w.rules.slowClient {
				after = w.rules.grid
			}
			w.send(frame{to: m.index, link: q.link, kind: answerOf, host: q.host, mac: nodeMAC(host)}, after)
		}
		return
	}
	for i := range w.nodes {
		other := &w.nodes[i]
		if other.host.on(q.link, i).mac != q.mac || !other.powered || other.bare || !w.passes(q.link, m.index, i) || !w.passes(q.link, i, m.index) {
			continue
		}
		if i == host || q.host == virtual && w.role(i) == Own {
			w.send(frame{to: m.index, link: q.link, kind: answerOf, host: q.host, mac: q.mac}, w.rules.grid)
		}
	}
}

// check is an answer in the place of a fellow, to that fellow.
func (w *world) check(m *machine, c Check) {
	for i := range w.nodes {
		if other := w.nodes[i].core; w.nodes[i].host.mac == c.Owner && other != nil && w.reaches(m.index, i) && !w.rules.inspects {
			if other.arrived == nil {
				other.arrived = make(map[announce.MAC]uint8)
			}
			other.arrived[nodeMAC(m.index)]++
		}
	}
}

// entry is what the node knows of the address; nil if it is no candidate.
func (w *world) entry(i int) *entry {
	if c := w.nodes[i].core; c != nil {
		return c.entries[virtual]
	}
	return nil
}

// role is what the node does about the address.
func (w *world) role(i int) Role {
	if e := w.entry(i); e != nil && !w.nodes[i].stopped.After(w.now) {
		return e.role
	}
	return Undecided
}

// ownerAt is who owns the address as far as the node knows.
func (w *world) ownerAt(i int) int {
	return slices.Index(nodeIDs[:], w.entry(i).best.owner)
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
	for i := range w.nodes {
		if !w.meets(i, w.client()) {
			continue
		}
		switch w.role(i) {
		case Own:
			return true
		case Cover:
			if owner := w.ownerAt(i); w.meets(owner, w.client()) && w.nodes[owner].powered && !w.nodes[owner].bare {
				return true
			}
		}
	}
	return false
}

func (w *world) String() string {
	var b strings.Builder
	for i := range w.nodes {
		m := &w.nodes[i]
		fmt.Fprintf(&b, "%s ", nodeName(i))
		switch e := w.entry(i); {
		case !m.powered:
			b.WriteString("off")
		case m.core == nil:
			b.WriteString("no speaker")
		case e == nil:
			b.WriteString("no candidate")
		default:
			fmt.Fprintf(&b, "%v (owner %s %d.%d; program %v)", e.role, nodeName(w.ownerAt(i)), e.best.epoch, e.best.term, m.program)
			for _, a := range m.core.status(w.now) {
				fmt.Fprintf(&b, " %s:%v", a.Node, a.Liveness)
			}
		}
		b.WriteString("; ")
	}
	fmt.Fprintf(&b, "planner %v", w.planner.program)
	return b.String()
}

func (p program) String() string {
	if p.order[0] == nobody {
		return "none"
	}
	var names []string
	for _, i := range p.order.nodes() {
		names = append(names, nodeName(i))
	}
	return fmt.Sprintf("%d:%s", p.epoch, strings.Join(names, ""))
}
