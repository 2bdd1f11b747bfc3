package main

import (
	"context"
	"errors"
	"net/http"
	"sync"
)

// errFenced answers requests that would write after the program began to end.
var errFenced = errors.New("the program is ending: it no longer writes")

// fence holds back writes to the API server from the moment it is closed. A
// leader that gives up its Lease must not write any more, and upstream's workers
// cannot be stopped. The zero value is open; it is safe for concurrent use.
type fence struct {
	mu      sync.Mutex
	closed  bool
	writing sync.WaitGroup
}

// wrap is a transport.WrapperFunc.
func (f *fence) wrap(next http.RoundTripper) http.RoundTripper {
	return fenced{fence: f, next: next}
}

// close lets no new write begin, and waits for those that have. The error is
// that of a context that ends before.
func (f *fence) close(ctx context.Context) error {
	f.mu.Lock()
	f.closed = true
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

// enter begins a write, unless the fence is closed.
func (f *fence) enter() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return false
	}
	f.writing.Add(1)
	return true
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
	if !t.fence.enter() {
		return nil, errFenced
	}
	defer t.fence.writing.Done()
	return t.next.RoundTrip(request)
}

// WrappedRoundTripper implements net.RoundTripperWrapper.
func (t fenced) WrappedRoundTripper() http.RoundTripper { return t.next }
