package main

import (
	"context"
	"io"
	"sync"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/bgp"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/layer2"
)

// router takes the place of a speaker's BGP: its sessions are established, and
// what is announced is only counted.
type router struct {
	mu       sync.Mutex
	sets     int
	sessions []announce.Session
}

// Set implements the part of bgp.Announcer that a speaker's loop needs.
func (r *router) Set(_ context.Context, s bgp.State) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sets++
	r.sessions = nil
	for _, p := range s.Peers {
		r.sessions = append(r.sessions, announce.Session{Peer: p.Name, State: announce.StateEstablished})
	}
	return nil
}

// carriedOut is how many programs the simulated speakers have carried out.
func (s *site) carriedOut() (n int) {
	for _, r := range s.routers {
		r.mu.Lock()
		n += r.sets
		r.mu.Unlock()
	}
	return n
}

// Sessions are those of the last Set.
func (r *router) Sessions() []announce.Session {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sessions
}

// lan takes the place of a speaker's LAN.
type lan struct{}

// Set has nothing to do: nothing is announced on the LAN.
func (lan) Set(layer2.State) {}

type countedBody struct {
	io.ReadCloser
	read func(n int)
}

// Read implements io.Reader.
func (b countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.read(n)
	return n, err
}
