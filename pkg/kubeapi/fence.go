package kubeapi

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"
)

// ErrFenced answers requests that would write while this process may not.
var ErrFenced = errors.New("the program does not lead: it does not write")

// fencePatience is how long a write waits for a fence that may open again. It
// is longer than getting a Lease back takes once the API server is there.
const fencePatience = 5 * time.Second

// Fence holds back writes to the API server unless this process leads: workers
// cannot be stopped at once, and a leader without a Lease must not write. The zero value holds back; it is safe for concurrent use.
type Fence struct {
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

// Wrap is a transport.WrapperFunc.
func (f *Fence) Wrap(next http.RoundTripper) http.RoundTripper {
	return fenced{fence: f, next: next}
}

// Open lets writes pass, unless the fence is closed.
func (f *Fence) Open() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.state == fenceClosed {
		return
	}
	f.state = fenceOpen
	f.wakeLocked()
}

// Renewed lets writes pass until then, if the fence is open. A process that was
// stopped, or got no CPU, does not know at first that it lost the Lease: the clock
// tells it.
func (f *Fence) Renewed(until time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.until = until
	if f.state == fenceOpen {
		f.wakeLocked()
	}
}

// Pause makes new writes wait, for a moment.
func (f *Fence) Pause() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.state == fenceOpen {
		f.state = fencePaused
	}
}

// Close lets no new write begin, ever, and waits for those that have. The error
// is that of a context that ends before.
func (f *Fence) Close(ctx context.Context) error {
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

func (f *Fence) wakeLocked() {
	if f.opened != nil {
		close(f.opened)
		f.opened = nil
	}
}

// enter begins a write; while the fence is paused it waits for a while.
func (f *Fence) enter(ctx context.Context) error {
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
			return ErrFenced
		}
		if f.opened == nil {
			f.opened = make(chan struct{})
		}
		opened := f.opened
		f.mu.Unlock()
		select {
		case <-opened:
		case <-ctx.Done():
			return ErrFenced
		}
	}
}

type fenced struct {
	fence *Fence
	next  http.RoundTripper
}

// RoundTrip implements http.RoundTripper. A write has ended when the answer's
// header is there: it is done then, or refused. One that waits for a connection
// is given up when the Lease ends: later it might meet another leader's.
func (t fenced) RoundTrip(request *http.Request) (*http.Response, error) {
	if request.Method == http.MethodGet || request.Method == http.MethodHead {
		return t.next.RoundTrip(request)
	}
	if err := t.fence.enter(request.Context()); err != nil {
		return nil, err
	}
	defer t.fence.writing.Done()
	ctx, cancel := context.WithCancelCause(request.Context())
	stop := t.fence.whenExpired(func() { cancel(ErrFenced) })
	response, err := t.next.RoundTrip(request.WithContext(ctx))
	stop()
	if err != nil {
		cancel(err)
		return nil, err
	}
	response.Body = &endingBody{ReadCloser: response.Body, end: func() { cancel(nil) }}
	return response, nil
}

// whenExpired calls f when the Lease has run out, unless stop is called before.
func (f *Fence) whenExpired(expired func()) (stop func()) {
	var timer *time.Timer
	timer = time.AfterFunc(time.Hour, func() {
		if left := f.left(); left > 0 {
			timer.Reset(left)
			return
		}
		expired()
	})
	timer.Reset(f.left())
	return func() { timer.Stop() }
}

// left is how long the Lease is ours; an hour without one.
func (f *Fence) left() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.until.IsZero() {
		return time.Hour
	}
	return time.Until(f.until)
}

// endingBody ends the context of a request when its answer is read.
type endingBody struct {
	io.ReadCloser
	end func()
}

// Close implements io.Closer.
func (b *endingBody) Close() error {
	defer b.end()
	return b.ReadCloser.Close()
}

// WrappedRoundTripper implements net.RoundTripperWrapper.
func (t fenced) WrappedRoundTripper() http.RoundTripper { return t.next }
