package baremetal

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	coreinformers "k8s.io/client-go/informers/core/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
)

// anyNodes is the NodeInformer that the upstream service controller is given. Which
// nodes announce is not decided there, and the provider does not look at the nodes
// it is called with. But upstream would remember all nodes for each Service, 80 MB at
// 1,000 nodes and 10,000 Services, and go through all Services whenever a node
// changes. So it sees one node that never changes; without any, it would warn.
type anyNodes struct{ coreinformers.NodeInformer }

// Informer is the real informer, but for handlers, which hear of no node.
func (n anyNodes) Informer() cache.SharedIndexInformer {
	return deafInformer{n.NodeInformer.Informer()}
}

// Lister lists the one node.
func (anyNodes) Lister() corelisters.NodeLister { return oneNode{} }

// deafInformer adds handlers that are never called.
type deafInformer struct{ cache.SharedIndexInformer }

func (i deafInformer) AddEventHandler(cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error) {
	return i.SharedIndexInformer.AddEventHandler(cache.ResourceEventHandlerFuncs{})
}

func (i deafInformer) AddEventHandlerWithResyncPeriod(cache.ResourceEventHandler, time.Duration) (cache.ResourceEventHandlerRegistration, error) {
	return i.AddEventHandler(nil)
}

func (i deafInformer) AddEventHandlerWithOptions(cache.ResourceEventHandler, cache.HandlerOptions) (cache.ResourceEventHandlerRegistration, error) {
	return i.AddEventHandler(nil)
}

// oneNode stands for all nodes.
type oneNode struct{ corelisters.NodeLister }

// List implements corelisters.NodeLister. Upstream does not change what it gets.
func (oneNode) List(labels.Selector) ([]*corev1.Node, error) {
	return []*corev1.Node{{ObjectMeta: metav1.ObjectMeta{Name: "all"}}}, nil
}
