// Command failover measures for how long users find a Service on the LAN to be
// away when something fails, restarts or is maintained: real programs and real
// kernels in a lab, one lab for each scenario, and requests every 20 ms from the
// LAN and from behind a router.
//
// It prints a table, and writes the figures (failover.json) and the table
// (failover.md). There is no pass and no fail; the tests of this package have
// that.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// options are what the scenarios can be told.
type options struct {
	runs        int
	flush       time.Duration // between two flushes of neighbour caches
	nodeGrace   time.Duration
	speakerDown time.Duration
	apiDown     time.Duration
	off         time.Duration // how long a node that reboots is
	patience    time.Duration // with what does not end
	addresses   int           // of a dead node
	soak        soakOptions
}

func main() {
	var (
		o    options
		only = flag.String("scenarios", "", "comma list of names, or parts of names; empty means all but soak")
		list = flag.Bool("list", false, "list the scenarios, and measure nothing")
		out  = flag.String("out", "", "directory for failover.json and failover.md; empty: none are written")
	)
	flag.IntVar(&o.runs, "runs", 10, "how often to run each scenario")
	flag.DurationVar(&o.flush, "flush", time.Second, "time between two flushes of the clients' neighbour caches, in the scenarios that have it")
	flag.DurationVar(&o.nodeGrace, "node-grace", 5*time.Second, "silence after which a node is NotReady (Kubernetes: 50s)")
	flag.DurationVar(&o.speakerDown, "speaker-down", time.Minute, "how long a killed speaker stays down")
	flag.DurationVar(&o.apiDown, "api-down", 2*time.Minute, "how long the API server stays down")
	flag.DurationVar(&o.off, "off", 15*time.Second, "how long a node that reboots is off")
	flag.DurationVar(&o.patience, "patience", 30*time.Second, "when to give up on an outage that does not end")
	flag.IntVar(&o.addresses, "addresses", 2000, "addresses of a node that dies")
	flag.DurationVar(&o.soak.duration, "soak", 10*time.Minute, "how long to soak")
	flag.IntVar(&o.soak.nodes, "soak-nodes", 10, "nodes in the soak")
	flag.IntVar(&o.soak.addresses, "soak-addresses", 500, "addresses in the soak")
	flag.Uint64Var(&o.soak.seed, "soak-seed", 1, "of what the soak does at random")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 6*time.Hour)
	defer cancel()
	if err := run(ctx, o, *only, *out, *list); err != nil {
		fmt.Fprintln(os.Stderr, "failover:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options, only, out string, list bool) error {
	chosen, err := choose(scenarios(), only)
	if err != nil {
		return err
	}
	if list {
		for _, s := range chosen {
			fmt.Printf("%-24s %s, %d nodes\n", s.name, s.what, s.nodeCount(o))
		}
		return nil
	}
	if err := o.validate(); err != nil {
		return err
	}
	var results []result
	var errs []error
	for _, s := range chosen {
		r, err := measure(ctx, s, o)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", s.name, err))
		}
		if len(r.Samples) > 0 {
			results = append(results, r)
		}
		if out != "" && len(results) > 0 {
			if err := save(out, results); err != nil {
				return err
			}
		}
		if ctx.Err() != nil {
			break
		}
	}
	fmt.Print(table(results))
	return errors.Join(errs...)
}

func (o options) validate() error {
	var errs []error
	if o.runs < 1 || o.runs > 1000 {
		errs = append(errs, fmt.Errorf("-runs: %d is not between 1 and 1000", o.runs))
	}
	for name, d := range map[string]time.Duration{
		"flush": o.flush, "speaker-down": o.speakerDown, "api-down": o.apiDown, "off": o.off, "patience": o.patience, "soak": o.soak.duration,
	} {
		if d < 100*time.Millisecond || d > time.Hour {
			errs = append(errs, fmt.Errorf("-%s: %s is not between 100ms and 1h", name, d))
		}
	}
	if o.addresses < 1 || o.addresses > 10_000 {
		errs = append(errs, fmt.Errorf("-addresses: %d is not between 1 and 10000", o.addresses))
	}
	return errors.Join(append(errs, o.soak.validate())...)
}

// choose are the scenarios whose name contains one of a comma list.
func choose(all []scenario, only string) ([]scenario, error) {
	if only == "" {
		return slices.DeleteFunc(all, func(s scenario) bool { return s.onDemand }), nil
	}
	var chosen []scenario
	for _, part := range strings.Split(only, ",") {
		found := slices.DeleteFunc(slices.Clone(all), func(s scenario) bool { return !strings.Contains(s.name, part) })
		if len(found) == 0 {
			return nil, fmt.Errorf("-scenarios: no scenario %q; -list shows all", part)
		}
		chosen = append(chosen, found...)
	}
	return chosen, nil
}
