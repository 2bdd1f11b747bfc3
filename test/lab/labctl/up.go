package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab"
)

func upCommand(name *string) *cobra.Command {
	config := lab.Config{Detached: true}
	var timeout time.Duration
	c := &cobra.Command{
		Use: "up", Short: "Start a lab and leave it running", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			config.Name = *name
			ctx, cancel := timeoutContext(c, timeout)
			defer cancel()
			start := time.Now()
			l, err := lab.Start(ctx, config)
			if err != nil {
				return err
			}
			defer l.Release()
			c.Printf("lab %s is ready after %s\n", l.Name, time.Since(start).Round(10*time.Millisecond))
			return nil
		},
	}
	f := c.Flags()
	f.IntVar(&config.Nodes, "nodes", 3, "number of nodes")
	f.StringSliceVar(&config.Zones, "zones", nil, "zones of node1, node2, ...")
	f.StringVar(&config.Router.Kind, "router", lab.BIRD, "bird, frr, or none")
	f.DurationVar(&config.Router.HoldTime, "hold-time", 9*time.Second, "BGP hold time of the router")
	f.StringVar(&config.Router.Password, "bgp-password", "", "TCP MD5 password of the router's sessions")
	f.BoolVar(&config.Router.Passive, "bgp-passive", false, "let the nodes connect to the router")
	f.StringVar(&config.Router.Extra, "router-extra", "", "text to append to the router's configuration")
	f.StringVar(&config.Router.NodeExtra, "router-node-extra", "", "text for the configuration of each node's session")
	f.StringVar(&config.ProxyMode, "proxy-mode", "nftables", "kube-proxy's: nftables or iptables")
	f.DurationVar(&config.NodeGrace, "node-grace", 5*time.Second, "silence after which a node is NotReady")
	f.DurationVar(&config.EvictionAfter, "eviction-after", 30*time.Second, "how long Pods stay on a node that is not ready")
	f.BoolVar(&config.Fsync, "fsync", false, "let etcd wait for the disk, as in production")
	f.BoolVar(&config.UninitializedNodes, "uninitialized-nodes", false, "taint new nodes for a cloud provider to initialize")
	f.BoolVar(&config.DNS, "dns", false, "run a DNS server for the names of Services")
	f.StringToStringVar(&config.Images, "image", nil, "further images, as NAME=PROGRAM or NAME=DIRECTORY")
	f.DurationVar(&timeout, "timeout", 2*time.Minute, "how long to wait")
	return c
}

func downCommand(name *string) *cobra.Command {
	return &cobra.Command{
		Use: "down", Short: "End a lab and remove everything of it", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return lab.Down(*name) },
	}
}

func listCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the labs of this machine", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			names, err := lab.List()
			for _, n := range names {
				state := "dead"
				if l, err := lab.Attach(n); err == nil {
					state = "running"
					l.Release()
				}
				fmt.Fprintln(c.OutOrStdout(), n, state)
			}
			return err
		},
	}
}
