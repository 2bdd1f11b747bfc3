package main

import (
	"context"
	"fmt"
	"strconv"
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
	var iface string
	cut := simple("cut HOST", "Take a host off the network; nobody loses a carrier", 1,
		func(ctx context.Context, l *lab.Lab, args []string) error {
			switch {
			case iface != "":
				return l.CutCarrierOf(ctx, args[0], iface)
			case carrier:
				return l.CutCarrier(ctx, args[0])
			}
			return l.Cut(ctx, args[0])
		})
	cut.Flags().BoolVar(&carrier, "carrier", false, "take the host's own carrier away")
	cut.Flags().StringVar(&iface, "interface", "", "take the carrier of this interface away, and of no other")

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

	var oneWay bool
	part := simple("part HOSTS HOSTS", "Lose the frames between hosts and others, both comma lists", 2,
		func(ctx context.Context, l *lab.Lab, args []string) error {
			some, others := strings.Split(args[0], ","), strings.Split(args[1], ",")
			if !oneWay {
				return l.Part(ctx, some, others)
			}
			for _, from := range some {
				for _, to := range others {
					if err := l.Drop(ctx, from, to); err != nil {
						return err
					}
				}
			}
			return nil
		})
	part.Flags().BoolVar(&oneWay, "one-way", false, "lose only those from the first to the second")

	return []*cobra.Command{
		part,
		simple("heal", "End what part has begun", 0, func(ctx context.Context, l *lab.Lab, _ []string) error {
			return l.Heal(ctx)
		}),
		simple("loss PERCENT", "Lose so many percent of all frames of the LAN; 0 ends that", 1, func(ctx context.Context, l *lab.Lab, args []string) error {
			percent, err := strconv.ParseFloat(args[0], 64)
			if err != nil {
				return fmt.Errorf("percent: %w", err)
			}
			return l.SetLoss(ctx, percent)
		}),
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
		simple("shutdown NODE", "End a node's containers with SIGTERM and take the power away", 1, func(ctx context.Context, l *lab.Lab, args []string) error {
			return l.Shutdown(ctx, args[0])
		}),
		simple("proxy-health NODE STATUS", "Make kube-proxy's health check answer 200 or 503", 2, func(ctx context.Context, l *lab.Lab, args []string) error {
			switch args[1] {
			case "200":
				return l.RestoreProxyHealth(ctx, args[0])
			case "503":
				return l.FailProxyHealth(ctx, args[0])
			}
			return fmt.Errorf("status %q is neither 200 nor 503", args[1])
		}),
		simple("quota HOST PROGRAM CORES", "Bound the CPU time of a program; 0 ends that", 3, func(ctx context.Context, l *lab.Lab, args []string) error {
			cores, err := strconv.ParseFloat(args[2], 64)
			if err != nil {
				return fmt.Errorf("cores: %w", err)
			}
			return l.SetQuota(ctx, args[0], args[1], cores)
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
