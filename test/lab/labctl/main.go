// Command labctl runs a lab: a real Kubernetes cluster in network namespaces.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	root := newRoot()
	// As the program of an image it goes by the image's name.
	if filepath.Base(os.Args[0]) == lab.EchoImage {
		root.SetArgs(append([]string{"echo"}, os.Args[1:]...))
	}
	err := root.ExecuteContext(ctx)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if exit.ExitCode() >= 0 {
			return exit.ExitCode()
		}
		if status, ok := exit.Sys().(syscall.WaitStatus); ok {
			return 128 + int(status.Signal())
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "labctl:", err)
		return 1
	}
	return 0
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "labctl",
		Short:         "A real Kubernetes cluster in network namespaces",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	name := root.PersistentFlags().String("name", "lab", "name of the lab")
	attach := func() (*lab.Lab, error) { return lab.Attach(*name) }
	root.AddCommand(upCommand(name), downCommand(name), listCommand())
	root.AddCommand(useCommands(attach)...)
	root.AddCommand(faultCommands(attach)...)
	root.AddCommand(lanCommands(attach)...)
	root.AddCommand(internalCommands()...)
	return root
}
