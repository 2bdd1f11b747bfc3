package speaker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

func TestReporter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		writes := make(chan string, 100)
		var fail atomic.Bool
		r := newReporter(func(_ context.Context, _, value string) error {
			if fail.Load() {
				return errors.New("connection refused")
			}
			report, err := announce.DecodeReport(value)
			if err != nil {
				t.Error(err)
			}
			writes <- fmt.Sprint(time.Since(start), " ", report.Epoch)
			return nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _ = r.run(ctx) }()
		set := func(epoch int64) {
			t.Helper()
			if err := r.set(announce.Report{Epoch: epoch}); err != nil {
				t.Error(err)
			}
		}
		set(1) // at once
		time.Sleep(time.Second)
		for epoch := range int64(5) {
			set(2 + epoch) // the last one, when the time has come
		}
		time.Sleep(time.Minute)
		set(6) // no change
		time.Sleep(time.Minute)
		fail.Store(true)
		set(7)
		time.Sleep(2500 * time.Millisecond)
		fail.Store(false)
		time.Sleep(time.Minute)
		set(8)
		synctest.Wait()
		want := []string{"0s 1", "10s 6", "2m4s 7", "3m3.5s 8"}
		close(writes)
		var got []string
		for w := range writes {
			got = append(got, w)
		}
		if !slices.Equal(got, want) {
			t.Errorf("writes %q, want %q", got, want)
		}
	})
}

func TestReportFits(t *testing.T) {
	t.Parallel()
	r := newReporter(nil)
	report := announce.Report{}
	for i := range 64 {
		report.Sessions = append(report.Sessions, announce.Session{Peer: fmt.Sprint(i), Error: strings.Repeat("x", 10_000)})
	}
	if err := r.set(report); err != nil {
		t.Error(err)
	}
}
