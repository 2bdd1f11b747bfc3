package kubelet

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"
)

const requestTimeout = 3 * time.Second

// register creates the Node, or brings the one of an earlier boot up to date.
// Like a real kubelet it does this once: a Node deleted later stays deleted.
func (k *kubelet) register(ctx context.Context) (*corev1.Node, error) {
	for {
		node, err := k.tryRegister(ctx)
		if err == nil {
			return node, writeFile(k.config.RegisteredFile, nil, 0o644)
		}
		klog.ErrorS(err, "Cannot register", "node", k.config.NodeName)
		if !pause(ctx, 100*time.Millisecond) {
			return nil, ctx.Err()
		}
	}
}

func (k *kubelet) tryRegister(ctx context.Context) (*corev1.Node, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	nodes := k.client.CoreV1().Nodes()
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: k.config.NodeName, Labels: k.labels()},
		Spec:       corev1.NodeSpec{PodCIDR: k.config.PodCIDRs[0], PodCIDRs: k.config.PodCIDRs},
		Status:     k.nodeStatus(),
	}
	if k.config.Uninitialized {
		node.Spec.Taints = []corev1.Taint{{
			Key: "node.cloudprovider.kubernetes.io/uninitialized", Value: "true", Effect: corev1.TaintEffectNoSchedule,
		}}
	}
	created, err := nodes.Create(ctx, node, metav1.CreateOptions{})
	if err == nil {
		return created, nil
	}
	if !apierrors.IsAlreadyExists(err) {
		return nil, err
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": k.labels()}})
	if err != nil {
		return nil, err
	}
	if _, err := nodes.Patch(ctx, k.config.NodeName, types.StrategicMergePatchType, patch, metav1.PatchOptions{}); err != nil {
		return nil, err
	}
	return k.patchNodeStatus(ctx)
}

func (k *kubelet) labels() map[string]string {
	labels := map[string]string{
		corev1.LabelHostname:   k.config.NodeName,
		corev1.LabelOSStable:   "linux",
		corev1.LabelArchStable: "amd64",
	}
	for key, value := range k.config.Labels {
		labels[key] = value
	}
	return labels
}

func (k *kubelet) nodeStatus() corev1.NodeStatus {
	now := metav1.Now()
	condition := func(t corev1.NodeConditionType, s corev1.ConditionStatus, reason string) corev1.NodeCondition {
		return corev1.NodeCondition{Type: t, Status: s, Reason: reason, LastHeartbeatTime: now, LastTransitionTime: now}
	}
	resources := corev1.ResourceList{
		corev1.ResourceCPU:    resource.MustParse("64"),
		corev1.ResourceMemory: resource.MustParse("256Gi"),
		corev1.ResourcePods:   resource.MustParse("240"),
	}
	status := corev1.NodeStatus{
		Capacity:    resources,
		Allocatable: resources,
		Conditions: []corev1.NodeCondition{
			condition(corev1.NodeReady, corev1.ConditionTrue, "KubeletReady"),
			condition(corev1.NodeMemoryPressure, corev1.ConditionFalse, "KubeletHasSufficientMemory"),
			condition(corev1.NodeDiskPressure, corev1.ConditionFalse, "KubeletHasNoDiskPressure"),
			condition(corev1.NodePIDPressure, corev1.ConditionFalse, "KubeletHasSufficientPID"),
		},
		DaemonEndpoints: corev1.NodeDaemonEndpoints{KubeletEndpoint: corev1.DaemonEndpoint{Port: ServerPort}},
		NodeInfo: corev1.NodeSystemInfo{
			BootID: k.bootID, MachineID: k.config.NodeName, SystemUUID: k.config.NodeName,
			KubeletVersion: "v1.36.3", ContainerRuntimeVersion: "lab://1",
			OperatingSystem: "linux", Architecture: "amd64", OSImage: "lab",
			KernelVersion: kernelVersion(),
		},
	}
	for _, ip := range k.config.IPs {
		status.Addresses = append(status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: ip})
	}
	status.Addresses = append(status.Addresses, corev1.NodeAddress{Type: corev1.NodeHostName, Address: k.config.NodeName})
	return status
}

func kernelVersion() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

