package speaker

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// proxy is a kube-proxy that answers with a status, or not: 0 refuses the
// connection, -1 says nothing.
type proxy struct {
	mu     sync.Mutex
	status int
	asked  []time.Time
	bodies int // that are open
}

func (p *proxy) RoundTrip(r *http.Request) (*http.Response, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = append(p.asked, time.Now())
	switch p.status {
	case 0:
		return nil, errors.New("connection refused")
	case -1:
		p.mu.Unlock()
		<-r.Context().Done()
		p.mu.Lock()
		return nil, r.Context().Err()
	}
	p.bodies++
	header := http.Header{"Location": {"http://127.0.0.1:1/elsewhere"}}
	return &http.Response{StatusCode: p.status, Header: header, Body: &body{proxy: p}, Request: r}, nil
}

// body never ends.
type body struct{ proxy *proxy }

func (*body) Read(p []byte) (int, error) { return len(p), nil }

func (b *body) Close() error {
	b.proxy.mu.Lock()
	defer b.proxy.mu.Unlock()
	b.proxy.bodies--
	return nil
}

// answer sets the status, and count returns how often it was asked since.
func (p *proxy) answer(status int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status, p.asked = status, nil
}

func (p *proxy) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.asked)
}

// guarded is a gate that asks p, and how often it told of a change.
func guarded(t *testing.T, p *proxy) (g *gate, changes func() int) {
	t.Helper()
	var mu sync.Mutex
	n := 0
	g = newGate(DefaultKubeProxyHealthz, func() {
		mu.Lock()
		defer mu.Unlock()
		n++
	})
	g.transport = p
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- g.run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
		if p.bodies != 0 {
			t.Errorf("%d bodies were not closed", p.bodies)
		}
	})
	return g, func() int {
		mu.Lock()
		defer mu.Unlock()
		return n
	}
}

func TestGateStates(t *testing.T) {
	t.Parallel()
	type step struct {
		status int
		want   gateState
	}
	const refused, silent = 0, -1
	for name, steps := range map[string][]step{
		"healthy":                 {{200, gateHealthy}, {503, gateUnhealthy}, {200, gateHealthy}},
		"unhealthy at the start":  {{503, gateUnhealthy}, {200, gateHealthy}},
		"not there at the start":  {{refused, gateUnknown}, {200, gateHealthy}},
		"hangs at the start":      {{silent, gateUnknown}, {503, gateUnhealthy}},
		"upgrade":                 {{200, gateHealthy}, {refused, gateHealthy}, {silent, gateHealthy}, {200, gateHealthy}},
		"upgrade while unhealthy": {{503, gateUnhealthy}, {refused, gateUnhealthy}, {200, gateHealthy}},
		"internal error":          {{200, gateHealthy}, {500, gateUnhealthy}},
		"another program":         {{404, gateUnknown}, {302, gateUnknown}, {204, gateUnknown}, {200, gateHealthy}, {404, gateHealthy}, {302, gateHealthy}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := &proxy{}
				p.answer(steps[0].status)
				g, changes := guarded(t, p)
				want, before := 0, gateUnknown
				for i, s := range steps {
					p.answer(s.status)
					time.Sleep(10 * gateSlow)
					synctest.Wait()
					if s.want != before {
						want++
					}
					before = s.want
					if got := g.state(); got != s.want || changes() != want {
						t.Errorf("step %d, %d: %v after %d changes, want %v after %d", i, s.status, got, changes(), s.want, want)
					}
					if problem := g.problem(); (problem == "") != (s.want == gateHealthy) {
						t.Errorf("step %d: %v, and the problem is %q", i, s.want, problem)
					}
				}
			})
		})
	}
}

