package speaker

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/layer2"
)

// portProxy is a kube-proxy that answers at health check ports, at one address: with
// 200 unless told otherwise. 0 refuses the connection, -1 says nothing.
type portProxy struct {
	mu       sync.Mutex
	at       netip.Addr
	statuses map[uint16]int
	asked    map[uint16]int
	attempts []string // addresses, also where nobody listens
	open     int
	mostOpen int
}

func newPortProxy() *portProxy {
	return &portProxy{at: netip.MustParseAddr("127.0.0.1"), statuses: make(map[uint16]int), asked: make(map[uint16]int)}
}

func (p *portProxy) RoundTrip(r *http.Request) (*http.Response, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	to, err := netip.ParseAddrPort(r.URL.Host)
	if err != nil || r.URL.Scheme != "http" || r.URL.Path != "/healthz" {
		return nil, errors.New("not a health check: " + r.URL.String())
	}
	p.attempts = append(p.attempts, to.Addr().String())
	if to.Addr() != p.at {
		return nil, errors.New("connection refused")
	}
	p.asked[to.Port()]++
	status, told := p.statuses[to.Port()]
	switch {
	case !told:
		status = 200
	case status == 0:
		return nil, errors.New("connection refused")
	case status == -1:
		p.open++
		p.mostOpen = max(p.mostOpen, p.open)
		p.mu.Unlock()
		<-r.Context().Done()
		p.mu.Lock()
		p.open--
		return nil, r.Context().Err()
	}
	return &http.Response{StatusCode: status, Body: http.NoBody, Request: r}, nil
}

func (p *portProxy) answer(status int, ports ...uint16) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, port := range ports {
		p.statuses[port] = status
	}
}

func (p *portProxy) listen(addr string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at = netip.MustParseAddr(addr)
}

// during is how often each port was asked, and where, in d.
func (p *portProxy) during(d time.Duration) (asked map[uint16]int, attempts []string) {
	synctest.Wait()
	p.mu.Lock()
	p.asked, p.attempts = make(map[uint16]int), nil
	p.mu.Unlock()
	time.Sleep(d)
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked, p.attempts
}

// asking are endpoints that ask p, and how often they told of a change.
func asking(t *testing.T, p *portProxy) (*endpoints, *atomic.Int32) {
	t.Helper()
	changes := new(atomic.Int32)
	e := newEndpoints(func() bool { return false }, func() { changes.Add(1) })
	e.transport = p
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
		if p.open != 0 {
			t.Errorf("%d questions are still asked", p.open)
		}
	})
	return e, changes
}

func ports(first, n int) []uint16 {
	var out []uint16
	for i := range n {
		out = append(out, uint16(first+i))
	}
	return out
}

func TestEndpointsPace(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ ports, each, all int }{
		"no port":   {0, 0, 0},
		"one":       {1, 20, 20},
		"few":       {15, 20, 300},
		"just fast": {20, 20, 400},
		"many":      {200, 2, 400},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := newPortProxy()
				e, _ := asking(t, p)
				e.want(ports(30000, test.ports), nil)
				time.Sleep(time.Millisecond) // apart from the moments of the questions
				asked, attempts := p.during(20 * time.Second)
				if len(asked) != test.ports || len(attempts) != test.all {
					t.Errorf("%d ports were asked, %d times", len(asked), len(attempts))
				}
				for port, n := range asked {
					if n != test.each {
						t.Errorf("port %d was asked %d times, want %d", port, n, test.each)
					}
				}
			})
		})
	}
}

