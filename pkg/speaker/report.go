package speaker

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/klog/v2"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

const (
	// reportInterval is the least time between two writes of the report: each
	// one reaches all that watch Nodes.
	reportInterval = 10 * time.Second
	// reportSettle is how long a change waits to be written, but for the first
	// report: a session takes about two seconds to come up, and its state on
	// the way there would stand in the report for the whole interval.
	reportSettle = 3 * time.Second
	// reportSoonInterval is the least time between two writes that people wait
	// for: what others do on the LAN must not make us write without end.
	reportSoonInterval = 2 * time.Second
	// reportFastInterval is the same for what makes addresses move, such as a link
	// that is lost, and lost again.
	reportFastInterval = 250 * time.Millisecond
	// reportRetry is the pause after a write that failed.
	reportRetry = time.Second
	// maxError and maxSessionError bound the texts in the report.
	maxError        = 1024
	maxSessionError = 256
	// maxProblems and maxConflicts bound the lists.
	maxProblems  = 16
	maxConflicts = 64
)

// reporter writes the report into the Node's annotation: at once when it is
// another one, but not more often than every reportInterval.
//
// Which program is carried out is no news by itself: a Service more would cost a
// write of each node that announces it, and each of those would reach everybody
// who watches Nodes. Epoch and hash go along with the next write, unless somebody
// waits for them.
type reporter struct {
	write func(ctx context.Context, key, value string) error

	mu   sync.Mutex
	want told // as it should be
	// urgency is that of the next write.
	urgency urgency
	// present is the annotation, as far as is known; absent means that there is
	// no Node.
	present told
	absent  bool
	wake    chan struct{}
}

// told is the text of a report, and its news: the text without the program's epoch
// and hash. Both are empty where there is no report that can be read.
type told struct{ text, news string }

// urgency says who waits for a report.
type urgency int

const (
	// reportLater: nobody waits.
	reportLater urgency = iota
	// reportSoon: people wait to read why something is not announced.
	reportSoon
	// reportFast: the planner is to give the node's addresses to others.
	reportFast
	// reportNow: another speaker waits to be relieved.
	reportNow
)

// interval is the least time since the write before, settle that since the
// change. Both are zero where another speaker waits.
func (u urgency) interval() time.Duration {
	return map[urgency]time.Duration{
		reportLater: reportInterval, reportSoon: reportSoonInterval, reportFast: reportFastInterval,
	}[u]
}

func (u urgency) settle() time.Duration {
	return map[urgency]time.Duration{reportLater: reportSettle}[u]
}

func newReporter(write func(ctx context.Context, key, value string) error) *reporter {
	return &reporter{write: write, wake: make(chan struct{}, 1)}
}

// set makes r the report, and has it written as early as u says if it is another
// one.
func (r *reporter) set(report announce.Report, u urgency) error {
	text, err := encodeReport(report)
	if err != nil {
		return err
	}
	want := told{text: text, news: newsOf(text)}
	r.change(func() {
		if r.want != want {
			r.urgency = max(r.urgency, u)
		}
		r.want = want
	})
	return nil
}

// newsOf is the report without what is no news by itself; empty if it cannot be
// read.
func newsOf(text string) string {
	report, err := announce.DecodeReport(text)
	if err != nil {
		return ""
	}
	report.Epoch, report.Hash = 0, ""
	news, err := announce.EncodeReport(report)
	if err != nil {
		return ""
	}
	return news
}

// observe takes notice of the Node: somebody else may have changed or removed
// the annotation, and a Node that was created anew has none.
func (r *reporter) observe(n node) {
	r.change(func() {
		r.absent = n.gone
		if r.present.text != n.report {
			r.present = told{text: n.report, news: newsOf(n.report)}
		}
	})
}

