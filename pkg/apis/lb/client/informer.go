package client

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

// AddressPools returns an informer of all AddressPools, keyed by name. It holds
// *v1alpha1.AddressPool without managedFields; the caller runs it.
func (c *Client) AddressPools(resync time.Duration) cache.SharedIndexInformer {
	return c.informer(v1alpha1.AddressPoolResource.Resource, &v1alpha1.AddressPool{}, func() runtime.Object { return &v1alpha1.AddressPoolList{} }, resync)
}

// BGPPeers returns an informer of all BGPPeers, keyed by name. It holds
// *v1alpha1.BGPPeer without managedFields; the caller runs it.
func (c *Client) BGPPeers(resync time.Duration) cache.SharedIndexInformer {
	return c.informer(v1alpha1.BGPPeerResource.Resource, &v1alpha1.BGPPeer{}, func() runtime.Object { return &v1alpha1.BGPPeerList{} }, resync)
}

func (c *Client) informer(resource string, example runtime.Object, newList func() runtime.Object, resync time.Duration) cache.SharedIndexInformer {
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			list := newList()
			err := c.rest.Get().Resource(resource).VersionedParams(&options, parameterCodec).Do(ctx).Into(list)
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			options.Watch = true
			return c.rest.Get().Resource(resource).VersionedParams(&options, parameterCodec).Watch(ctx)
		},
	}
	informer := cache.NewSharedIndexInformer(lw, example, resync, cache.Indexers{})
	// Only a started informer refuses a transform, so there is no error here.
	_ = informer.SetTransform(withoutManagedFields)
	return informer
}

// withoutManagedFields drops what no reader of a cache looks at and what is
// often larger than the rest of the object.
func withoutManagedFields(object any) (any, error) {
	if accessor, err := meta.Accessor(object); err == nil {
		accessor.SetManagedFields(nil)
	}
	return object, nil
}