// TestEndpointsAskSuspectsFirst: among many ports, one without endpoints takes no
// longer to be unfit, once it has said so.
func TestEndpointsAskSuspectsFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPortProxy()
		e, changes := asking(t, p)
		e.want(ports(30000, 200), nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := e.unsure(); len(got) > 0 || changes.Load() != 200 {
			t.Errorf("unsure %v after %d changes", got, changes.Load())
		}
		changes.Store(0)
		p.answer(503, 30077)
		// Ten seconds for all ports, and two to be sure.
		time.Sleep(10*time.Second + unfitAfter + 2*questionInterval)
		synctest.Wait()
		if got := e.unfit(); len(got) != 1 || !got[30077] || !e.unsure()[30077] || changes.Load() != 2 {
			t.Errorf("unfit %v after %d changes", got, changes.Load())
		}
		p.answer(200, 30077)
		time.Sleep(10*time.Second + questionInterval)
		synctest.Wait()
		if got := e.unfit(); len(got) != 0 || len(e.unsure()) != 0 || changes.Load() != 3 {
			t.Errorf("unfit %v after %d changes", got, changes.Load())
		}
	})
}

// TestEndpointsLateAnswer: the first of three answers is later than the others, and the
// third one is enough all the same.
func TestEndpointsLateAnswer(t *testing.T) {
	t.Parallel()
	e := newEndpoints(func() bool { return false }, func() {})
	e.want([]uint16{30000}, nil)
	synctest.Test(t, func(t *testing.T) {
		for i, late := range []time.Duration{900 * time.Millisecond, 0, 0} {
			asked := time.Now()
			if q, _ := e.next(asked); q == nil {
				t.Fatalf("question %d comes too early", i)
			}
			time.Sleep(late)
			e.take(30000, addrs("127.0.0.1")[0], 503)
			time.Sleep(portInterval - time.Since(asked))
		}
	})
	if !e.unfit()[30000] {
		t.Error("not unfit, two seconds after the first question")
	}
}

// TestEndpointsHang: ports that hang hold up others, but not for long.
func TestEndpointsHang(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ hang, least int }{
		"one":      {1, 19},
		"some":     {maxQuestions - 1, 14},
		"too many": {2 * maxQuestions, 6},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := newPortProxy()
				all := ports(30000, test.hang+4)
				p.answer(-1, all[:test.hang]...)
				e, changes := asking(t, p)
				e.want(all, nil)
				asked, _ := p.during(20 * time.Second)
				for _, port := range all[test.hang:] {
					if asked[port] < test.least {
						t.Errorf("port %d was asked %d times in 20 s", port, asked[port])
					}
				}
				p.mu.Lock()
				defer p.mu.Unlock()
				if p.mostOpen != min(test.hang, maxQuestions) || changes.Load() != 4 {
					t.Errorf("%d questions at a time, %d changes", p.mostOpen, changes.Load())
				}
			})
		})
	}
}

// TestEndpointsFindKubeProxy, which listens at other addresses in other modes.
func TestEndpointsFindKubeProxy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPortProxy()
		e, _ := asking(t, p)
		e.want([]uint16{30000}, addrs("192.0.2.1", "192.0.2.2", "2001:db8::1"))
		expect := func(what string, d time.Duration, want ...string) {
			t.Helper()
			if _, got := p.during(d); !slices.Equal(got, want) {
				t.Errorf("%s: asked at %v, want %v", what, got, want)
			}
		}
		time.Sleep(time.Millisecond)
		expect("everywhere", 2*time.Second, "127.0.0.1", "127.0.0.1")
		p.listen("192.0.2.2")
		expect("primary addresses", time.Second, "127.0.0.1", "192.0.2.1", "192.0.2.2")
		expect("remembered", 2*time.Second, "192.0.2.2", "192.0.2.2")
		p.answer(0, 30000)
		expect("away", time.Second, "192.0.2.2", "127.0.0.1", "192.0.2.1", "192.0.2.2", "2001:db8::1")
		p.answer(200, 30000)
		expect("back", time.Second, "192.0.2.2")
		p.listen("2001:db8::1")
		expect("IPv6", time.Second, "192.0.2.2", "127.0.0.1", "192.0.2.1", "192.0.2.2", "2001:db8::1")
		expect("IPv6, remembered", time.Second, "2001:db8::1")
		e.want([]uint16{30000}, addrs("192.0.2.1"))
		expect("another node's by now", time.Second, "127.0.0.1", "192.0.2.1")
	})
}

