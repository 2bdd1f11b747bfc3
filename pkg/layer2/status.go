package layer2

import (
	"cmp"
	"slices"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

// maxProblems bounds Status.Problems.
const maxProblems = 32

// Status is what an Announcer does, and what stands in its way.
type Status struct {
	// Announced, Probing and Held count addresses. An address that has no
	// interface with an open socket is in none of them, but in Problems.
	Announced, Probing, Held int
	// Covered and StandingBy count the addresses of other nodes that this one
	// answers for in their place, and that it is ready to.
	Covered, StandingBy int
	// Checks are those of fellows that have arrived, by the MAC address of the
	// interface that sent them; see Announcer.Check. An answer in this node's place
	// to the node itself counts as one.
	Checks map[announce.MAC]Checks
	// Conflicts are the claims of others, by address, one for each; 1,024 at most,
	// those of held addresses before others.
	Conflicts []announce.Conflict
	// Problems say which addresses are not announced and why, and what to do; 32
	// at most.
	Problems []string
	Counters
}

// Counters count since New.
type Counters struct {
	// Answered are the requests and solicitations that were answered.
	Answered uint64
	// AnsweredFor are those that were answered in place of the owner.
	AnsweredFor uint64
	// Gratuitous are the announcements that nobody asked for.
	Gratuitous uint64
	// Probes are the questions whether an address is free, or who a proxy is.
	Probes uint64
	// Claims are those by hosts that are no nodes of the cluster.
	Claims uint64
	// Malformed are frames that RFC 826 and RFC 4861 section 7.1 tell to ignore.
	Malformed uint64
	// Dropped are frames about the addresses that nobody had time to look at;
	// what they asked for was answered before.
	Dropped uint64
	// Failed are frames that the kernel did not send. Announcements and probes
	// are sent later.
	Failed uint64
}

func (c *counters) snapshot() Counters {
	return Counters{
		Answered:    c.answered.Load(),
		AnsweredFor: c.answeredFor.Load(),
		Gratuitous:  c.gratuitous.Load(),
		Probes:      c.probes.Load(),
		Claims:      c.claims.Load(),
		Malformed:   c.malformed.Load(),
		Dropped:     c.dropped.Load(),
		Failed:      c.failed.Load(),
	}
}

// status is that of the book, without problems.
func (b *book) status() Status {
	s := Status{Counters: b.counters.snapshot(), Checks: b.checks.snapshot()}
	for _, e := range b.entries {
		if e.conflict != nil {
			s.Conflicts = append(s.Conflicts, e.conflict.Conflict)
		}
		if !slices.ContainsFunc(e.places, (*place).open) {
			continue
		}
		switch e.phase {
		case announced:
			s.Announced++
		case probing:
			s.Probing++
		case held:
			s.Held++
		case aside:
			if slices.ContainsFunc(e.places, (*place).covers) {
				s.Covered++
			} else {
				s.StandingBy++
			}
		}
	}
	if len(s.Conflicts) > maxConflicts {
		slices.SortFunc(s.Conflicts, func(x, y announce.Conflict) int {
			return cmp.Or(heldFirst(&x, &y), x.Address.Compare(y.Address))
		})
		s.Conflicts = s.Conflicts[:maxConflicts]
	}
	slices.SortFunc(s.Conflicts, func(x, y announce.Conflict) int {
		return x.Address.Compare(y.Address)
	})
	return s
}

func heldFirst(x, y *announce.Conflict) int {
	switch {
	case x.Held == y.Held:
		return 0
	case x.Held:
		return -1
	}
	return 1
}
