package layer2

import (
	"hash/fnv"
	"net/netip"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/layer2/internal/wire"
)

const (
	// slotTime and slotFrames are the pace on each interface: 2,000 addresses
	// are out within a second, and no queue of a NIC overflows.
	slotTime   = 10 * time.Millisecond
	slotFrames = 64
	// failureTime is how long nothing is sent after the kernel refused a frame.
	failureTime = 50 * time.Millisecond
	// refreshTime is how often each address is announced for good.
	refreshTime = time.Minute
)

// bursts are when gratuitous packets are sent after an address or a link came
// up, from the first one. Linux ignores what changes an entry that was confirmed
// less than a second before (locktime), hence the rounds after 1 s. RFC 4861
// section 7.2.6 allows three advertisements.
var bursts = [families][]time.Duration{
	ipv4: {0, 250 * time.Millisecond, 1100 * time.Millisecond, 2200 * time.Millisecond, 4400 * time.Millisecond},
	ipv6: {0, 1100 * time.Millisecond, 2200 * time.Millisecond},
}

// urgency orders what is to be sent on a link.
type urgency int

const (
	// atOnce are probes, first rounds and defences.
	atOnce urgency = iota
	laterRound
	refresh
	urgencies // how many there are
)

// job is one thing to send: the next probe or announcement of a place, an
// announcement besides these, or the question to a suspect.
type job struct {
	place   *place
	ticket  uint32
	assert  bool
	suspect *suspect
}

// valid reports whether the job has not been taken back: nobody waits any longer
// for the answer of a suspect, or the place has begun anew.
func (j *job) valid() bool {
	if s := j.suspect; s != nil {
		return s.link.watched[s.family].IsValid() && s.link.open[s.family]
	}
	return j.ticket == j.place.ticket
}

// sender sends a frame or says why it could not.
type sender func(l *link, f family, frame []byte) error

// flush sends what is ready, at the pace of the links, and returns when there is
// more to send, if ever. What cannot be sent stays where it is. The second of
// two frames may be lost with the first one sent; then both are sent again.
func (b *book) flush(now time.Time, send sender) (next time.Time) {
	for _, l := range b.links {
		next = earlier(next, b.flushLink(l, now, send))
	}
	return next
}

func (b *book) flushLink(l *link, now time.Time, send sender) (next time.Time) {
	for sent := 0; ; {
		j, queue := l.first()
		if j == nil {
			return time.Time{}
		}
		if now.Before(l.slot) {
			return l.slot
		}
		f, frames := j.frames()
		for _, frame := range frames {
			if err := send(l, f, frame); err != nil {
				b.counters.failed.Add(1)
				l.slot = now.Add(failureTime)
				return l.slot
			}
			sent++
		}
		done := *j
		queue.pop()
		b.sent(done, len(frames), now)
		if sent >= slotFrames {
			l.slot = now.Add(slotTime)
		}
	}
}

// first is the most urgent job of a link, and its queue.
func (l *link) first() (*job, *fifo) {
	for u := range l.ready {
		for q := &l.ready[u]; !q.empty(); q.pop() {
			if j := q.front(); j.valid() {
				return j, q
			}
		}
	}
	return nil, nil
}

// frames are what the job sends. They are composed no earlier, so that they tell
// what is the case now.
func (j *job) frames() (family, [][]byte) {
	if s := j.suspect; s != nil {
		return s.family, [][]byte{probe(s.link, s.link.watched[s.family])}
	}
	p, addr := j.place, j.place.entry.addr
	f := familyOf(addr)
	switch {
	case !j.assert && p.entry.asking:
		return f, [][]byte{probe(p.link, addr)}
	case f == ipv6:
		return f, [][]byte{wire.NDPAnnouncement(p.link.mac, addr)}
	case !j.assert && p.round == 0:
		// Some hosts heed the one form only, some the other.
		return f, [][]byte{wire.ARPAnnouncement(p.link.mac, addr), wire.ARPGratuitousReply(p.link.mac, addr)}
	}
	return f, [][]byte{wire.ARPAnnouncement(p.link.mac, addr)}
}

func probe(l *link, addr netip.Addr) []byte {
	if addr.Is4() {
		return wire.ARPProbe(l.mac, addr)
	}
	return wire.NDPProbe(l.mac, addr)
}

// sent notes that the job is done, and when the place's next one is due.
func (b *book) sent(j job, frames int, now time.Time) {
	if s := j.suspect; s != nil {
		s.sent, s.until = true, now.Add(checkTime)
		s.expires = s.until.Add(hostTime)
		b.counters.probes.Add(1)
		return
	}
	p := j.place
	if j.assert {
		p.asserting = false
		b.counters.gratuitous.Add(1)
		return
	}
	defer b.schedule(p.entry)
	p.queued = false
	p.round++
	if p.entry.asking {
		b.counters.probes.Add(1)
		p.due = now.Add(probeInterval)
		return
	}
	b.counters.gratuitous.Add(uint64(frames))
	if p.round == 1 {
		p.start = now
	}
	rounds := bursts[familyOf(p.entry.addr)]
	if p.round < len(rounds) {
		p.due = p.start.Add(rounds[p.round])
		return
	}
	p.round = len(rounds)
	p.due = nextRefresh(p.entry.addr, now)
}

// nextRefresh is when the address is announced again. Each address has a moment
// of its own within refreshTime, so that they spread evenly whenever they came.
func nextRefresh(addr netip.Addr, now time.Time) time.Time {
	octets := addr.As16()
	h := fnv.New64a()
	_, _ = h.Write(octets[:]) // never fails
	// The multiplication mixes the last octet, in which neighbours differ, into
	// all bits of the moment.
	mixed := h.Sum64() * 0x9e3779b97f4a7c15
	moment := int64(mixed>>1) % int64(refreshTime)
	wait := (moment - now.UnixNano()%int64(refreshTime) + int64(refreshTime)) % int64(refreshTime)
	if wait < int64(refreshTime)/2 {
		wait += int64(refreshTime)
	}
	// A refresh keeps its moment; the first one comes 30 to 90 s after the burst.
	return now.Add(time.Duration(wait))
}

// fifo is a queue of jobs.
type fifo struct {
	jobs []job
	head int
}

func (q *fifo) empty() bool { return q.head == len(q.jobs) }
func (q *fifo) front() *job { return &q.jobs[q.head] }

func (q *fifo) push(j job) {
	if q.head > 1024 && q.head > len(q.jobs)/2 {
		n := copy(q.jobs, q.jobs[q.head:])
		clear(q.jobs[n:])
		q.jobs, q.head = q.jobs[:n], 0
	}
	q.jobs = append(q.jobs, j)
}

func (q *fifo) pop() {
	q.jobs[q.head] = job{}
	if q.head++; q.empty() {
		q.jobs, q.head = q.jobs[:0], 0
	}
	// What a burst made long is not kept for ever.
	if q.empty() && cap(q.jobs) > 1024 {
		q.jobs = nil
	}
}
