package main

import (
	"context"
	"errors"
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
	carrierLost = disturbance{
		cause: func(ctx context.Context, s *site, t target) error { return s.CutCarrierOf(ctx, t.owner, secondNIC) },
	}
)
