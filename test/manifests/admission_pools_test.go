package manifests

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/apiserver"
)

const manager = "baremetal-cloud-controller-manager"

// TestManagerChangesOneFinalizerOfAddressPools asks a real API server, with the
// rights and the policies of the manifests.
func TestManagerChangesOneFinalizerOfAddressPools(t *testing.T) {
	server := apiserver.Start(t)
	installAccess(t, server.Config)
	admin := dynamic.NewForConfigOrDie(server.Config).Resource(v1alpha1.AddressPoolResource)
	config := rest.CopyConfig(server.Config)
	account := serviceAccount(manager, "")
	config.Impersonate = rest.ImpersonationConfig{UserName: account.GetName(), Groups: account.GetGroups()}
	pools := dynamic.NewForConfigOrDie(config).Resource(v1alpha1.AddressPoolResource)

	_, err := admin.Create(t.Context(), &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": v1alpha1.SchemeGroupVersion.String(), "kind": "AddressPool",
		"metadata": map[string]any{"name": "lan"},
		"spec":     map[string]any{"addresses": []any{"203.0.113.0/24"}},
	}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	patch := func(text string, subresources ...string) error {
		_, err := pools.Patch(t.Context(), "lan", types.MergePatchType, []byte(text), metav1.PatchOptions{}, subresources...)
		return err
	}
	attempt := 0
	waitForPolicies(t, func() error {
		// Another value each time: a patch that changes nothing is no change of labels.
		attempt++
		return patch(fmt.Sprintf(`{"metadata": {"labels": {"attempt": "%d"}}}`, attempt))
	})

	const (
		ours   = `"lb.baremetal.dev/addresses-in-use"`
		denied = "the cloud-controller-manager may "
	)
	for _, test := range []struct {
		name  string
		has   []string // finalizers before
		patch string
		want  string // in the refusal, or "" for allowed
	}{
		{"puts its finalizer on", nil, `{"finalizers": [` + ours + `]}`, ""},
		{"puts it on beside others", []string{"a/b"}, `{"finalizers": ["a/b", ` + ours + `]}`, ""},
		{"takes it off", []string{v1alpha1.PoolInUse}, `{"finalizers": []}`, ""},
		{"takes it off among others", []string{"a/b", v1alpha1.PoolInUse, "c/d"}, `{"finalizers": ["a/b", "c/d"]}`, ""},
		{"adds another", nil, `{"finalizers": [` + ours + `, "a/b"]}`, denied + "change the finalizer " + v1alpha1.PoolInUse},
		{"removes another", []string{"a/b", v1alpha1.PoolInUse}, `{"finalizers": [` + ours + `]}`, denied + "change the finalizer"},
		{"removes all", []string{"a/b", v1alpha1.PoolInUse}, `{"finalizers": null}`, denied + "change the finalizer"},
		{"label", nil, `{"labels": {"a": "b"}}`, denied + "not change labels"},
		{"annotation", nil, `{"annotations": {"a": "b"}}`, denied + "not change annotations"},
		{"owner", nil, `{"ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "a", "uid": "b"}]}`, denied + "not change ownerReferences"},
		{"spec", nil, `{}, "spec": {"disabled": true}`, denied + "not change spec"},
	} {
		setFinalizers(t, admin, test.has)
		err := patch(`{"metadata": ` + test.patch + `}`)
		switch {
		case test.want == "" && err != nil:
			t.Errorf("%s: %v", test.name, err)
		case test.want != "" && (!apierrors.IsForbidden(err) || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%s: %v; want a refusal with %q", test.name, err, test.want)
		}
	}

	// By way of the status, nothing but the status is written.
	setFinalizers(t, admin, []string{"a/b"})
	if err := patch(`{"metadata": {"labels": {"a": "b"}, "finalizers": null}, "spec": {"disabled": true}, "status": {"capacity": "256"}}`, "status"); err != nil {
		t.Errorf("status: %v", err)
	}
	pool, err := admin.Get(t.Context(), "lan", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	disabled, _, _ := unstructured.NestedBool(pool.Object, "spec", "disabled")
	if len(pool.GetLabels()) > 0 || !slices.Equal(pool.GetFinalizers(), []string{"a/b"}) || disabled {
		t.Errorf("the write of a status changed more: %v", pool.Object)
	}
	if err := pools.Delete(t.Context(), "lan", metav1.DeleteOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("delete: %v", err)
	}
}

// installAccess creates all roles and policies, as manifests/base has them.
func installAccess(t *testing.T, config *rest.Config) {
	t.Helper()
	client := kubernetes.NewForConfigOrDie(config)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.DefaultNamespace}}
	_, err := client.CoreV1().Namespaces().Create(t.Context(), namespace, metav1.CreateOptions{})
	must(err)
	for _, obj := range load(t) {
		if filepath.Dir(obj.file) != filepath.Join(root, "base") {
			continue
		}
		var err error
		switch obj.GetKind() {
		case "ClusterRole":
			role := decode[rbacv1.ClusterRole](t, obj)
			_, err = client.RbacV1().ClusterRoles().Create(t.Context(), &role, metav1.CreateOptions{})
		case "ClusterRoleBinding":
			binding := decode[rbacv1.ClusterRoleBinding](t, obj)
			_, err = client.RbacV1().ClusterRoleBindings().Create(t.Context(), &binding, metav1.CreateOptions{})
		case "Role":
			role := decode[rbacv1.Role](t, obj)
			_, err = client.RbacV1().Roles(obj.GetNamespace()).Create(t.Context(), &role, metav1.CreateOptions{})
		case "RoleBinding":
			binding := decode[rbacv1.RoleBinding](t, obj)
			_, err = client.RbacV1().RoleBindings(obj.GetNamespace()).Create(t.Context(), &binding, metav1.CreateOptions{})
		case "ValidatingAdmissionPolicy":
			policy := decode[admissionregistrationv1.ValidatingAdmissionPolicy](t, obj)
			_, err = client.AdmissionregistrationV1().ValidatingAdmissionPolicies().Create(t.Context(), &policy, metav1.CreateOptions{})
		case "ValidatingAdmissionPolicyBinding":
			binding := decode[admissionregistrationv1.ValidatingAdmissionPolicyBinding](t, obj)
			_, err = client.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings().Create(t.Context(), &binding, metav1.CreateOptions{})
		}
		must(err)
	}
}

// waitForPolicies waits until the API server enforces the policies: it takes
// them up a moment after they were created.
func waitForPolicies(t *testing.T, forbidden func() error) {
	t.Helper()
	waitFor(t, func() error {
		if err := forbidden(); err == nil || !strings.Contains(err.Error(), "ValidatingAdmissionPolicy") {
			return fmt.Errorf("the policies are not enforced: %v", err)
		}
		return nil
	})
}

// waitFor waits until there is no problem any more, for a minute at most.
func waitFor(t *testing.T, problem func() error) {
	t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := problem()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			t.Fatal(err)
		case <-tick.C:
		}
	}
}

// setFinalizers also takes labels off, which waitForPolicies may have put on.
func setFinalizers(t *testing.T, pools dynamic.ResourceInterface, finalizers []string) {
	t.Helper()
	patch := `{"metadata": {"labels": null, "finalizers": []}}`
	if len(finalizers) > 0 {
		patch = `{"metadata": {"labels": null, "finalizers": ["` + strings.Join(finalizers, `", "`) + `"]}}`
	}
	if _, err := pools.Patch(t.Context(), "lan", types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
}
