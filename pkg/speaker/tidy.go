package speaker

import (
	"context"
	"runtime/debug"
	"time"
)

const (
	// largeProgram is the number of prefixes from which on a program leaves garbage
	// that is worth to be given back.
	largeProgram = 500
	// tidyAfter is how long no other program must have come.
	tidyAfter = 3 * time.Second
)

// tidier gives memory back to the system when programs have stopped coming. To read
// and announce 10,000 addresses takes three times the memory that they then occupy,
// and a speaker that does nothing has no reason to collect it: that would take as much
// on each node of the cluster until the next large change.
type tidier struct {
	worked chan struct{} // has a token when there is garbage
	free   func()
}

func newTidier() *tidier {
	return &tidier{worked: make(chan struct{}, 1), free: debug.FreeOSMemory}
}

// note takes notice of a program of so many prefixes. A nil tidier takes none.
func (t *tidier) note(prefixes int) {
	if t == nil || prefixes < largeProgram {
		return
	}
	select {
	case t.worked <- struct{}{}:
	default:
	}
}

// run gives memory back until ctx ends.
func (t *tidier) run(ctx context.Context) error {
	calm := time.NewTimer(tidyAfter)
	calm.Stop()
	defer calm.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.worked:
			calm.Reset(tidyAfter)
		case <-calm.C:
			t.free()
		}
	}
}
