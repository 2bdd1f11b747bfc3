package speaker

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

const (
	// questionInterval is the least time between two questions about any ports. A node
	// with hundreds of Services asks about each one less often, and spends next to
	// nothing.
	questionInterval = 50 * time.Millisecond
	// maxQuestions bounds those without an answer, so that some ports that hang do not
	// hold up the others.
	maxQuestions = 8
	// maxOwnAddresses bounds those of the node that are asked, of each family.
	maxOwnAddresses = 4
	// maxUnfitTold and maxUnfitAddresses bound what people are told: ports, and ranges
	// of each.
	maxUnfitTold      = 3
	maxUnfitAddresses = 4
)

// endpoints asks kube-proxy at the health check ports whether Services under
// externalTrafficPolicy Local have an endpoint on the node. Where they have none, the
// node is not to attract traffic for them.
type endpoints struct {
	// notForwarding reports whether kube-proxy as a whole is not healthy. Then it
	// answers 503 at every port, whatever the endpoints, and the node as a whole is
	// not to attract traffic anyway.
	notForwarding func() bool
	// changed is called, from questions of run, after a port became fit, unsure or unfit.
	changed func()
	// transport is replaced in tests.
	transport http.RoundTripper

	mu    sync.Mutex
	ports healthPorts
	own   []netip.Addr
	woken chan struct{} // has a token when there are other ports
}

func newEndpoints(notForwarding func() bool, changed func()) *endpoints {
	return &endpoints{
		notForwarding: notForwarding, changed: changed,
		transport: kubeProxyTransport(), woken: make(chan struct{}, 1),
	}
}

// want says which ports are asked, ascending, and the node's own addresses. What is
// known of other ports is forgotten.
func (e *endpoints) want(ports []uint16, own []netip.Addr) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.own = own
	if slices.EqualFunc(e.ports, ports, func(p healthPort, n uint16) bool { return p.number == n }) {
		return
	}
	e.ports = e.ports.with(ports)
	select {
	case e.woken <- struct{}{}:
	default:
	}
}

// unfit are the ports of which kube-proxy says that there is no endpoint, unsure those of
// which it has not said last that there is one.
func (e *endpoints) unfit() map[uint16]bool {
	return e.those(func(p healthPort) bool { return p.unfit })
}

func (e *endpoints) unsure() map[uint16]bool {
	return e.those(func(p healthPort) bool { return !p.fit })
}

// those are the ports of which that is so.
func (e *endpoints) those(are func(healthPort) bool) map[uint16]bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out map[uint16]bool
	for _, p := range e.ports {
		if are(p) {
			if out == nil {
				out = make(map[uint16]bool)
			}
			out[p.number] = true
		}
	}
	return out
}

// count is the number of ports, fit and unfit.
func (e *endpoints) count() (fit, unfit int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, p := range e.ports {
		if p.unfit {
			unfit++
		}
	}
	return len(e.ports) - unfit, unfit
}

// run asks until ctx ends.
func (e *endpoints) run(ctx context.Context) error {
	client := kubeProxyClient(e.transport)
	var questions errgroup.Group
	questions.SetLimit(maxQuestions)
	for ctx.Err() == nil {
		q, wait := e.next(time.Now())
		if q != nil {
			questions.Go(func() error {
				e.ask(ctx, client, q)
				return nil
			})
			waited(ctx, questionInterval)
			continue
		}
		var due <-chan time.Time
		if wait > 0 {
			due = time.After(wait)
		}
		select {
		case <-ctx.Done():
		case <-e.woken:
		case <-due:
		}
	}
	return questions.Wait()
}

// question is about a port, at one of these addresses after the other.
type question struct {
	port      uint16
	addresses []netip.Addr
}

