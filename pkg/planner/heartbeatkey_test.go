package planner

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/record"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/kubeapi"
)

// keySecret is the Secret as the API server has it, nil if there is none.
func (c *cluster) keySecret() *corev1.Secret {
	c.t.Helper()
	secret, err := c.CoreV1().Secrets(v1alpha1.DefaultNamespace).Get(c.t.Context(), announce.HeartbeatSecret, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	c.must(err)
	return secret
}

func (c *cluster) patchKeySecret(patch string) {
	c.t.Helper()
	_, err := c.CoreV1().Secrets(v1alpha1.DefaultNamespace).Patch(c.t.Context(), announce.HeartbeatSecret,
		types.MergePatchType, []byte(patch), metav1.PatchOptions{FieldManager: "somebody"})
	c.must(err)
}

const rotatePatch = `{"metadata": {"annotations": {"` + v1alpha1.SecretRotate + `": "true"}}}`

// keyAfter waits for another key than the one before, with that as the previous
// one, and nothing left to do.
func (c *cluster) keyAfter(before []byte, within time.Duration) []byte {
	c.t.Helper()
	var secret *corev1.Secret
	eventually(c.t, within, func() bool {
		if secret = c.keySecret(); secret == nil {
			return false
		}
		_, asked := secret.Annotations[v1alpha1.SecretRotate]
		keys, err := announce.DecodeHeartbeatKeys(secret.Data)
		return err == nil && !asked && !bytes.Equal(keys.Current, before) && bytes.Equal(keys.Previous, before)
	}, func() string {
		if secret == nil {
			return "there is no Secret"
		}
		keys, err := announce.DecodeHeartbeatKeys(secret.Data)
		return fmt.Sprintf("the Secret has %v, error %v, annotations %v; want a key that follows the one before", keys, err, secret.Annotations)
	})
	if secret.Type != corev1.SecretTypeOpaque || len(secret.Data[announce.HeartbeatKey]) != announce.MinHeartbeatKey {
		c.t.Errorf("a Secret of type %s with a key of %d bytes", secret.Type, len(secret.Data[announce.HeartbeatKey]))
	}
	return secret.Data[announce.HeartbeatKey]
}

// keyEvent waits for an Event of the Secret.
func (c *cluster) keyEvent(reason, text string) {
	c.t.Helper()
	eventually(c.t, soon, func() bool {
		events, err := c.CoreV1().Events(v1alpha1.DefaultNamespace).List(c.t.Context(), metav1.ListOptions{})
		c.must(err)
		return slices.ContainsFunc(events.Items, func(e corev1.Event) bool {
			return e.InvolvedObject.Kind == "Secret" && e.InvolvedObject.Name == announce.HeartbeatSecret &&
				e.Reason == reason && strings.Contains(e.Message, text)
		})
	}, func() string { return fmt.Sprintf("no Event %s with %q", reason, text) })
}

// testHeartbeatKey is the life of the Secret, with a second planner that waits for
// the Lease.
func testHeartbeatKey(c *cluster) {
	t := c.t
	first := c.start("first", true)
	key := c.keyAfter(nil, soon)
	second := c.start("second", true)
	eventually(t, soon, func() bool { return second.writes.askedForLease() }, func() string { return "the second planner does not want the Lease" })

	c.must(c.CoreV1().Secrets(v1alpha1.DefaultNamespace).Delete(t.Context(), announce.HeartbeatSecret, metav1.DeleteOptions{}))
	key = c.keyAfter(key, 2*atOnce)

	c.patchKeySecret(`{"metadata": {"labels": {"owner": "ops"}, "annotations": {"note": "x"}}, "data": {"more": "eA=="}}`)
	c.patchKeySecret(rotatePatch)
	key = c.keyAfter(key, 2*atOnce)
	c.keyEvent(keyRotated, "until the next rotation")
	if s := c.keySecret(); s.Labels["owner"] != "ops" || s.Annotations["note"] != "x" || string(s.Data["more"]) != "x" {
		t.Errorf("the rotation changed what is not the planner's: %v, %v, %v", s.Labels, s.Annotations, slices.Sorted(maps.Keys(s.Data)))
	}

	c.patchKeySecret(`{"data": {"key": "c2hvcnQ="}}`)
	key = c.keyAfter(key, 2*atOnce)
	c.keyEvent(keyReplaced, `entry "key" has 5 bytes`)
	c.patchKeySecret(`{"data": {"key": null}}`)
	key = c.keyAfter(key, 2*atOnce)
	c.keyEvent(keyReplaced, `no entry "key"`)

	c.patchKeySecret(`{"data": {"previous-key": "c2hvcnQ="}}`)
	c.keyEvent(previousKeyRemoved, `entry "previous-key" has 5 bytes`)
	if s := c.keySecret(); !bytes.Equal(s.Data[announce.HeartbeatKey], key) || s.Data[announce.HeartbeatPreviousKey] != nil {
		t.Errorf("a malformed previous key changed the key, or stayed")
	}

	// A key that somebody chose is a key.
	chosen := bytes.Repeat([]byte("chosen"), 10)
	c.patchKeySecret(`{"data": {"key": "` + base64.StdEncoding.EncodeToString(chosen) + `"}}`)
	c.patchKeySecret(rotatePatch)
	key = c.keyAfter(chosen, 2*atOnce)

	if got := second.writes.all(); len(got) > 0 {
		t.Errorf("the second planner writes without the Lease: %q", got)
	}
	first.stop()
	c.patchKeySecret(rotatePatch)
	c.keyAfter(key, soon)
}

// keyWriterOf is a keyWriter with a client of its own.
func (c *cluster) keyWriterOf(wrap func(*rest.Config)) *keyWriter {
	config := rest.CopyConfig(c.server.Config)
	if wrap != nil {
		wrap(config)
	}
	return newKeyWriter(kubernetes.NewForConfigOrDie(config), v1alpha1.DefaultNamespace, record.NewFakeRecorder(1000))
}

// testRotations has several planners that all believe to lead: one request is one
// rotation.
func testRotations(c *cluster) {
	t := c.t
	const planners, rotations = 4, 10
	writers := make([]*keyWriter, planners)
	for i := range writers {
		writers[i] = c.keyWriterOf(nil)
	}

	// All of them read, and then all of them write: first what is missing, and then
	// what is asked for.
	together := func(allowed func(error) bool) {
		t.Helper()
		read := make([]*corev1.Secret, planners)
		for i, w := range writers {
			var err error
			read[i], err = w.read(t.Context())
			c.must(err)
		}
		errs := make([]error, planners)
		var group sync.WaitGroup
		for i, w := range writers {
			group.Go(func() { _, errs[i] = w.settle(t.Context(), read[i]) })
		}
		group.Wait()
		done := 0
		for _, err := range errs {
			if err == nil {
				done++
			} else if !allowed(err) {
				t.Error(err)
			}
		}
		if done != 1 {
			t.Errorf("%d of %d planners wrote: %v", done, planners, errs)
		}
		// A write whose answer got lost, and that is repeated.
		if _, err := writers[0].settle(t.Context(), read[0]); !allowed(err) {
			t.Errorf("the repetition of a write: %v", err)
		}
	}
	together(apierrors.IsAlreadyExists)
	key := c.keySecret().Data[announce.HeartbeatKey]
	c.patchKeySecret(rotatePatch)
	together(apierrors.IsConflict)
	key = c.keyAfter(key, 0)

	// All of them run.
	history, err := c.CoreV1().Secrets(v1alpha1.DefaultNamespace).Watch(t.Context(), metav1.ListOptions{ResourceVersion: c.keySecret().ResourceVersion})
	c.must(err)
	defer history.Stop()
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	for _, w := range writers {
		group.Go(func() { w.run(ctx) })
	}
	first := key
	for range rotations {
		c.patchKeySecret(rotatePatch)
		key = c.keyAfter(key, soon)
	}
	stop()
	group.Wait()
	c.patchKeySecret(`{"metadata": {"labels": {"end": "here"}}}`)
	last, changes := first, 0
	for e := range history.ResultChan() {
		secret, ok := e.Object.(*corev1.Secret)
		if !ok || secret.Labels["end"] != "" {
			break
		}
		if now := secret.Data[announce.HeartbeatKey]; !bytes.Equal(now, last) {
			changes++
			if !bytes.Equal(secret.Data[announce.HeartbeatPreviousKey], last) {
				t.Error("a rotation lost the key before")
			}
			last = now
		}
	}
	if changes != rotations {
		t.Errorf("%d rotations for %d requests", changes, rotations)
	}
}

// testKeyBehindFence: a planner that does not lead neither creates nor changes
// the Secret.
func testKeyBehindFence(c *cluster) {
	t := c.t
	var fence kubeapi.Fence
	w := c.keyWriterOf(func(config *rest.Config) { config.Wrap(fence.Wrap) })
	fence.Open()
	secret, err := w.settle(t.Context(), nil)
	c.must(err)
	c.must(fence.Close(t.Context()))
	c.patchKeySecret(rotatePatch)
	if err := w.once(t.Context()); !errors.Is(err, kubeapi.ErrFenced) {
		t.Errorf("rotating behind the fence: %v", err)
	}
	if now := c.keySecret(); !bytes.Equal(now.Data[announce.HeartbeatKey], secret.Data[announce.HeartbeatKey]) {
		t.Error("the key was changed behind the fence")
	}
	c.must(c.CoreV1().Secrets(v1alpha1.DefaultNamespace).Delete(t.Context(), announce.HeartbeatSecret, metav1.DeleteOptions{}))
	if err := w.once(t.Context()); !errors.Is(err, kubeapi.ErrFenced) {
		t.Errorf("creating behind the fence: %v", err)
	}
	if c.keySecret() != nil {
		t.Error("the Secret was created behind the fence")
	}
}

// keyServer is an API server with one Secret, for tests with a clock of their own.
type keyServer struct {
	*fake.Clientset
	mu    sync.Mutex
	reads []time.Duration // since the start
}

// newKeyServer refuses some verbs, always.
func newKeyServer(refused map[string]error) *keyServer {
	s := &keyServer{Clientset: fake.NewClientset()}
	began := time.Now()
	s.PrependReactor("get", "secrets", func(clienttesting.Action) (bool, runtime.Object, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.reads = append(s.reads, time.Since(began))
		return false, nil, nil
	})
	for verb, err := range refused {
		if verb == "watch" {
			s.PrependWatchReactor("secrets", func(clienttesting.Action) (bool, watch.Interface, error) { return true, nil, err })
			continue
		}
		s.PrependReactor(verb, "secrets", func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, err })
	}
	return s
}

