// Command watch watches a cluster and prints each violation of its invariants,
// with the history that led to it, until it is interrupted. It ends with status 1
// if there was any.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/invariants"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	violations, err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	if violations > 0 {
		os.Exit(1)
	}
}

func run(ctx context.Context) (violations int, err error) {
	var options invariants.Options
	labName := flag.String("lab", "", "name of a running lab, in place of --kubeconfig")
	kubeconfig := flag.String("kubeconfig", os.Getenv("KUBECONFIG"), "path of a kubeconfig")
	flag.StringVar(&options.Namespace, "namespace", "", "namespace that the project is installed in")
	flag.BoolVar(&options.NoLeases, "no-leases", false, "the programs run without leader election")
	flag.BoolVar(&options.RequireClass, "require-load-balancer-class", false, "as of the cloud-controller-manager")
	flag.DurationVar(&options.Grace, "grace", 0, "how long a status may be wrong (default 1.5s)")
	flag.DurationVar(&options.Slow, "slow", 0, "how long all else may be wrong (default 10s)")
	flag.Parse()

	config, release, err := connect(*labName, *kubeconfig)
	if err != nil {
		return 0, err
	}
	defer release()
	checker, err := invariants.NewChecker(config, options)
	if err != nil {
		return 0, err
	}
	checker.OnViolation = func(v invariants.Violation) { fmt.Println(v) }
	if err := checker.Run(ctx); err != nil {
		return 0, err
	}
	for _, d := range checker.Disturbances() {
		fmt.Println("disturbed:", d)
	}
	allocation, programs := checker.Judged()
	fmt.Printf("%d violations; judged allocation for %s and programs for %s\n",
		len(checker.Violations()), allocation.Round(time.Second), programs.Round(time.Second))
	return len(checker.Violations()), nil
}

func connect(labName, kubeconfig string) (config *rest.Config, release func(), err error) {
	if labName == "" {
		config, err = clientcmd.BuildConfigFromFlags("", kubeconfig)
		return config, func() {}, err
	}
	l, err := lab.Attach(labName)
	if err != nil {
		return nil, nil, err
	}
	config, err = l.RESTConfig()
	return config, l.Release, err
}
