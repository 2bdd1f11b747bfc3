package kubeapi

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// slow answers after a second.
type slow struct{}

func (slow) RoundTrip(*http.Request) (*http.Response, error) {
	time.Sleep(time.Second)
	return &http.Response{StatusCode: http.StatusOK}, nil
}

func TestFence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f Fence
		f.Open()
		client := f.Wrap(slow{})
		do := func(method string) error {
			request, err := http.NewRequest(method, "https://192.0.2.1", nil)
			if err != nil {
				t.Error(err)
			}
			_, err = client.RoundTrip(request)
			return err
		}
		begin := time.Now()
		go func() {
			if err := do(http.MethodPatch); err != nil {
				t.Errorf("a write that had begun failed: %v", err)
			}
		}()
		synctest.Wait()
		hasty, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if err := f.Close(hasty); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v; want %v", err, context.DeadlineExceeded)
		}
		if err := f.Close(t.Context()); err != nil || time.Since(begin) != time.Second {
			t.Errorf("closed after %v (%v); want 1s, when the write ended", time.Since(begin), err)
		}
		if err := do(http.MethodPost); !errors.Is(err, ErrFenced) {
			t.Errorf("a write behind the fence: %v; want %v", err, ErrFenced)
		}
		if err := do(http.MethodGet); err != nil {
			t.Errorf("a read behind the fence: %v", err)
		}
	})
}

func TestFencePaused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f Fence // paused
		begin := time.Now()
		if err := f.enter(t.Context()); !errors.Is(err, ErrFenced) || time.Since(begin) != fencePatience {
			t.Errorf("%v after %v; want %v after %v", err, time.Since(begin), ErrFenced, fencePatience)
		}
		waiting := make(chan error)
		go func() {
			waiting <- f.enter(t.Context())
		}()
		synctest.Wait()
		f.Open()
		if err := <-waiting; err != nil {
			t.Errorf("a write that waited was not let through: %v", err)
		}
		f.Pause()
		go func() {
			waiting <- f.enter(t.Context())
		}()
		synctest.Wait()
		f.writing.Done()
		if err := f.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-waiting; !errors.Is(err, ErrFenced) {
			t.Errorf("a write that waited when the fence closed: %v; want %v", err, ErrFenced)
		}
		f.Open()
		if err := f.enter(t.Context()); !errors.Is(err, ErrFenced) {
			t.Error("a closed fence opened")
		}
	})
}

// A process that was stopped wakes up behind the end of its Lease, and its fence
// is open still.
func TestFenceExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f Fence
		f.Open()
		f.Renewed(time.Now().Add(3 * time.Second))
		if err := f.enter(t.Context()); err != nil {
			t.Fatalf("within the Lease: %v", err)
		}
		f.writing.Done()
		time.Sleep(3 * time.Second)
		begin := time.Now()
		go func() {
			time.Sleep(time.Second)
			f.Renewed(time.Now().Add(3 * time.Second))
		}()
		if err := f.enter(t.Context()); err != nil || time.Since(begin) != time.Second {
			t.Fatalf("passed after %v (%v); want 1s, when the Lease was renewed", time.Since(begin), err)
		}
		f.writing.Done()
		time.Sleep(3 * time.Second)
		if err := f.enter(t.Context()); !errors.Is(err, ErrFenced) {
			t.Errorf("behind the Lease: %v; want %v", err, ErrFenced)
		}
	})
}

// stuck waits for a connection until its context ends.
type stuck struct{}

func (stuck) RoundTrip(request *http.Request) (*http.Response, error) {
	<-request.Context().Done()
	return nil, context.Cause(request.Context())
}

func TestFencedWriteIsNotSentLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f Fence
		f.Open()
		f.Renewed(time.Now().Add(3 * time.Second))
		request, err := http.NewRequest(http.MethodPatch, "https://192.0.2.1", nil)
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		go func() {
			time.Sleep(2 * time.Second)
			f.Renewed(time.Now().Add(3 * time.Second))
		}()
		if _, err := f.Wrap(stuck{}).RoundTrip(request); !errors.Is(err, ErrFenced) || time.Since(begin) != 5*time.Second {
			t.Errorf("given up after %v (%v); want 5s, when the Lease ended", time.Since(begin), err)
		}
	})
}
