package speaker

import (
	"context"
	"errors"
	"fmt"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/heartbeat"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/layer2"
)

// status is what the loop last did.
type status struct {
	// synced: the Node was read. abandoned: it is gone for good.
	synced, abandoned bool
	// unset: why the program is not wholly in force, nil if it is.
	unset    error
	epoch    int64
	prefixes int
	lan      layer2.Status

	adjacencies []heartbeat.Adjacency
	heartbeats  heartbeat.Counters
	fit, unfit  int // health check ports

	sessions []announce.Session
	received map[string]uint64
}

func (s *speaker) note(change func(*status)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.status)
}

// snapshot is the status, with what is counted on demand.
func (s *speaker) snapshot() status {
	ctx, cancel := context.WithTimeout(context.Background(), checkTimeout)
	defer cancel()
	received := s.announcer.Received(ctx)
	lan := s.lan.Status()
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.status
	out.received, out.lan = received, lan
	out.adjacencies, out.heartbeats = s.fellows.Adjacencies(), s.fellows.Counters()
	out.fit, out.unfit = s.endpoints.count()
	return out
}

// alive reports whether the loop answers.
func (s *speaker) alive(ctx context.Context) error {
	pong := make(chan struct{})
	select {
	case s.pings <- pong:
		return nil
	case <-ctx.Done():
		if s.stopping.Load() {
			return nil
		}
		return fmt.Errorf("the loop does not answer: %w", ctx.Err())
	}
}

// ready reports whether the speaker does what it is asked to.
func (s *speaker) ready(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.stopping.Load():
		return errors.New("stopping")
	case !s.status.synced:
		return errors.New("the Node has not been read yet")
	case s.status.abandoned:
		return errors.New("there is no Node; nothing is announced")
	case s.status.unset != nil:
		return fmt.Errorf("the program is not wholly in force: %w", s.status.unset)
	}
	return nil
}
