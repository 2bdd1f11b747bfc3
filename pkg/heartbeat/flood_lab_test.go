package heartbeat

import (
	"context"
	"testing"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

// TestLabFlood: 10,000 bad packets a second on one cable, of those that the kernel
// drops and of those that only the key tells from good ones, keep no heartbeat from
// being heard.
func TestLabFlood(t *testing.T) {
	const (
		rate = 10_000
		span = 2 * time.Second
	)
	forgery := forged(announce.HeartbeatKeys{Current: testKeys.Current})
	forgery[len(forgery)-1]++
	foreign := forged(testKeys)
	foreign[4]++
	for name, data := range map[string][]byte{"forged": forgery, "foreign": foreign} {
		t.Run(name, func(t *testing.T) {
			f := &labFamilies[0]
			l := newLab(t)
			l.start(f)
			a := l.nodes[0]
			before := a.x.Counters()
			ctx, cancel := context.WithTimeout(t.Context(), span)
			defer cancel()
			flood(ctx, l.nodes[1].sender(f, hops), data, rate)
			after := a.x.Counters()
			if a.hears(0) != Up || a.hears(1) != Up {
				t.Errorf("%+v", a.x.Adjacencies())
			}
			bad := after.Rejected[string(rejectSignature)] + after.Dropped
			good := after.Received - before.Received
			// Two cables, and ten a second on each.
			if want := uint64(2 * span / interval); good < want*9/10 {
				t.Errorf("%d of %d heartbeats were heard", good, want)
			}
			if bad < uint64(span/time.Second)*rate/2 {
				t.Errorf("%d bad packets only", bad)
			}
			t.Logf("%d bad packets in %v: %d heartbeats were heard; %+v", bad, span, good, after)
		})
	}
}

// flood sends so many packets a second.
func flood(ctx context.Context, send func([]byte), data []byte, rate int) {
	const pace = 2 * time.Millisecond
	tick := time.NewTicker(pace)
	defer tick.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			for range int(now.Sub(last).Seconds() * float64(rate)) {
				send(data)
			}
			last = now
		}
	}
}
