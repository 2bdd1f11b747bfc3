package speaker

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

// rereadSecrets is how often passwords are read again, so that a changed one is
// taken over. Their Secrets are read one by one, never watched: the speaker's rights
// are to get the Secrets whose names it knows, and to watch that of the heartbeats.
const rereadSecrets = 30 * time.Second

// rereadMissing is how often while a session waits for its password.
const rereadMissing = 2 * time.Second

// vault keeps the passwords that a program names. One that was read is kept
// until another one is read: neither an outage of the API server nor a deleted
// Secret ends a session.
type vault struct {
	read func(ctx context.Context, name string) (map[string][]byte, error)
	// changed is called after known or problems changed.
	changed func()

	mu       sync.Mutex
	wanted   []announce.SecretKey
	known    map[announce.SecretKey]string
	problems map[announce.SecretKey]string
	wake     chan struct{}
}

func newVault(read func(context.Context, string) (map[string][]byte, error), changed func()) *vault {
	return &vault{
		read:     read,
		changed:  changed,
		known:    make(map[announce.SecretKey]string),
		problems: make(map[announce.SecretKey]string),
		wake:     make(chan struct{}, 1),
	}
}

// want says which passwords the present program needs, and has them read now.
func (v *vault) want(peers []announce.Peer) {
	var keys []announce.SecretKey
	for _, p := range peers {
		if p.Password != nil && !slices.Contains(keys, *p.Password) {
			keys = append(keys, *p.Password)
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if slices.Equal(keys, v.wanted) {
		return
	}
	v.wanted = keys
	unwanted := func(k announce.SecretKey, _ string) bool { return !slices.Contains(keys, k) }
	maps.DeleteFunc(v.known, unwanted)
	maps.DeleteFunc(v.problems, unwanted)
	select {
	case v.wake <- struct{}{}:
	default:
	}
}

// passwords are the known ones, and the problems with the others.
func (v *vault) passwords() (known, problems map[announce.SecretKey]string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return maps.Clone(v.known), maps.Clone(v.problems)
}

// run reads what is wanted, when that changes and from time to time.
func (v *vault) run(ctx context.Context) error {
	ticker := time.NewTicker(rereadSecrets)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-v.wake:
		case <-ticker.C:
		}
		if v.refresh(ctx) {
			ticker.Reset(rereadSecrets)
		} else {
			ticker.Reset(rereadMissing)
		}
	}
}

// refresh reads the wanted Secrets. It reports whether all passwords are known.
func (v *vault) refresh(ctx context.Context) (complete bool) {
	v.mu.Lock()
	wanted := v.wanted
	v.mu.Unlock()
	secrets := make(map[string]map[string][]byte)
	errs := make(map[string]error)
	for _, key := range wanted {
		if _, done := secrets[key.Name]; !done && errs[key.Name] == nil {
			secrets[key.Name], errs[key.Name] = v.read(ctx, key.Name)
		}
	}
	if ctx.Err() != nil {
		return false
	}
	v.mu.Lock()
	changed := false
	for _, key := range wanted {
		if !slices.Contains(v.wanted, key) {
			continue
		}
		password, err := passwordIn(secrets[key.Name], errs[key.Name], key)
		if err != nil {
			changed = changed || v.problems[key] != err.Error()
			v.problems[key] = err.Error()
			continue
		}
		changed = changed || v.problems[key] != "" || v.known[key] != password
		delete(v.problems, key)
		v.known[key] = password
	}
	complete = len(v.known) >= len(v.wanted)
	v.mu.Unlock()
	if changed {
		v.changed()
	}
	return complete
}

// maxPassword is TCP_MD5SIG_MAXKEYLEN of Linux.
const maxPassword = 80

func passwordIn(data map[string][]byte, err error, key announce.SecretKey) (string, error) {
	switch password := data[key.Key]; {
	case apierrors.IsNotFound(err):
		return "", fmt.Errorf("there is no Secret %q", key.Name)
	case apierrors.IsForbidden(err):
		return "", fmt.Errorf("the speaker may not read Secret %q", key.Name)
	case err != nil:
		// The text is the same each time, for it ends up in the report.
		return "", fmt.Errorf("secret %q cannot be read at the moment", key.Name)
	case len(password) == 0:
		return "", fmt.Errorf("secret %q has no key %q", key.Name, key.Key)
	case len(password) > maxPassword:
		return "", fmt.Errorf("secret %q, key %q: a password has at most %d bytes", key.Name, key.Key, maxPassword)
	default:
		return string(password), nil
	}
}