func TestEndpointsForget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPortProxy()
		p.answer(503, 30000, 30001)
		e, changes := asking(t, p)
		e.want([]uint16{30000, 30001}, nil)
		time.Sleep(2 * unfitAfter)
		synctest.Wait()
		if got := e.unfit(); len(got) != 2 || changes.Load() != 2 {
			t.Fatalf("unfit %v after %d changes", got, changes.Load())
		}
		e.want([]uint16{30001, 30002}, nil)
		if got := e.unfit(); len(got) != 1 || !got[30001] {
			t.Errorf("unfit %v, of those that are still wanted", got)
		}
		if asked, _ := p.during(5 * time.Second); asked[30000] != 0 || asked[30002] == 0 {
			t.Errorf("asked %v", asked)
		}
		e.want([]uint16{30000, 30001}, nil)
		if got := e.unfit(); got[30000] {
			t.Error("a port is unfit by what was known before it was forgotten")
		}
		e.want(nil, nil)
		if asked, _ := p.during(time.Hour); len(asked) > 0 || e.unfit() != nil {
			t.Errorf("asked %v, unfit %v", asked, e.unfit())
		}
	})
}

// TestEndpointsOfSickKubeProxy: its 503 says nothing about endpoints.
func TestEndpointsOfSickKubeProxy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPortProxy()
		p.answer(503, 30000)
		e, _ := asking(t, p)
		var sick atomic.Bool
		sick.Store(true)
		e.notForwarding = sick.Load
		e.want([]uint16{30000}, nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := e.unfit(); got != nil {
			t.Errorf("unfit %v", got)
		}
		sick.Store(false)
		time.Sleep(unfitAfter + portInterval)
		synctest.Wait()
		if !e.unfit()[30000] {
			t.Error("not unfit though kube-proxy is healthy")
		}
		sick.Store(true)
		p.answer(200, 30000)
		time.Sleep(portInterval)
		synctest.Wait()
		if got := e.unfit(); got != nil {
			t.Errorf("unfit %v after an answer that is good", got)
		}
	})
}

// TestEndpointsServer asks a server that listens at one address only, with the
// transport that is used.
func TestEndpointsServer(t *testing.T) {
	t.Parallel()
	var status atomic.Int32
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/healthz" {
			t.Errorf("asked for %s", r.URL)
		}
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(int(status.Load()))
	}))
	listener, err := net.Listen("tcp4", "127.0.0.2:0")
	if err != nil {
		t.Skip(err) // elsewhere than on Linux, loopback has one address
	}
	server.Listener = listener
	server.Start()
	defer server.Close()
	at := netip.MustParseAddrPort(listener.Addr().String())

	changes := 0
	e := newEndpoints(func() bool { return false }, func() { changes++ })
	e.want([]uint16{at.Port()}, addrs("127.0.0.3", "127.0.0.2"))
	client := kubeProxyClient(e.transport)
	now := time.Now()
	for _, test := range []struct {
		status    int
		suspected bool
	}{{503, true}, {302, true}, {500, true}, {200, false}, {302, false}, {503, true}} {
		status.Store(int32(test.status))
		now = now.Add(portInterval)
		q, _ := e.next(now)
		if q == nil {
			t.Fatal("nothing to ask")
		}
		if again, _ := e.next(now.Add(time.Minute)); again != nil {
			t.Fatal("asked twice at a time")
		}
		e.ask(t.Context(), client, q)
		if p := e.ports[0]; p.suspected() != test.suspected || p.answered != at.Addr() || p.asking {
			t.Errorf("%d: %+v", test.status, p)
		}
	}
	server.Close()
	q, _ := e.next(now.Add(portInterval))
	e.ask(t.Context(), client, q)
	if p := e.ports[0]; !p.suspected() || p.asking || changes != 2 {
		t.Errorf("without an answer: %+v, %d changes", p, changes)
	}
}

