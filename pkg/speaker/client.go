package speaker

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	// requestTimeout bounds requests for one object.
	requestTimeout = 3 * time.Second
	// dialTimeout is short, so that an API server that is back is found soon.
	dialTimeout = 1500 * time.Millisecond
	// userAgent names the program to the API server.
	userAgent = "baremetal-speaker"
)

// client is what a speaker needs of the API: its own Node, and Secrets by name.
// It knows the types of the core group only; the whole clientset would double
// the memory of the process.
type client struct {
	rest      rest.Interface
	node      string
	namespace string
	// tokenFile holds the ServiceAccount token, if there is one.
	tokenFile string
	// host is the API server's address; zero if that is a name.
	host netip.Addr
}

// newClient is a client from a kubeconfig file, or of the Pod's ServiceAccount if
// it is empty.
func newClient(kubeconfig, node, namespace, version string) (*client, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("client configuration: %w", err)
	}
	config.Dial = (&net.Dialer{Timeout: dialTimeout, KeepAlive: 5 * time.Second}).DialContext
	noticeDeadConnections()
	return newClientFor(config, node, namespace, version)
}

// newClientFor is a client that reaches the API server by config, which becomes
// its own.
func newClientFor(config *rest.Config, node, namespace, version string) (*client, error) {
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("client configuration: %w", err)
	}
	metav1.AddToGroupVersion(scheme, corev1.SchemeGroupVersion)
	codecs := serializer.NewCodecFactory(scheme)
	config.APIPath = "/api"
	config.GroupVersion = &corev1.SchemeGroupVersion
	config.NegotiatedSerializer = codecs.WithoutConversion()
	config.ContentType = runtime.ContentTypeProtobuf
	config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	config.UserAgent = userAgent + "/" + version
	r, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("client configuration: %w", err)
	}
	c := &client{rest: r, node: node, namespace: namespace, tokenFile: config.BearerTokenFile}
	if server, err := url.Parse(config.Host); err == nil {
		c.host, _ = netip.ParseAddr(server.Hostname()) // zero for a name
	}
	return c, nil
}

// noticeDeadConnections makes HTTP/2 ping an idle connection after 5 s and give
// it up after 3 s more, instead of 30 and 15: a watch on a server that is gone
// is silent like one without news. client-go has no other way to set this.
func noticeDeadConnections() {
	for name, value := range map[string]string{
		"HTTP2_READ_IDLE_TIMEOUT_SECONDS": "5",
		"HTTP2_PING_TIMEOUT_SECONDS":      "3",
	} {
		if _, set := os.LookupEnv(name); !set {
			_ = os.Setenv(name, value) // fails for malformed names only
		}
	}
}

// listNode lists the speaker's Node: none or one, read consistently.
func (c *client) listNode(ctx context.Context) (*corev1.NodeList, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	var list corev1.NodeList
	err := c.rest.Get().Resource("nodes").
		Param("fieldSelector", c.selector()).
		Do(ctx).Into(&list)
	return &list, err
}

// watchNode watches it from a resourceVersion on.
func (c *client) watchNode(ctx context.Context, resourceVersion string) (watch.Interface, error) {
	return c.rest.Get().Resource("nodes").
		Param("fieldSelector", c.selector()).
		Param("resourceVersion", resourceVersion).
		Param("watch", "true").
		Param("allowWatchBookmarks", "true").
		Watch(ctx)
}

func (c *client) selector() string {
	return fields.OneTermEqualSelector(metav1.ObjectNameField, c.node).String()
}

// annotateNode sets one annotation of the Node and touches nothing else.
func (c *client) annotateNode(ctx context.Context, key, value string) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{key: value}}})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return c.rest.Patch(types.MergePatchType).Resource("nodes").Name(c.node).Body(patch).Do(ctx).Error()
}

// secret reads the data of a Secret of the system namespace.
func (c *client) secret(ctx context.Context, name string) (map[string][]byte, error) {
	s, err := c.getSecret(ctx, name)
	if err != nil {
		return nil, err
	}
	return s.Data, nil
}

// getSecret reads a Secret of the system namespace, consistently.
func (c *client) getSecret(ctx context.Context, name string) (*corev1.Secret, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	var s corev1.Secret
	if err := c.rest.Get().Namespace(c.namespace).Resource("secrets").Name(name).Do(ctx).Into(&s); err != nil {
		return nil, err
	}
	return &s, nil
}

// watchSecret watches it from a resourceVersion on, or, if that is empty, from
// what there is now. RBAC sees the name in the field selector.
func (c *client) watchSecret(ctx context.Context, name, resourceVersion string) (watch.Interface, error) {
	return c.rest.Get().Namespace(c.namespace).Resource("secrets").
		Param("fieldSelector", fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()).
		Param("resourceVersion", resourceVersion).
		Param("watch", "true").
		Watch(ctx)
}
