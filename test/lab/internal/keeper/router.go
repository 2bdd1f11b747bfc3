package keeper

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/addr"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/internal/control"
)

// Router is the configuration of the lab's router.
type Router struct {
	Kind      string `json:"kind"` // bird, frr, or none
	HoldTime  int    `json:"holdTime"`
	Password  string `json:"password,omitempty"`
	Passive   bool   `json:"passive,omitempty"`
	Extra     string `json:"extra,omitempty"`     // appended
	NodeExtra string `json:"nodeExtra,omitempty"` // in the block of each node
}

// Kinds of routers.
const (
	BIRD     = "bird"
	FRR      = "frr"
	NoRouter = "none"
)

func (k *keeper) describeRouter(spec *control.Host) error {
	spec.Links = []control.Link{
		lanLink(addr.Router, addr.RouterV6),
		farLink("eth1", addr.RouterFar, addr.RouterFarV6),
	}
	forward(spec)
	// Hash ports too, so that the connections of one client spread.
	spec.Sysctls["net.ipv4.fib_multipath_hash_policy"] = "1"
	spec.Sysctls["net.ipv6.fib_multipath_hash_policy"] = "1"
	if k.config.Router.Kind == NoRouter {
		return nil
	}
	if err := os.MkdirAll(spec.Dir, 0o755); err != nil {
		return err
	}
	if err := k.writeRouter(); err != nil {
		return err
	}
	switch k.config.Router.Kind {
	case BIRD:
		p := k.program(RouterHost, "bird")
		p.Argv = []string{"/usr/sbin/bird", "-f", "-c", k.routerFile(), "-s", "/run/bird.ctl"}
		spec.Programs = []control.Program{p}
	case FRR:
		spec.Commands = [][]string{{"mkdir", "-p", "/run/frr"}, {"chown", "frr:frr", "/run/frr"}}
		for _, daemon := range []string{"zebra", "bgpd"} {
			p := k.program(RouterHost, daemon)
			p.Argv = []string{"/usr/lib/frr/" + daemon, "-f", k.routerFile(), "--log", "stdout", "-A", "127.0.0.1"}
			spec.Programs = append(spec.Programs, p)
		}
		spec.Programs[1].WaitFile = "/run/frr/zserv.api"
	}
	return nil
}

func (k *keeper) routerFile() string {
	return filepath.Join(k.config.Dir, "hosts", RouterHost, k.config.Router.Kind+".conf")
}

// writeRouter writes the router's configuration for the nodes there are.
func (k *keeper) writeRouter() error {
	text := k.birdConfig()
	if k.config.Router.Kind == FRR {
		text = k.frrConfig()
	}
	return os.WriteFile(k.routerFile(), []byte(text), 0o644)
}

// reconfigureRouter makes the running router read its configuration again.
func (k *keeper) reconfigureRouter() error {
	h := k.hosts[RouterHost]
	if k.config.Router.Kind == NoRouter {
		return nil
	}
	if err := k.writeRouter(); err != nil {
		return err
	}
	if !h.status().Up {
		return nil
	}
	argv := []string{"/usr/sbin/birdc", "-s", "/run/bird.ctl", "configure"}
	if k.config.Router.Kind == FRR {
		argv = []string{"/usr/bin/vtysh", "-f", k.routerFile()}
	}
	return h.call("Run", argv)
}

func (k *keeper) birdConfig() string {
	r := k.config.Router
	var b strings.Builder
	fmt.Fprintf(&b, `log stderr all;
router id %s;

protocol device { scan time 1; }

protocol kernel kernel4 {
	merge paths on limit 16;
	ipv4 { import none; export where source = RTS_BGP; };
}

protocol kernel kernel6 {
	merge paths on limit 16;
	ipv6 { import none; export where source = RTS_BGP; };
}

template bgp nodes {
	local as %d;
	graceful restart on;
	hold time %d;
	# A session that failed is tried again at once, as tests wait for it.
	connect delay time 1;
	connect retry time 2;
	error wait time 1, 4;
`, addr.Router, addr.RouterASN, r.HoldTime)
	if r.Password != "" {
		fmt.Fprintf(&b, "\tpassword %q;\n", r.Password)
	}
	if r.Passive {
		b.WriteString("\tpassive on;\n")
	}
	if r.NodeExtra != "" {
		fmt.Fprintf(&b, "\t%s\n", strings.TrimSpace(r.NodeExtra))
	}
	b.WriteString("}\n")
	for _, n := range slices.Sorted(maps.Keys(k.nodes)) {
		plan := addr.Node(n)
		fmt.Fprintf(&b, `
protocol bgp %s from nodes {
	neighbor %s as %d;
	ipv4 { import all; export none; };
	ipv6 { import all; export none; };
}

protocol bgp %s_v6 from nodes {
	neighbor %s as %d;
	ipv4 { import all; export none; extended next hop on; };
	ipv6 { import all; export none; };
}
`, plan.Name, plan.IPv4, addr.NodeASN, plan.Name, plan.IPv6, addr.NodeASN)
	}
	b.WriteString("\n" + r.Extra + "\n")
	return b.String()
}

func (k *keeper) frrConfig() string {
	r := k.config.Router
	var b strings.Builder
	fmt.Fprintf(&b, `hostname router
log stdout
!
router bgp %d
 bgp router-id %s
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 bgp graceful-restart
 bgp bestpath as-path multipath-relax
 neighbor nodes peer-group
 neighbor nodes remote-as %d
 neighbor nodes timers %d %d
 neighbor nodes timers connect 2
 neighbor nodes advertisement-interval 0
`, addr.RouterASN, addr.Router, addr.NodeASN, max(1, r.HoldTime/3), r.HoldTime)
	if r.Password != "" {
		fmt.Fprintf(&b, " neighbor nodes password %s\n", r.Password)
	}
	if r.Passive {
		b.WriteString(" neighbor nodes passive\n")
	}
	if r.NodeExtra != "" {
		fmt.Fprintf(&b, " %s\n", strings.TrimSpace(r.NodeExtra))
	}
	for _, n := range slices.Sorted(maps.Keys(k.nodes)) {
		plan := addr.Node(n)
		fmt.Fprintf(&b, " neighbor %s peer-group nodes\n neighbor %s peer-group nodes\n", plan.IPv4, plan.IPv6)
	}
	for _, family := range []string{"ipv4", "ipv6"} {
		fmt.Fprintf(&b, ` address-family %s unicast
  neighbor nodes activate
  neighbor nodes route-map none out
  maximum-paths 16
 exit-address-family
`, family)
	}
	b.WriteString("exit\n!\nroute-map none deny 10\nexit\n!\n" + r.Extra + "\n")
	return b.String()
}