// next is the question to ask now. If there is none it is nil, and wait says until
// when; 0 is until there are other ports.
func (e *endpoints) next(now time.Time) (q *question, wait time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.ports) == 0 {
		return nil, 0
	}
	p, wait := e.ports.due(now)
	if p == nil {
		return nil, wait
	}
	p.asked, p.asking = now, true
	q = &question{port: p.number}
	if slices.Contains(e.own, p.answered) { // another node may have it by now
		q.addresses = append(q.addresses, p.answered)
	}
	// In its nftables mode, kube-proxy listens at the node's primary addresses only
	// (--nodeport-addresses).
	q.addresses = append(q.addresses, netip.AddrFrom4([4]byte{127, 0, 0, 1}))
	q.addresses = append(q.addresses, e.own...)
	return q, 0
}

// ask asks until somebody answers.
func (e *endpoints) ask(ctx context.Context, client *http.Client, q *question) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	for _, addr := range q.addresses {
		status, err := askKubeProxy(ctx, client, "http://"+netip.AddrPortFrom(addr, q.port).String()+"/healthz")
		if err == nil {
			e.take(q.port, addr, status)
			return
		}
		if ctx.Err() != nil {
			break
		}
	}
	// No answer changes nothing: kube-proxy is being upgraded, and the kernel goes on
	// with the rules that it has.
	e.take(q.port, netip.Addr{}, 0)
}

// take takes notice of an answer, of status 0 if there was none.
func (e *endpoints) take(port uint16, from netip.Addr, status int) {
	if status == http.StatusServiceUnavailable && e.notForwarding() {
		status = 0
	}
	e.mu.Lock()
	p := e.ports.find(port)
	if p == nil {
		e.mu.Unlock()
		return // not wanted any more
	}
	p.asking = false
	if from.IsValid() {
		p.answered = from
	}
	// The times of the questions count: an answer that came late would have the third
	// one, two seconds after the first, come too early, and take another second.
	changed := p.take(status, p.asked)
	e.mu.Unlock()
	if changed {
		e.changed()
	}
}

// healthPortsOf are the health check ports of what the node announces or is a
// candidate of, ascending.
func healthPortsOf(p *announce.Program, node string) []uint16 {
	var ports []uint16
	for i := range p.Groups {
		g := &p.Groups[i]
		if g.HealthCheckNodePort != 0 && (g.BGP != nil || g.Layer2 != nil && slices.Contains(g.Layer2.Candidates, node)) {
			ports = append(ports, g.HealthCheckNodePort)
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}

// ownAddresses are those at which kube-proxy may listen, those of IPv4 first.
func ownAddresses(i inventory) []netip.Addr {
	var four, six []netip.Addr
	for _, l := range i.links {
		for _, prefix := range l.Prefixes {
			switch addr := prefix.Addr(); {
			case !addr.IsGlobalUnicast():
			case addr.Is4() && len(four) < maxOwnAddresses:
				four = append(four, addr)
			case addr.Is6() && len(six) < maxOwnAddresses:
				six = append(six, addr)
			}
		}
	}
	return append(four, six...)
}

// unfitProblem says in words what has no endpoint, empty if there is nothing.
func unfitProblem(p *announce.Program, node string, unfit map[uint16]bool) string {
	var told []string
	more := 0
	for _, port := range healthPortsOf(p, node) {
		if !unfit[port] {
			continue
		}
		if len(told) == maxUnfitTold {
			more++
			continue
		}
		var addresses []string
		ranges := p.Addresses(func(g *announce.Group) bool { return g.HealthCheckNodePort == port }).Ranges()
		for _, r := range ranges[:min(len(ranges), maxUnfitAddresses)] {
			addresses = append(addresses, announce.Range(r).String())
		}
		if len(ranges) > maxUnfitAddresses {
			addresses = append(addresses, "...")
		}
		told = append(told, fmt.Sprintf("%s (health check port %d)", strings.Join(addresses, ", "), port))
	}
	if len(told) == 0 {
		return ""
	}
	if more > 0 {
		told = append(told, fmt.Sprintf("and %d more", more))
	}
	return "kube-proxy has no endpoint on this node for " + strings.Join(told, "; ") +
		": routers prefer other nodes, and on the LAN a candidate with endpoints takes over"
}
