package main

import (
	"context"
	"fmt"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab"
)

// faultCommands break things and repair them.
func faultCommands(attach attacher) []*cobra.Command {
	simple := func(use, short string, n int, f func(context.Context, *lab.Lab, []string) error) *cobra.Command {
		return &cobra.Command{
			Use: use, Short: short, Args: cobra.ExactArgs(n),
			RunE: func(c *cobra.Command, args []string) error {
				l, err := attach()
				if err != nil {
					return err
				}
				defer l.Release()
				return f(c.Context(), l, args)
			},
		}
	}
	var carrier bool
	cut := simple("cut HOST", "Take a host off the network; nobody loses a carrier", 1,
		func(ctx context.Context, l *lab.Lab, args []string) error {
			if carrier {
				return l.CutCarrier(ctx, args[0])
			}
			return l.Cut(ctx, args[0])
		})
	cut.Flags().BoolVar(&carrier, "carrier", false, "take the host's own carrier away")

	var killSignal, restartSignal string
	kill := simple("kill HOST PROGRAM", "End a program and keep it down", 2,
		func(ctx context.Context, l *lab.Lab, args []string) error {
			sig, err := parseSignal(killSignal)
			if err != nil {
				return err
			}
			return l.Kill(ctx, args[0], args[1], sig)
		})
	kill.Flags().StringVar(&killSignal, "signal", "KILL", "signal to end it with")
	restart := simple("restart HOST PROGRAM", "End a program, which comes back at once", 2,
		func(ctx context.Context, l *lab.Lab, args []string) error {
			sig, err := parseSignal(restartSignal)
			if err != nil {
				return err
			}
			return l.Restart(ctx, args[0], args[1], sig)
		})
	restart.Flags().StringVar(&restartSignal, "signal", "TERM", "signal to end it with")

	var node lab.NodeOptions
	add := simple("add-node", "Add a node", 0, func(ctx context.Context, l *lab.Lab, _ []string) error {
		name, err := l.AddNode(ctx, node)
		if err == nil {
			fmt.Println(name)
		}
		return err
	})
	add.Flags().StringVar(&node.Zone, "zone", "", "zone of the node")
	add.Flags().StringToStringVar(&node.Labels, "labels", nil, "labels of the node")

	return []*cobra.Command{
		cut, kill, restart, add,
		simple("restore HOST", "Connect a host that was cut", 1, func(ctx context.Context, l *lab.Lab, args []string) error {
			return l.Restore(ctx, args[0])
		}),
		simple("start HOST PROGRAM", "Start a program that was killed", 2, func(ctx context.Context, l *lab.Lab, args []string) error {
			return l.StartProgram(ctx, args[0], args[1])
		}),
		simple("signal HOST PROGRAM SIGNAL", "Send a program a signal", 3, func(ctx context.Context, l *lab.Lab, args []string) error {
			sig, err := parseSignal(args[2])
			if err != nil {
				return err
			}
			return l.Signal(ctx, args[0], args[1], sig)
		}),
		simple("stop-api", "Kill the API server and keep it down", 0, func(ctx context.Context, l *lab.Lab, _ []string) error {
			return l.StopAPI(ctx)
		}),
		simple("start-api", "Start the API server", 0, func(ctx context.Context, l *lab.Lab, _ []string) error {
			return l.StartAPI(ctx)
		}),
		simple("reboot HOST", "Take the power away and give it back", 1, func(ctx context.Context, l *lab.Lab, args []string) error {
			return l.Reboot(ctx, args[0])
		}),
		simple("poweroff HOST", "Take the power away", 1, func(ctx context.Context, l *lab.Lab, args []string) error {
			return l.PowerOff(ctx, args[0])
		}),
		simple("poweron HOST", "Boot a host that is off", 1, func(ctx context.Context, l *lab.Lab, args []string) error {
			return l.PowerOn(ctx, args[0])
		}),
		simple("remove-node NODE", "Switch a node off for ever and delete it", 1, func(ctx context.Context, l *lab.Lab, args []string) error {
			return l.RemoveNode(ctx, args[0])
		}),
	}
}

func parseSignal(name string) (syscall.Signal, error) {
	name = strings.ToUpper(name)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	sig := unix.SignalNum(name)
	if sig == 0 {
		return 0, fmt.Errorf("unknown signal %q", name)
	}
	return sig, nil
}
