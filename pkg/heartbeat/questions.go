package heartbeat

import (
	"net/netip"
	"slices"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

const (
	// maxWitnesses bounds the hosts that are asked on a link at a time.
	maxWitnesses = 8
	// scoutPace is how often more witnesses are looked for.
	scoutPace = time.Second
	// apiPace is how often the API server is asked as a witness.
	apiPace = 50 * time.Millisecond
)

// link is one of the node's own.
type link struct {
	Link
	answered time.Time // when there was a sign of life of a witness
	replied  time.Time // when one answered a question of this node
	replier  netip.Addr
	asked    time.Time // when they were asked last
	scouted  time.Time // when others were looked for
	// heard is the last sign of life of anybody on the link, back when such came again
	// after there had been none for a while.
	heard, back time.Time
	found       []netip.Addr
	// tries are questions to the witnesses in a row since anybody was heard, tried the
	// time of the last.
	tries int
	tried time.Time
	// deaf: nobody on the link answers, though all were asked.
	deaf bool
}

// witnesses are the hosts to ask.
func (l *link) witnesses() []netip.Addr {
	all := slices.Concat(l.Witnesses, l.found)
	return all[:min(len(all), maxWitnesses)]
}

// hear notes a sign of life of anybody.
func (l *link) hear(now time.Time) {
	if now.Sub(l.heard) >= witnessMargin {
		l.back = now
	}
	l.heard, l.tries = now, 0
}

// nextTry is when the witnesses are to be asked if nobody is heard: in time for them to
// be the only ones that answer, for as long as that lasts.
func (l *link) nextTry(up time.Time) time.Time {
	switch {
	case l.tries == 0:
		return latest(up, l.heard).Add(suspicion)
	case l.tries < deadTries:
		return l.tried.Add(tryTime)
	}
	return l.tried.Add(deadPace)
}

// unanswered reports whether they have been asked often enough.
func (l *link) unanswered(now time.Time) bool {
	return l.tries > deadTries || l.tries == deadTries && now.Sub(l.tried) >= answerTime
}

// probe asks the kernels of fellows that are not heard, and witnesses.
func (c *core) probe(now time.Time, out *actions) {
	for _, a := range c.adjacencies {
		if !a.suspect(now) {
			a.tries, a.tried = 0, time.Time{}
			if a.deaf && c.unsettled {
				c.askOthers(a, now, out)
			}
			continue
		}
		if now.Before(c.nextTry(a)) {
			continue
		}
		a.tries, a.tried = min(a.tries+1, deadTries+1), now
		out.asks = append(out.asks, ask{a.link, a.to, a.mac})
		if a.sample.IsValid() {
			out.asks = append(out.asks, ask{a.link, a.sample, a.mac})
		}
		l := c.links[a.link]
		if now.Sub(l.scouted) >= scoutPace {
			l.scouted = now
			out.scouts = append(out.scouts, a.link)
		}
		if now.Sub(a.evidence()) < witnessMargin || l.asked.Equal(now) || a.liveness(now) == Dead && !c.unsettled {
			continue
		}
		c.askWitnesses(a, l.witnesses(), now, out)
	}
	for _, a := range c.adjacencies {
		l := c.links[a.link]
		if now.Before(l.nextTry(c.up[a.link])) {
			continue
		}
		l.tries, l.tried = min(l.tries+1, deadTries+1), now
		hosts := l.witnesses()
		if l.tries == 1 && slices.Contains(hosts, l.replier) {
			hosts = []netip.Addr{l.replier} // this goes on for as long as the fellows are dead
		}
		if !l.asked.Equal(now) {
			c.askWitnesses(a, hosts, now, out)
		}
	}
}

// askWitnesses asks those hosts, and the API server if that is one, against the fellow.
func (c *core) askWitnesses(than *adjacency, hosts []netip.Addr, now time.Time, out *actions) {
	c.links[than.link].asked = now
	for _, host := range hosts {
		out.asks = append(out.asks, ask{link: than.link, host: host})
	}
	if c.apiWitnesses(than) && now.Sub(c.apiAsked) >= apiPace {
		c.apiAsked, out.api = now, true
	}
}

// askOthers asks all but a fellow that hears nobody, lest it is this node that is not
// heard.
func (c *core) askOthers(than *adjacency, now time.Time, out *actions) {
	l := c.links[than.link]
	if now.Sub(l.asked) < tryTime {
		return
	}
	c.askWitnesses(than, l.witnesses(), now, out)
	for _, a := range c.adjacencies {
		if a.link == than.link && a.peer != than.peer {
			out.asks = append(out.asks, ask{a.link, a.to, a.mac})
		}
	}
}

// nextTry is when to ask the fellow's kernel the next time: soon, if it was asked when
// nobody on the link was there.
func (c *core) nextTry(a *adjacency) time.Time {
	if a.tries >= deadTries && a.tried.Before(c.links[a.link].back) {
		return a.tried.Add(tryTime)
	}
	return a.nextTry()
}

// sample is an address that the fellow owns, of the family of its own address.
func (c *core) sample(a *adjacency) netip.Addr {
	for _, e := range c.sorted {
		if e.best.owner == a.peer.id && e.addr.Is4() == a.to.Is4() && slices.Contains(e.group.links, a.link) {
			return e.addr
		}
	}
	return netip.Addr{}
}

// unasked is that a question could not be sent: nothing follows from its answer's
// absence.
func (c *core) unasked(q ask) {
	for _, a := range c.adjacencies {
		if a.link == q.link && a.to == q.host {
			a.tries = max(a.tries-1, 0)
		}
	}
}

// answered is that there is a sign of life of a host on a link: of a fellow's kernel, of
// its speaker, by an address that it owns, or of a witness. Of a fellow only a reply to a
// question of this node counts, for that shows that it hears; but all that comes in shows
// that this node does.
func (c *core) answered(index int, host netip.Addr, mac announce.MAC, reply bool, now time.Time) {
	if l := c.links[index]; l != nil && slices.Contains(l.witnesses(), host) {
		l.answered = now
		if reply {
			l.replied, l.replier = now, host
		}
		l.hear(now)
		c.dirty = c.dirty || c.unsettled
	}
	for _, a := range c.adjacencies {
		if a.link != index || a.mac != mac {
			continue
		}
		if !reply {
			c.links[index].hear(now)
			continue
		}
		before := a.liveness(now)
		switch e := c.entries[host]; {
		case host == a.to:
			c.live(a, now)
			a.answered, a.tries = now, 0
			if before == Dead {
				a.hurried = true
			}
		case e != nil && e.best.owner == a.peer.id:
			c.live(a, now)
			a.served = now
		default:
			continue
		}
		c.dirty = c.dirty || a.liveness(now) != before
		c.links[index].hear(now)
	}
}

// refused is that a fellow's kernel says that nobody listens for heartbeats. Whoever
// can send on the link can say so; all that follows is that the fellow is covered
// until it is heard again.
func (c *core) refused(index int, host netip.Addr, now time.Time) {
	for _, a := range c.adjacencies {
		if a.link == index && a.to == host {
			a.refused = now
		}
	}
}

// apiAnswer is that the API server answered a question that was asked at that
// time.
func (c *core) apiAnswer(asked, now time.Time) {
	c.apiAnswered = latest(c.apiAnswered, asked)
	if l := c.links[c.state.APILink]; l != nil {
		l.hear(now)
	}
	c.dirty = true
}

// found is what hosts there are on a link, besides those that it was told of.
func (c *core) found(index int, hosts []netip.Addr) {
	l := c.links[index]
	if l == nil {
		return
	}
	l.found = slices.DeleteFunc(hosts, func(host netip.Addr) bool {
		return slices.Contains(l.Witnesses, host) || c.entries[host] != nil ||
			slices.ContainsFunc(c.adjacencies, func(a *adjacency) bool { return a.to == host })
	})
}

// listens are the hosts whose answers are wanted, by link.
func (c *core) listens() map[int][]netip.Addr {
	hosts := make(map[int][]netip.Addr)
	for _, a := range c.adjacencies {
		hosts[a.link] = append(hosts[a.link], a.to)
		if a.sample.IsValid() {
			hosts[a.link] = append(hosts[a.link], a.sample)
		}
	}
	for index, all := range hosts {
		all = append(all, c.links[index].witnesses()...)
		slices.SortFunc(all, netip.Addr.Compare)
		hosts[index] = slices.Compact(all)
	}
	return hosts
}

// listen notes on which links nobody is heard, and has fellows told.
func (c *core) listen(now time.Time) {
	for index, l := range c.links {
		deaf := c.isDeaf(index, now)
		if deaf == l.deaf {
			continue
		}
		l.deaf, c.dirty = deaf, true
		for _, a := range c.adjacencies {
			a.hurried = a.hurried || a.link == index
		}
	}
}

// isDeaf reports whether everybody on the link was asked and nobody has answered. The
// fellows that hear of it know that it is only one way that is broken.
func (c *core) isDeaf(index int, now time.Time) (deaf bool) {
	if l := c.links[index]; !l.unanswered(now) || now.Sub(l.heard) < deadTime {
		return false
	}
	for _, a := range c.adjacencies {
		if a.link != index {
			continue
		}
		if deaf = a.liveness(now) == Dead; !deaf {
			return false
		}
	}
	return deaf
}
