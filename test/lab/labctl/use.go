package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab"
)

func timeoutContext(c *cobra.Command, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(c.Context(), d)
}

type attacher func() (*lab.Lab, error)

// useCommands look into a lab and run things in it.
func useCommands(attach attacher) []*cobra.Command {
	with := func(f func(*cobra.Command, *lab.Lab, []string) error) func(*cobra.Command, []string) error {
		return func(c *cobra.Command, args []string) error {
			l, err := attach()
			if err != nil {
				return err
			}
			defer l.Release()
			return f(c, l, args)
		}
	}
	on := &cobra.Command{
		Use: "on HOST COMMAND...", Short: "Run a command on a host (cp, router, lan, client, node1, ...)", Args: cobra.MinimumNArgs(2),
		RunE: with(func(c *cobra.Command, l *lab.Lab, args []string) error {
			return passThrough(c, l, args[0], args[1:])
		}),
	}
	on.Flags().SetInterspersed(false)
	return []*cobra.Command{
		on,
		{
			Use: "kubectl ARGS...", Short: "Run kubectl as administrator", DisableFlagParsing: true,
			RunE: func(c *cobra.Command, args []string) error {
				// Everything but our own flag in front is kubectl's.
				if len(args) >= 2 && args[0] == "--name" {
					if err := c.Root().PersistentFlags().Set("name", args[1]); err != nil {
						return err
					}
					args = args[2:]
				} else if len(args) >= 1 && strings.HasPrefix(args[0], "--name=") {
					if err := c.Root().PersistentFlags().Set("name", strings.TrimPrefix(args[0], "--name=")); err != nil {
						return err
					}
					args = args[1:]
				}
				return with(func(c *cobra.Command, l *lab.Lab, args []string) error {
					return passThrough(c, l, lab.ControlPlane, l.KubectlArgs(args...))
				})(c, args)
			},
		},
		{
			Use: "kubeconfig", Short: "Print the path of the administrator's kubeconfig, for use on a host", Args: cobra.NoArgs,
			RunE: with(func(c *cobra.Command, l *lab.Lab, _ []string) error {
				fmt.Fprintln(c.OutOrStdout(), l.Kubeconfig())
				return nil
			}),
		},
		{
			Use: "status", Short: "Show the hosts and their programs", Args: cobra.NoArgs,
			RunE: with(func(c *cobra.Command, l *lab.Lab, _ []string) error { return printStatus(c, l) }),
		},
		{
			Use: "logs [NAMESPACE/]POD", Short: "Print the logs of a Pod", Args: cobra.ExactArgs(1),
			RunE: with(func(c *cobra.Command, l *lab.Lab, args []string) error {
				text, err := l.Logs(args[0])
				fmt.Fprint(c.OutOrStdout(), text)
				return err
			}),
		},
		{
			Use: "routes PREFIX", Short: "Show the router's routes to a prefix", Args: cobra.ExactArgs(1),
			RunE: with(func(c *cobra.Command, l *lab.Lab, args []string) error {
				routes, err := l.Routes(c.Context(), args[0])
				for _, r := range routes {
					fmt.Fprintln(c.OutOrStdout(), r)
				}
				return err
			}),
		},
	}
}

// passThrough runs a command with this process's terminal. Signals of the
// terminal reach it by themselves.
func passThrough(c *cobra.Command, l *lab.Lab, host string, argv []string) error {
	cmd := lab.Command(context.WithoutCancel(c.Context()), argv...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := l.StartOn(c.Context(), host, cmd); err != nil {
		return err
	}
	return cmd.Wait()
}

func printStatus(c *cobra.Command, l *lab.Lab) error {
	s, err := l.Status(c.Context())
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(c.OutOrStdout(), 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "lab %s in %s\n\nHOST\tSTATE\tBOOT\tADDRESSES\n", s.Name, l.Dir)
	for _, h := range s.Hosts {
		state := "up"
		switch {
		case !h.Up:
			state = "off"
		case h.Cut:
			state = "cut off"
		}
		var addresses []string
		for _, link := range h.Links {
			addresses = append(addresses, link.Addresses...)
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\n", h.Name, state, h.Boots, strings.Join(addresses, " "))
	}
	fmt.Fprint(w, "\nHOST\tPROGRAM\tSTATE\tSTARTS\tLOG\n")
	for _, h := range s.Hosts {
		for _, p := range h.Programs {
			state := "waiting"
			switch {
			case p.Held:
				state = "held down"
			case p.Running:
				state = fmt.Sprintf("pid %d", p.PID)
			case p.Signal != 0:
				state = p.Signal.String()
			case p.Starts > 0:
				state = fmt.Sprintf("exit %d", p.ExitCode)
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\n", h.Name, p.Name, state, p.Starts, p.Log)
		}
	}
	return w.Flush()
}
