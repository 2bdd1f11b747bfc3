package heartbeat

import (
	"cmp"
	"net/netip"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

const (
	// interval is that of heartbeats.
	interval = 100 * time.Millisecond
	// suspicion is how long after the last heartbeat the fellow's kernel is asked:
	// two are missing.
	suspicion = 220 * time.Millisecond
	// silence is how long after it the speaker counts as away: three are missing.
	silence = 320 * time.Millisecond
	// deadTries questions in a row without an answer, tryTime apart and with
	// answerTime for the last one, are what a dead kernel looks like; and no sign of
	// life for deadTime.
	deadTries  = 3
	tryTime    = 40 * time.Millisecond
	answerTime = 60 * time.Millisecond
	deadTime   = 300 * time.Millisecond
	// aliveTime and deadPace are how often a kernel is asked that has answered, and
	// one that is dead.
	aliveTime = 100 * time.Millisecond
	deadPace  = 250 * time.Millisecond
	// servingTime is how long the answer of a speaker counts.
	servingTime = 400 * time.Millisecond
	// replyPause is the least time between two packets to a fellow.
	replyPause = 10 * time.Millisecond
	// freshTime is how long a new adjacency is waited for, youth how long after the
	// start of the process or of a link there are new ones.
	freshTime = 350 * time.Millisecond
	youth     = 2 * time.Second
	// wholeTables is how often a table is told as a whole. Who has not had all of it by
	// then may hear nothing, and is told slowParts of it at a time.
	wholeTables = 3
	slowParts   = 16
)

// adjacency is a fellow on one of the node's links. Time is an argument.
type adjacency struct {
	peer    *peer
	link    int
	segment linkID
	from    netip.Addr // the node's own address
	to      netip.Addr // the fellow's
	mac     announce.MAC
	since   time.Time
	// sample is an address that the fellow owns: it is asked for to see whether the
	// speaker answers.
	sample netip.Addr

	// seq is that of the last packet that was accepted, and smaller than that of any
	// that is to be; heard is its time, or zero.
	seq   uint64
	heard time.Time
	// deaf: by its last packet, the fellow hears nobody on the link.
	deaf bool
	// echo is the last packet that was accepted, greeting one of another process,
	// which is to be answered by one echo; answering: the last one was such.
	echo, greeting stamp
	answering      bool
	newest         keyID // of this node's keys that the fellow has
	// had is the last number of this process that the fellow echoed.
	had uint64

	// back is when there was a sign of life after there had been none for a while.
	back time.Time
	// refused is when its kernel said that the speaker is not there.
	refused time.Time
	// answered is when its kernel, served when its speaker answered a question.
	answered, served time.Time
	// tries are questions in a row without an answer, tried the time of the last.
	tries int
	tried time.Time

	// checked is how many checks of this node the fellow has seen, modulo 256.
	checked    uint8
	inspection inspection

	// telling is the table that is told, told how many of its parts have been, again and
	// again, until the fellow has all.
	telling uint32
	told    int

	// sent is when the last packet left; hurried means that the next one waits for
	// replyPause only.
	sent    time.Time
	hurried bool

	last Liveness // as it was decided by
}

// stamp names a packet of a process.
type stamp struct{ life, seq uint64 }

// greet is that a process introduces itself which may be the fellow's new one, or
// one of long ago whose packet somebody has recorded. The latest packet of the latest
// process is answered, for such a one must not keep a true one from being so.
func (a *adjacency) greet(s stamp) {
	if cmp.Or(cmp.Compare(s.life, a.greeting.life), cmp.Compare(s.seq, a.greeting.seq)) > 0 {
		a.greeting = s
	}
	a.hurried = true
}

// echoed is what the next packet echoes. Every other one at least is for the process
// that is known: greetings must not keep it from hearing that it is heard.
func (a *adjacency) echoed() stamp {
	if a.answering = a.greeting.life != 0 && (!a.answering || a.echo.life == 0); a.answering {
		s := a.greeting
		a.greeting = stamp{}
		return s
	}
	return a.echo
}

func (a *adjacency) route() route { return route{a.link, a.mac, a.from, a.to} }

// evidence is the last sign of life; before the first one, when it could have
// come.
func (a *adjacency) evidence() time.Time {
	return latest(a.since, a.heard, a.answered, a.served)
}

// lived reports whether there has been any sign of life.
func (a *adjacency) lived() bool {
	return !a.heard.IsZero() || !a.answered.IsZero() || !a.served.IsZero()
}

func (a *adjacency) liveness(now time.Time) Liveness {
	switch {
	case a.refused.After(a.heard) && now.Sub(a.refused) < silence:
		return Silent
	case !a.heard.IsZero() && now.Sub(a.heard) < silence:
		return Up
	case !a.served.IsZero() && now.Sub(a.served) < servingTime:
		return Serving
	case a.unanswered(now) && now.Sub(a.evidence()) >= deadTime:
		return Dead
	case a.answered.After(a.heard):
		return Silent
	}
	return Unheard
}

// unanswered reports whether the kernel has been asked often enough.
func (a *adjacency) unanswered(now time.Time) bool {
	return a.tries > deadTries || a.tries == deadTries && now.Sub(a.tried) >= answerTime
}

// suspect reports whether the fellow's kernel is to be asked.
func (a *adjacency) suspect(now time.Time) bool {
	return now.Sub(latest(a.since, a.heard)) >= suspicion
}

// nextTry is when to ask the fellow's kernel the next time.
func (a *adjacency) nextTry() time.Time {
	switch {
	case a.tries == 0 && a.tried.IsZero():
		return latest(a.since, a.heard).Add(suspicion)
	case a.tries == 0:
		return latest(a.tried.Add(aliveTime), latest(a.since, a.heard).Add(suspicion))
	case a.tries < deadTries:
		return a.tried.Add(tryTime)
	}
	return a.tried.Add(deadPace)
}

// nextSend is when the next packet is to leave.
func (a *adjacency) nextSend() time.Time {
	if a.hurried {
		return a.sent.Add(replyPause)
	}
	return a.sent.Add(interval)
}

// nextParts are those of the table to tell now: the first one, and how many.
func (a *adjacency) nextParts() (first, n int) {
	all := len(a.peer.chunks)
	if a.telling != a.peer.version {
		a.telling, a.told = a.peer.version, 0
	}
	first, n = a.told%all, all
	if a.told >= wholeTables*all {
		n = min(all, slowParts)
	}
	a.told += n
	return first, n
}

// nextChange is when the liveness may change if nothing is heard; it is zero if it
// is not to.
func (a *adjacency) nextChange(now time.Time) (at time.Time) {
	switch a.liveness(now) {
	case Up:
		return a.heard.Add(silence)
	case Silent:
		if a.refused.After(a.heard) {
			return a.refused.Add(silence)
		}
	case Serving:
		return a.served.Add(servingTime)
	case Dead:
		return time.Time{}
	}
	if a.tries >= deadTries {
		return latest(a.tried.Add(answerTime), a.evidence().Add(deadTime))
	}
	return time.Time{}
}

func latest(times ...time.Time) (at time.Time) {
	for _, t := range times {
		if t.After(at) {
			at = t
		}
	}
	return at
}
