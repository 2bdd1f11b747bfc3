package heartbeat

import "cmp"

// rank orders the claims to an address: the greater one is right.
type rank struct{ epoch, term uint32 }

func (r rank) compare(other rank) int {
	return cmp.Or(cmp.Compare(r.epoch, other.epoch), cmp.Compare(r.term, other.term))
}

// holding is who owns an address, and since which claim.
type holding struct {
	rank
	owner id
}
