package heartbeat

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

// Networks that inspect ARP or NDP drop answers whose sender is not the source of
// the frame, as those are by which a node covers for another one. Each fellow is
// sent one such answer, about an address that it owns, and tells in its heartbeats
// how many of them have arrived.
const (
	// checkWait is how long one may take, and when the first is sent.
	checkWait = time.Second
	// checkTries have to fail in a row before the network is believed to drop them.
	checkTries = 3
	// checkPace is how often it is tried again then, and checkRest when it works.
	checkPace = time.Minute
	checkRest = 10 * time.Minute
)

// inspection is what is known of the way to a fellow.
type inspection struct {
	seen    uint8 // the fellow's count when the last check was sent
	sent    time.Time
	tries   int // without success
	passed  bool
	blocked bool
}

// Check is an answer in place of a fellow, to that fellow itself.
type Check struct {
	Link    int
	Address netip.Addr
	Owner   announce.MAC
}

// inspect says which checks are to be sent.
func (c *core) inspect(now time.Time, out *actions) {
	for _, a := range c.adjacencies {
		i := &a.inspection
		if c.state.NoCover || !a.sample.IsValid() || a.liveness(now) != Up {
			i.sent = time.Time{} // it would prove nothing
			continue
		}
		switch {
		case i.sent.IsZero():
			i.sent, i.seen = now, a.checked // the first one goes out with the next turn that is due
			continue
		case a.checked != i.seen:
			i.seen, i.tries = a.checked, 0
			if i.blocked || !i.passed {
				i.passed, i.blocked = true, false
				c.dirty, c.news = true, true
			}
			continue
		case now.Sub(i.sent) < i.pace():
			continue
		}
		if i.tries++; i.tries > checkTries && !i.blocked {
			i.passed, i.blocked = false, true
			c.dirty, c.news = true, true
		}
		i.sent, i.seen = now, a.checked
		out.checks = append(out.checks, Check{a.link, a.sample, a.mac})
	}
}

// unchecked is that a check could not be sent.
func (c *core) unchecked(check Check) {
	for _, a := range c.adjacencies {
		if a.link == check.Link && a.mac == check.Owner {
			a.inspection.tries = max(a.inspection.tries-1, 0)
		}
	}
}

func (i *inspection) pace() time.Duration {
	switch {
	case i.passed && i.tries == 0:
		return checkRest
	case i.blocked:
		return checkPace
	}
	return checkWait
}

// inspected are the names of the fellows that cannot be covered, by link.
func (c *core) inspected() map[string][]string {
	var out map[string][]string
	for _, a := range c.adjacencies {
		if l := c.links[a.link]; a.inspection.blocked && l != nil {
			if out == nil {
				out = make(map[string][]string)
			}
			out[l.Name] = append(out[l.Name], a.peer.name)
		}
	}
	return out
}

// inspectionProblems say on which interfaces no cover works.
func (c *core) inspectionProblems() []string {
	var out []string
	for name, fellows := range c.inspected() {
		out = append(out, fmt.Sprintf("interface %s: the network drops answers with the MAC address of another node (%v), as ARP inspection does: "+
			"addresses move when a speaker restarts; exempt the nodes' ports from inspection, or set --cover-restarts=false on all nodes", name, fellows))
	}
	slices.Sort(out)
	return out
}

// coverable reports whether answers in place of the owner arrive, as far as is
// known, on a link of the addresses.
func (p *peer) coverable(g *group) bool {
	return slices.ContainsFunc(p.adjacencies, func(a *adjacency) bool {
		return !a.inspection.blocked && slices.Contains(g.links, a.link)
	})
}
