package manifests

import (
	"fmt"
	"net/http"
	"testing"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/apiserver"
)

// TestFlowSchemas asks a real API server to which flow our requests belong: it
// tells in the header of each response.
func TestFlowSchemas(t *testing.T) {
	server := apiserver.Start(t, "--enable-priority-and-fairness=true")
	admin := kubernetes.NewForConfigOrDie(server.Config)
	uids := make(map[string]string)
	for _, obj := range load(t) {
		if obj.GetKind() != "FlowSchema" {
			continue
		}
		schema := decode[flowcontrolv1.FlowSchema](t, obj)
		created, err := admin.FlowcontrolV1().FlowSchemas().Create(t.Context(), &schema, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		uids[string(created.UID)] = created.Name
	}
	const speaker = "baremetal-speaker"
	for _, test := range []struct{ account, verb, path, want string }{
		{manager, "GET", "/apis/coordination.k8s.io/v1/namespaces/baremetal-lb-system/leases/baremetal-planner", "baremetal-lb-leases"},
		{manager, "PUT", "/apis/coordination.k8s.io/v1/namespaces/baremetal-lb-system/leases/baremetal-planner", "baremetal-lb-leases"},
		{manager, "PATCH", "/api/v1/nodes/a", "baremetal-lb-announcements"},
		{speaker, "PATCH", "/api/v1/nodes/a", "baremetal-lb-announcements"},
		{speaker, "GET", "/api/v1/nodes", "baremetal-lb-announcements"},
		{manager, "PATCH", "/api/v1/namespaces/default/services/a/status", "baremetal-lb"},
		{manager, "PATCH", "/apis/lb.baremetal.dev/v1alpha1/addresspools/a/status", "baremetal-lb"},
		{speaker, "GET", "/api/v1/namespaces/baremetal-lb-system/secrets/a", "baremetal-lb"},
		{"another", "PATCH", "/api/v1/nodes/a", ""},
	} {
		account := serviceAccount(test.account, "")
		// FlowSchemas take effect a moment after they were created.
		waitFor(t, func() error {
			got := uids[flowOf(t, server.Config, account, test.verb, test.path)]
			if got != test.want {
				return fmt.Errorf("%s %s by %s: FlowSchema %q, want %q", test.verb, test.path, test.account, got, test.want)
			}
			return nil
		})
	}
}

// flowOf is the UID of the FlowSchema that a request belonged to.
func flowOf(t *testing.T, config *rest.Config, account user.Info, verb, path string) (uid string) {
	t.Helper()
	config = rest.CopyConfig(config)
	config.Impersonate = rest.ImpersonationConfig{UserName: account.GetName(), Groups: account.GetGroups()}
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			response, err := next.RoundTrip(r)
			if err == nil {
				uid = response.Header.Get(flowcontrolv1.ResponseHeaderMatchedFlowSchemaUID)
			}
			return response, err
		})
	})
	// Whether it is allowed, or there, does not matter.
	_ = kubernetes.NewForConfigOrDie(config).RESTClient().Verb(verb).AbsPath(path).Do(t.Context()).Error()
	return uid
}

type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
