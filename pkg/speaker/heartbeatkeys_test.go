package speaker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/statefile"
)

// keyServer is an API server with the Secret, or without.
type keyServer struct {
	mu                 sync.Mutex
	secret             *corev1.Secret
	version            int
	down, unreadable   bool
	unwatchable, brief bool // watches are refused, or end at once
	gets               int
	watchers           map[*watch.RaceFreeFakeWatcher]bool
}

func newKeyServer() *keyServer {
	return &keyServer{watchers: make(map[*watch.RaceFreeFakeWatcher]bool)}
}

func refusal(verb string) error {
	return apierrors.NewForbidden(schema.GroupResource{Resource: "secrets"}, announce.HeartbeatSecret, errors.New("may not "+verb))
}

func (s *keyServer) getSecret(_ context.Context, name string) (*corev1.Secret, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gets++
	switch {
	case s.down:
		return nil, errDown
	case s.unreadable:
		return nil, refusal("get")
	case s.secret == nil || name != announce.HeartbeatSecret:
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "secrets"}, name)
	}
	return s.secret.DeepCopy(), nil
}

func (s *keyServer) watchSecret(ctx context.Context, _, version string) (watch.Interface, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.down:
		return nil, errDown
	case s.unwatchable:
		return nil, refusal("watch")
	}
	w := watch.NewRaceFreeFake()
	if s.brief {
		w.Stop()
		return w, nil
	}
	if s.secret != nil && version != s.secret.ResourceVersion {
		w.Add(s.secret.DeepCopy())
	}
	s.watchers[w] = true
	context.AfterFunc(ctx, func() { s.end(w) })
	return w, nil
}

func (s *keyServer) end(watchers ...*watch.RaceFreeFakeWatcher) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range watchers {
		w.Stop()
		delete(s.watchers, w)
	}
}

// set has the Secret hold entries; none deletes it.
func (s *keyServer) set(entries map[string][]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.secret
	s.version++
	event, object := watch.Modified, before
	switch {
	case entries == nil:
		s.secret, event = nil, watch.Deleted
	default:
		s.secret = &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: announce.HeartbeatSecret, ResourceVersion: fmt.Sprint(s.version)}, Data: entries}
		object = s.secret
		if before == nil {
			event = watch.Added
		}
	}
	for w := range s.watchers {
		w.Action(event, object.DeepCopy())
	}
}

// setDown ends all watches, and lets none begin, or lets them begin again.
func (s *keyServer) setDown(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
	for w := range s.watchers {
		w.Stop()
		delete(s.watchers, w)
	}
}

func (s *keyServer) reads() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gets
}

// secretKey is a key of one letter; keySet are the entries of a Secret.
func secretKey(letter string) []byte { return bytes.Repeat([]byte(letter), announce.MinHeartbeatKey) }

func keySet(current, previous string) map[string][]byte {
	set := map[string][]byte{announce.HeartbeatKey: secretKey(current)}
	if previous != "" {
		set[announce.HeartbeatPreviousKey] = secretKey(previous)
	}
	return set
}

// listener is told by a keyring; it shows that as text: the letters of the keys,
// and the problem.
type listener struct {
	t       *testing.T
	mu      sync.Mutex
	last    heartbeatKeys
	current []string // letters of the keys in force, one per change
	changes int
	stop    func()
}

