package baremetal

import (
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/types"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/ipam"
)

// waiting is the line of Services that lack an address, in the order in which
// they were refused first. It is safe for concurrent use.
type waiting struct {
	mu     sync.Mutex
	number uint64
	places map[types.UID]place
}

type place struct {
	owner  ipam.Owner
	number uint64
}

func newWaiting() *waiting {
	return &waiting{places: map[types.UID]place{}}
}

// add puts the Service at the end of the line, unless it stands there already.
func (w *waiting) add(owner ipam.Owner) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.places[owner.UID]; !ok {
		w.number++
		w.places[owner.UID] = place{owner: owner, number: w.number}
	}
}

// drop takes the Service out of the line.
func (w *waiting) drop(uid types.UID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.places, uid)
}

// has reports whether the Service stands in the line.
func (w *waiting) has(uid types.UID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, ok := w.places[uid]
	return ok
}

// line are those in the line for whom f is true, first come first.
func (w *waiting) line(f func(types.UID) bool) []ipam.Owner {
	var places []place
	w.mu.Lock()
	for uid, p := range w.places {
		if f(uid) {
			places = append(places, p)
		}
	}
	w.mu.Unlock()
	slices.SortFunc(places, func(a, b place) int { return int(a.number) - int(b.number) })
	owners := make([]ipam.Owner, len(places))
	for i, p := range places {
		owners[i] = p.owner
	}
	return owners
}
