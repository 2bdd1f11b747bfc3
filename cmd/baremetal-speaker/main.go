// Command baremetal-speaker announces a node's load balancer addresses. It runs
// once on each node.
package main

import (
	"context"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	"k8s.io/component-base/logs"
	logsapi "k8s.io/component-base/logs/api/v1"
	"k8s.io/klog/v2"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/speaker"
)

// version is set by -ldflags "-X main.version=v1.2.3".
var version string

func main() {
	os.Exit(cli.Run(newCommand()))
}

func newCommand() *cobra.Command {
	config := speaker.Config{Version: programVersion()}
	logging := logsapi.NewLoggingConfiguration()
	command := &cobra.Command{
		Use:          "baremetal-speaker",
		Short:        "Announces the load balancer addresses of a node",
		Version:      config.Version,
		Args:         cobra.NoArgs,
		SilenceUsage: true,
		PreRunE:      func(*cobra.Command, []string) error { return config.Validate() },
		RunE: func(*cobra.Command, []string) error {
			if err := logsapi.ValidateAndApply(logging, nil); err != nil {
				return err
			}
			tuneMemory()
			return speaker.Run(klog.NewContext(stopped(), klog.Background()), config)
		},
	}
	flags := command.Flags()
	hostname, _ := os.Hostname()
	flags.StringVar(&config.NodeName, "node-name", envOr("NODE_NAME", hostname), "Name of the Node that this speaker runs on. Default: $NODE_NAME, or the host name.")
	flags.StringVar(&config.Kubeconfig, "kubeconfig", "", "Path of a kubeconfig file. Empty: the ServiceAccount of the Pod.")
	flags.StringVar(&config.Namespace, "namespace", envOr("POD_NAMESPACE", v1alpha1.DefaultNamespace), "Namespace of the Secrets: BGP passwords, and the key of the heartbeats. Default: $POD_NAMESPACE, or "+v1alpha1.DefaultNamespace+".")
	flags.StringVar(&config.StateDir, "state-dir", "", "Directory for the last program and the keys of the heartbeats, so that a restart needs no API server. Empty: none is kept.")
	flags.IntVar(&config.BGPListenPort, "bgp-listen-port", speaker.DefaultBGPListenPort, "TCP port for routers that connect to the node; -1 does not listen.")
	flags.StringVar(&config.GobgpSocket, "gobgp-socket", "", "Path of a Unix socket for the gobgp command line tool, for this user only. Empty: none.")
	flags.StringVar(&config.MetricsBindAddress, "metrics-bind-address", speaker.DefaultMetricsBindAddress, "Address that serves /metrics, /healthz and /readyz by HTTP. Empty: none.")
	flags.StringVar(&config.KubeProxyHealthz, "kube-proxy-healthz", speaker.DefaultKubeProxyHealthz, "URL of kube-proxy's health check, which gates announcements after a boot. Empty: no gate.")
	flags.DurationVar(&config.RestartGrace, "restart-grace", speaker.DefaultRestartGrace, "How long the speaker of another node may be away, while its kernel lives, before its addresses on the LAN are taken over.")
	flags.BoolVar(&config.CoverRestarts, "cover-restarts", true, "Answer on the LAN for a speaker that is away, with the MAC address of its node. Turn it off on all nodes where the network inspects ARP: addresses then move when a speaker restarts.")
	flags.StringSliceVar(&config.Datapath, "datapath", nil, "Comma list of data path helpers. Not supported by this version.")
	flags.IntVar(&config.DatapathTable, "datapath-table", 0, "Routing table of the data path helpers. Not supported by this version.")
	flags.Uint32Var(&config.DatapathMark, "datapath-mark", 0, "Firewall mark of the data path helpers. Not supported by this version.")
	flags.BoolVar(&config.Cleanup, "cleanup", false, "Remove what the data path helpers left behind, and exit. Not supported by this version.")
	logsapi.AddFlags(logging, flags)
	logs.AddFlags(flags)
	return command
}

// tuneMemory collects garbage earlier than usual: a speaker has little to do, and the
// memory of a node belongs to its Pods.
func tuneMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
}

// stopped is a context that ends with SIGTERM or SIGINT. A second signal ends
// the process at once.
func stopped() context.Context {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	context.AfterFunc(ctx, stop) // the next one has its default effect
	return ctx
}

func envOr(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

// programVersion is that of the build.
func programVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "devel"
}
