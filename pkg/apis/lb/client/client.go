package client

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/rest"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

var (
	scheme         = runtime.NewScheme()
	codecs         = serializer.NewCodecFactory(scheme)
	parameterCodec = runtime.NewParameterCodec(scheme)
)

func init() {
	utilruntime.Must(v1alpha1.AddToScheme(scheme))
	// A REST client decodes errors and bookmarks as unversioned meta types.
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
}

// Client talks to the API server about the kinds of lb.baremetal.dev. Its
// methods may be called concurrently.
type Client struct {
	rest rest.Interface
}

// New returns a Client for the cluster of config, which it does not change.
// Custom resources have no protobuf form, so the content type is JSON whatever
// config says.
func New(config *rest.Config) (*Client, error) {
	config = rest.CopyConfig(config)
	config.GroupVersion = &v1alpha1.SchemeGroupVersion
	config.APIPath = "/apis"
	config.ContentType = runtime.ContentTypeJSON
	config.AcceptContentTypes = runtime.ContentTypeJSON
	config.NegotiatedSerializer = codecs.WithoutConversion()
	if config.UserAgent == "" {
		config.UserAgent = rest.DefaultKubernetesUserAgent()
	}
	restClient, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("client for %s: %w", v1alpha1.SchemeGroupVersion, err)
	}
	return &Client{rest: restClient}, nil
}

// PatchAddressPoolStatus patches the status of the AddressPool of that name.
func (c *Client) PatchAddressPoolStatus(ctx context.Context, name string, kind types.PatchType, patch []byte, options metav1.PatchOptions) (*v1alpha1.AddressPool, error) {
	pool := &v1alpha1.AddressPool{}
	return pool, c.patchStatus(ctx, v1alpha1.AddressPoolResource.Resource, name, kind, patch, options, pool)
}

// PatchBGPPeerStatus patches the status of the BGPPeer of that name.
func (c *Client) PatchBGPPeerStatus(ctx context.Context, name string, kind types.PatchType, patch []byte, options metav1.PatchOptions) (*v1alpha1.BGPPeer, error) {
	peer := &v1alpha1.BGPPeer{}
	return peer, c.patchStatus(ctx, v1alpha1.BGPPeerResource.Resource, name, kind, patch, options, peer)
}

// patchStatus returns the API server's error unwrapped: callers ask apierrors
// about it.
func (c *Client) patchStatus(ctx context.Context, resource, name string, kind types.PatchType, patch []byte, options metav1.PatchOptions, into runtime.Object) error {
	return c.rest.Patch(kind).Resource(resource).Name(name).SubResource("status").
		VersionedParams(&options, parameterCodec).Body(patch).Do(ctx).Into(into)
}
