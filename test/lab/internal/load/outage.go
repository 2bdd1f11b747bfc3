package load

import "time"

// outages finds the longest time between the sending of two requests that were
// answered, with failed ones and no others between them. Unlike the ends of
// requests, their sending is on schedule, so that neither a slow answer nor the
// timeout blurs it; and a time in which a busy machine sent nothing is no
// outage.
//
// Answers come in any order: what was sent is judged in order, as far as the
// outcome of all before it is known.
type outages struct {
	first   int       // number of the first request that is not judged
	pending []request // from that one on
	last    time.Time // sending of the last answered one, or of the first one of all
	failing bool      // a later one has failed
	longest time.Duration
	at      time.Time // when the longest began
}

type request struct {
	sent   time.Time
	known  bool
	answer bool
}

// send takes up a request that is being sent, and numbers it.
func (o *outages) send(now time.Time) int {
	if o.last.IsZero() {
		o.last = now
	}
	o.pending = append(o.pending, request{sent: now})
	return o.first + len(o.pending) - 1
}

// end takes up what became of a request.
func (o *outages) end(number int, answered bool) {
	r := &o.pending[number-o.first]
	r.known, r.answer = true, answered
	for len(o.pending) > 0 && o.pending[0].known {
		r := o.pending[0]
		o.first, o.pending = o.first+1, o.pending[1:]
		o.failing = o.failing || !r.answer
		// While it lasts, it is as long as it is known to be.
		if d := r.sent.Sub(o.last); o.failing && d > o.longest {
			o.longest, o.at = d, o.last
		}
		if r.answer {
			o.last, o.failing = r.sent, false
		}
	}
}
