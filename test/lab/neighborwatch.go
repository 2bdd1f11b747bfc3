package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// NeighborEvent is a change of an entry, of the state or of the MAC address.
// The kernel tells no change from REACHABLE to DELAY.
type NeighborEvent struct {
	Neighbor
	Time time.Time
}

// NeighborWatch follows the entry of an address.
type NeighborWatch struct {
	stop  chan struct{}
	ended chan struct{}
	err   error // set when ended is closed

	mu      sync.Mutex
	events  []NeighborEvent
	changed chan struct{} // closed and replaced at each event
}

// WatchNeighbor follows what the kernel of a host tells about the entry of an
// address, until it is stopped.
func (l *Lab) WatchNeighbor(ctx context.Context, host string, address netip.Addr) (*NeighborWatch, error) {
	var interfaces map[int]string
	err := l.netlink(ctx, host, func(h *netlink.Handle) (err error) {
		interfaces, err = interfaceNames(h)
		return err
	})
	if err != nil {
		return nil, err
	}
	namespace, closeNamespace, err := l.namespace(ctx, host)
	if err != nil {
		return nil, err
	}
	defer closeNamespace()
	socket, err := nl.SubscribeAt(namespace, netns.None(), unix.NETLINK_ROUTE, unix.RTNLGRP_NEIGH)
	if err != nil {
		return nil, fmt.Errorf("watch neighbours of %s: %w", host, err)
	}
	// So that it sees between messages that it is stopped.
	if err := socket.SetReceiveTimeout(&unix.Timeval{Usec: 100_000}); err != nil {
		socket.Close()
		return nil, fmt.Errorf("watch neighbours of %s: %w", host, err)
	}
	w := &NeighborWatch{stop: make(chan struct{}), ended: make(chan struct{}), changed: make(chan struct{})}
	go w.follow(socket, address, interfaces)
	return w, nil
}

func (w *NeighborWatch) follow(socket *nl.NetlinkSocket, address netip.Addr, interfaces map[int]string) {
	defer close(w.ended)
	defer socket.Close()
	for {
		select {
		case <-w.stop:
			return
		default:
		}
		messages, _, err := socket.Receive()
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			w.err = fmt.Errorf("neighbour events: %w", err)
			return
		}
		for _, m := range messages {
			if m.Header.Type != unix.RTM_NEWNEIGH && m.Header.Type != unix.RTM_DELNEIGH {
				continue
			}
			entry, err := netlink.NeighDeserialize(m.Data)
			if err != nil {
				continue // of a kind without an IP address
			}
			n, ok := newNeighbor(entry, interfaces)
			if m.Header.Type == unix.RTM_DELNEIGH {
				n.State, ok = Gone, true
			}
			if ok && n.Address == address {
				w.add(NeighborEvent{Neighbor: n, Time: time.Now()})
			}
		}
	}
}

func (w *NeighborWatch) add(e NeighborEvent) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, e)
	close(w.changed)
	w.changed = make(chan struct{})
}

// Events returns the events so far.
func (w *NeighborWatch) Events() []NeighborEvent {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.events)
}

// WaitStates waits until the events have shown these states in this order, with
// any others between them.
func (w *NeighborWatch) WaitStates(ctx context.Context, states ...NeighborState) error {
	for {
		w.mu.Lock()
		events, changed := w.events, w.changed
		w.mu.Unlock()
		left := states
		for _, e := range events {
			if len(left) > 0 && e.State == left[0] {
				left = left[1:]
			}
		}
		if len(left) == 0 {
			return nil
		}
		select {
		case <-changed:
		case <-w.ended:
			return fmt.Errorf("the watch has ended after %v: %w", events, w.err)
		case <-ctx.Done():
			return fmt.Errorf("still to come: %v; came: %v: %w", left, events, ctx.Err())
		}
	}
}

// Stop ends the watch and returns all events.
func (w *NeighborWatch) Stop() ([]NeighborEvent, error) {
	close(w.stop)
	<-w.ended
	return w.events, w.err
}
