package speaker

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
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
			writes <- fmt.Sprint(time.Since(start), " ", report.Error)
			return nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _ = r.run(ctx) }()
		set := func(news int) {
			t.Helper()
			if err := r.set(announce.Report{Error: fmt.Sprint(news)}, reportLater); err != nil {
				t.Error(err)
			}
		}
		set(1) // at once
		time.Sleep(time.Second)
		for news := range 5 {
			set(2 + news) // the last one, when the time has come
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
		time.Sleep(time.Minute)
		synctest.Wait()
		want := []string{"0s 1", "10s 6", "2m4s 7", "3m6.5s 8"}
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

// TestReporterRestores has others change the annotation.
func TestReporterRestores(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var writes []string
		annotation := ""
		var r *reporter
		r = newReporter(func(_ context.Context, _, value string) error {
			writes = append(writes, time.Since(start).String())
			annotation = value
			r.observe(node{report: value}) // the watch
			return nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _ = r.run(ctx) }()
		expect := func(what string, want ...string) {
			t.Helper()
			time.Sleep(time.Minute)
			synctest.Wait()
			if !slices.Equal(writes, want) {
				t.Errorf("%s: writes %q, want %q", what, writes, want)
			}
			if len(want) > 0 && annotation == "" {
				t.Errorf("%s: no annotation", what)
			}
			writes = nil
		}
		expect("nothing to say")
		if err := r.set(announce.Report{Version: "v1", Epoch: 1}, reportLater); err != nil {
			t.Error(err)
		}
		expect("first", "1m0s")
		r.observe(node{})
		expect("removed", "2m3s")
		r.observe(node{report: "{}"})
		synctest.Wait()
		r.observe(node{report: "{}"})
		expect("overwritten twice", "3m3s")
		r.observe(node{gone: true})
		expect("gone")
		r.observe(node{})
		expect("back", "5m3s")

		// A speaker that restarts finds its report.
		r.observe(node{report: annotation})
		expect("in place")
	})
}

// TestReporterHurries: what is urgent overtakes what is not, and what failed is
// tried again soon.
func TestReporterHurries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var writes []string
		var fail atomic.Bool
		r := newReporter(func(_ context.Context, _, value string) error {
			if fail.Load() {
				return errors.New("connection refused")
			}
			report, err := announce.DecodeReport(value)
			if err != nil {
				t.Error(err)
			}
			writes = append(writes, fmt.Sprint(time.Since(start), " ", report.Error))
			return nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _ = r.run(ctx) }()
		set := func(news int, u urgency) {
			t.Helper()
			if err := r.set(announce.Report{Error: fmt.Sprint(news)}, u); err != nil {
				t.Error(err)
			}
			synctest.Wait()
		}
		set(1, reportLater)
		time.Sleep(time.Second)
		set(2, reportLater) // pending until 10s
		set(3, reportNow)
		set(4, reportSoon) // 2s after the write before
		time.Sleep(time.Minute)
		fail.Store(true)
		set(5, reportNow)
		fail.Store(false)
		time.Sleep(time.Minute)
		set(6, reportLater)
		time.Sleep(time.Minute)
		synctest.Wait()
		want := []string{"0s 1", "1s 3", "3s 4", "1m2s 5", "2m4s 6"}
		if !slices.Equal(writes, want) {
			t.Errorf("writes %q, want %q", writes, want)
		}
	})
}

// TestTakeoversFit: as many as have room are told, and more than any other part.
func TestTakeoversFit(t *testing.T) {
	t.Parallel()
	r := announce.Report{Version: "v0", Interfaces: []announce.Interface{{Name: "eth0"}}}
	for term := range uint32(2) {
		takeover := announce.Takeover{Term: 1 + term}
		for i := range 1000 {
			addr := netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 13: byte(term), 14: byte(i >> 7), 15: byte(i << 1)})
			takeover.Addresses = append(takeover.Addresses, announce.Single(addr))
		}
		r.Takeovers = append(r.Takeovers, takeover)
	}
	value, err := encodeReport(r)
	if err != nil {
		t.Fatal(err)
	}
	got, err := announce.DecodeReport(value)
	if err != nil {
		t.Fatal(err)
	}
	if n := countRanges(got.Takeovers); n < 500 || len(got.Interfaces) != 1 || !got.Takeovers[0].Addresses[0].From().Is6() {
		t.Errorf("%d takeovers and %d interfaces are told", n, len(got.Interfaces))
	}
	if countRanges(r.Takeovers) != 2000 {
		t.Error("the report itself was changed")
	}
}

