package manifests

import (
	"bytes"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/apiserver"
)

// TestSecrets asks a real API server, with the rights and the policies of the
// manifests, what the programs may do with Secrets: the cloud-controller-manager
// keeps one, speakers read those that they know by name.
func TestSecrets(t *testing.T) {
	server := apiserver.Start(t)
	installAccess(t, server.Config)
	as := func(account string) kubernetes.Interface {
		config := rest.CopyConfig(server.Config)
		info := serviceAccount(account, "node1")
		config.Impersonate = rest.ImpersonationConfig{UserName: info.GetName(), Groups: info.GetGroups()}
		return kubernetes.NewForConfigOrDie(config)
	}
	admin := kubernetes.NewForConfigOrDie(server.Config).CoreV1().Secrets(v1alpha1.DefaultNamespace)
	managers, speakers := as(manager), as("baremetal-speaker")
	waitForPolicies(t, func() error {
		_, err := managers.CoreV1().Secrets(v1alpha1.DefaultNamespace).Create(t.Context(),
			&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "probe"}}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	})
	t.Run("manager creates", func(t *testing.T) { testManagerCreates(t, admin, managers) })
	t.Run("manager updates", func(t *testing.T) { testManagerUpdates(t, admin, managers) })

	secrets := func(client kubernetes.Interface) typedcorev1.SecretInterface {
		return client.CoreV1().Secrets(v1alpha1.DefaultNamespace)
	}
	if _, err := admin.Create(t.Context(), heartbeatSecret(nil), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	password := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "tor"}, Data: map[string][]byte{"password": []byte("x")}}
	if _, err := admin.Create(t.Context(), password, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	named := metav1.ListOptions{FieldSelector: "metadata.name=" + announce.HeartbeatSecret}
	other := metav1.ListOptions{FieldSelector: "metadata.name=tor"}
	for account, client := range map[string]kubernetes.Interface{"manager": managers, "speaker": speakers} {
		if _, err := secrets(client).Get(t.Context(), announce.HeartbeatSecret, metav1.GetOptions{}); err != nil {
			t.Errorf("%s gets the keys: %v", account, err)
		}
		watching, err := secrets(client).Watch(t.Context(), named)
		if err != nil {
			t.Errorf("%s watches the keys: %v", account, err)
			continue
		}
		if s, ok := (<-watching.ResultChan()).Object.(*corev1.Secret); !ok || s.Name != announce.HeartbeatSecret {
			t.Errorf("%s watches the keys and sees %v", account, s)
		}
		watching.Stop()
		for what, err := range map[string]error{
			"lists Secrets":                   second(secrets(client).List(t.Context(), metav1.ListOptions{})),
			"lists the one":                   second(secrets(client).List(t.Context(), named)),
			"watches Secrets":                 second(secrets(client).Watch(t.Context(), metav1.ListOptions{})),
			"watches another":                 second(secrets(client).Watch(t.Context(), other)),
			"lists those of all namespaces":   second(client.CoreV1().Secrets("").List(t.Context(), named)),
			"watches those of all namespaces": second(client.CoreV1().Secrets("").Watch(t.Context(), named)),
			"gets one of another namespace":   second(client.CoreV1().Secrets("default").Get(t.Context(), announce.HeartbeatSecret, metav1.GetOptions{})),
			"creates one in another namespace": second(client.CoreV1().Secrets("default").Create(t.Context(),
				heartbeatSecret(nil), metav1.CreateOptions{})),
			"deletes the one":    secrets(client).Delete(t.Context(), announce.HeartbeatSecret, metav1.DeleteOptions{}),
			"deletes all":        secrets(client).DeleteCollection(t.Context(), metav1.DeleteOptions{}, named),
			"patches the one":    second(secrets(client).Patch(t.Context(), announce.HeartbeatSecret, types.MergePatchType, []byte(`{}`), metav1.PatchOptions{})),
			"updates a password": second(secrets(client).Update(t.Context(), password, metav1.UpdateOptions{})),
		} {
			if !apierrors.IsForbidden(err) {
				t.Errorf("%s %s: %v; want it to be forbidden", account, what, err)
			}
		}
	}
	if _, err := secrets(managers).Get(t.Context(), "tor", metav1.GetOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("the manager gets a password: %v", err)
	}
	if _, err := secrets(speakers).Get(t.Context(), "tor", metav1.GetOptions{}); err != nil {
		t.Errorf("a speaker gets a password: %v", err)
	}
	if _, err := secrets(speakers).Update(t.Context(), heartbeatSecret(nil), metav1.UpdateOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("a speaker updates the keys: %v", err)
	}
	if _, err := secrets(speakers).Create(t.Context(), heartbeatSecret(nil), metav1.CreateOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("a speaker creates the keys: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

// heartbeatSecret is the Secret as the planner makes it, changed.
func heartbeatSecret(change func(*corev1.Secret)) *corev1.Secret {
	s := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: announce.HeartbeatSecret},
		Type:       corev1.SecretTypeOpaque,
		Data:       map[string][]byte{announce.HeartbeatKey: bytes.Repeat([]byte("k"), announce.MinHeartbeatKey)},
	}
	if change != nil {
		change(s)
	}
	return s
}

// edits of a Secret that are not the cloud-controller-manager's to make.
var edits = map[string]struct {
	change func(*corev1.Secret)
	want   string
}{
	"label":           {func(s *corev1.Secret) { s.Labels = map[string]string{"x": "y"} }, "not change labels"},
	"annotation":      {func(s *corev1.Secret) { metav1.SetMetaDataAnnotation(&s.ObjectMeta, "x", "z") }, "may not change x"},
	"asks for itself": {func(s *corev1.Secret) { metav1.SetMetaDataAnnotation(&s.ObjectMeta, v1alpha1.SecretRotate, "again") }, "may not change lb.baremetal.dev/rotate"},
	"finalizer":       {func(s *corev1.Secret) { s.Finalizers = []string{"a/b"} }, "not change finalizers"},
	"owner": {func(s *corev1.Secret) {
		s.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: "a", UID: "b"}}
	}, "not change ownerReferences"},
	"another entry": {func(s *corev1.Secret) { s.Data["more"] = []byte("z") }, "entries key and previous-key"},
	"immutable":     {func(s *corev1.Secret) { immutable := true; s.Immutable = &immutable }, "immutable"},
}

