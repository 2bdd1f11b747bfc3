package layer2

import (
	"hash/fnv"
	"net/netip"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/layer2/internal/wire"
)

// refreshTime is how often each address is announced for good.
const refreshTime = time.Minute

// bursts are when gratuitous packets are sent after an address or a link came
// up, from the first one. Linux ignores what changes an entry that was confirmed
// less than a second before (locktime), hence the rounds after 1 s. RFC 4861
// section 7.2.6 allows three advertisements.
var bursts = [families][]time.Duration{
	ipv4: {0, 250 * time.Millisecond, 1100 * time.Millisecond, 2200 * time.Millisecond, 4400 * time.Millisecond},
	ipv6: {0, 1100 * time.Millisecond, 2200 * time.Millisecond},
}

// urgency orders what is to be sent.
type urgency int

const (
	// awaited are answers to who has waited for them. There are few: see asks.
	awaited urgency = iota
	// atOnce are probes, first rounds and defences.
	atOnce
	laterRound
	refresh
	urgencies // how many there are
)

// job is one thing to send: the next probe or announcement of a place, an
// announcement besides these, the answer to who asked before, a check of the owner
// with that MAC, or the question to a suspect.
type job struct {
	place   *place
	ticket  uint32
	assert  bool
	asked   *wire.Message
	check   announce.MAC
	suspect *suspect
}

// valid reports whether the job has not been taken back: nobody waits any longer
// for the answer of a suspect, or the place has begun anew.
func (j *job) valid() bool {
	if s := j.suspect; s != nil {
		return !s.proxy && s.link.watched[s.family].IsValid() && s.link.open[s.family]
	}
	return j.ticket == j.place.ticket
}

// sender sends a frame or says why it could not.
type sender func(l *link, f family, frame []byte) error

// frames are what the job sends. They are composed no earlier, so that they tell
// what is the case now.
func (j *job) frames() [][]byte {
	if s := j.suspect; s != nil {
		return [][]byte{s.question()}
	}
	p, addr := j.place, j.place.entry.addr
	switch {
	case j.asked != nil:
		return [][]byte{p.link.station.answer(p.duty, j.asked)}
	case j.check != announce.MAC{}:
		return [][]byte{check(p.link.mac, j.check, addr)}
	case !j.assert && p.entry.asking:
		return [][]byte{probe(p.link, addr)}
	case p.entry.quiet:
		return nil
	case addr.Is6():
		return [][]byte{wire.NDPAnnouncement(p.link.mac, addr)}
	case !j.assert && p.round == 0:
		// Some hosts heed the one form only, some the other.
		return [][]byte{wire.ARPAnnouncement(p.link.mac, addr), wire.ARPGratuitousReply(p.link.mac, addr)}
	}
	return [][]byte{wire.ARPAnnouncement(p.link.mac, addr)}
}

func probe(l *link, addr netip.Addr) []byte {
	if addr.Is4() {
		return wire.ARPProbe(l.mac, addr)
	}
	return wire.NDPProbe(l.mac, addr)
}

// sent notes that the job is done, and when the place's next one is due.
func (b *book) sent(j job, frames int, now time.Time) {
	if j.suspect != nil {
		j.suspect.asked(now)
		b.counters.probes.Add(1)
		return
	}
	p := j.place
	switch {
	case j.asked != nil:
		b.counters.answer(p.duty)
		return
	case j.check != announce.MAC{}:
		p.checking = false
		return
	case j.assert:
		p.asserting = false
		b.counters.gratuitous.Add(uint64(frames))
		return
	}
	defer b.schedule(p.entry)
	p.queued = false
	p.round++
	if p.entry.asking {
		b.counters.probes.Add(1)
		p.due = now.Add(probeInterval)
		if p.round == probeCount && p.entry.late {
			p.due = now.Add(lateWait)
		}
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