func TestReportFits(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 10_000)
	report := func(sessions, interfaces int) announce.Report {
		out := announce.Report{Version: "v0", Epoch: 1, Error: long}
		for i := range sessions {
			out.Sessions = append(out.Sessions, announce.Session{Peer: fmt.Sprint(i), State: "idle", Error: long})
		}
		for range interfaces {
			i := announce.Interface{Name: "eth0"}
			for range maxOnLink {
				i.Prefixes = append(i.Prefixes, netip.MustParsePrefix("2001:db8:1111:2222:3333:4444:5555:6666/64"))
			}
			out.Interfaces = append(out.Interfaces, i)
		}
		return out
	}
	for name, test := range map[string]struct {
		report             announce.Report
		errors, interfaces bool
	}{
		"everything":         {report(2, 2), true, true},
		"without errors":     {report(64, maxInterfaces), false, true},
		"without interfaces": {report(400, maxInterfaces), false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			value, err := encodeReport(test.report)
			if err != nil {
				t.Fatal(err)
			}
			got, err := announce.DecodeReport(value)
			if err != nil {
				t.Fatal(err)
			}
			if len(got.Sessions) != len(test.report.Sessions) || got.Epoch != 1 || len(got.Error) != maxError {
				t.Errorf("%d sessions, epoch %d, %d bytes of error", len(got.Sessions), got.Epoch, len(got.Error))
			}
			if errors := got.Sessions[0].Error != ""; errors != test.errors || (len(got.Interfaces) > 0) != test.interfaces {
				t.Errorf("errors %v, %d interfaces", errors, len(got.Interfaces))
			}
			if test.report.Sessions[0].Error != long {
				t.Error("the report itself was changed")
			}
		})
	}
	// What others do on the LAN must not cost what the planner decides by.
	hostile := report(2, maxInterfaces/2)
	for i := range 1024 {
		hostile.Conflicts = append(hostile.Conflicts, announce.Conflict{Address: netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), Interface: "eth0", Held: i == 1000})
		hostile.Problems = append(hostile.Problems, long)
	}
	value, err := encodeReport(hostile)
	if err != nil {
		t.Fatal(err)
	}
	got, err := announce.DecodeReport(value)
	if err != nil || len(got.Sessions) != 2 || len(got.Interfaces) != maxInterfaces/2 || len(got.Conflicts) != maxConflicts || !got.Conflicts[0].Held {
		t.Errorf("%d sessions, %d interfaces, %d conflicts, error %v", len(got.Sessions), len(got.Interfaces), len(got.Conflicts), err)
	}
	if got := cut("aé", 2); got != "a" {
		t.Errorf("cut through a character: %q", got)
	}
}

// TestReporterKeepsEpochsForLater: a program more is told along with other news, or
// to those who wait for it.
func TestReporterKeepsEpochsForLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var writes []string
		var r *reporter
		r = newReporter(func(_ context.Context, _, value string) error {
			report, err := announce.DecodeReport(value)
			if err != nil {
				t.Error(err)
			}
			writes = append(writes, fmt.Sprint(report.Epoch, report.Hash, report.Error))
			r.observe(node{report: value}) // the watch
			return nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _ = r.run(ctx) }()
		expect := func(report announce.Report, u urgency, want ...string) {
			t.Helper()
			if err := r.set(report, u); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Hour)
			synctest.Wait()
			if !slices.Equal(writes, want) {
				t.Errorf("writes %q, want %q", writes, want)
			}
			writes = nil
		}
		expect(announce.Report{Epoch: 1, Hash: "a"}, reportLater, "1a")
		expect(announce.Report{Epoch: 2, Hash: "b"}, reportLater)
		expect(announce.Report{Epoch: 3, Hash: "b"}, reportSoon)
		expect(announce.Report{Epoch: 4, Hash: "c"}, reportNow, "4c")
		expect(announce.Report{Epoch: 5, Hash: "d"}, reportLater)
		expect(announce.Report{Epoch: 6, Hash: "d", Error: "!"}, reportLater, "6d!")
		r.observe(node{report: "edited"})
		expect(announce.Report{Epoch: 7, Hash: "d", Error: "!"}, reportLater, "7d!")
	})
}
