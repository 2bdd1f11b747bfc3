package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab"
)

// lanCommands look at ARP and NDP on the LAN.
func lanCommands(attach attacher) []*cobra.Command {
	neighbors := &cobra.Command{
		Use: "neighbors HOST", Short: "Show the neighbour table of a host", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			l, err := attach()
			if err != nil {
				return err
			}
			defer l.Release()
			names, err := l.HostsByMAC(c.Context())
			if err != nil {
				return err
			}
			list, err := l.Neighbors(c.Context(), args[0])
			for _, n := range list {
				fmt.Fprintln(c.OutOrStdout(), n, names[n.MAC])
			}
			return err
		},
	}

	var ask lab.AskOptions
	asking := &cobra.Command{
		Use: "ask HOST ADDRESSES...", Short: "Ask from a host who has addresses, ranges (FROM-TO) or prefixes", Args: cobra.MinimumNArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			l, err := attach()
			if err != nil {
				return err
			}
			defer l.Release()
			names, err := l.HostsByMAC(c.Context())
			if err != nil {
				return err
			}
			ask.Addresses = args[1:]
			answers, err := l.Ask(c.Context(), args[0], ask)
			for _, a := range answers {
				fmt.Fprintln(c.OutOrStdout(), answerLine(a, names))
			}
			return err
		},
	}
	f := asking.Flags()
	f.IntVar(&ask.Count, "count", 1, "how often to ask for each")
	f.DurationVar(&ask.Every, "every", 0, "time between two requests; the addresses take turns (default 500µs)")
	f.DurationVar(&ask.Wait, "wait", 0, "how long to wait for the last answers (default 500ms)")
	f.StringVar(&ask.Unicast, "unicast", "", "MAC address to send to, instead of all")
	f.BoolVar(&ask.NoOption, "no-option", false, "leave the source link-layer address out of solicitations")
	f.BoolVar(&ask.Probe, "dad", false, "probe, as duplicate address detection does")
	f.StringVar(&ask.Interface, "interface", "eth0", "interface of the host")

	var capture lab.CaptureOptions
	capturing := &cobra.Command{
		Use: "capture HOST", Short: "Print ARP and NDP packets that a host hears and sends", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			l, err := attach()
			if err != nil {
				return err
			}
			defer l.Release()
			heard, err := l.StartCapture(c.Context(), args[0], capture)
			if err != nil {
				return err
			}
			if err := heard.Follow(c.Context(), func(p *lab.Packet) { fmt.Fprintln(c.OutOrStdout(), p) }); err != nil {
				return err
			}
			_, err = heard.Stop()
			return err
		},
	}
	f = capturing.Flags()
	f.BoolVar(&capture.Claims, "claims", false, "only packets that claim an address")
	f.IntVar(&capture.Count, "count", 0, "end after so many packets")
	f.DurationVar(&capture.Duration, "duration", 0, "end after that time")
	f.StringVar(&capture.Interface, "interface", "eth0", "interface of the host")

	return []*cobra.Command{neighbors, asking, capturing}
}

func answerLine(a lab.Answer, names map[string]string) string {
	if len(a.MACs) == 0 {
		return fmt.Sprintf("%s: no answer to %d requests", a.Address, a.Asked)
	}
	var who []string
	for _, mac := range a.MACs {
		text := mac
		if name := names[mac]; name != "" {
			text += " (" + name + ")"
		}
		who = append(who, text)
	}
	return fmt.Sprintf("%s is at %s: %d of %d requests answered, the first after %s",
		a.Address, strings.Join(who, " and "), a.Answered, a.Asked, a.Latencies[0])
}
