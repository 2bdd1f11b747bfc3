package bgp_test

import (
	"bufio"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// The tests run an Announcer in a network namespace of its own, and BIRD in
// others, one link to each. All addresses are for documentation.

const (
	nodeASN   = 64512
	routerASN = 64500
)

// need skips the test on machines that cannot run it, and fails there in CI.
func need(t *testing.T) {
	t.Helper()
	missing := ""
	if os.Geteuid() != 0 {
		missing = "root"
	}
	for _, program := range []string{"ip", "bird", "birdc"} {
		if _, err := exec.LookPath(program); err != nil {
			missing = program
		}
	}
	switch {
	case missing == "":
	case os.Getenv("CI") != "":
		t.Fatalf("%s is missing", missing)
	default:
		t.Skipf("%s is missing", missing)
	}
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

var namespaces atomic.Int64

// namespace makes a network namespace for the time of the test.
func namespace(t *testing.T, role string) string {
	t.Helper()
	name := fmt.Sprintf("bgp-%d-%d-%s", os.Getpid(), namespaces.Add(1), role)
	run(t, "ip", "netns", "add", name)
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", name).Run() })
	run(t, "ip", "-n", name, "link", "set", "lo", "up")
	return name
}

// lab is a node with links to routers.
type lab struct {
	t       *testing.T
	node    string
	routers int
}

func newLab(t *testing.T) *lab {
	t.Helper()
	need(t)
	return &lab{t: t, node: namespace(t, "node")}
}

// router is a BIRD in a namespace, on a link of its own to the node.
type router struct {
	t               *testing.T
	name            string
	ns              string
	dir             string
	local, remote   netip.Addr // of the router, of the node
	local6, remote6 netip.Addr
	config          birdConfig
	process         *exec.Cmd
}

// birdConfig is what differs between the tests' BIRDs.
type birdConfig struct {
	asn     uint32 // routerASN if 0
	nodeASN uint32 // nodeASN if 0
	extra   string // lines in the BGP protocol
	statics string // routes that BIRD sends to the node
	export  string // filter of these; all if empty
	over6   bool   // the session is over IPv6
	hold    int    // seconds; 90 if 0
}

// router adds a router to the lab and starts BIRD.
func (l *lab) router(config birdConfig) *router {
	l.t.Helper()
	l.routers++
	n := l.routers
	if config.asn == 0 {
		config.asn = routerASN
	}
	if config.nodeASN == 0 {
		config.nodeASN = nodeASN
	}
	if config.hold == 0 {
		config.hold = 90
	}
	if config.export == "" {
		config.export = "where source = RTS_STATIC"
	}
	r := &router{
		t:       l.t,
		name:    fmt.Sprintf("r%d", n),
		ns:      namespace(l.t, fmt.Sprintf("r%d", n)),
		dir:     l.t.TempDir(),
		config:  config,
		local:   netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", 4*n+2)),
		remote:  netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", 4*n+1)),
		local6:  netip.MustParseAddr(fmt.Sprintf("2001:db8:0:%d::2", n)),
		remote6: netip.MustParseAddr(fmt.Sprintf("2001:db8:0:%d::1", n)),
	}
	link := fmt.Sprintf("eth%d", n)
	run(l.t, "ip", "-n", l.node, "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", r.ns)
	for _, end := range []struct {
		ns, link string
		v4, v6   netip.Addr
	}{{l.node, link, r.remote, r.remote6}, {r.ns, "eth0", r.local, r.local6}} {
		run(l.t, "ip", "-n", end.ns, "addr", "add", end.v4.String()+"/30", "dev", end.link)
		run(l.t, "ip", "-n", end.ns, "addr", "add", end.v6.String()+"/64", "dev", end.link, "nodad")
		run(l.t, "ip", "-n", end.ns, "link", "set", end.link, "up")
	}
	r.start()
	return r
}

func (r *router) start() {
	r.t.Helper()
	local, remote := r.local, r.remote
	if r.config.over6 {
		local, remote = r.local6, r.remote6
	}
	// BIRD's message bound keeps logs of all UPDATEs readable in failures.
	config := fmt.Sprintf(`
log "%s/log" all;
debug protocols all;
router id %s;
protocol device {}
protocol kernel { ipv4 { import none; export where source = RTS_BGP; }; }
protocol kernel { ipv6 { import none; export where source = RTS_BGP; }; }
protocol static { ipv4; %s }
protocol bgp node {
  local %s as %d;
  neighbor %s as %d;
  hold time %d;
  connect delay time 1;
  connect retry time 1;
  error wait time 1, 1;
  ipv4 { import all; export %s; extended next hop on; };
  ipv6 { import all; export none; };
  %s
}
`, r.dir, r.local, r.config.statics, local, r.config.asn, remote, r.config.nodeASN, r.config.hold, r.config.export, r.config.extra)
	if err := os.WriteFile(filepath.Join(r.dir, "bird.conf"), []byte(config), 0o600); err != nil {
		r.t.Fatal(err)
	}
	r.process = exec.Command("ip", "netns", "exec", r.ns, "bird", "-f", "-c", filepath.Join(r.dir, "bird.conf"),
		"-s", filepath.Join(r.dir, "ctl"), "-P", filepath.Join(r.dir, "pid"))
	r.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := r.process.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		r.stop(syscall.SIGKILL)
		if r.t.Failed() {
			log, _ := os.ReadFile(filepath.Join(r.dir, "log"))
			r.t.Logf("%s:\n%s", r.name, tail(string(log), 60))
		}
	})
	eventually(r.t, 5*time.Second, "BIRD answers", func() bool {
		_, err := exec.Command("birdc", "-s", filepath.Join(r.dir, "ctl"), "show status").CombinedOutput()
		return err == nil
	})
}

