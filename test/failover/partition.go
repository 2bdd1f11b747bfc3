package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab"
)

// sides are the two parts that a LAN falls into. Hosts of neither hear both.
type sides func(s *site, t target) (some, others []string)

// ownerAndClient splits the switch: the owner goes on serving the LAN client,
// while the other nodes, the API server and the router hear nothing of it.
func ownerAndClient(s *site, t target) (some, others []string) {
	return []string{t.owner, lab.LAN}, append(s.others(t), lab.ControlPlane, lab.Router)
}

// ownerFromPeers separates the owner from the other nodes; everybody else hears
// all of them.
func ownerFromPeers(s *site, t target) (some, others []string) {
	return []string{t.owner}, s.others(t)
}

func (s *site) others(t target) []string {
	return slices.DeleteFunc(slices.Clone(s.nodes), func(node string) bool { return node == t.owner })
}

// heal measures for how long after the end of a partition an address is claimed
// for more than one MAC address, as the LAN client hears it while it asks.
func heal(parts sides) func(context.Context, *site, int) (sample, error) {
	return func(ctx context.Context, s *site, run int) (sample, error) {
		t, err := s.target(ctx, run)
		if err != nil {
			return sample{}, err
		}
		result, err := s.healed(ctx, parts, t)
		return result, errors.Join(err, s.recover(ctx))
	}
}

const (
	askEvery = 20 * time.Millisecond
	// alone is how long only one MAC address must have been claimed to be the one
	// that stays.
	alone = 3 * time.Second
)

func (s *site) healed(ctx context.Context, parts sides, t target) (result sample, err error) {
	result.IPv6 = t.address.Is6()
	owned, err := s.MAC(ctx, t.owner, "eth0")
	if err != nil {
		return result, err
	}
	// The router is with those who take over, or hears all.
	there, err := s.StartCapture(ctx, lab.Router, lab.CaptureOptions{Claims: true})
	if err != nil {
		return result, err
	}
	defer func() {
		_, stopped := there.Stop()
		err = errors.Join(err, stopped)
	}()
	some, others := parts(s, t)
	if err := s.Part(ctx, some, others); err != nil {
		return result, err
	}
	result.Moved = s.takenOver(ctx, there, t, owned)

	here, err := s.StartCapture(ctx, lab.LAN, lab.CaptureOptions{Claims: true})
	if err != nil {
		return result, err
	}
	defer func() {
		_, stopped := here.Stop()
		err = errors.Join(err, stopped)
	}()
	asking, cancel := context.WithCancel(ctx)
	asked := make(chan error, 1)
	go func() {
		_, err := s.Ask(asking, lab.LAN, lab.AskOptions{
			Addresses: []string{t.address.String()}, Every: askEvery, Count: int((s.options.patience + time.Minute) / askEvery),
		})
		if asking.Err() != nil {
			err = nil
		}
		asked <- err
	}()
	// The first moments count: it must be asking by then.
	_, err = here.Wait(ctx, "the client gets answers", func(p *lab.Packet) bool {
		address, _, ok := p.Claim()
		return ok && address == t.address
	})
	healed := time.Now()
	if err == nil {
		err = s.Heal(ctx)
	}
	if err == nil {
		result.Doubled, result.Unended, err = s.waitAlone(ctx, here, t, healed)
	}
	cancel()
	return result, errors.Join(err, <-asked)
}

// takenOver waits until another node claims the address, but not for ever: it
// need not.
func (s *site) takenOver(ctx context.Context, heard *lab.Capture, t target, owned string) bool {
	ctx, cancel := context.WithTimeout(ctx, s.options.patience)
	defer cancel()
	_, err := heard.Wait(ctx, "another node takes over", func(p *lab.Packet) bool {
		address, mac, ok := p.Claim()
		return ok && address == t.address && mac != owned
	})
	return err == nil
}

// waitAlone waits until only one MAC address is claimed, and tells how long it
// took.
func (s *site) waitAlone(ctx context.Context, heard *lab.Capture, t target, since time.Time) (took time.Duration, unended bool, err error) {
	limited, cancel := context.WithTimeout(ctx, s.options.patience)
	defer cancel()
	err = s.WaitFor(limited, "one MAC address alone", func(context.Context) (bool, error) {
		var mac string
		mac, took = soleClaimant(heard.Packets(), t.address, since)
		if mac == "" {
			return false, fmt.Errorf("nobody claims %s", t.address)
		}
		return time.Since(since)-took > alone, nil
	})
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		return took, true, nil
	}
	return took, false, err
}