// start runs a keyWriter until the end of the bubble.
func (s *keyServer) start(t *testing.T) *record.FakeRecorder {
	recorder := record.NewFakeRecorder(100)
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() { newKeyWriter(s, "ns", recorder).run(ctx) })
	t.Cleanup(func() {
		cancel()
		group.Wait()
	})
	return recorder
}

func (s *keyServer) readTimes() []time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.reads)
}

func (s *keyServer) secret(t *testing.T) *corev1.Secret {
	t.Helper()
	secret, err := s.CoreV1().Secrets("ns").Get(t.Context(), announce.HeartbeatSecret, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

func forbidden() error {
	return apierrors.NewForbidden(corev1.Resource("secrets"), announce.HeartbeatSecret, errors.New("no rights"))
}

// TestKeyIsReadWhereItMayNotBeWatched, not more often than each 30 s.
func TestKeyIsReadWhereItMayNotBeWatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newKeyServer(map[string]error{"watch": forbidden()})
		recorder := s.start(t)
		synctest.Wait()
		before := s.secret(t)
		asked := before.DeepCopy()
		asked.Annotations = map[string]string{v1alpha1.SecretRotate: "true"}
		if _, err := s.CoreV1().Secrets("ns").Update(t.Context(), asked, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(keyPatience)
		synctest.Wait()
		after := s.secret(t)
		if len(after.Annotations) > 0 || !bytes.Equal(after.Data[announce.HeartbeatPreviousKey], before.Data[announce.HeartbeatKey]) {
			t.Errorf("not rotated: %v", after.Annotations)
		}
		if event := <-recorder.Events; !strings.Contains(event, keyRotated) {
			t.Errorf("Event %q", event)
		}
		read := s.readTimes()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if got := len(s.readTimes()) - len(read); got < 19 || got > 20 {
			t.Errorf("read %d times in ten minutes", got)
		}
	})
}

