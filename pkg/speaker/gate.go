package speaker

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"
)

const (
	// gateFast is how often kube-proxy is asked until it answers: after a boot
	// the announcements wait for it. gateSlow is how often from then on.
	gateFast = 250 * time.Millisecond
	gateSlow = 2 * time.Second
)

// gateState is what is known of kube-proxy.
type gateState int

const (
	// gateUnknown: no answer since the speaker started.
	gateUnknown gateState = iota
	// gateHealthy: the last answer was that traffic is forwarded.
	gateHealthy
	// gateUnhealthy: the last answer was that it is not, or that the node is
	// about to be removed.
	gateUnhealthy
)

func (s gateState) String() string {
	switch s {
	case gateHealthy:
		return "healthy"
	case gateUnhealthy:
		return "unhealthy"
	default:
		return "unknown"
	}
}

// gate asks kube-proxy whether the node forwards traffic. Where it does not, the
// node is not to attract any.
type gate struct {
	url string // empty: there is nobody to ask
	// changed is called, from run, after the state changed.
	changed func()
	// transport is replaced in tests.
	transport http.RoundTripper

	mu   sync.Mutex
	last gateState
	// status is that of the last answer, also of one that says nothing about
	// kube-proxy; 0 if there was none.
	status int
}

func newGate(url string, changed func()) *gate {
	g := &gate{url: url, changed: changed, transport: kubeProxyTransport()}
	if url == "" {
		g.last = gateHealthy
	}
	return g
}

// validateGateURL finds what would keep the gate closed for ever.
func validateGateURL(text string) error {
	if text == "" {
		return nil
	}
	u, err := url.Parse(text)
	if err != nil {
		return fmt.Errorf("--kube-proxy-healthz: %w", err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return fmt.Errorf("--kube-proxy-healthz %q is no URL such as %s; empty does not ask", text, DefaultKubeProxyHealthz)
	}
	return nil
}

// state is what kube-proxy last answered.
func (g *gate) state() gateState {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.last
}

// problem says in words why the gate is not green, empty if it is.
func (g *gate) problem() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.last == gateHealthy:
		return ""
	case g.last == gateUnhealthy:
		return fmt.Sprintf("kube-proxy is not healthy: %s answers %d", g.url, g.status)
	case g.status != 0:
		return fmt.Sprintf("kube-proxy is not known to be healthy: %s answers %d; is it another program's? See --kube-proxy-healthz", g.url, g.status)
	}
	return fmt.Sprintf("kube-proxy has not answered at %s since the speaker started; if there is none, set --kube-proxy-healthz to nothing", g.url)
}

// run asks until ctx ends.
func (g *gate) run(ctx context.Context) error {
	if g.url == "" {
		<-ctx.Done()
		return nil
	}
	client := kubeProxyClient(g.transport)
	for {
		// No answer changes nothing: kube-proxy is being upgraded, and the
		// kernel goes on with the rules that it has.
		if status, err := askKubeProxy(ctx, client, g.url); err == nil && g.take(status) {
			g.changed()
		}
		pause := gateSlow
		if g.state() == gateUnknown {
			pause = gateFast
		}
		if !waited(ctx, pause) {
			return nil
		}
	}
}

// take takes notice of an answer. It reports whether the state changed.
func (g *gate) take(status int) (changed bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	before := g.last
	switch {
	case status == http.StatusOK:
		g.last, g.status = gateHealthy, status
	case status >= http.StatusInternalServerError:
		g.last, g.status = gateUnhealthy, status
	case g.last == gateUnknown:
		// Not an answer of kube-proxy.
		g.status = status
	}
	return g.last != before
}
