package main

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
		var f fence
		client := f.wrap(slow{})
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
		if err := f.close(hasty); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v; want %v", err, context.DeadlineExceeded)
		}
		if err := f.close(t.Context()); err != nil || time.Since(begin) != time.Second {
			t.Errorf("closed after %v (%v); want 1s, when the write ended", time.Since(begin), err)
		}
		if err := do(http.MethodPost); !errors.Is(err, errFenced) {
			t.Errorf("a write behind the fence: %v; want %v", err, errFenced)
		}
		if err := do(http.MethodGet); err != nil {
			t.Errorf("a read behind the fence: %v", err)
		}
	})
}
