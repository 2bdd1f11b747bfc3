// Command bench measures the project against a bare floor program, in one lab,
// in one run, and prints one table.
//
// The floor does the writes that nobody can do without (a finalizer, a status,
// a Node annotation, the two Events of the service controller) and decides
// nothing. Machines differ and are noisy; the ratio of the two columns is what
// counts.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/cluster"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab"
)

func main() {
	single := flag.Int("single", 40, "Services created one at a time")
	rounds := flag.Int("rounds", 2, "rounds of Services created one at a time, floor and project in turn")
	bulk := flag.Int("bulk", 2000, "pending Services at the start of the cloud-controller-manager")
	fsync := flag.Bool("fsync", false, "let etcd write to the disk as in production")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 20*time.Minute)
	defer cancel()
	if err := run(ctx, *single, *rounds, *bulk, *fsync); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, single, rounds, bulk int, fsync bool) (err error) {
	step := func(format string, args ...any) { fmt.Fprintf(os.Stderr, "==> "+format+"\n", args...) }

	step("A lab of three nodes, with the project installed")
	l, err := lab.Start(ctx, lab.Config{Name: "bench", Nodes: 3, Fsync: fsync})
	if err != nil {
		return err
	}
	defer func() {
		if closed := l.Close(); err == nil {
			err = closed
		}
	}()
	client, err := l.Client()
	if err != nil {
		return err
	}
	c := &cluster.Cluster{Lab: l, Client: client}
	if err := c.Install(ctx); err != nil {
		return err
	}
	b, err := newBench(ctx, c)
	if err != nil {
		return err
	}

	var floorSingle, eventsSingle, oursSingle latencies
	for round := range rounds {
		step("Round %d of %d: the floor, %d Services one at a time", round+1, rounds, single)
		if err := b.withFloor(ctx, false, func() error { return b.oneAtATime(ctx, single, &floorSingle) }); err != nil {
			return err
		}
		step("Round %d of %d: the floor with Events, %d Services one at a time", round+1, rounds, single)
		if err := b.withFloor(ctx, true, func() error { return b.oneAtATime(ctx, single, &eventsSingle) }); err != nil {
			return err
		}
		step("Round %d of %d: the project, %d Services one at a time", round+1, rounds, single)
		if err := b.withProject(ctx, func() error { return b.oneAtATime(ctx, single, &oursSingle) }); err != nil {
			return err
		}
	}

	if bulk == 0 {
		report(os.Stdout, single*rounds, 0, floorSingle, eventsSingle, oursSingle, 0, bulkResult{})
		return nil
	}
	step("The floor's writes for %d Services", bulk)
	floorBulk, err := b.floorBulk(ctx, bulk)
	if err != nil {
		return err
	}
	step("The project: %d pending Services", bulk)
	oursBulk, err := b.projectBulk(ctx, bulk)
	if err != nil {
		return err
	}
	report(os.Stdout, single*rounds, bulk, floorSingle, eventsSingle, oursSingle, floorBulk, oursBulk)
	return nil
}
