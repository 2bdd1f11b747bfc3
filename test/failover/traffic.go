package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab"
)

const (
	requestRate = 50 // of each load: one request every 20ms
	// requestTimeout is shorter than TCP takes to send a SYN again: a request
	// tells of one moment.
	requestTimeout = 250 * time.Millisecond
	// quiet is how long no request may fail for an outage to be over.
	quiet = 2 * time.Second
)

// traffic is requests from several clients to a target.
type traffic struct {
	loads map[string]*lab.Load // by where they come from, and how
}

// startTraffic sends requests from the LAN and from behind the router, and waits
// until they are answered.
func (s *site) startTraffic(ctx context.Context, t target) (*traffic, error) {
	tr := &traffic{loads: make(map[string]*lab.Load)}
	for path, load := range map[string]struct{ host, protocol string }{
		"LAN, TCP": {lab.LAN, "http"}, "LAN, UDP": {lab.LAN, "udp"},
		"router, TCP": {lab.Client, "http"}, "router, UDP": {lab.Client, "udp"},
	} {
		started, err := s.StartLoad(ctx, load.host, t.url(load.protocol), lab.LoadOptions{Rate: requestRate, Timeout: requestTimeout})
		if err != nil {
			return nil, errors.Join(err, tr.abort())
		}
		tr.loads[path] = started
	}
	for path, load := range tr.loads {
		if err := load.Wait(ctx, func(r lab.LoadReport) bool { return r.OK >= requestRate }); err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", path, err), tr.abort())
		}
	}
	return tr, nil
}

// settle waits until the outage that began at a time is over: all requests have
// been answered for a while. It is false if that was not so within the patience.
func (tr *traffic) settle(ctx context.Context, since time.Time, patience time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for _, load := range tr.loads {
		err := load.Wait(ctx, func(r lab.LoadReport) bool {
			bad := since
			if r.LastFailure.After(bad) {
				bad = r.LastFailure
			}
			return r.At.Sub(bad) > quiet && r.At.Sub(r.LastSuccess) < 10*time.Second/requestRate
		})
		if err != nil {
			return false
		}
	}
	return true
}

// stop ends the loads and tells what came of them.
func (tr *traffic) stop() (map[string]lab.LoadReport, error) {
	reports := make(map[string]lab.LoadReport)
	var errs []error
	for path, load := range tr.loads {
		report, err := load.Stop()
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", path, err))
		}
		reports[path] = report
	}
	return reports, errors.Join(errs...)
}

func (tr *traffic) abort() error {
	_, err := tr.stop()
	return err
}
