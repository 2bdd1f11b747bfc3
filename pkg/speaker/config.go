package speaker

import (
	"errors"
	"fmt"
	"time"
)

// Config is what the flags of the program set.
type Config struct {
	// NodeName is the name of the Node that the speaker runs on.
	NodeName string
	// Kubeconfig is a file; empty means the ServiceAccount of the Pod.
	Kubeconfig string
	// Namespace is where the Secrets are: those with BGP passwords, and that with
	// the keys of the heartbeats.
	Namespace string
	// Version of the program, for the report.
	Version string

	// BGPListenPort is the TCP port for routers that connect to the node; -1
	// does not listen.
	BGPListenPort int
	// GobgpSocket is the path of a Unix socket for the gobgp command line tool;
	// empty means none.
	GobgpSocket string
	// MetricsBindAddress serves /metrics, /healthz and /readyz by plain HTTP;
	// empty serves nothing.
	MetricsBindAddress string

	// StateDir is where the last program and the keys of the heartbeats are kept;
	// empty keeps none.
	StateDir string
	// KubeProxyHealthz is the URL of kube-proxy's health check, which is asked
	// after a boot; empty does not ask.
	KubeProxyHealthz string

	// RestartGrace is how long the speaker of another node may be away, while its
	// kernel lives, before its addresses on the LAN are taken over. CoverRestarts
	// has this node answer for them meanwhile, with the other node's MAC address.
	RestartGrace  time.Duration
	CoverRestarts bool

	// Datapath, DatapathTable, DatapathMark and Cleanup belong to
	// parts that this version does not have; see Validate.
	Datapath      []string
	DatapathTable int
	DatapathMark  uint32
	Cleanup       bool
}

// Defaults of the flags.
const (
	DefaultBGPListenPort      = 179
	DefaultMetricsBindAddress = ":7479" // MetalLB's speaker has 7472 and 7473
	DefaultKubeProxyHealthz   = "http://127.0.0.1:10256/healthz"
	DefaultRestartGrace       = 120 * time.Second
)

// Validate finds all that is wrong with the configuration. A setting that asks
// for something that this version does not do is an error, never ignored.
func (c *Config) Validate() error {
	var errs []error
	if c.NodeName == "" {
		errs = append(errs, errors.New("--node-name is empty"))
	}
	if c.Namespace == "" {
		errs = append(errs, errors.New("--namespace is empty"))
	}
	if c.BGPListenPort != -1 && (c.BGPListenPort < 1 || c.BGPListenPort > 65535) {
		errs = append(errs, fmt.Errorf("--bgp-listen-port %d is neither a port nor -1", c.BGPListenPort))
	}
	if err := validateGateURL(c.KubeProxyHealthz); err != nil {
		errs = append(errs, err)
	}
	if c.RestartGrace < 0 {
		errs = append(errs, fmt.Errorf("--restart-grace %v is negative", c.RestartGrace))
	}
	notYet := func(set bool, flag string) {
		if set {
			errs = append(errs, fmt.Errorf("--%s is not supported by this version", flag))
		}
	}
	notYet(len(c.Datapath) > 0, "datapath")
	notYet(c.DatapathTable != 0, "datapath-table")
	notYet(c.DatapathMark != 0, "datapath-mark")
	notYet(c.Cleanup, "cleanup")
	return errors.Join(errs...)
}
