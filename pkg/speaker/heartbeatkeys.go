package speaker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/klog/v2"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/statefile"
)

// rekeepKeys is the pause before keys that could not be kept are written again.
const rekeepKeys = time.Minute

// heartbeatKeys are those that heartbeats are signed and checked with.
type heartbeatKeys struct {
	// HeartbeatKeys are the last ones that were usable. Current is nil if there
	// have been none.
	announce.HeartbeatKeys
	// problem is why they may not be those of the Secret, or are not kept; empty if
	// all is well. It has none of the keys' bytes.
	problem string
}

// keyring follows the Secret with the keys of the heartbeats. Unlike the
// passwords in a vault they are the same on all nodes, and a new one is wanted by
// all at the same time: hence a watch of that one Secret. Where that is refused,
// it is read from time to time. Keys that were read once are kept until others are
// read, also across a restart: neither an outage of the API server nor a deleted
// Secret makes a speaker deaf.
type keyring struct {
	source secretSource
	// changed is told the keys when they, or the problem, are others than before;
	// it must not block.
	changed func(heartbeatKeys)
	// dir is where keys are kept; empty keeps none.
	dir string
	// wait pauses after the given number of failures in a row.
	wait func(ctx context.Context, failures int)

	kept   announce.HeartbeatKeys // what dir holds
	unkept latest[announce.HeartbeatKeys]

	mu   sync.Mutex
	keys announce.HeartbeatKeys
	// ofSecret and ofFile are what is wrong with either.
	ofSecret, ofFile string
	told             heartbeatKeys
}

// secretSource is the part of client that a keyring needs.
type secretSource interface {
	getSecret(ctx context.Context, name string) (*corev1.Secret, error)
	watchSecret(ctx context.Context, name, resourceVersion string) (watch.Interface, error)
}

// newKeyring returns a keyring that keeps keys in dir, the speaker's --state-dir,
// if it is not empty. It does nothing before recall and run.
func newKeyring(source secretSource, dir string, changed func(heartbeatKeys)) *keyring {
	return &keyring{
		source:  source,
		changed: changed,
		dir:     dir,
		wait:    func(ctx context.Context, failures int) { pause(ctx, failures, rereadSecrets) },
		unkept:  newLatest[announce.HeartbeatKeys](),
	}
}

// run tells the keys of the Secret and each change, until ctx ends.
func (k *keyring) run(ctx context.Context) error {
	var group errgroup.Group
	group.Go(func() error {
		k.follow(ctx)
		return nil
	})
	if k.dir != "" { // a disk that hangs must not hold up new keys
		group.Go(func() error {
			k.keep(ctx, k.kept)
			return nil
		})
	}
	return group.Wait()
}

// update changes what is known, and tells it if it is other than before.
func (k *keyring) update(change func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	change()
	now := heartbeatKeys{HeartbeatKeys: k.keys, problem: k.ofSecret}
	if k.ofFile != "" {
		now.problem = strings.TrimPrefix(now.problem+"; "+k.ofFile, "; ")
	}
	if !now.Equal(k.told.HeartbeatKeys) || now.problem != k.told.problem {
		k.told = now
		k.changed(now)
	}
}

// recall tells the keys that were kept, if any. It comes before run, so that they
// are known before anything is announced.
func (k *keyring) recall(ctx context.Context) {
	if k.dir == "" {
		return
	}
	keys, err := statefile.ReadHeartbeatKeys(k.dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		klog.FromContext(ctx).Error(err, "The keys of the heartbeats in --state-dir are not used")
		k.update(func() { k.ofFile = err.Error() })
	default:
		k.kept = keys
		k.update(func() { k.keys = keys })
	}
}

// keep writes new keys into the state directory, which holds those given.
func (k *keyring) keep(ctx context.Context, kept announce.HeartbeatKeys) {
	var wanted announce.HeartbeatKeys
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case wanted = <-k.unkept.c:
		case <-again:
		}
		again = nil
		if wanted.Equal(kept) {
			continue
		}
		problem := ""
		if err := statefile.WriteHeartbeatKeys(k.dir, wanted); err != nil {
			klog.FromContext(ctx).Error(err, "Keeping the keys of the heartbeats")
			problem, again = err.Error(), time.After(rekeepKeys)
		} else {
			kept = wanted
		}
		k.update(func() { k.ofFile = problem })
	}
}

