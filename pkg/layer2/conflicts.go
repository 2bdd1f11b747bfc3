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
	// maxConflicts bounds what hostile hosts can make the report hold. The book
	// has no more than that of announced addresses, too; those that are held are
	// never left out for these.
	maxConflicts = 1024
)

// conflict is an announce.Conflict with its times.
type conflict struct {
	announce.Conflict
	noted, at time.Time // first and last claim
}

// dispute notes the claim of a host because of which the address is held.
func (b *book) dispute(e *entry, l *link, mac announce.MAC, now time.Time) {
	b.note(e, l, mac, true, false, now)
}

// note records a claim for the report: one for each address, the last one, but
// hosts before proxies.
func (b *book) note(e *entry, l *link, mac announce.MAC, hold, proxy bool, now time.Time) {
	c := conflict{noted: now, at: now, Conflict: announce.Conflict{
		Address: e.addr, Interface: l.name, MAC: mac, Held: hold, Proxy: proxy,
	}}
	if old := e.conflict; old != nil {
		switch {
		case old.Held && !hold && e.phase == held:
			return // why it is held
		case old.Conflict == c.Conflict, old.Held == hold && now.Sub(old.noted) < conflictPace:
			old.at = now
			return
		case proxy && !old.Proxy && old.MAC != mac:
			return
		}
	}
	b.setConflict(e, &c)
}

func (b *book) setConflict(e *entry, c *conflict) {
	before, after := e.conflict != nil && !e.conflict.Held, c != nil && !c.Held
	switch {
	case before && !after:
		b.conflicts--
	case after && !before && b.conflicts >= maxConflicts:
		c = nil
	case after && !before:
		b.conflicts++
	}
	if e.conflict != c {
		e.conflict = c
		b.changed = true
	}
}
