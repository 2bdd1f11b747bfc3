package load

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Report tells what came of a load so far. A request that is on its way counts
// nowhere yet.
type Report struct {
	Sent   int `json:"sent"`
	OK     int `json:"ok"`
	Failed int `json:"failed"`
	// LongestGap is the longest time without the end of a successful request,
	// the time since the last one included.
	LongestGap time.Duration `json:"longestGap"`
	// LongestGapAt is when that began.
	LongestGapAt time.Time `json:"longestGapAt"`
	// LongestOutage is the longest time between the sending of two answered
	// requests, with failed ones and no others between them: what users find the
	// service to be away for. One that is not over counts as far as it is known.
	LongestOutage time.Duration `json:"longestOutage"`
	// LongestOutageAt is when the first one of them was sent.
	LongestOutageAt time.Time `json:"longestOutageAt"`
	// Slowest is the longest time that a successful request took.
	Slowest time.Duration `json:"slowest"`
	// Errors counts failures by their text.
	Errors       map[string]int `json:"errors,omitempty"`
	FirstFailure time.Time      `json:"firstFailure,omitzero"`
	LastFailure  time.Time      `json:"lastFailure,omitzero"`
	LastSuccess  time.Time      `json:"lastSuccess,omitzero"`
	// Pods and Nodes count the answers by who gave them.
	Pods  map[string]int `json:"pods,omitempty"`
	Nodes map[string]int `json:"nodes,omitempty"`
	// At is when the report was made.
	At time.Time `json:"at"`
}

// String sums the report up in one line.
func (r Report) String() string {
	text := fmt.Sprintf("sent %d, ok %d, failed %d, longest gap %s, longest outage %s, errors %v, nodes %v",
		r.Sent, r.OK, r.Failed, r.LongestGap.Round(time.Millisecond), r.LongestOutage.Round(time.Millisecond), r.Errors, r.Nodes)
	if r.Failed > 0 {
		const clock = "15:04:05.000"
		text += fmt.Sprintf(", failures from %s to %s", r.FirstFailure.Format(clock), r.LastFailure.Format(clock))
	}
	return text
}

type collector struct {
	mu      sync.Mutex
	last    time.Time // success, or the start
	outages outages
	state   Report
}

func newCollector() *collector {
	return &collector{
		last:  time.Now(),
		state: Report{Errors: map[string]int{}, Pods: map[string]int{}, Nodes: map[string]int{}},
	}
}

// send counts a request that is being sent; the returned function what became of
// it.
func (c *collector) send() (ended func(body string, err error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	sent := time.Now()
	number := c.outages.send(sent)
	return func(body string, err error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.outages.end(number, err == nil)
		c.add(sent, body, err)
	}
}

// add counts the end of a request. The lock is held.
func (c *collector) add(sent time.Time, body string, err error) {
	now := time.Now()
	c.state.Sent++
	if err != nil {
		c.state.Failed++
		c.state.Errors[reason(err)]++
		if c.state.FirstFailure.IsZero() {
			c.state.FirstFailure = now
		}
		c.state.LastFailure = now
		return
	}
	c.state.OK++
	c.state.Slowest = max(c.state.Slowest, now.Sub(sent))
	c.closeGap(now, &c.state)
	c.last = now
	c.state.LastSuccess = now
	for _, field := range strings.Fields(body) {
		if pod, ok := strings.CutPrefix(field, "pod="); ok {
			c.state.Pods[pod]++
		} else if node, ok := strings.CutPrefix(field, "node="); ok {
			c.state.Nodes[node]++
		}
	}
}

func (c *collector) closeGap(now time.Time, r *Report) {
	if gap := now.Sub(c.last); gap > r.LongestGap {
		r.LongestGap, r.LongestGapAt = gap, c.last
	}
}

func (c *collector) report() Report {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.state
	r.At = time.Now()
	r.LongestOutage, r.LongestOutageAt = c.outages.longest, c.outages.at
	c.closeGap(r.At, &r)
	r.Errors, r.Pods, r.Nodes = maps.Clone(r.Errors), maps.Clone(r.Pods), maps.Clone(r.Nodes)
	return r
}

// reason leaves out of an error what differs from one request to the next.
func reason(err error) string {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		if wrapped.Timeout() {
			return "timeout"
		}
		err = wrapped.Err
	}
	text := err.Error()
	if i := strings.LastIndex(text, ": "); i >= 0 {
		text = text[i+2:]
	}
	return text
}
