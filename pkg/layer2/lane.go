package layer2

import (
	"fmt"
	"slices"
	"time"
)

const (
	// slotTime and slotFrames are the pace of each lane. The 2,000 addresses of a
	// node that has died are told for the first time within 320 ms, at two frames
	// each for IPv4, which leaves time to notice its death where half a second is
	// all there is. No queue overflows: two slots at once fit into a NIC's ring of
	// 256, and many more into the 1,000 places of the qdisc (txqueuelen) and of the
	// hosts that receive the broadcasts (net.core.netdev_max_backlog).
	slotTime   = 10 * time.Millisecond
	slotFrames = 128
	// failureTime is how long nothing is sent after the kernel refused a frame.
	failureTime = 50 * time.Millisecond
	// maxTries is how often a frame is refused before others are tried.
	maxTries = 3
	// muteTime is how long the kernel may refuse all frames before nobody waits
	// for the lane any more.
	muteTime = 5 * time.Second
)

// lane is what is to be sent on a link for a family. A lane has its own pace and
// its own failures, so that none waits for another.
type lane struct {
	// ready are the jobs whose time has come, by urgency.
	ready [urgencies]fifo
	// slot is when the latest frames began, sent how many there were since.
	slot time.Time
	sent int
	// paused is until when nothing is sent, tries how often the first job has been
	// refused.
	paused time.Time
	tries  int
	// refused is when the kernel refused the first frame after the last one that
	// it sent; reason is why it refused the latest. mute means that that was long
	// ago.
	refused time.Time
	reason  error
	mute    bool
}

// flush sends what is ready, at the pace of the lanes, and returns when there is
// more to send, if ever. The second of two frames may be lost with the first one
// sent; then both are sent again.
func (b *book) flush(now time.Time, send sender) (next time.Time) {
	for _, l := range b.links {
		for f := range families {
			next = earlier(next, b.flushLane(l, f, now, send))
		}
	}
	return next
}

func (b *book) flushLane(l *link, f family, now time.Time, send sender) (next time.Time) {
	for lane := &l.lanes[f]; ; {
		queue := lane.first()
		if queue == nil {
			b.recover(lane) // who has nothing to send is not refused
			return time.Time{}
		}
		if now.Before(lane.paused) {
			return lane.paused
		}
		if end := lane.slot.Add(slotTime); !now.Before(end) {
			// A busy node's timers are late. What that costs is made up for, but by
			// no more than one slot, lest too much is sent at once.
			if lane.slot = end; now.Sub(end) >= slotTime {
				lane.slot = now
			}
			lane.sent = 0
		}
		j := *queue.front() // sending may make the queue move
		frames := j.frames()
		if lane.sent+len(frames) > slotFrames {
			return lane.slot.Add(slotTime)
		}
		for _, frame := range frames {
			if err := send(l, f, frame); err != nil {
				b.refuse(l, f, queue, err, now)
				return lane.paused
			}
			lane.sent++
		}
		queue.pop()
		b.recover(lane)
		b.sent(j, len(frames), now)
	}
}

// first is the queue with the most urgent job.
func (l *lane) first() *fifo {
	for u := range l.ready {
		for q := &l.ready[u]; !q.empty(); q.pop() {
			if q.front().valid() {
				return q
			}
		}
	}
	return nil
}

// refuse notes that the kernel did not send a frame of the first job in the
// queue. When that has happened often enough, less urgent jobs get their turn.
func (b *book) refuse(l *link, f family, queue *fifo, reason error, now time.Time) {
	lane := &l.lanes[f]
	b.counters.failed.Add(1)
	lane.paused, lane.reason = now.Add(failureTime), reason
	if lane.tries++; lane.tries >= maxTries {
		lane.tries = 0
		j := *queue.front()
		queue.pop()
		for u := range lane.ready {
			if queue == &lane.ready[u] {
				lane.ready[min(u+1, len(lane.ready)-1)].push(j)
				break
			}
		}
	}
	if lane.refused.IsZero() {
		lane.refused = now
	}
	if !lane.mute && now.Sub(lane.refused) >= muteTime {
		lane.mute, b.changed = true, true
		b.concludeAll(l, f, now)
	}
}

// recover notes that the kernel sends again.
func (b *book) recover(l *lane) {
	l.tries, l.refused = 0, time.Time{}
	if l.mute {
		l.mute, b.changed = false, true
	}
}

// mutes are the problems of the lanes that cannot send.
func (b *book) mutes() []string {
	var out []string
	for _, l := range b.links {
		for f := range families {
			if lane := &l.lanes[f]; lane.mute {
				out = append(out, fmt.Sprintf("interface %s: for more than %v the kernel has refused to send %v (%v): "+
					"look for filters of what the node sends (tc, nftables) and at the interface's queue", l.name, muteTime, f, lane.reason))
			}
		}
	}
	slices.Sort(out)
	return out
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
