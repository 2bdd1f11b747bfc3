package main

import (
	"fmt"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab"
)

// measured is what the value of a sample is.
type measured string

const (
	outage    measured = "longest outage"
	doubled   measured = "two MAC addresses claimed after the end"
	lastClaim measured = "link cut to last first claim"
	changes   measured = "changes of owner"
)

// sample is what came of one run. Durations are nanoseconds in JSON.
type sample struct {
	// Unended means that it was not over when the patience was.
	Unended bool `json:"unended,omitempty"`
	IPv6    bool `json:"ipv6,omitempty"`

	// Of an outage: the worst of all ways to the address, and each of them.
	Outage time.Duration   `json:"outage,omitempty"`
	Sent   int             `json:"sent,omitempty"`
	Failed int             `json:"failed,omitempty"`
	Paths  map[string]path `json:"paths,omitempty"`

	// Moved means that another node owns the address after the outage, or took
	// it over during the partition.
	Moved bool `json:"moved,omitempty"`

	// Of a partition: how long two MAC addresses were claimed after it.
	Doubled time.Duration `json:"doubled,omitempty"`

	// Of many addresses: the first and the last of their first claims.
	First time.Duration `json:"first,omitempty"`
	Last  time.Duration `json:"last,omitempty"`

	// Of a soak. Covered counts answers of one node with the MAC address of another.
	Soaked  time.Duration `json:"soaked,omitempty"`
	Changes int           `json:"changes,omitempty"`
	Covered int           `json:"covered,omitempty"`
}

// path is what one load found.
type path struct {
	Outage   time.Duration `json:"outage"`
	OutageAt time.Time     `json:"outageAt"`
	Sent     int           `json:"sent"`
	Failed   int           `json:"failed,omitempty"`
	Slowest  time.Duration `json:"slowest"` // of the answered ones
}

// add takes up what the loads found.
func (s *sample) add(t target, reports map[string]lab.LoadReport) {
	s.IPv6 = t.address.Is6()
	s.Paths = make(map[string]path)
	for name, r := range reports {
		s.Paths[name] = path{Outage: r.LongestOutage, OutageAt: r.LongestOutageAt, Sent: r.Sent, Failed: r.Failed, Slowest: r.Slowest}
		s.Outage, s.Sent, s.Failed = max(s.Outage, r.LongestOutage), s.Sent+r.Sent, s.Failed+r.Failed
	}
}

// value is what a scenario measures, of this run.
func (s *sample) value(what measured) time.Duration {
	switch what {
	case doubled:
		return s.Doubled
	case lastClaim:
		return s.Last
	}
	return s.Outage
}

// line sums the sample up.
func (s *sample) line(what measured) string {
	if what == changes {
		return fmt.Sprintf("%d %s in %s, %d answers by another node than the owner", s.Changes, what, show(s.Soaked), s.Covered)
	}
	text := fmt.Sprintf("%s: %s", what, show(s.value(what)))
	if s.Sent > 0 {
		text += fmt.Sprintf(", %d of %d requests failed", s.Failed, s.Sent)
	}
	for _, flag := range []struct {
		name string
		set  bool
	}{{"not over", s.Unended}, {"owner moved", s.Moved}, {"IPv6", s.IPv6}} {
		if flag.set {
			text += ", " + flag.name
		}
	}
	return text
}
