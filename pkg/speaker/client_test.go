package speaker

import (
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/apiserver"
)

// TestKeyringOnAnAPIServer has the speaker's own client follow a real Secret,
// across its deletion and an outage.
func TestKeyringOnAnAPIServer(t *testing.T) {
	server := apiserver.Start(t)
	secrets := kubernetes.NewForConfigOrDie(server.Config).CoreV1().Secrets(metav1.NamespaceDefault)
	api, err := newClientFor(rest.CopyConfig(server.Config), "here", metav1.NamespaceDefault, "test")
	if err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	create := func(name string, entries map[string][]byte) {
		t.Helper()
		_, err := secrets.Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: entries}, metav1.CreateOptions{})
		must(err)
	}
	heard := startKeyring(t, api, t.TempDir())
	expect := func(want string, within time.Duration) {
		t.Helper()
		deadline := time.After(within)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			letters, problem, _ := heard.keys()
			if letters == want && problem == "" {
				return
			}
			select {
			case <-deadline:
				t.Fatalf("keys %q, problem %q; want %q", letters, problem, want)
			case <-tick.C:
			}
		}
	}
	create("another", keySet("x", ""))
	create(announce.HeartbeatSecret, keySet("a", ""))
	expect("a", 15*time.Second)
	_, err = secrets.Patch(t.Context(), "another", types.MergePatchType, []byte(`{"metadata": {"labels": {"a": "b"}}}`), metav1.PatchOptions{})
	must(err)
	must(secrets.Delete(t.Context(), announce.HeartbeatSecret, metav1.DeleteOptions{}))
	create(announce.HeartbeatSecret, keySet("b", "a"))
	expect("ba", 5*time.Second)
	server.Kill()
	server.Restart(t)
	_, err = secrets.Update(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: announce.HeartbeatSecret}, Data: keySet("c", "b")}, metav1.UpdateOptions{})
	must(err)
	expect("cb", 15*time.Second)
	heard.stop()
	if got := slices.Compact(heard.current); slices.Contains(got, "x") {
		t.Errorf("keys told: %q, with that of another Secret", got)
	}
}
