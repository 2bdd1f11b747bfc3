package lab

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// shutdownGrace is how long the containers of a node that shuts down have.
const shutdownGrace = 10 * time.Second

// Shutdown ends all containers of a node with SIGTERM, as its init system or its
// kubelet does when the machine shuts down, and switches it off when they have
// ended, 10 seconds later at the latest. PowerOn boots it again.
func (l *Lab) Shutdown(ctx context.Context, node string) error {
	status, err := l.Status(ctx)
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, shutdownGrace)
	defer cancel()
	var group errgroup.Group
	for _, h := range status.Hosts {
		for _, p := range h.Programs {
			if h.Name == node && p.Container && p.Running {
				group.Go(func() error { return l.Kill(limited, node, p.Name, syscall.SIGTERM) })
			}
		}
	}
	if err := group.Wait(); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("shut down %s: %w", node, err)
	}
	return l.PowerOff(ctx, node)
}
