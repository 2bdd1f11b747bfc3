package layer2

import (
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

const (
	// conflictTime is how long a conflict is reported after the last claim.
	conflictTime = 5 * time.Minute
	// conflictPace is how often another MAC address is noted for the same one.
	conflictPace = time.Second
	// maxConflicts bounds what a hostile host can make the report hold.
	maxConflicts = 1024
)

// conflict is an announce.Conflict with its times.
type conflict struct {
	announce.Conflict
	noted, at time.Time // first and last claim
}

// dispute notes the claim of a host that may rightly have the address.
func (b *book) dispute(e *entry, l *link, mac announce.MAC, held bool, now time.Time) {
	b.note(e, l, mac, held, false, now)
}

// note records a claim for the report: one for each address, the last one, but
// hosts before proxies.
func (b *book) note(e *entry, l *link, mac announce.MAC, held, proxy bool, now time.Time) {
	c := conflict{noted: now, at: now, Conflict: announce.Conflict{
		Address: e.addr, Interface: l.name, MAC: mac, Held: held, Proxy: proxy,
	}}
	if old := e.conflict; old != nil {
		switch {
		case old.Conflict == c.Conflict, old.Held == held && now.Sub(old.noted) < conflictPace:
			old.at = now
			return
		case proxy && !old.Proxy && old.MAC != mac:
			return
		}
	}
	b.setConflict(e, &c)
}

func (b *book) setConflict(e *entry, c *conflict) {
	if e.conflict == nil && c != nil {
		if b.conflicts >= maxConflicts {
			return
		}
		b.conflicts++
	}
	if e.conflict != nil && c == nil {
		b.conflicts--
	}
	if e.conflict != c {
		e.conflict = c
		b.changed = true
	}
}