// TestLoopFollowsEndpoints: when the last endpoint goes, the candidates and the routers
// are told, and people; when one comes, that it is over.
func TestLoopFollowsEndpoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		c := &council{}
		h.fellows = c
		p := newPortProxy()
		p.listen("192.0.2.1") // only there, as in nftables mode
		h.endpoints.transport = p
		ctx, cancel := context.WithCancel(t.Context())
		t.Cleanup(cancel)
		go func() { _ = h.endpoints.run(ctx) }()
		h.interfaces.put(inventory{links: []layer2.Interface{{Index: 2, Name: "eth0", Prefixes: prefixes("192.0.2.1/24")}}})

		const sick, other = 30001, 30002
		bgp := announce.Group{BGP: &announce.BGP{Peers: []string{"tor"}}}
		at := func(g announce.Group, addresses ...string) announce.Group {
			g.Addresses = ranges(addresses...)
			return g
		}
		services := []announce.Group{
			at(bgp, "203.0.113.1"), local(sick, at(bgp, "203.0.113.2")), local(other, at(bgp, "203.0.113.3")),
			shared(0, []string{"here", "there"}, "192.0.2.11"), local(sick, shared(0, []string{"here", "there"}, "192.0.2.12")),
		}
		tor, err := announce.Decode(program(t, 1, nil, "203.0.113.1"))
		if err != nil {
			t.Fatal(err)
		}
		see := func(epoch int64, services ...announce.Group) {
			p := lanProgram(epoch, services...)
			p.RouterID, p.Peers = tor.RouterID, tor.Peers
			p.Normalize()
			h.see(encode(t, p))
		}
		expect := func(what, demoted, unfit string) {
			t.Helper()
			synctest.Wait()
			state, _ := h.board.shown()
			var got []string
			for _, g := range state.Groups {
				if g.Exports[0].Demoted {
					for _, p := range g.Prefixes {
						got = append(got, p.Addr().String())
					}
				}
			}
			if strings.Join(got, " ") != demoted {
				t.Errorf("%s: demoted %v, want %q", what, got, demoted)
			}
			got = nil
			for _, g := range c.shown().Groups {
				for _, a := range g.Addresses {
					if g.Unfit {
						got = append(got, a.String())
					}
				}
			}
			if strings.Join(got, " ") != unfit {
				t.Errorf("%s: unfit %v, want %q", what, got, unfit)
			}
			r := h.report(t)
			if told := slices.ContainsFunc(r.Problems, func(p string) bool { return strings.Contains(p, "health check port 30001") }); told != (demoted != "") {
				t.Errorf("%s: problems %q", what, r.Problems)
			}
			if r.Error != "" {
				t.Errorf("%s: %s", what, r.Error)
			}
			if st := h.snapshot(); (st.unfit == 1) != (demoted != "") || st.fit == 0 {
				t.Errorf("%s: %d are fit, %d not", what, st.fit, st.unfit)
			}
		}
		see(1, services...)
		time.Sleep(time.Minute)
		expect("endpoints", "", "")
		if _, attempts := p.during(time.Second); !slices.Equal(attempts, []string{"192.0.2.1", "192.0.2.1"}) {
			t.Errorf("asked at %v, not at the node's own address", attempts)
		}
		p.answer(503, sick)
		time.Sleep(unfitAfter)
		expect("just now", "", "")
		time.Sleep(2 * portInterval)
		expect("none", "203.0.113.2", "192.0.2.12")
		p.answer(0, sick, other)
		time.Sleep(time.Minute)
		expect("kube-proxy is upgraded", "203.0.113.2", "192.0.2.12")
		see(2, append(services, at(bgp, "203.0.113.4"))...)
		expect("another Service", "203.0.113.2", "192.0.2.12")
		p.answer(200, sick, other)
		time.Sleep(portInterval)
		expect("endpoints again", "", "")
		p.answer(503, sick)
		time.Sleep(unfitAfter + 2*portInterval)
		expect("none again", "203.0.113.2", "192.0.2.12")
		see(3, services[0], services[2], services[3])
		expect("the planner moved it", "", "")
		if asked, _ := p.during(5 * time.Second); asked[sick] > 0 || asked[other] == 0 {
			t.Errorf("asked %v", asked)
		}
		see(4, services...)
		expect("the planner moved it back", "", "")
	})
}

