package layer2

import (
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

// place is an address on a link.
type place struct {
	entry *entry
	link  *link
	// round is the number of probes or gratuitous announcements sent, start the
	// time of the first of the latter, due that of the next; zero is never.
	round int
	start time.Time
	due   time.Time
	// done means that no answer to the probes is awaited any more.
	done bool
	// queued and asserting mean that such a job is in the lane's queue; ticket
	// tells a job that still counts.
	queued, asserting bool
	ticket            uint32
	// checking means that a check is in the queue.
	checking bool
	// defended is when the address was defended last.
	defended time.Time
	// duty is that of the link's station.
	duty duty
}

// do makes the station do its duty. Who asked a moment before and is answered now
// must not wait until he asks again.
func (p *place) do(d duty, now time.Time) {
	if p.duty == d {
		return
	}
	p.duty = d
	for _, m := range p.link.station.set(p.entry.addr, d, now) {
		if p.open() {
			p.lane().ready[awaited].push(job{place: p, ticket: p.ticket, asked: &m})
		}
	}
}

// begin begins the probes or the burst of a place anew.
func (p *place) begin(now time.Time) {
	p.cancel()
	p.round, p.due, p.done = 0, now, false
}

// cancel takes the jobs of a place back.
func (p *place) cancel() {
	p.ticket++
	p.queued, p.asserting, p.checking = false, false, false
	p.due = time.Time{}
}

// ripe reports whether something is due.
func (p *place) ripe(now time.Time) bool {
	return p.open() && !p.queued && !p.due.IsZero() && !p.due.After(now)
}

// open reports whether something can be sent.
func (p *place) open() bool { return p.link.open[familyOf(p.entry.addr)] }

// covers reports whether the node answers here in place of the owner.
func (p *place) covers() bool { return p.duty.stance == covers && p.open() }

func (p *place) lane() *lane { return &p.link.lanes[familyOf(p.entry.addr)] }

// queue puts the place's next probe or announcement into the lane's queue.
func (p *place) queue() {
	u := atOnce
	switch {
	case p.entry.asking || p.round == 0:
	case p.round < len(bursts[familyOf(p.entry.addr)]):
		u = laterRound
	default:
		u = refresh
	}
	p.queued = true
	p.lane().ready[u].push(job{place: p, ticket: p.ticket})
}

// check puts a check into the queue.
func (p *place) check(owner announce.MAC) {
	if !p.checking {
		p.checking = true
		p.lane().ready[laterRound].push(job{place: p, ticket: p.ticket, check: owner})
	}
}

// assert puts an announcement into the queue, besides what is there anyway.
func (p *place) assert(u urgency) {
	if !p.asserting && p.open() {
		p.asserting = true
		p.lane().ready[u].push(job{place: p, ticket: p.ticket, assert: true})
	}
}