func checkRefusal(t *testing.T, what string, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("%s: %v", what, err)
	case want != "" && (!apierrors.IsForbidden(err) || !strings.Contains(err.Error(), want)):
		t.Errorf("%s: %v; want a refusal with %q", what, err, want)
	}
}

func testManagerCreates(t *testing.T, admin typedcorev1.SecretInterface, client kubernetes.Interface) {
	create := func(change func(*corev1.Secret)) error {
		created, err := client.CoreV1().Secrets(v1alpha1.DefaultNamespace).Create(t.Context(), heartbeatSecret(change), metav1.CreateOptions{})
		if err == nil {
			err = admin.Delete(t.Context(), created.Name, metav1.DeleteOptions{})
		}
		return err
	}
	for what, edit := range edits {
		checkRefusal(t, what, create(edit.change), edit.want)
	}
	for what, edit := range map[string]struct {
		change func(*corev1.Secret)
		want   string
	}{
		"the one":        {nil, ""},
		"both keys":      {func(s *corev1.Secret) { s.Data[announce.HeartbeatPreviousKey] = []byte("p") }, ""},
		"another name":   {func(s *corev1.Secret) { s.Name = "another" }, "may create the Secret baremetal-heartbeat, not another"},
		"generated name": {func(s *corev1.Secret) { s.Name, s.GenerateName = "", "baremetal-heartbeat" }, "may create the Secret baremetal-heartbeat, not "},
		"token of a ServiceAccount": {func(s *corev1.Secret) {
			s.Type = corev1.SecretTypeServiceAccountToken
			s.Annotations = map[string]string{corev1.ServiceAccountNameKey: "baremetal-speaker"}
		}, "of type Opaque, not kubernetes.io/service-account-token"},
	} {
		checkRefusal(t, what, create(edit.change), edit.want)
	}
}

func testManagerUpdates(t *testing.T, admin typedcorev1.SecretInterface, client kubernetes.Interface) {
	// people have labelled the Secret, and ask for another key.
	created, err := admin.Create(t.Context(), heartbeatSecret(func(s *corev1.Secret) {
		s.Labels = map[string]string{"a": "b"}
		s.Annotations = map[string]string{"x": "y", v1alpha1.SecretRotate: "true"}
		s.Data["more"] = []byte("y")
	}), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	update := func(change func(*corev1.Secret)) error {
		changed := created.DeepCopy()
		changed.ResourceVersion = ""
		change(changed)
		_, err := client.CoreV1().Secrets(v1alpha1.DefaultNamespace).Update(t.Context(), changed, metav1.UpdateOptions{})
		return err
	}
	for what, edit := range edits {
		checkRefusal(t, what, update(edit.change), edit.want)
	}
	checkRefusal(t, "takes another annotation off", update(func(s *corev1.Secret) { delete(s.Annotations, "x") }), "may not change x")
	checkRefusal(t, "takes another entry out", update(func(s *corev1.Secret) { delete(s.Data, "more") }), "entries key and previous-key")
	checkRefusal(t, "rotates", update(func(s *corev1.Secret) {
		s.Data[announce.HeartbeatPreviousKey] = s.Data[announce.HeartbeatKey]
		s.Data[announce.HeartbeatKey] = bytes.Repeat([]byte("n"), announce.MinHeartbeatKey)
		delete(s.Annotations, v1alpha1.SecretRotate)
	}), "")
	checkRefusal(t, "takes the previous key out", update(func(s *corev1.Secret) {
		delete(s.Data, announce.HeartbeatPreviousKey)
		delete(s.Annotations, v1alpha1.SecretRotate)
	}), "")
	if err := admin.Delete(t.Context(), announce.HeartbeatSecret, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}
