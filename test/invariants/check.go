package invariants

import (
	"context"
	"testing"
	"time"

	"k8s.io/client-go/rest"
)

// startTimeout bounds how long Check waits for its first look at the cluster.
const startTimeout = 30 * time.Second

// Check watches a cluster until the test ends, and then fails the test for each
// violation. Disturbances are written to its log. The test calls it when the
// project is installed.
func Check(t testing.TB, config *rest.Config, options Options) *Checker {
	t.Helper()
	c, err := NewChecker(config, options)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		c.report(t)
	})
	waiting, stop := context.WithTimeout(ctx, startTimeout)
	defer stop()
	if err := c.WaitConnected(waiting); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *Checker) report(t testing.TB) {
	t.Helper()
	allocation, programs := c.Judged()
	t.Logf("invariants: judged allocation for %s and programs for %s", allocation.Round(time.Second), programs.Round(time.Second))
	if allocation == 0 || programs == 0 {
		t.Log("invariants: nothing could be judged: no Lease was held, or the API server was away")
	}
	for _, d := range c.Disturbances() {
		t.Logf("invariants: disturbed: %s", d)
	}
	for _, v := range c.Violations() {
		t.Errorf("invariants: %s", v)
	}
}
