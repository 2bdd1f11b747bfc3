package main

import (
	"github.com/spf13/cobra"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/internal/container"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/internal/dns"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/internal/echo"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/internal/host"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/internal/keeper"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/internal/kubelet"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/internal/load"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/internal/wire"
)

// internalCommands are the processes that a lab consists of.
func internalCommands() []*cobra.Command {
	var owned bool
	keep := &cobra.Command{
		Use: "keeper CONFIG", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return keeper.Main(args[0], owned) },
	}
	keep.Flags().BoolVar(&owned, "owned", false, "end with the owner")

	var listen string
	echoServer := &cobra.Command{
		Use: "echo", Short: "Answer HTTP requests with the names of the Pod and the node", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return echo.Run(c.Context(), listen) },
	}
	echoServer.Flags().StringVar(&listen, "listen", ":8080", "address to serve on")

	var options load.Options
	generate := &cobra.Command{
		Use: "load URL", Short: "Send requests at a steady rate and report what came of them", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			options.URL = args[0]
			return load.Main(c.Context(), options, c.InOrStdin(), c.OutOrStdout())
		},
	}
	f := generate.Flags()
	f.Float64Var(&options.Rate, "rate", 50, "requests per second")
	f.DurationVar(&options.Duration, "duration", 0, "how long (0: an hour)")
	f.DurationVar(&options.Timeout, "timeout", load.DefaultTimeout, "of one request, or of silence in a stream")
	f.BoolVar(&options.Stream, "stream", false, "read one endless response instead; it is not opened again when it breaks")
	f.BoolVar(&options.UntilEOF, "until-eof", false, "stop when standard input ends")
	f.DurationVar(&options.Progress, "progress", 0, "report that often, not only at the end")

	var kubeconfig, address string
	names := &cobra.Command{
		Use: "dns", Hidden: true, Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return dns.Main(c.Context(), kubeconfig, address) },
	}
	names.Flags().StringVar(&kubeconfig, "kubeconfig", "", "how to reach the API server")
	names.Flags().StringVar(&address, "listen", "", "address to serve on")

	return []*cobra.Command{
		keep, echoServer, generate, names,
		{
			Use: "wire PROGRAM OPTIONS", Hidden: true, Args: cobra.ExactArgs(2),
			RunE: func(c *cobra.Command, args []string) error {
				return wire.Main(c.Context(), args[0], args[1], c.InOrStdin(), c.OutOrStdout())
			},
		},
		{
			Use: "host", Hidden: true, Args: cobra.NoArgs,
			RunE: func(*cobra.Command, []string) error { return host.Main() },
		},
		{
			Use: "kubelet CONFIG", Hidden: true, Args: cobra.ExactArgs(1),
			RunE: func(c *cobra.Command, args []string) error { return kubelet.Main(c.Context(), args[0]) },
		},
		{
			Use: "container SPEC", Hidden: true, Args: cobra.ExactArgs(1),
			RunE: func(_ *cobra.Command, args []string) error { return container.Main(args[0]) },
		},
		{
			Use: container.JoinCommand + " COMMAND...", Hidden: true, DisableFlagParsing: true,
			RunE: func(_ *cobra.Command, args []string) error { return container.Join(args) },
		},
	}
}
