package main

import (
	"context"
	"errors"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab"
)

// Faults of the owner's network, which take the address to another node.
var (
	linkCut = disturbance{
		cause: func(ctx context.Context, s *site, t target) error { return s.Cut(ctx, t.owner) },
	}
	linkCutNoAPI = disturbance{
		cause: func(ctx context.Context, s *site, t target) error {
			return errors.Join(s.StopAPI(ctx), s.Cut(ctx, t.owner))
		},
		mend: func(ctx context.Context, s *site, _ target) error { return s.StartAPI(ctx) },
	}
	// deafened: what the owner sends arrives, and nothing arrives at the owner.
	deafened = disturbance{
		cause: func(ctx context.Context, s *site, t target) error {
			for _, from := range append(s.others(t), lab.LAN, lab.Router, lab.ControlPlane) {
				if err := s.Drop(ctx, from, t.owner); err != nil {
					return err
				}
			}
			return nil
		},
		mend: func(ctx context.Context, s *site, _ target) error { return s.Heal(ctx) },
	}
	carrierLost = disturbance{
		cause: func(ctx context.Context, s *site, t target) error { return s.CutCarrierOf(ctx, t.owner, secondNIC) },
	}
)