func TestGateAsksOftenUntilItIsAnswered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &proxy{}
		g, _ := guarded(t, p)
		expect := func(what string, d time.Duration, want int) {
			t.Helper()
			synctest.Wait()
			p.mu.Lock()
			p.asked = nil
			p.mu.Unlock()
			time.Sleep(d)
			synctest.Wait()
			if got := p.count(); got != want {
				t.Errorf("%s: asked %d times in %v, want %d", what, got, d, want)
			}
		}
		expect("refused", 10*time.Second, 40)
		p.answer(-1)
		expect("no answer", 10*time.Second, 8) // each takes 1 s
		p.answer(404)
		time.Sleep(askTimeout + gateFast)
		expect("another program", 10*time.Second, 40)
		p.answer(200)
		time.Sleep(gateFast)
		synctest.Wait()
		if g.state() != gateHealthy {
			t.Errorf("%v, %v after the first answer", g.state(), gateFast)
		}
		expect("answered", 20*time.Second, 10)
		p.answer(0)
		expect("upgrade", 20*time.Second, 10)
	})
}

func TestGateProblem(t *testing.T) {
	t.Parallel()
	for text, statuses := range map[string][]int{
		"has not answered at " + DefaultKubeProxyHealthz: nil,
		"answers 503":                           {200, 503},
		"answers 404; is it another program's?": {404},
	} {
		g := newGate(DefaultKubeProxyHealthz, func() {})
		for _, s := range statuses {
			g.take(s)
		}
		if got := g.problem(); !strings.Contains(got, text) {
			t.Errorf("after %v: %q, want %q in it", statuses, got, text)
		}
	}
}

func TestGateWithoutURL(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGate("", func() { t.Error("changed") })
		g.transport = nil
		if g.state() != gateHealthy || g.problem() != "" {
			t.Errorf("%v, %s", g.state(), g.problem())
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		began := time.Now()
		if err := g.run(ctx); err != nil || time.Since(began) != time.Hour {
			t.Errorf("ended after %v, %v", time.Since(began), err)
		}
	})
}

func TestValidateGateURL(t *testing.T) {
	t.Parallel()
	for text, valid := range map[string]bool{
		"":                           true,
		DefaultKubeProxyHealthz:      true,
		"https://[::1]:10256/livez":  true,
		"127.0.0.1:10256":            false,
		"localhost:10256/healthz":    false,
		"http:///healthz":            false,
		"http://:10256/healthz":      false,
		"unix:///run/kube-proxy":     false,
		"http://127.0.0.1:1025 6/":   false,
		"http://127.0.0.1:10256/%zz": false,
	} {
		if err := validateGateURL(text); (err == nil) != valid {
			t.Errorf("%q: %v", text, err)
		} else if err != nil && !strings.Contains(err.Error(), "--kube-proxy-healthz") {
			t.Errorf("%q: the error does not name the flag: %v", text, err)
		}
	}
}

// TestGateTransport asks a server, with the transport that is used.
func TestGateTransport(t *testing.T) {
	t.Parallel()
	closed := make(chan struct{}, 100)
	mux := http.NewServeMux()
	mux.HandleFunc("/healthy", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/unhealthy", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, `{"lastUpdated":"…"}`, http.StatusServiceUnavailable)
	})
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/healthy", http.StatusFound) })
	mux.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := io.WriteString(w, strings.Repeat("x", 1<<16)); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/headers", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X", strings.Repeat("x", 1<<20)) })
	mux.HandleFunc("/hangs", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	server := httptest.NewUnstartedServer(mux)
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateClosed {
			closed <- struct{}{}
		}
	}
	server.Start()
	defer server.Close()

	if kubeProxyTransport().Proxy != nil {
		t.Error("a proxy of the environment is used")
	}
	for path, want := range map[string]gateState{
		"/healthy":   gateHealthy,
		"/unhealthy": gateUnhealthy,
		"/moved":     gateUnknown,
		"/endless":   gateHealthy,
		"/headers":   gateUnknown,
		"/hangs":     gateUnknown,
	} {
		ctx, cancel := context.WithCancel(t.Context())
		g := newGate(server.URL+path, cancel) // ends with the first answer
		done := make(chan error, 1)
		go func() { done <- g.run(ctx) }()
		// Whatever the answer, the connection does not stay.
		<-closed
		if want == gateUnknown {
			cancel()
		}
		if err := <-done; err != nil || g.state() != want {
			t.Errorf("%s: %v, %v; want %v", path, g.state(), err, want)
		}
		cancel()
		for len(closed) > 0 {
			<-closed
		}
	}
}