// startKeyring runs a keyring on the source until stop.
func startKeyring(t *testing.T, source secretSource, dir string) *listener {
	t.Helper()
	heard := &listener{t: t}
	k := newKeyring(source, dir, func(keys heartbeatKeys) {
		heard.mu.Lock()
		defer heard.mu.Unlock()
		heard.last = keys
		heard.changes++
		if keys.Current != nil {
			heard.current = append(heard.current, string(keys.Current[:1]))
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	k.recall(ctx)
	ended := make(chan error, 1)
	go func() { ended <- k.run(ctx) }()
	heard.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(heard.stop)
	return heard
}

func (h *listener) keys() (letters, problem string, changes int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, key := range [][]byte{h.last.Current, h.last.Previous} {
		if key != nil {
			letters += string(key[:1])
		}
	}
	return letters, h.last.problem, h.changes
}

// expect has all goroutines of the bubble come to rest. An empty problem is none.
func (h *listener) expect(what, want, problem string) {
	h.t.Helper()
	synctest.Wait()
	letters, got, _ := h.keys()
	if letters != want || !strings.Contains(got, problem) || problem == "" && got != "" {
		h.t.Errorf("%s: keys %q, problem %q; want %q, %q", what, letters, got, want, problem)
	}
}

func TestKeyring(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newKeyServer()
		heard := startKeyring(t, s, "")
		heard.expect("no Secret", "", `no Secret "baremetal-heartbeat": the cloud-controller-manager creates it; until then there are no heartbeats`)
		s.set(keySet("a", ""))
		heard.expect("created", "a", "")
		s.set(keySet("b", "a"))
		heard.expect("rotated", "ba", "")

		_, _, changes := heard.keys()
		s.set(keySet("b", "a"))
		time.Sleep(time.Minute)
		heard.expect("written without a change", "ba", "")
		if _, _, now := heard.keys(); now != changes {
			t.Error("told what did not change")
		}

		s.set(nil)
		heard.expect("deleted", "ba", "until then the keys of before are used")
		time.Sleep(time.Minute)
		s.set(keySet("c", "b"))
		heard.expect("created again", "cb", "")

		for name, c := range map[string]struct {
			entries map[string][]byte
			problem string
		}{
			"empty": {map[string][]byte{}, `no entry "key"`},
			"short": {map[string][]byte{"key": []byte("short")}, `entry "key" has 5 bytes`},
			"long":  {map[string][]byte{"key": bytes.Repeat([]byte("x"), 1<<20)}, `entry "key" has 1048576 bytes`},
		} {
			s.set(c.entries)
			heard.expect(name, "cb", c.problem)
		}
		s.set(map[string][]byte{"key": secretKey("d"), "previous-key": []byte("short")})
		heard.expect("malformed previous key", "d", `entry "previous-key" has 5 bytes; a key has 32 to 256; it is not used`)
		s.set(keySet("d", "c"))
		heard.expect("mended", "dc", "")
	})
}

// TestKeyringInOutages: known keys stay, and what is new is there within half a
// minute after the API server's return.
func TestKeyringInOutages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newKeyServer()
		s.setDown(true)
		heard := startKeyring(t, s, "")
		heard.expect("away at the start", "", "cannot be read at the moment")
		time.Sleep(time.Hour)
		if n := s.reads(); n > 150 {
			t.Errorf("read %d times in an hour of outage", n)
		}
		s.set(keySet("a", ""))
		s.setDown(false)
		time.Sleep(rereadSecrets * 5 / 4)
		heard.expect("there", "a", "")

		time.Sleep(time.Hour)
		before := s.reads()
		s.setDown(true)
		time.Sleep(time.Hour)
		heard.expect("away again", "a", "")
		s.set(keySet("b", "a"))
		s.setDown(false)
		time.Sleep(rereadSecrets * 5 / 4)
		heard.expect("back", "ba", "")
		if n := s.reads() - before; n > 150 {
			t.Errorf("read %d times in an hour of outage", n)
		}

		// A watch that ends in the normal course of events.
		before = s.reads()
		for range 10 {
			time.Sleep(time.Minute)
			s.setDown(false)
		}
		s.set(keySet("c", "b"))
		heard.expect("after some watches", "cb", "")
		if n := s.reads() - before; n != 10 {
			t.Errorf("read %d times for 10 watches", n)
		}
	})
}

// TestKeyringWithFewRights reads where it may not watch, and says so where it may
// not read.
func TestKeyringWithFewRights(t *testing.T) {
	for name, c := range map[string]struct {
		server  *keyServer
		problem string
		reads   [2]int // in ten minutes
	}{
		"no watch":      {&keyServer{unwatchable: true}, "", [2]int{20, 21}},
		"no get":        {&keyServer{unreadable: true}, `may not read Secret "baremetal-heartbeat": grant it`, [2]int{20, 35}},
		"brief watches": {&keyServer{brief: true}, "", [2]int{20, 35}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c.server.watchers = make(map[*watch.RaceFreeFakeWatcher]bool)
				c.server.set(keySet("a", ""))
				heard := startKeyring(t, c.server, "")
				first, second := "a", "ba"
				if c.problem != "" {
					first, second = "", ""
				}
				heard.expect("at the start", first, c.problem)
				c.server.set(keySet("b", "a"))
				time.Sleep(10 * time.Minute)
				heard.expect("later", second, c.problem)
				if n := c.server.reads(); n < c.reads[0] || n > c.reads[1] {
					t.Errorf("read %d times in ten minutes", n)
				}
			})
		})
	}
}

