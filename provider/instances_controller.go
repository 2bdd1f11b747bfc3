package baremetal

import (
	"context"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/kubernetes"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	cloudprovider "k8s.io/cloud-provider"
	"k8s.io/cloud-provider/app"
	"k8s.io/cloud-provider/app/config"
	"k8s.io/cloud-provider/controllers/node"
	controllermanager "k8s.io/controller-manager/app"
	"k8s.io/controller-manager/controller"
)

// NodeController constructs the upstream cloud-node controller, which initializes
// Nodes with the taint node.cloudprovider.kubernetes.io/uninitialized. It is an
// app.InitFuncConstructor.
//
// Its companion upstream, the cloud-node-lifecycle controller, is not to be had
// here: all it does is to delete Nodes, or taint them, when a cloud says that
// their machines are gone or switched off, and there is no cloud to say so.
func NodeController(init app.ControllerInitContext, completed *config.CompletedConfig, cloud cloudprovider.Interface) app.InitFunc {
	return func(ctx context.Context, manager controllermanager.ControllerContext) (controller.Interface, bool, error) {
		client, err := completed.ClientBuilder.Client(init.ClientName)
		if err != nil {
			return nil, false, fmt.Errorf("node controller: client: %w", err)
		}
		informer := completed.SharedInformers.Core().V1().Nodes()
		settings := completed.ComponentConfig
		nodes, err := node.NewCloudNodeController(informer,
			differenceClient{Interface: client, cached: informer.Lister()},
			cloud,
			settings.NodeStatusUpdateFrequency.Duration,
			settings.NodeController.ConcurrentNodeSyncs,
			settings.NodeController.ConcurrentNodeStatusUpdates,
		)
		if err != nil {
			return nil, false, fmt.Errorf("node controller: %w", err)
		}
		go nodes.RunWithContext(ctx, manager.ControllerManagerMetrics)
		return nil, true, nil
	}
}

// differenceClient writes of Nodes only what upstream has changed in them.
//
// Upstream's node controller initializes a Node by an update, which replaces the
// whole object by one from the cache. That would take from the Node all that
// Trim has dropped, the program of its speaker for instance, and all that newer
// versions of the API have and this program does not know.
type differenceClient struct {
	kubernetes.Interface
	cached corelisters.NodeLister
}

func (c differenceClient) CoreV1() typedcorev1.CoreV1Interface {
	return differenceCore{CoreV1Interface: c.Interface.CoreV1(), cached: c.cached}
}

type differenceCore struct {
	typedcorev1.CoreV1Interface
	cached corelisters.NodeLister
}

func (c differenceCore) Nodes() typedcorev1.NodeInterface {
	return differenceNodes{NodeInterface: c.CoreV1Interface.Nodes(), cached: c.cached}
}

type differenceNodes struct {
	typedcorev1.NodeInterface
	cached corelisters.NodeLister
}

// Update patches the Node by what differs from the cached one, which updated was
// made from. Where the cache has another version by now, or the API server has,
// it is a conflict, as of an update: taints are a list that is written as a
// whole, and somebody else's must not be lost.
func (n differenceNodes) Update(ctx context.Context, updated *corev1.Node, options metav1.UpdateOptions) (*corev1.Node, error) {
	cached, err := n.cached.Get(updated.Name)
	if err != nil {
		return nil, err
	}
	if cached.UID != updated.UID || cached.ResourceVersion != updated.ResourceVersion {
		return nil, apierrors.NewConflict(corev1.Resource("nodes"), updated.Name,
			fmt.Errorf("the cache has version %s, not %s any more", cached.ResourceVersion, updated.ResourceVersion))
	}
	patch, err := difference(cached, updated)
	if err != nil {
		return nil, fmt.Errorf("patch of node %s: %w", updated.Name, err)
	}
	return n.NodeInterface.Patch(ctx, updated.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{
		DryRun: options.DryRun, FieldManager: options.FieldManager, FieldValidation: options.FieldValidation,
	})
}

// Patch leaves out patches that change nothing: upstream takes the addresses of
// a node with two families for changed each time that it compares them.
func (n differenceNodes) Patch(ctx context.Context, name string, kind types.PatchType, data []byte, options metav1.PatchOptions, subresources ...string) (*corev1.Node, error) {
	if string(data) == "{}" {
		return n.cached.Get(name)
	}
	return n.NodeInterface.Patch(ctx, name, kind, data, options, subresources...)
}

// difference is a patch from one Node to another that applies to this version of
// it only.
func difference(from, to *corev1.Node) ([]byte, error) {
	// What differs is in the patch: identity and version have to be.
	from = from.DeepCopy()
	from.UID, from.ResourceVersion = "", ""
	before, err := json.Marshal(from)
	if err != nil {
		return nil, err
	}
	after, err := json.Marshal(to)
	if err != nil {
		return nil, err
	}
	return strategicpatch.CreateTwoWayMergePatch(before, after, corev1.Node{})
}
