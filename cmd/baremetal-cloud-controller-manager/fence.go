package main

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"
)

// errFenced answers requests that would write while this process may not.
var errFenced = errors.New("the program does not lead: it does not write")

// fencePatience is how long a write waits for a fence that may open again. It
// is longer than getting a Lease back takes once the API server is there.
const fencePatience = 5 * time.Second

// fence holds back writes to the API server unless this process leads:
// upstream's workers cannot be stopped, and a leader without a Lease must not
// write. The zero value holds back; it is safe for concurrent use.
type fence struct {
	mu      sync.Mutex
	state   fenceState
	until   time.Time     // when others may take the Lease; zero without one
	opened  chan struct{} // closed when the fence opens; nil while nobody waits
	writing sync.WaitGroup
}

type fenceState int

const (
	fencePaused fenceState = iota // writes wait
	fenceOpen                     // writes pass
	fenceClosed                   // for good: writes fail
)

// wrap is a transport.WrapperFunc.
func (f *fence) wrap(next http.RoundTripper) http.RoundTripper {
	return fenced{fence: f, next: next}
}

// open lets writes pass, unless the fence is closed.
func (f *fence) open() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.state == fenceClosed {
		return
	}
	f.state = fenceOpen
	f.wakeLocked()
}

// renewed lets writes pass until then, if the fence is open. A process that was
// stopped, or got no CPU, does not know at first that it lost the Lease: the clock
// tells it.
func (f *fence) renewed(until time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.until = until
	if f.state == fenceOpen {
		f.wakeLocked()
	}
}

// pause makes new writes wait, for a moment.
func (f *fence) pause() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.state == fenceOpen {
		f.state = fencePaused
	}
}

// close lets no new write begin, ever, and waits for those that have. The error
// is that of a context that ends before.
func (f *fence) close(ctx context.Context) error {
	f.mu.Lock()
	f.state = fenceClosed
	f.wakeLocked()
	f.mu.Unlock()
	done := make(chan struct{})
	go func() {
		f.writing.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (f *fence) wakeLocked() {
	if f.opened != nil {
		close(f.opened)
		f.opened = nil
	}
}

// enter begins a write; while the fence is paused it waits for a while.
func (f *fence) enter(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, fencePatience)
	defer cancel()
	for {
		f.mu.Lock()
		switch {
		case f.state == fenceOpen && (f.until.IsZero() || time.Now().Before(f.until)):
			f.writing.Add(1)
			f.mu.Unlock()
			return nil
		case f.state == fenceClosed:
			f.mu.Unlock()
			return errFenced
		}
		if f.opened == nil {
			f.opened = make(chan struct{})
		}
		opened := f.opened
		f.mu.Unlock()
		select {
		case <-opened:
		case <-ctx.Done():
			return errFenced
		}
	}
}

type fenced struct {
	fence *fence
	next  http.RoundTripper
}

// RoundTrip implements http.RoundTripper. A write has ended when the answer's
// header is there: it is done then, or refused.
func (t fenced) RoundTrip(request *http.Request) (*http.Response, error) {
	if request.Method == http.MethodGet || request.Method == http.MethodHead {
		return t.next.RoundTrip(request)
	}
	if err := t.fence.enter(request.Context()); err != nil {
		return nil, err
	}
	defer t.fence.writing.Done()
	return t.next.RoundTrip(request)
}

// WrappedRoundTripper implements net.RoundTripperWrapper.
func (t fenced) WrappedRoundTripper() http.RoundTripper { return t.next }
