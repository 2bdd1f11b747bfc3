package lab

import (
	"context"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/internal/control"
)

// Drop makes the LAN lose the frames from one host to another, those to all
// included, on all interfaces they have there. The other way stays open.
func (l *Lab) Drop(ctx context.Context, from, to string) error {
	return l.call(ctx, "Drop", control.DropRequest{From: from, To: to}, &control.None{})
}

// Part makes the LAN lose the frames between each of some hosts and each of
// others, both ways.
func (l *Lab) Part(ctx context.Context, some, others []string) error {
	for _, a := range some {
		for _, b := range others {
			if err := l.Drop(ctx, a, b); err != nil {
				return err
			}
			if err := l.Drop(ctx, b, a); err != nil {
				return err
			}
		}
	}
	return nil
}

// Heal ends everything that Drop and Part have begun, all at once.
func (l *Lab) Heal(ctx context.Context) error {
	return l.call(ctx, "Heal", control.None{}, &control.None{})
}

// SetLoss makes the LAN lose so many percent of all frames, at random, until it
// is set to 0. A frame to all is lost for each host by itself.
func (l *Lab) SetLoss(ctx context.Context, percent float64) error {
	return l.call(ctx, "SetLoss", percent, &control.None{})
}
