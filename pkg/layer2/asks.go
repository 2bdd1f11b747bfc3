package layer2

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/layer2/internal/wire"
)

const (
	// askTime is how long a request is remembered. Hosts ask again after a second
	// (RFC 4861 section 10), which answers by then would come too late for.
	askTime = 500 * time.Millisecond
	// askBuckets and askers bound what is remembered of all addresses together, and
	// of one: the latest requests. To answer them all takes less than 100 ms, which
	// is what a flood can hold up other things by.
	askBuckets = 256
	askers     = 4
)

// ask is a request and when it came.
type ask struct {
	m  wire.Message
	at time.Time
}

// asks remembers who has asked for addresses that nobody answers for. It is filled
// by readers, at the rate at which anybody may ask: its size is fixed, and to
// remember costs as much as to forget. Addresses that share a bucket share its
// room.
type asks struct {
	mu      sync.Mutex
	seed    maphash.Seed
	buckets [][askers]ask // nil until there is one
}

// put remembers the request.
func (a *asks) put(addr netip.Addr, m *wire.Message, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.buckets == nil {
		a.seed, a.buckets = maphash.MakeSeed(), make([][askers]ask, askBuckets)
	}
	bucket := a.bucket(addr)
	place := 0
	for i := range bucket {
		old := &bucket[i]
		if old.m.Target == addr && old.m.Sender == m.Sender && old.m.SenderMAC == m.SenderMAC {
			place = i
			break
		}
		if old.at.Before(bucket[place].at) {
			place = i
		}
	}
	bucket[place] = ask{*m, now}
}

// take returns the requests for the address that are not too old, and forgets
// them.
func (a *asks) take(addr netip.Addr, now time.Time) (out []wire.Message) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.buckets == nil {
		return nil
	}
	bucket := a.bucket(addr)
	for i := range bucket {
		q := &bucket[i]
		if q.m.Target != addr {
			continue
		}
		if now.Sub(q.at) < askTime {
			out = append(out, q.m)
		}
		*q = ask{}
	}
	return out
}

func (a *asks) bucket(addr netip.Addr) *[askers]ask {
	octets := addr.As16()
	return &a.buckets[maphash.Bytes(a.seed, octets[:])%askBuckets]
}
