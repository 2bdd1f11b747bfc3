package heartbeat

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// decisions are what to do about each address, now.
func (c *core) decisions(now time.Time) map[netip.Addr]Decision {
	c.changed = false
	out := make(map[netip.Addr]Decision, len(c.sorted))
	for _, e := range c.sorted {
		d := Decision{Role: e.role, Epoch: e.best.epoch, Term: e.best.term, Round: e.round}
		switch p := c.peers[e.best.owner]; {
		case e.best.owner == c.self:
			d.Owner = c.state.Node
			d.Claimed = e.best != e.group.program()
			d.Agreed = c.agreed(e, now)
			d.Deaf = e.deaf
		case p != nil:
			d.Owner = p.name
		}
		out[e.addr] = d
	}
	return out
}

// agreed reports whether all other candidates have told what they own.
func (c *core) agreed(e *entry, now time.Time) bool {
	return !slices.ContainsFunc(e.group.candidates, func(candidate id) bool {
		if candidate == c.self {
			return false
		}
		p := c.peers[candidate]
		return p == nil || c.liveness(p, e.group, now) != Up || !p.synced()
	})
}

// status is what is known of each fellow on each link, by name.
func (c *core) status(now time.Time) []Adjacency {
	out := make([]Adjacency, 0, len(c.adjacencies))
	for _, a := range c.adjacencies {
		l := a.liveness(now)
		out = append(out, Adjacency{
			Node: a.peer.name, Link: a.link, Interface: c.links[a.link].Name, MAC: a.mac, Liveness: l,
			Minded: c.minds(a, l),
		})
	}
	return out
}

// minds reports whether the fellow lives, and this node is to replace it when it does
// not any more: the two hear each other, or, where the fellow's speaker is silent, this
// node has heard it own what it owns. One that hears nobody may be deaf to clients,
// too: the planner is not to rely on it.
func (c *core) minds(a *adjacency, l Liveness) bool {
	if l == Up {
		return c.recent(a.had)
	}
	return l >= Unheard && !slices.ContainsFunc(c.sorted, func(e *entry) bool { return e.best.owner == a.peer.id && e.seen != a.peer.id })
}

// problems say which fellows cannot be told all that this node knows, and on which
// interfaces no cover works.
func (c *core) problems() []string {
	problems := c.inspectionProblems()
	for _, p := range c.peers {
		if p.untold > 0 {
			problems = append(problems, fmt.Sprintf(
				"node %s: heartbeats have no room for %d of %d ranges of addresses; it takes these over only when the API server says so: let nodes that stand by for each other share fewer addresses",
				p.name, p.untold, len(p.table)))
		}
	}
	slices.Sort(problems)
	return problems
}
