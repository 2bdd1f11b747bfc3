package baremetal

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cloudproviderapi "k8s.io/cloud-provider/api"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

// Trim drops from objects what neither this provider nor the upstream service
// and node controllers read, before they are cached: a cluster's Nodes and
// Services are most of a cloud-controller-manager's memory. It is a
// cache.TransformFunc for the shared informers. What it drops never is a
// difference that a patch could carry back, as both sides of upstream's patches
// come from the cache; of upstream's updates differenceClient makes patches.
func Trim(object any) (any, error) {
	switch o := object.(type) {
	case *corev1.Service:
		o.ManagedFields = nil
		delete(o.Annotations, corev1.LastAppliedConfigAnnotation)
	case *corev1.Node:
		o.ObjectMeta = metav1.ObjectMeta{
			Name:              o.Name,
			UID:               o.UID,
			ResourceVersion:   o.ResourceVersion,
			CreationTimestamp: o.CreationTimestamp,
			DeletionTimestamp: o.DeletionTimestamp,
			Labels:            o.Labels,
			Annotations:       only(o.Annotations, cloudproviderapi.AnnotationAlphaProvidedIPAddr, v1alpha1.NodeSpeaker),
		}
		o.Status = corev1.NodeStatus{Addresses: o.Status.Addresses, Conditions: o.Status.Conditions}
	case *corev1.Namespace:
		o.ObjectMeta = metav1.ObjectMeta{
			Name:            o.Name,
			UID:             o.UID,
			ResourceVersion: o.ResourceVersion,
			Labels:          o.Labels,
		}
	}
	return object, nil
}

// only is the part of the annotations with the keys.
func only(annotations map[string]string, keys ...string) map[string]string {
	var part map[string]string
	for _, key := range keys {
		if value, ok := annotations[key]; ok {
			if part == nil {
				part = make(map[string]string, len(keys))
			}
			part[key] = value
		}
	}
	return part
}
