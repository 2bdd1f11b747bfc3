package speaker

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

func TestVault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		secrets := map[string]map[string][]byte{"a": {"password": []byte("one")}}
		down, changes := false, 0
		// edit changes the API server, between two reads.
		edit := func(change func()) {
			mu.Lock()
			defer mu.Unlock()
			change()
		}
		v := newVault(func(_ context.Context, name string) (map[string][]byte, error) {
			mu.Lock()
			defer mu.Unlock()
			if down {
				return nil, errors.New("connection refused")
			}
			if data, ok := secrets[name]; ok {
				return data, nil
			}
			return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "secrets"}, name)
		}, func() { edit(func() { changes++ }) })
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _ = v.run(ctx) }()

		a, b := announce.SecretKey{Name: "a", Key: "password"}, announce.SecretKey{Name: "b", Key: "password"}
		expect := func(key announce.SecretKey, password, problem string) {
			t.Helper()
			synctest.Wait()
			known, problems := v.passwords()
			if known[key] != password || !strings.Contains(problems[key], problem) || problem == "" && problems[key] != "" {
				t.Errorf("%v: %q, problem %q; want %q, %q", key, known[key], problems[key], password, problem)
			}
		}
		v.want([]announce.Peer{{Password: &a}, {}, {Password: &b}, {Password: &a}})
		expect(a, "one", "")
		expect(b, "", `no Secret "b"`)

		edit(func() { secrets["b"] = map[string][]byte{"other": []byte("two")} })
		time.Sleep(rereadMissing)
		expect(b, "", `no key "password"`)
		edit(func() { secrets["b"] = map[string][]byte{"password": []byte("two")} })
		time.Sleep(rereadMissing)
		expect(b, "two", "")

		edit(func() { secrets["a"] = map[string][]byte{"password": []byte("rotated")} })
		time.Sleep(rereadSecrets)
		expect(a, "rotated", "")

		// What is known stays known.
		edit(func() { down = true })
		time.Sleep(rereadSecrets)
		expect(a, "rotated", "cannot be read")
		edit(func() { down = false })
		edit(func() { delete(secrets, "a") })
		time.Sleep(rereadSecrets)
		expect(a, "rotated", "no Secret")
		before := changes
		time.Sleep(time.Hour)
		synctest.Wait()
		if changes != before {
			t.Errorf("%d changes where nothing changed", changes-before)
		}

		// What is not wanted is forgotten.
		v.want(nil)
		expect(a, "", "")
	})
}