// local is a group of a Service with a health check port.
func local(port uint16, g announce.Group) announce.Group {
	g.HealthCheckNodePort = port
	return g
}

func TestHealthPortsOf(t *testing.T) {
	t.Parallel()
	bgp := announce.Group{BGP: &announce.BGP{Peers: []string{"tor"}}}
	p := &announce.Program{Groups: []announce.Group{
		bgp, local(30003, bgp), local(30001, shared(0, []string{"there", "here"})), local(30003, shared(0, []string{"here"})),
		local(30002, shared(0, []string{"there", "elsewhere"})),
	}}
	if got := healthPortsOf(p, "here"); !slices.Equal(got, []uint16{30001, 30003}) {
		t.Errorf("%v", got)
	}
}

func TestOwnAddresses(t *testing.T) {
	t.Parallel()
	got := ownAddresses(inventory{links: []layer2.Interface{
		{Name: "eth0", Prefixes: prefixes("192.0.2.1/24", "2001:db8::1/64", "fe80::1/64")},
		{Name: "eth1", Prefixes: prefixes("192.0.2.2/24", "169.254.0.1/16", "192.0.2.3/32", "192.0.2.4/24", "192.0.2.5/24", "2001:db8::2/128")},
	}})
	want := addrs("192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "2001:db8::1", "2001:db8::2")
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestUnfitProblem(t *testing.T) {
	t.Parallel()
	bgp := func(port uint16, addresses ...string) announce.Group {
		return local(port, announce.Group{BGP: &announce.BGP{Peers: []string{"tor"}}, Addresses: ranges(addresses...)})
	}
	p := &announce.Program{Groups: []announce.Group{
		bgp(30009, "203.0.113.9"),
		bgp(30001, "2001:db8::1", "203.0.113.1"),
		local(30001, shared(0, []string{"here"}, "203.0.113.1")),
		bgp(30002, "203.0.113.20", "203.0.113.22", "203.0.113.24", "203.0.113.26", "203.0.113.28"),
		bgp(30003, "203.0.113.30-203.0.113.31"),
		bgp(30004, "203.0.113.40"), bgp(30005, "203.0.113.50"),
	}}
	for _, test := range []struct {
		unfit []uint16
		want  string
	}{
		{nil, ""},
		{[]uint16{30100}, ""},
		{[]uint16{30009, 30001}, "for 203.0.113.1, 2001:db8::1 (health check port 30001); 203.0.113.9 (health check port 30009): routers"},
		{
			[]uint16{30001, 30002, 30003, 30004, 30005},
			"for 203.0.113.1, 2001:db8::1 (health check port 30001); " +
				"203.0.113.20, 203.0.113.22, 203.0.113.24, 203.0.113.26, ... (health check port 30002); " +
				"203.0.113.30-203.0.113.31 (health check port 30003); and 2 more: routers",
		},
	} {
		unfit := make(map[uint16]bool)
		for _, port := range test.unfit {
			unfit[port] = true
		}
		if got := unfitProblem(p, "here", unfit); (got == "") != (test.want == "") || !strings.Contains(got, test.want) {
			t.Errorf("%v: %q, want %q in it", test.unfit, got, test.want)
		}
	}
}