// TestKeyFailuresArePaced: an API server that refuses is asked less and less often,
// one that allows too little each 30 s.
func TestKeyFailuresArePaced(t *testing.T) {
	seconds := func(s ...int) (out []time.Duration) {
		for _, n := range s {
			out = append(out, time.Duration(n)*time.Second)
		}
		return out
	}
	for name, c := range map[string]struct {
		refused map[string]error
		want    []time.Duration
	}{
		"failing":        {map[string]error{"create": errors.New("broken")}, seconds(0, 1, 3, 7, 15, 31, 61, 91)},
		"failing watch":  {map[string]error{"watch": errors.New("broken")}, seconds(0, 1, 3, 7, 15, 31, 61, 91)},
		"may not create": {map[string]error{"create": forbidden()}, seconds(0, 30, 60, 90)},
		"may not watch":  {map[string]error{"watch": forbidden()}, seconds(0, 30, 60, 90)},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newKeyServer(c.refused)
				s.start(t)
				time.Sleep(100 * time.Second)
				synctest.Wait()
				if got := s.readTimes(); !slices.Equal(got, c.want) {
					t.Errorf("read after %v, want %v", got, c.want)
				}
			})
		})
	}
}

// TestKeyWatchThatClosesAtOnce is not opened again and again.
func TestKeyWatchThatClosesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newKeyServer(nil)
		s.PrependWatchReactor("secrets", func(clienttesting.Action) (bool, watch.Interface, error) {
			closed := watch.NewFake()
			closed.Stop()
			return true, closed, nil
		})
		s.start(t)
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := s.readTimes(); len(got) < 2 || len(got) > 6 {
			t.Errorf("read after %v in a minute", got)
		}
	})
}
