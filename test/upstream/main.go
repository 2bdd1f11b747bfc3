// Command upstream runs Kubernetes' own tests of LoadBalancer Services, those
// with the label Feature:LoadBalancer, against the project in a lab, and prints
// one line for each.
//
// The tests are the unchanged e2e.test of Kubernetes. They run on the client
// behind the router, which is outside of the nodes' subnet as the tests want it,
// and reaches Services as the rest of the world does. Not all of them can pass
// in one arrangement of pools and Pods; see stages.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/cluster"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/addr"
)

type options struct {
	name      string
	nodes     int
	proxyMode string
	layer2    bool
	processes int
	focus     *regexp.Regexp
}

func main() {
	var o options
	flag.StringVar(&o.name, "name", "upstream", "name of the lab")
	flag.IntVar(&o.nodes, "nodes", 3, "number of nodes")
	flag.StringVar(&o.proxyMode, "proxy-mode", "nftables", "kube-proxy's: nftables or iptables")
	flag.IntVar(&o.processes, "processes", 7, "how many tests to run at a time")
	flag.BoolVar(&o.layer2, "layer2", false, "announce the addresses on the LAN, instead of by BGP")
	focus := flag.String("focus", "", "run only tests whose names match this regular expression")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 90*time.Minute)
	defer cancel()
	var err error
	if o.focus, err = regexp.Compile(*focus); err == nil {
		err = run(ctx, o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "upstream:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	root, err := cluster.Root()
	if err != nil {
		return err
	}
	s := suite{bin: filepath.Join(root, "bin"), nodes: o.nodes, processes: o.processes, stages: stages(o)}
	if err := s.check(); err != nil {
		return err
	}
	step("A lab of %d nodes, with the project and a pool", o.nodes)
	l, err := lab.Start(ctx, lab.Config{
		Name: o.name, Nodes: o.nodes, ProxyMode: o.proxyMode, DNS: true,
		Images: map[string]string{"agnhost": s.image()},
		// One test asks for the health of an IPv4 Service at all addresses of a
		// node, where kube-proxy serves it at those of IPv4 only.
		IPv4Only: true,
	})
	if err != nil {
		return err
	}
	defer func() {
		if closed := l.Close(); err == nil {
			err = closed
		}
	}()
	if s.lab, err = install(ctx, l, o.layer2); err != nil {
		return err
	}
	var all []result
	for _, stage := range s.stages {
		results, err := s.runStage(ctx, stage, stage.only(o.focus))
		if err != nil {
			return err
		}
		all = append(all, results...)
	}
	return conclude(os.Stdout, all)
}

func step(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "==> %s  "+format+"\n", append([]any{time.Now().Format(time.TimeOnly)}, args...)...)
}

// install puts the project into a lab, and gives it addresses and a router.
func install(ctx context.Context, l *lab.Lab, layer2 bool) (*cluster.Cluster, error) {
	client, err := l.Client()
	if err != nil {
		return nil, err
	}
	c := &cluster.Cluster{Lab: l, Client: client}
	if err := c.Install(ctx); err != nil {
		return nil, err
	}
	addresses := cluster.Pool + "---" + cluster.Peer
	if layer2 {
		addresses = cluster.Layer2Pool("main", addr.Layer2Pool)
	}
	_, err = c.KubectlStdin(ctx, strings.NewReader(addresses), "apply", "-f", "-")
	return c, err
}

// conclude prints what came of the tests. It is an error if one that can pass
// did not.
func conclude(out io.Writer, results []result) error {
	passed, leftOut := 0, 0
	for _, r := range results {
		fmt.Fprintln(out, r)
		switch r.state {
		case statePassed:
			passed++
		case stateLeftOut:
			leftOut++
		}
	}
	fmt.Fprintf(out, "%d of %d passed, %d left out\n", passed, len(results), leftOut)
	if passed+leftOut < len(results) {
		return errors.New("not all tests passed")
	}
	return nil
}
