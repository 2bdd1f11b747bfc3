package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"syscall"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab"
)

// soakOptions are how long, and how large, a soak is.
type soakOptions struct {
	duration  time.Duration
	nodes     int
	addresses int
	seed      uint64
}

func (o soakOptions) validate() error {
	if o.nodes < 2 || o.nodes > 30 || o.addresses < 1 || o.addresses > 10_000 {
		return fmt.Errorf("-soak-nodes %d, -soak-addresses %d: not between 2 and 30, 1 and 10000", o.nodes, o.addresses)
	}
	return nil
}

const (
	// soakNodeGrace is near to Kubernetes' own: what a busy machine does to
	// leases is not what is looked for.
	soakNodeGrace = 40 * time.Second
	speakerCores  = 0.2 // "200m"
	soakLoss      = 1   // percent
	stopFor       = 250 * time.Millisecond
	stopEvery     = 3 * time.Second
	// slice is how long a capture goes on: it keeps all packets.
	slice = time.Minute
)

// soak makes life hard for speakers, without anything that has failed: no address
// may change its owner.
func soak(ctx context.Context, s *site, _ int) (result sample, err error) {
	texts, err := s.bulk(ctx, s.options.soak.addresses)
	if err != nil {
		return result, err
	}
	var addresses []netip.Addr
	for _, text := range texts {
		addresses = append(addresses, netip.MustParseAddr(text))
	}
	err = s.WaitFor(ctx, "all addresses answer", func(ctx context.Context) (bool, error) {
		_, err := s.Owners(ctx, texts...)
		return err == nil, err
	})
	if err != nil {
		return result, err
	}
	for _, node := range s.nodes {
		if err := s.SetQuota(ctx, node, speaker, speakerCores); err != nil {
			return result, err
		}
	}
	rest, err := s.Saturate(ctx, lab.LAN)
	if err != nil {
		return result, err
	}
	defer rest()
	if err := s.SetLoss(ctx, soakLoss); err != nil {
		return result, err
	}

	soaking, cancel := context.WithTimeout(ctx, s.options.soak.duration)
	defer cancel()
	disturbed := make(chan error, 1)
	go func() { disturbed <- s.stopSpeakers(soaking) }()
	owners := newOwnership(addresses)
	began := time.Now()
	err = s.followOwners(soaking, texts, owners)
	result.Soaked, result.Changes, result.Covered = time.Since(began), owners.changes, owners.covered
	cancel()
	err = errors.Join(err, <-disturbed)
	for address, mac := range owners.of {
		if mac == "" {
			err = errors.Join(err, fmt.Errorf("nobody has claimed %s", address))
		}
	}
	return result, err
}

// stopSpeakers stops a speaker for a moment now and then.
func (s *site) stopSpeakers(ctx context.Context) error {
	rng := rand.New(rand.NewPCG(s.options.soak.seed, 0))
	for pause(ctx, time.Duration(rng.Int64N(int64(2*stopEvery)))) == nil {
		node := s.nodes[rng.IntN(len(s.nodes))]
		if err := s.Signal(ctx, node, speaker, syscall.SIGSTOP); err != nil {
			return errOrEnd(ctx, err)
		}
		_ = pause(ctx, stopFor) // it must go on in any case
		if err := s.Signal(context.WithoutCancel(ctx), node, speaker, syscall.SIGCONT); err != nil {
			return err
		}
	}
	return nil
}

// followOwners asks for all addresses again and again, and follows the claims.
func (s *site) followOwners(ctx context.Context, addresses []string, owners *ownership) error {
	for ctx.Err() == nil {
		heard, err := s.StartCapture(ctx, lab.LAN, lab.CaptureOptions{Claims: true})
		if err != nil {
			return errOrEnd(ctx, err)
		}
		err = s.askFor(ctx, slice, addresses)
		// What the kernel had no room for is asked for again.
		packets, _ := heard.Stop()
		owners.follow(packets)
		if err != nil {
			return errOrEnd(ctx, err)
		}
	}
	return nil
}

// askFor asks for all addresses every few seconds, for a while.
func (s *site) askFor(ctx context.Context, d time.Duration, addresses []string) error {
	for began := time.Now(); time.Since(began) < d; {
		_, err := s.Ask(ctx, lab.LAN, lab.AskOptions{Addresses: addresses, Every: 5 * time.Millisecond, Wait: time.Second})
		if err != nil {
			return err
		}
	}
	return nil
}

// errOrEnd is an error, unless it comes of the end of ctx, which is no failure.
func errOrEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}
