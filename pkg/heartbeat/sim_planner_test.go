package heartbeat

import (
	"slices"
	"time"
)

const (
	// notReadyTime is how long Kubernetes waits for a kubelet, patience how long the
	// planner does for a speaker. They are shorter than the real ones, 50 s and 5 s, and
	// longer than what the candidates need.
	notReadyTime = 1200 * time.Millisecond
	patience     = 700 * time.Millisecond
	// writeTime is what a plan and its writes take.
	writeTime = 50 * time.Millisecond
	// handoverPatience is how long a loser keeps its program for a gainer that does not
	// report.
	handoverPatience = time.Second
)

// planner is what pkg/plan and pkg/planner do about one address.
type planner struct {
	program program   // the plan
	planned time.Time // when it was made
	// drained is the node that people want empty, or nobody.
	drained int
	nodes   []nodeObject
	next    time.Time
}

// nodeObject is a Node with its annotations.
type nodeObject struct {
	program program
	report  report
	// silent is since when the kubelet is not heard, away since when it says that the
	// speaker is not running; or zero.
	silent, away time.Time
}

// report is what a speaker reports.
type report struct {
	applied program
	owns    bool
	// claim is that of a takeover.
	claim rank
	hears [len(order{})]bool
	// leaving: it gives its addresses away, or has no interface for them.
	leaving bool
}

func newPlanner(p program, nodes int) planner {
	n := planner{program: p, drained: nobody, nodes: make([]nodeObject, nodes)}
	for i := range n.nodes {
		n.nodes[i].program = p
	}
	return n
}

// plan looks at the cluster, changes the plan if it has to, and writes what is due.
func (w *world) plan() {
	p := &w.planner
	if !w.api || w.rules.groups != nil || !w.stirred && p.next.After(w.now) {
		return
	}
	w.stirred = false
	p.next = w.now.Add(time.Hour)
	for i := range p.nodes {
		w.observe(&p.nodes[i], &w.nodes[i])
	}
	if next := p.decide(w.now); next != p.program {
		p.program, p.planned = next, w.now
	}
	p.write(w.now)
	for i := range p.nodes {
		m := &w.nodes[i]
		if w.online(m) && !m.slow && m.program != p.nodes[i].program {
			m.program = p.nodes[i].program
			w.tell(m)
		}
	}
}

// observe is what kubelet and speaker of the node tell the API server.
func (w *world) observe(n *nodeObject, m *machine) {
	if !m.powered || m.offline {
		if n.silent.IsZero() {
			n.silent = w.now
		}
		return
	}
	n.silent = time.Time{}
	if m.core == nil {
		if n.away.IsZero() {
			n.away = w.now
		}
		return
	}
	n.away = time.Time{}
	if m.stopped.After(w.now) {
		return
	}
	n.report = report{applied: m.program, leaving: m.releasing || m.bare}
	if e := m.core.entries[virtual]; e != nil {
		n.report.owns = e.role == Own
		if n.report.owns && e.best != e.group.program() {
			n.report.claim = e.best.rank
		}
	}
	for _, a := range m.core.adjacencies {
		n.report.hears[a.peer.name[0]-'a'] = m.core.minds(a, a.liveness(w.now))
	}
}

// wake asks for another plan at that time.
func (p *planner) wake(at, now time.Time) {
	if at.After(now) && at.Before(p.next) {
		p.next = at
	}
}

// decide is plan.Compute.
func (p *planner) decide(now time.Time) program {
	var notReady, spare []bool
	mass, absent := 0, 0
	for i := range p.nodes {
		n := &p.nodes[i]
		end := n.silent.Add(notReadyTime)
		if !n.silent.IsZero() {
			p.wake(end, now)
		}
		notReady = append(notReady, !n.silent.IsZero() && !now.Before(end))
		if notReady[i] && i != p.drained {
			mass++
		}
		if !n.away.IsZero() {
			absent++
		}
	}
	forgiven := mass > 1 // more than a third of three, or two of two
	for i := range p.nodes {
		n := &p.nodes[i]
		spare = append(spare, i != p.drained && (!notReady[i] || forgiven) && (n.away.IsZero() || notReady[i]) && !n.report.leaving)
	}
	able := slices.DeleteFunc(p.program.order.nodes(), func(i int) bool { return !spare[i] })
	owner := p.program.owner()
	next := owner
	taker, term := nobody, uint32(0)
	for _, i := range able {
		if c := p.nodes[i].report.claim; c.epoch == p.program.epoch && c.term > term {
			taker, term = i, c.term
		}
	}
	heard := slices.ContainsFunc(able, func(i int) bool { return i != owner && p.nodes[i].report.hears[owner] })
	o := &p.nodes[owner]
	keeps := spare[owner]
	switch {
	case spare[owner], owner == p.drained:
	case o.report.leaving:
		keeps = !slices.Contains(spare, true)
	case notReady[owner] && !forgiven:
		keeps = heard || !slices.Contains(spare, true)
	default: // its speaker is away
		end := o.away.Add(patience)
		if absent == 1 {
			p.wake(end, now)
		}
		keeps = heard || !slices.Contains(spare, true) || absent > 1 || now.Before(end)
	}
	switch {
	case taker != nobody:
		next = taker
	case keeps:
	case len(able) > 0:
		next = able[0]
	case slices.Contains(spare, true):
		next = slices.Index(spare, true)
	}
	return p.program.moved(next, spare)
}

// moved is the program of the next owner, with standbys; those of before stay if
// they can.
func (p program) moved(next int, spare []bool) program {
	var ring []int
	for k := 1; k < len(spare); k++ {
		if i := (next + k) % len(spare); spare[i] {
			ring = append(ring, i)
		}
	}
	if next != p.owner() {
		return program{p.epoch + 1, orderOf(append([]int{next}, ring...)...)}
	}
	standbys := p.order.nodes()[1:]
	if len(standbys) == len(ring) && !slices.ContainsFunc(standbys, func(i int) bool { return !slices.Contains(ring, i) }) {
		return p
	}
	return program{p.epoch, orderOf(append([]int{next}, ring...)...)}
}

// write writes the plan into the Nodes: gainers first, and losers when the gainer
// has reported, or after a while. Who has taken the address over answers already.
func (p *planner) write(now time.Time) {
	if at := p.planned.Add(writeTime); now.Before(at) {
		p.wake(at, now)
		return
	}
	gainer := &p.nodes[p.program.owner()]
	gainer.program = p.program
	answers := gainer.report.claim != rank{} || gainer.report.applied.epoch >= p.program.epoch
	for i := range p.nodes {
		n := &p.nodes[i]
		if loses := n.program.owner() == i && i != p.program.owner(); loses && !answers {
			if at := p.planned.Add(writeTime + handoverPatience); now.Before(at) {
				p.wake(at, now)
				continue
			}
		}
		n.program = p.program
	}
}

// relieves reports whether the i-th node is one that the planner would give the
// address to, and has a reason to.
func (p *planner) relieves(i int) bool {
	n, o := &p.nodes[i], &p.nodes[p.program.owner()]
	return i != p.drained && !n.report.leaving && n.silent.IsZero() &&
		(p.program.owner() == i || p.program.owner() == p.drained || !o.silent.IsZero() || !o.away.IsZero())
}
