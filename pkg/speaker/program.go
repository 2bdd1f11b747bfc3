package speaker

import (
	"errors"
	"fmt"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

// rollbackHold is how long a program that is older than the present one has to
// stay in the annotation before it is obeyed.
const rollbackHold = 10 * time.Second

// olderError means that the annotation holds a program that is older than the
// one that is carried out. As the Node is read consistently, it is no stale
// answer but a rollback: a backup of etcd was restored, or somebody edited the
// annotation. The planner repairs that with a program of a newer epoch if it
// wants another one, so it is given some time before the old program counts.
type olderError struct{ epoch, current int64 }

func (e olderError) Error() string {
	return fmt.Sprintf("the program of epoch %d is older than that of epoch %d; it is obeyed if it stays for %v",
		e.epoch, e.current, rollbackHold)
}

// next decides which program follows current (nil at the start) when the
// annotation holds value. It returns nil if nothing changes, and an error if
// the value cannot be obeyed (olderError: not yet). rollback allows an older
// epoch.
func next(current *announce.Program, value string, rollback bool) (*announce.Program, error) {
	p, err := announce.Decode(value)
	if err != nil {
		return nil, err
	}
	switch {
	case current == nil:
		return &p, nil
	case p.Hash == current.Hash && p.Epoch == current.Epoch:
		return nil, nil
	case p.Hash != current.Hash && p.Epoch < current.Epoch && !rollback:
		return nil, olderError{p.Epoch, current.Epoch}
	}
	return &p, nil
}

// reasonOf labels an error of next for the metric.
func reasonOf(err error) string {
	var unknown announce.UnknownVersionError
	var older olderError
	switch {
	case errors.As(err, &unknown):
		return "version"
	case errors.As(err, &older):
		return "older"
	}
	return "malformed"
}