func (r *router) stop(signal syscall.Signal) {
	_ = r.process.Process.Signal(signal)
	_ = r.process.Wait()
}

func tail(text string, lines int) string {
	all := strings.Split(text, "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// birdc asks BIRD.
func (r *router) birdc(command string) string {
	r.t.Helper()
	return run(r.t, "birdc", "-s", filepath.Join(r.dir, "ctl"), command)
}

// route is all that BIRD knows of the routes to a prefix; empty if none.
func (r *router) route(prefix string) string {
	r.t.Helper()
	out, _ := exec.Command("birdc", "-s", filepath.Join(r.dir, "ctl"), "show route all protocol node for "+prefix).CombinedOutput()
	if !strings.Contains(string(out), prefix) {
		return ""
	}
	return string(out)
}

// count is the number of routes that BIRD has from the node.
func (r *router) count() int {
	return strings.Count(r.birdc("show route protocol node"), "unicast [node")
}

// withdrawn is how many prefixes the node has withdrawn.
func (r *router) withdrawn() (n int) {
	r.t.Helper()
	found := importWithdraws.FindAllStringSubmatch(r.birdc("show protocols all node"), -1)
	if len(found) != 2 {
		r.t.Fatalf("BIRD counts the withdrawals of %d channels, want 2", len(found))
	}
	for _, channel := range found {
		received, err := strconv.Atoi(channel[1])
		if err != nil {
			r.t.Fatal(err)
		}
		n += received
	}
	return n
}

var importWithdraws = regexp.MustCompile(`Import withdraws: +(\d+)`)

// kernel reports whether the router's kernel has a route to the prefix.
func (r *router) kernel(prefix string) bool {
	family := "-4"
	if strings.Contains(prefix, ":") {
		family = "-6"
	}
	out, _ := exec.Command("ip", "-n", r.ns, family, "route", "show", prefix).Output()
	return len(out) > 0
}

// logged counts the lines in BIRD's log that contain text.
func (r *router) logged(text string) int {
	log, err := os.ReadFile(filepath.Join(r.dir, "log"))
	if err != nil {
		r.t.Fatal(err)
	}
	return strings.Count(string(log), text)
}

// eventually waits for the condition.
func eventually(t *testing.T, limit time.Duration, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", limit, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// watchLosses watches the router's kernel table; the function it returns tells
// the deletions since.
func (r *router) watchLosses() func() string {
	r.t.Helper()
	path := filepath.Join(r.dir, "monitor")
	out, err := os.Create(path)
	if err != nil {
		r.t.Fatal(err)
	}
	monitor := exec.Command("ip", "-n", r.ns, "monitor", "route")
	monitor.Stdout = out
	monitor.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := monitor.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = monitor.Process.Kill(); _ = monitor.Wait() })
	return func() string {
		text, err := os.ReadFile(path)
		if err != nil {
			r.t.Fatal(err)
		}
		var lines []string
		for line := range strings.Lines(string(text)) {
			if strings.HasPrefix(line, "Deleted") && strings.Contains(line, "bird") {
				lines = append(lines, line)
			}
		}
		return strings.Join(lines, "")
	}
}

// watchRoute watches the router's kernel table; the function it returns waits
// for a route to be added and tells when it was.
func (r *router) watchRoute() func(text string) time.Time {
	r.t.Helper()
	monitor := exec.Command("ip", "-n", r.ns, "monitor", "route")
	out, err := monitor.StdoutPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	monitor.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := monitor.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = monitor.Process.Kill(); _ = monitor.Wait() })
	lines := bufio.NewScanner(out)
	time.Sleep(100 * time.Millisecond) // ip has no way to tell that it listens
	return func(text string) time.Time {
		r.t.Helper()
		for lines.Scan() {
			if strings.HasPrefix(lines.Text(), text+" ") {
				return time.Now()
			}
		}
		r.t.Fatalf("no route %s: %v", text, lines.Err())
		return time.Time{}
	}
}