func (r *reporter) change(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// due is the report if it has to be written.
func (r *reporter) due() (report told, due bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	news := r.want.news != r.present.news || r.urgency == reportNow && r.want != r.present
	return r.want, r.want.text != "" && news && !r.absent
}

// hurried is the urgency of the write that is due.
func (r *reporter) hurried() urgency {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.urgency
}

// encodeReport writes the report as far as it fits: what the planner decides by,
// sessions and interfaces, is worth more than what people read.
func encodeReport(r announce.Report) (string, error) {
	r.Error = cut(r.Error, maxError)
	r.Sessions = slices.Clone(r.Sessions) // others read them
	for i := range r.Sessions {
		r.Sessions[i].Error = cut(r.Sessions[i].Error, maxSessionError)
	}
	r.Problems = slices.Clone(r.Problems[:min(len(r.Problems), maxProblems)])
	for i := range r.Problems {
		r.Problems[i] = cut(r.Problems[i], maxError)
	}
	// Addresses that are held back are worth more than those that are defended.
	r.Conflicts = slices.Clone(r.Conflicts)
	slices.SortStableFunc(r.Conflicts, func(a, b announce.Conflict) int {
		switch {
		case a.Held && !b.Held:
			return -1
		case b.Held && !a.Held:
			return 1
		}
		return 0
	})
	r.Conflicts = r.Conflicts[:min(len(r.Conflicts), maxConflicts)]
	value, err := announce.EncodeReport(r)
	for _, shorten := range []func(){
		func() { r.Problems = nil },
		func() { r.Conflicts = nil },
		func() {
			for i := range r.Sessions {
				r.Sessions[i].Error = ""
			}
		},
	} {
		if err == nil {
			break
		}
		shorten()
		value, err = announce.EncodeReport(r)
	}
	// The planner makes those takeovers official that it reads, and then there is
	// room for others.
	for all := r.Takeovers; err != nil && len(r.Takeovers) > 0; {
		r.Takeovers = fewer(r.Takeovers)
		if value, err = announce.EncodeReport(r); err == nil {
			klog.Background().Info("The report has no room for all takeovers; the others follow", "told", countRanges(r.Takeovers), "of", countRanges(all))
		}
	}
	if err != nil {
		r.Interfaces = nil
		value, err = announce.EncodeReport(r)
	}
	return value, err
}

// fewer leaves out the second half of the ranges.
func fewer(takeovers []announce.Takeover) (left []announce.Takeover) {
	room := countRanges(takeovers) / 2
	for _, t := range takeovers {
		n := min(room, len(t.Addresses))
		if room -= n; n > 0 {
			t.Addresses = t.Addresses[:n]
			left = append(left, t)
		}
	}
	return left
}

func countRanges(takeovers []announce.Takeover) (n int) {
	for _, t := range takeovers {
		n += len(t.Addresses)
	}
	return n
}

// cut shortens the text to n bytes, between characters.
func cut(text string, n int) string {
	if len(text) <= n {
		return text
	}
	return strings.ToValidUTF8(text[:n], "")
}

// run writes until ctx ends.
func (r *reporter) run(ctx context.Context) error {
	logger := klog.FromContext(ctx)
	var wrote, since, retry time.Time // the write before, the change, the next try
	failed := false
	for {
		report, due := r.due()
		if !due {
			since = time.Time{}
			select {
			case <-ctx.Done():
				return nil
			case <-r.wake:
			}
			continue
		}
		now := time.Now()
		if since.IsZero() {
			since = now
		}
		at := retry
		if u := r.hurried(); !wrote.IsZero() {
			at = latestOf(retry, wrote.Add(u.interval()), since.Add(u.settle()))
		}
		if now.Before(at) {
			// What comes until then is in this one, and may be urgent.
			timer := time.NewTimer(at.Sub(now))
			select {
			case <-ctx.Done():
			case <-timer.C:
			case <-r.wake:
			}
			timer.Stop()
			if ctx.Err() != nil {
				return nil
			}
			continue
		}
		if err := r.write(ctx, v1alpha1.NodeSpeaker, report.text); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if !failed {
				logger.Error(err, "Writing the report failed")
			}
			reportWrites.WithLabelValues("error").Inc()
			retry, failed = time.Now().Add(reportRetry), true
			continue
		}
		reportWrites.WithLabelValues("success").Inc()
		r.change(func() {
			if r.present = report; r.want == report {
				r.urgency = reportLater // else what came meanwhile may be urgent
			}
		})
		wrote, since, retry, failed = time.Now(), time.Time{}, time.Time{}, false
	}
}

func latestOf(times ...time.Time) time.Time {
	return slices.MaxFunc(times, time.Time.Compare)
}

// waited blocks for d; it reports false when ctx ends before.
func waited(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