// errUnwatched means that the Secret may be read but not watched.
var errUnwatched = errors.New("the Secret may not be watched")

// follow reads and watches the Secret until ctx ends.
func (k *keyring) follow(ctx context.Context) {
	logger := klog.FromContext(ctx)
	polling := false
	for failures := 0; ctx.Err() == nil; {
		err := k.once(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			failures, polling = 0, false
		case errors.Is(err, errUnwatched):
			if !polling {
				logger.Error(err, "Reading the keys of the heartbeats from time to time; grant watch of the Secret, as manifests/base does", "every", rereadSecrets)
			}
			failures, polling = 0, true
			select {
			case <-ctx.Done():
			case <-time.After(rereadSecrets):
			}
		default:
			failures++
			if failures&(failures-1) == 0 {
				logger.Error(err, "The keys of the heartbeats cannot be read at the moment", "failures", failures)
			}
			k.wait(ctx, failures)
		}
	}
}

// once reads the Secret and watches it until the watch ends, which it does in the
// normal course of events after some time, or the Secret is deleted.
func (k *keyring) once(ctx context.Context) error {
	version := "" // a watch from here on begins with what there is
	secret, err := k.source.getSecret(ctx, announce.HeartbeatSecret)
	switch {
	case err == nil:
		k.found(secret)
		version = secret.ResourceVersion
	case apierrors.IsNotFound(err):
		k.lacking(fmt.Sprintf("there is no Secret %q: the cloud-controller-manager creates it", announce.HeartbeatSecret))
	case ctx.Err() != nil:
		return err
	case apierrors.IsForbidden(err):
		k.lacking(fmt.Sprintf("the speaker may not read Secret %q: grant it, as manifests/base does", announce.HeartbeatSecret))
		return fmt.Errorf("reading Secret %q: %w", announce.HeartbeatSecret, err)
	default:
		// An outage is no problem with keys that are known.
		k.update(func() {
			if k.keys.Current == nil {
				k.ofSecret = fmt.Sprintf("Secret %q cannot be read at the moment", announce.HeartbeatSecret)
			}
		})
		return fmt.Errorf("reading Secret %q: %w", announce.HeartbeatSecret, err)
	}
	watching, err := k.source.watchSecret(ctx, announce.HeartbeatSecret, version)
	switch {
	case apierrors.IsForbidden(err):
		return fmt.Errorf("%w: %w", errUnwatched, err)
	case err != nil:
		return fmt.Errorf("watching Secret %q: %w", announce.HeartbeatSecret, err)
	}
	defer watching.Stop()
	began := time.Now()
	for e := range watching.ResultChan() {
		secret, ok := e.Object.(*corev1.Secret)
		switch {
		case !ok:
			return fmt.Errorf("watching Secret %q: %w", announce.HeartbeatSecret, apierrors.FromObject(e.Object))
		case e.Type == watch.Deleted:
			return nil // read it again: it comes back within a second
		default:
			k.found(secret)
		}
	}
	if time.Since(began) < time.Second {
		return fmt.Errorf("watching Secret %q: closed at once", announce.HeartbeatSecret)
	}
	return nil
}

// found takes the keys of the Secret, as far as they can be used.
func (k *keyring) found(secret *corev1.Secret) {
	keys, err := announce.DecodeHeartbeatKeys(secret.Data)
	if keys.Current == nil {
		k.lacking(fmt.Sprintf("Secret %q: %v: the cloud-controller-manager replaces it", announce.HeartbeatSecret, err))
		return
	}
	k.update(func() {
		k.keys, k.ofSecret = keys, ""
		if err != nil {
			k.ofSecret = fmt.Sprintf("Secret %q: %v; it is not used", announce.HeartbeatSecret, err)
		}
	})
	k.unkept.put(keys)
}

// lacking says why the Secret has no keys that can be used, and what comes of it.
func (k *keyring) lacking(why string) {
	k.update(func() {
		if k.keys.Current == nil {
			k.ofSecret = why + "; until then there are no heartbeats"
		} else {
			k.ofSecret = why + "; until then the keys of before are used"
		}
	})
}
