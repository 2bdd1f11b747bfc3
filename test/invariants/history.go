package invariants

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Entry is something that was seen, or that the caller did.
type Entry struct {
	Time    time.Time
	Subject string
	Text    string
}

// String is a line of a report.
func (e Entry) String() string {
	return fmt.Sprintf("%s %s: %s", e.Time.Format("15:04:05.000"), e.Subject, e.Text)
}

const (
	// keptEntries of each subject.
	keptEntries = 24
	// contextTime is how far back a report tells of what concerns all.
	contextTime = 90 * time.Second
)

// everywhere is the subject of what concerns all: faults, outages, elections.
const everywhere = "cluster"

// history is what led to the present, by subject.
type history map[string][]Entry

func (h history) add(now time.Time, subject, format string, args ...any) {
	entries := append(h[subject], Entry{now, subject, fmt.Sprintf(format, args...)})
	kept := keptEntries
	if subject == everywhere {
		kept *= 8
	}
	h[subject] = entries[max(0, len(entries)-kept):]
}

// of is what is known of the subjects and of what concerned all, in order of time.
func (h history) of(now time.Time, subjects []string) []Entry {
	var all []Entry
	for _, e := range h[everywhere] {
		if now.Sub(e.Time) <= contextTime {
			all = append(all, e)
		}
	}
	for _, s := range subjects {
		all = append(all, h[s]...)
	}
	slices.SortStableFunc(all, func(a, b Entry) int { return a.Time.Compare(b.Time) })
	return all
}

// Names of subjects, as Permit and reports use them.
func serviceSubject(s *service) string { return "Service " + s.id() }
func nodeSubject(name string) string   { return "Node " + name }
func poolSubject(name string) string   { return "AddressPool " + name }

func addressSubject[T fmt.Stringer](address T) string { return "address " + address.String() }

func list[T fmt.Stringer](values []T) string {
	if len(values) == 0 {
		return "none"
	}
	texts := make([]string, len(values))
	for i, v := range values {
		texts[i] = v.String()
	}
	return strings.Join(texts, ", ")
}
