package heartbeat

import (
	"maps"
	"sync"
)

// Counters count since New.
type Counters struct {
	// Sent are heartbeats that were sent, Received those that were accepted.
	Sent, Received uint64
	// Rejected are those that were not, by reason.
	Rejected map[string]uint64
	// Dropped are packets that the kernel did not pass on, because they were not from
	// a fellow to this node or came too fast, and heartbeats that the loop had no time
	// for.
	Dropped uint64
	// Takeovers are addresses that were claimed.
	Takeovers uint64
}

// tally counts. It has a lock of its own: who reads packets waits for no decision.
type tally struct {
	mu sync.Mutex
	c  Counters
}

// received counts a packet.
func (t *tally) received(why rejection) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if why == accepted {
		t.c.Received++
		return
	}
	if t.c.Rejected == nil {
		t.c.Rejected = make(map[string]uint64)
	}
	t.c.Rejected[string(why)]++
}

// sent counts packets that were sent.
func (t *tally) sent(n uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.c.Sent += n
}

// dropped counts packets that were not heard.
func (t *tally) dropped(n uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.c.Dropped += n
}

func (t *tally) read() Counters {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.c
	if c.Rejected = maps.Clone(c.Rejected); c.Rejected == nil {
		c.Rejected = make(map[string]uint64)
	}
	return c
}
