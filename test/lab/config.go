package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/addr"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/internal/control"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/internal/keeper"
)

// Router kinds.
const (
	BIRD     = keeper.BIRD
	FRR      = keeper.FRR
	NoRouter = keeper.NoRouter
)

// Names of the hosts that every lab has. Nodes are node1, node2, ...
const (
	ControlPlane = keeper.ControlPlane
	Router       = keeper.RouterHost
	LAN          = keeper.LANHost // the LAN client
	Client       = keeper.FarHost // the far client, behind the router
)

// Config describes a lab. The zero value is a good lab with one node.
type Config struct {
	// Name tells labs of a machine apart. Default "lab".
	Name string
	// Nodes is the number of nodes. Default 1.
	Nodes int
	// Zones gives nodes 1, 2, ... a topology.kubernetes.io/zone label.
	Zones []string
	// NodeLabels gives nodes 1, 2, ... further labels.
	NodeLabels []map[string]string

	// Router is what the router runs.
	Router RouterConfig

	// ProxyMode is kube-proxy's, nftables (the default) or iptables.
	ProxyMode string
	// NodeGrace is how long a node may be silent before it is NotReady.
	// Default 5s. Leases are renewed four times as often.
	NodeGrace time.Duration
	// EvictionAfter is how long Pods stay on a node that is not ready.
	// Default 30s.
	EvictionAfter time.Duration
	// Fsync makes etcd write to the disk as it does in production.
	Fsync bool
	// UninitializedNodes gives new nodes the taint that a cloud provider
	// removes.
	UninitializedNodes bool

	// IPv4Only makes a cluster without IPv6: its Nodes, Pods and ClusterIPs have
	// none. Hosts do.
	IPv4Only bool
	// DNS gives the cluster a DNS server for the names of Services.
	DNS bool

	// Images maps base names of images to programs, in addition to those of
	// the project and lab-echo. A directory is an image of several programs:
	// that of the image's name, and others in the container's /usr/local/bin.
	Images map[string]string

	// APIServerArgs, ControllerManagerArgs and ProxyArgs are further flags.
	APIServerArgs, ControllerManagerArgs, ProxyArgs []string

	// Detached lets the lab outlive the process that starts it.
	Detached bool
	// StateDir is where labs have their directories. Default /run/baremetal-lab.
	StateDir string
}

// RouterConfig is the configuration of the router.
type RouterConfig struct {
	// Kind is BIRD (the default), FRR, or NoRouter for a router without BGP.
	Kind string
	// HoldTime of the BGP sessions. Default 9s.
	HoldTime time.Duration
	// Password is the TCP MD5 password of the sessions.
	Password string
	// Passive makes the router wait for the nodes to connect.
	Passive bool
	// Extra is appended to the router's configuration.
	Extra string
	// NodeExtra goes into the protocol block (BIRD) or the peer group (FRR)
	// of the nodes, for example "bfd on;".
	NodeExtra string
}

const defaultStateDir = "/run/baremetal-lab"

// Names become parts of paths of sockets, which must be short.
var validName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$`)

func (c *Config) setDefaults() {
	if c.Name == "" {
		c.Name = "lab"
	}
	if c.Nodes == 0 {
		c.Nodes = 1
	}
	if c.ProxyMode == "" {
		c.ProxyMode = "nftables"
	}
	if c.NodeGrace == 0 {
		c.NodeGrace = 5 * time.Second
	}
	if c.EvictionAfter == 0 {
		c.EvictionAfter = 30 * time.Second
	}
	if c.Router.Kind == "" {
		c.Router.Kind = BIRD
	}
	if c.Router.HoldTime == 0 {
		c.Router.HoldTime = 9 * time.Second
	}
	if c.StateDir == "" {
		c.StateDir = defaultStateDir
	}
}

func (c *Config) validate() error {
	var errs []error
	if !validName.MatchString(c.Name) {
		errs = append(errs, fmt.Errorf("name %q is not a short lower-case name", c.Name))
	}
	if c.Nodes < 0 || c.Nodes > addr.MaxNodes {
		errs = append(errs, fmt.Errorf("%d nodes: the address plan has room for %d", c.Nodes, addr.MaxNodes))
	}
	switch c.Router.Kind {
	case BIRD, FRR, NoRouter:
	default:
		errs = append(errs, fmt.Errorf("unknown router %q", c.Router.Kind))
	}
	if c.ProxyMode != "nftables" && c.ProxyMode != "iptables" {
		errs = append(errs, fmt.Errorf("unknown proxy mode %q", c.ProxyMode))
	}
	if c.NodeGrace < 2*time.Second {
		errs = append(errs, fmt.Errorf("node grace %s: needs 2s or more", c.NodeGrace))
	}
	if os.Geteuid() != 0 {
		errs = append(errs, errors.New("a lab needs root"))
	}
	return errors.Join(errs...)
}

func (c *Config) dir() string { return filepath.Join(c.StateDir, c.Name) }

// keeperConfig translates the configuration to what the keeper takes.
func (c *Config) keeperConfig(root string) keeper.Config {
	k := keeper.Config{
		Name:    c.Name,
		Dir:     c.dir(),
		BinDir:  filepath.Join(root, "bin", "lab"),
		Command: filepath.Join(c.dir(), commandFile),
		Images: map[string]string{
			"baremetal-speaker":                  filepath.Join(root, "bin", "baremetal-speaker"),
			"baremetal-cloud-controller-manager": filepath.Join(root, "bin", "baremetal-cloud-controller-manager"),
			EchoImage:                            filepath.Join(c.dir(), commandFile),
		},
		Router: keeper.Router{
			Kind:      c.Router.Kind,
			HoldTime:  int(c.Router.HoldTime / time.Second),
			Password:  c.Router.Password,
			Passive:   c.Router.Passive,
			Extra:     c.Router.Extra,
			NodeExtra: c.Router.NodeExtra,
		},
		ProxyMode:             c.ProxyMode,
		NodeGrace:             c.NodeGrace,
		EvictionAfter:         c.EvictionAfter,
		Fsync:                 c.Fsync,
		Uninitialized:         c.UninitializedNodes,
		IPv4Only:              c.IPv4Only,
		DNS:                   c.DNS,
		APIServerArgs:         c.APIServerArgs,
		ControllerManagerArgs: c.ControllerManagerArgs,
		ProxyArgs:             c.ProxyArgs,
	}
	for name, program := range c.Images {
		k.Images[name] = program
	}
	for i := range c.Nodes {
		var n control.NodeRequest
		if i < len(c.Zones) {
			n.Zone = c.Zones[i]
		}
		if i < len(c.NodeLabels) {
			n.Labels = c.NodeLabels[i]
		}
		k.Nodes = append(k.Nodes, n)
	}
	return k
}