func (k *kubelet) patchNodeStatus(ctx context.Context) (*corev1.Node, error) {
	status := k.nodeStatus()
	// The merge key of addresses is their type, of which a node with two
	// families has two alike: only replacing the list as a whole is safe.
	addresses := []any{map[string]any{"$patch": "replace"}}
	for _, a := range status.Addresses {
		addresses = append(addresses, a)
	}
	patch, err := json.Marshal(map[string]any{"status": map[string]any{
		"addresses": addresses, "conditions": status.Conditions, "nodeInfo": status.NodeInfo,
		"daemonEndpoints": status.DaemonEndpoints,
		"capacity":        status.Capacity, "allocatable": status.Allocatable,
	}})
	if err != nil {
		return nil, err
	}
	node, err := k.client.CoreV1().Nodes().PatchStatus(ctx, k.config.NodeName, patch)
	if err != nil {
		return nil, fmt.Errorf("status of node %s: %w", k.config.NodeName, err)
	}
	return node, nil
}

// renewLease shows that the node is alive.
func (k *kubelet) renewLease(ctx context.Context, node *corev1.Node) error {
	var lease *coordinationv1.Lease
	for {
		renewed, err := k.tryRenew(ctx, lease, node)
		lease = renewed
		if err != nil && ctx.Err() == nil {
			klog.ErrorS(err, "Cannot renew the lease", "node", k.config.NodeName)
			// Like a real kubelet: after a cut, TCP would keep the old
			// connections waiting long after the network is back.
			k.dialer.CloseAll()
		}
		if !pause(ctx, k.config.LeaseInterval) {
			return nil
		}
	}
}

func (k *kubelet) tryRenew(ctx context.Context, lease *coordinationv1.Lease, node *corev1.Node) (*coordinationv1.Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	leases := k.client.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	now := metav1.NowMicro()
	if lease == nil {
		var err error
		if lease, err = leases.Get(ctx, k.config.NodeName, metav1.GetOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return nil, err
		} else if err != nil {
			return leases.Create(ctx, &coordinationv1.Lease{
				ObjectMeta: metav1.ObjectMeta{
					Name: k.config.NodeName,
					OwnerReferences: []metav1.OwnerReference{{
						APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID,
					}},
				},
				Spec: coordinationv1.LeaseSpec{
					HolderIdentity:       ptr.To(k.config.NodeName),
					LeaseDurationSeconds: ptr.To(int32(max(1, 4*k.config.LeaseInterval/time.Second))),
					RenewTime:            &now,
				},
			}, metav1.CreateOptions{})
		}
	}
	lease = lease.DeepCopy()
	lease.Spec.RenewTime = &now
	updated, err := leases.Update(ctx, lease, metav1.UpdateOptions{})
	if err != nil {
		return nil, err
	}
	return updated, nil
}

// keepNodeReady says that the node is Ready whenever somebody said otherwise,
// as happens when the leases did not come through.
func (k *kubelet) keepNodeReady(ctx context.Context) error {
	factory := informers.NewSharedInformerFactoryWithOptions(k.client, 0,
		informers.WithTweakListOptions(func(o *metav1.ListOptions) {
			o.FieldSelector = fields.OneTermEqualSelector("metadata.name", k.config.NodeName).String()
		}))
	lost := make(chan struct{}, 1)
	check := func(object any) {
		if node, ok := object.(*corev1.Node); ok && !isReady(node) {
			select {
			case lost <- struct{}{}:
			default:
			}
		}
	}
	_, err := factory.Core().V1().Nodes().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    check,
		UpdateFunc: func(_, object any) { check(object) },
	})
	if err != nil {
		return fmt.Errorf("watch node %s: %w", k.config.NodeName, err)
	}
	factory.Start(ctx.Done())
	defer factory.Shutdown()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-lost:
		}
		for {
			attempt, cancel := context.WithTimeout(ctx, requestTimeout)
			_, err := k.patchNodeStatus(attempt)
			cancel()
			if err == nil || apierrors.IsNotFound(err) {
				break
			}
			klog.ErrorS(err, "Cannot report", "node", k.config.NodeName)
			if !pause(ctx, 500*time.Millisecond) {
				return nil
			}
		}
	}
}

func isReady(node *corev1.Node) bool {
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}
