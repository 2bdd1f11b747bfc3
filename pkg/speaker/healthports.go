package speaker

import (
	"cmp"
	"net/http"
	"net/netip"
	"slices"
	"time"
)

const (
	// unfitAfter is how long kube-proxy must have said that a Service has no endpoint
	// on the node. A planner that is alive has reacted within a fraction of that, and
	// it should be the one that does: it knows the other nodes, and endpoints that
	// only terminate, which kube-proxy does not count.
	unfitAfter = 2 * time.Second
	// portInterval is the least time between two questions about a port.
	portInterval = time.Second
)

// healthPort is a health check port, and what is known of it.
type healthPort struct {
	number uint16
	asked  time.Time // last; zero if never
	asking bool      // there is no answer yet
	// answered is the address at which there was one, zero if nowhere.
	answered netip.Addr
	// empty is since when the answer is that there is no endpoint, zero if it is not.
	empty time.Time
	// unfit: it has been that for long enough. fit: the last answer is that there is one.
	unfit, fit bool
}

// suspected: it may be unfit, which the next answers show.
func (p *healthPort) suspected() bool { return !p.empty.IsZero() && !p.unfit }

// healthPorts are ascending. The time is always an argument.
type healthPorts []healthPort

// with are these ports, numbers ascending, with what is known of them.
func (ports healthPorts) with(numbers []uint16) healthPorts {
	out := make(healthPorts, 0, len(numbers))
	for _, n := range numbers {
		if p := ports.find(n); p != nil {
			out = append(out, *p)
		} else {
			out = append(out, healthPort{number: n})
		}
	}
	return out
}

// find is the port of the number, nil if there is none.
func (ports healthPorts) find(number uint16) *healthPort {
	i, found := slices.BinarySearchFunc(ports, number, func(p healthPort, n uint16) int { return cmp.Compare(p.number, n) })
	if !found {
		return nil
	}
	return &ports[i]
}

// due is the port to ask about now: one that is suspected, or else the one that has
// waited for longest. If there is none it is nil, and wait says until when.
func (ports healthPorts) due(now time.Time) (next *healthPort, wait time.Duration) {
	wait = portInterval
	for i := range ports {
		p := &ports[i]
		if p.asking {
			continue
		}
		if left := p.asked.Add(portInterval).Sub(now); left > 0 {
			wait = min(wait, left)
			continue
		}
		if next == nil || p.suspected() && !next.suspected() ||
			p.suspected() == next.suspected() && p.asked.Before(next.asked) {
			next = p
		}
	}
	return next, wait
}

// take takes notice of the answer to a question of that time, and reports whether it made
// the port fit or unfit, or left that open.
// Only two are understood: of others, it is not known who they are from.
func (p *healthPort) take(status int, asked time.Time) (changed bool) {
	before := *p
	switch {
	case status == http.StatusOK:
		p.empty, p.unfit, p.fit = time.Time{}, false, true
	case status != http.StatusServiceUnavailable:
	case p.empty.IsZero():
		p.empty, p.fit = asked, false
	default:
		p.unfit = p.unfit || asked.Sub(p.empty) >= unfitAfter
	}
	return p.unfit != before.unfit || p.fit != before.fit
}