// TestKeyringRemembers: a speaker that starts while the API server is away has the
// keys of before.
func TestKeyringRemembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s := newKeyServer()
		s.set(keySet("a", ""))
		first := startKeyring(t, s, dir)
		first.expect("first start", "a", "")
		s.set(keySet("b", "a"))
		first.expect("rotated", "ba", "")
		first.stop()

		file := filepath.Join(dir, "heartbeat-keys.json")
		kept, err := os.Stat(file)
		if err != nil || kept.Mode() != 0o600 {
			t.Fatalf("%v, %v", kept, err)
		}
		s.setDown(true)
		second := startKeyring(t, s, dir)
		second.expect("second start, API server away", "ba", "")
		s.setDown(false)
		time.Sleep(time.Minute)
		second.expect("back", "ba", "")
		if now, err := os.Stat(file); err != nil || !os.SameFile(kept, now) {
			t.Errorf("the same keys were written again: %v", err)
		}
		s.set(keySet("c", "b"))
		second.expect("rotated", "cb", "")
		second.stop()
		if keys, err := statefile.ReadHeartbeatKeys(dir); err != nil || !bytes.Equal(keys.Current, secretKey("c")) || !bytes.Equal(keys.Previous, secretKey("b")) {
			t.Errorf("kept %v, %v", keys, err)
		}
	})
}

// TestKeyringRefusesItsFile, says why, and replaces it when it can.
func TestKeyringRefusesItsFile(t *testing.T) {
	for name, c := range map[string]struct {
		content []byte
		problem string
	}{
		"oversized": {bytes.Repeat([]byte("x"), 1<<20), "too large"},
		"malformed": {[]byte(`{"format":1,"key":"x"}`), "damaged"},
		"of others": {[]byte(`{"format":9}`), "unknown format"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				file := filepath.Join(dir, "heartbeat-keys.json")
				if err := os.WriteFile(file, c.content, 0o600); err != nil {
					t.Fatal(err)
				}
				s := newKeyServer()
				s.setDown(true)
				heard := startKeyring(t, s, dir)
				heard.expect("API server away", "", c.problem)
				heard.expect("API server away", "", "cannot be read at the moment; "+file)
				s.set(keySet("a", ""))
				s.setDown(false)
				time.Sleep(time.Minute)
				heard.expect("back", "a", "")
				heard.stop()
				if keys, err := statefile.ReadHeartbeatKeys(dir); err != nil || !bytes.Equal(keys.Current, secretKey("a")) {
					t.Errorf("kept %v, %v", keys, err)
				}
			})
		})
	}
}

// TestKeyringWithoutDisk goes on without its file, and tries again.
func TestKeyringWithoutDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "dir")
		if err := os.WriteFile(dir, nil, 0o600); err != nil { // in the way
			t.Fatal(err)
		}
		s := newKeyServer()
		s.set(keySet("a", ""))
		heard := startKeyring(t, s, dir)
		heard.expect("no directory", "a", "not a directory")
		s.set(keySet("b", "a"))
		heard.expect("rotated", "ba", "keeping the keys of the heartbeats in --state-dir failed")
		_, _, changes := heard.keys()
		time.Sleep(time.Hour)
		if _, _, now := heard.keys(); now != changes {
			t.Errorf("the same problem was told %d times", now-changes)
		}
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
		time.Sleep(rekeepKeys)
		heard.expect("there is room", "ba", "")
		if keys, err := statefile.ReadHeartbeatKeys(dir); err != nil || !bytes.Equal(keys.Current, secretKey("b")) {
			t.Errorf("kept %v, %v", keys, err)
		}
	})
}
