package planner

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	lbclient "github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/client"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/plan"
)

// resync heals what missed an event, which should not happen: so often there is
// a plan even if nothing changed.
const resync = 10 * time.Minute

// objects is what the planner watches: each kind reduced to the fields that a
// plan depends on, so that two thousand Services cost a few megabytes, and an
// update that leaves them as they are wakes nobody.
type objects struct {
	nodes, services, namespaces, slices, pods, pools, peers cache.SharedIndexInformer
}

func newObjects(client kubernetes.Interface, lb *lbclient.Client, speakerNamespace string) *objects {
	speakers := labels.Set{v1alpha1.SpeakerPodLabel: v1alpha1.SpeakerPodName}.String()
	cluster := informers.NewSharedInformerFactory(client, resync)
	speakerPods := informers.NewSharedInformerFactoryWithOptions(client, resync,
		informers.WithNamespace(speakerNamespace),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.LabelSelector = speakers }))
	return &objects{
		nodes:      cluster.Core().V1().Nodes().Informer(),
		services:   cluster.Core().V1().Services().Informer(),
		namespaces: cluster.Core().V1().Namespaces().Informer(),
		slices:     cluster.Discovery().V1().EndpointSlices().Informer(),
		pods:       speakerPods.Core().V1().Pods().Informer(),
		pools:      lb.AddressPools(resync),
		peers:      lb.BGPPeers(resync),
	}
}

func (o *objects) all() map[string]cache.SharedIndexInformer {
	return map[string]cache.SharedIndexInformer{
		"Nodes": o.nodes, "Services": o.services, "Namespaces": o.namespaces, "EndpointSlices": o.slices,
		"speaker Pods": o.pods, "AddressPools": o.pools, "BGPPeers": o.peers,
	}
}

// prepare installs the transforms and the handler. changed is called, from
// several goroutines, for each change that a plan may depend on, and for each
// resync; what we wrote ourselves is none. For those that by themselves announce and
// withdraw nothing, pending is called in its place.
func (o *objects) prepare(changed, pending func(), wrote ours) error {
	wake := map[due]func(){dueNever: func() {}, dueSoon: pending, dueNow: changed}
	handler := cache.ResourceEventHandlerFuncs{
		AddFunc: func(object any) { wake[o.due(object)]() },
		UpdateFunc: func(before, after any) {
			if wrote.matters(before, after) {
				wake[o.dueAfter(before, after)]()
			}
		},
		DeleteFunc: func(object any) { wake[o.due(object)]() },
	}
	for kind, informer := range o.all() {
		if err := informer.SetTransform(reduce); err != nil {
			return fmt.Errorf("watching %s: %w", kind, err)
		}
		if _, err := informer.AddEventHandler(handler); err != nil {
			return fmt.Errorf("watching %s: %w", kind, err)
		}
	}
	return nil
}

// due says when a plan is due because of an object.
type due int

const (
	// dueNever: no plan depends on the object.
	dueNever due = iota
	// dueSoon: it is about a Service that has no address, or about who hears whom. Most
	// Services have an address in a moment, and nodes that die are missed by several; both
	// are planned once.
	dueSoon
	// dueNow: traffic may depend on it.
	dueNow
)

// due is when a plan is due if the object comes, goes or changes. Most Services of a
// cluster are none of type LoadBalancer, and their Pods come and go all the time.
func (o *objects) due(object any) due {
	switch object := object.(type) {
	case *corev1.Service:
		switch {
		case len(object.Status.LoadBalancer.Ingress) > 0:
			return dueNow
		case object.Spec.Type == corev1.ServiceTypeLoadBalancer || len(object.Status.Conditions) > 0:
			return dueSoon
		}
		return dueNever
	case *discoveryv1.EndpointSlice:
		svc, ok := cached[*corev1.Service](o.services, object.Namespace+"/"+object.Labels[discoveryv1.LabelServiceName])
		if !ok {
			return dueNever // when the Service comes, a plan is due
		}
		if svc.Spec.ExternalTrafficPolicy != corev1.ServiceExternalTrafficPolicyLocal && !o.endpointsAlwaysMatter() {
			return dueNever
		}
		return o.due(svc)
	}
	return dueNow
}

// dueAfter is when a plan is due if the object changes.
func (o *objects) dueAfter(before, after any) due {
	if n, ok := before.(*corev1.Node); ok && hearOthers(n, after.(*corev1.Node)) {
		return dueSoon
	}
	return max(o.due(before), o.due(after))
}

// hearOthers reports whether two versions of a Node differ only in whom its speaker
// hears. That keeps an address where it is, or lets another rule decide; who takes an
// address over says so by itself.
func hearOthers(before, after *corev1.Node) bool {
	if before.Annotations[v1alpha1.NodeSpeaker] == after.Annotations[v1alpha1.NodeSpeaker] ||
		!reflect.DeepEqual(withoutReport(before), withoutReport(after)) {
		return false
	}
	was, is := reportOf(before), reportOf(after)
	if slices.Equal(was.Hears, is.Hears) {
		return false
	}
	was.Hears, is.Hears = nil, nil
	return reflect.DeepEqual(was, is)
}

// endpointsAlwaysMatter reports whether some pool announces from nodes with endpoints
// only, whatever the traffic policy.
func (o *objects) endpointsAlwaysMatter() bool {
	for _, pool := range o.pools.GetStore().List() {
		if pool, ok := pool.(*v1alpha1.AddressPool); ok && pool.Spec.NextHops == v1alpha1.NextHopsWithEndpoints {
			return true
		}
	}
	return false
}

// ours tells our own writes from those of others.
type ours struct {
	// program reports whether the Node's announcements, and condition whether
	// the Service's Announced condition, are what we wrote last.
	program   func(*corev1.Node) bool
	condition func(*corev1.Service) bool
}

// matters reports whether a plan may depend on the difference. Equal versions
// are a resync, or a list after a broken watch.
func (wrote ours) matters(before, after any) bool {
	if resourceVersion(before) == resourceVersion(after) {
		return true
	}
	switch o := after.(type) {
	case *corev1.Node:
		if wrote.program(o) {
			before, after = withoutAnnouncements(before), withoutAnnouncements(after)
		}
	case *corev1.Service:
		if wrote.condition(o) {
			before, after = withoutCondition(before), withoutCondition(after)
		}
	}
	return !reflect.DeepEqual(withoutVersion(before), withoutVersion(after))
}

func resourceVersion(object any) string {
	m, err := meta.Accessor(object)
	if err != nil {
		return "" // no object of ours: let it count
	}
	return m.GetResourceVersion()
}

// sync blocks until all caches are filled; it names the kind that is not when
// the context ends.
func (o *objects) sync(ctx context.Context) error {
	for kind, informer := range o.all() {
		if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
			return fmt.Errorf("the cache of %s is not synced", kind)
		}
	}
	return nil
}

// state is the plan's input as the caches have it.
func (o *objects) state() *plan.State {
	return &plan.State{
		Nodes:          listOf[*corev1.Node](o.nodes),
		Services:       listOf[*corev1.Service](o.services),
		Namespaces:     listOf[*corev1.Namespace](o.namespaces),
		EndpointSlices: listOf[*discoveryv1.EndpointSlice](o.slices),
		SpeakerPods:    listOf[*corev1.Pod](o.pods),
		Pools:          listOf[*v1alpha1.AddressPool](o.pools),
		Peers:          listOf[*v1alpha1.BGPPeer](o.peers),
	}
}

func listOf[T any](informer cache.SharedIndexInformer) []T {
	stored := informer.GetStore().List()
	list := make([]T, 0, len(stored))
	for _, object := range stored {
		if typed, ok := object.(T); ok {
			list = append(list, typed)
		}
	}
	return list
}

// reduce keeps the fields that package plan reads, and those that a write of
// ours needs. Caches hold nothing else.
func reduce(object any) (any, error) {
	switch full := object.(type) {
	case *corev1.Node:
		meta := reduceMeta(full.ObjectMeta)
		meta.Labels = full.Labels // for selectors
		keepOwnAnnotations(&meta, full.Annotations)
		return &corev1.Node{
			ObjectMeta: meta,
			Status: corev1.NodeStatus{
				Addresses:  full.Status.Addresses,
				Conditions: readiness(full.Status.Conditions),
			},
		}, nil
	case *corev1.Service:
		return reduceService(full), nil
	case *corev1.Namespace:
		meta := reduceMeta(full.ObjectMeta)
		meta.Labels = full.Labels // for selectors
		return &corev1.Namespace{ObjectMeta: meta}, nil
	case *discoveryv1.EndpointSlice:
		reduced := &discoveryv1.EndpointSlice{ObjectMeta: reduceMeta(full.ObjectMeta)}
		if name, ok := full.Labels[discoveryv1.LabelServiceName]; ok {
			reduced.Labels = map[string]string{discoveryv1.LabelServiceName: name}
		}
		for i := range full.Endpoints {
			e := &full.Endpoints[i]
			reduced.Endpoints = append(reduced.Endpoints,
				discoveryv1.Endpoint{NodeName: e.NodeName, Conditions: e.Conditions})
		}
		return reduced, nil
	case *corev1.Pod:
		reduced := &corev1.Pod{ObjectMeta: reduceMeta(full.ObjectMeta)}
		reduced.Spec.NodeName = full.Spec.NodeName
		for _, c := range full.Status.Conditions {
			if c.Type == corev1.PodReady {
				reduced.Status.Conditions = []corev1.PodCondition{{Type: c.Type, Status: c.Status}}
			}
		}
		return reduced, nil
	case *v1alpha1.AddressPool:
		full.ManagedFields = nil
	case *v1alpha1.BGPPeer:
		full.ManagedFields = nil
	}
	return object, nil
}

// reduceService keeps what decides who announces, what sharing depends on, and
// what explains why a Service has no address.
func reduceService(full *corev1.Service) *corev1.Service {
	reduced := &corev1.Service{
		ObjectMeta: reduceMeta(full.ObjectMeta),
		Spec: corev1.ServiceSpec{
			Type:                  full.Spec.Type,
			LoadBalancerClass:     full.Spec.LoadBalancerClass,
			LoadBalancerIP:        full.Spec.LoadBalancerIP,
			ExternalIPs:           full.Spec.ExternalIPs,
			ExternalTrafficPolicy: full.Spec.ExternalTrafficPolicy,
			HealthCheckNodePort:   full.Spec.HealthCheckNodePort,
			IPFamilies:            full.Spec.IPFamilies,
			IPFamilyPolicy:        full.Spec.IPFamilyPolicy,
		},
		Status: corev1.ServiceStatus{Conditions: full.Status.Conditions},
	}
	for _, ingress := range full.Status.LoadBalancer.Ingress {
		reduced.Status.LoadBalancer.Ingress = append(reduced.Status.LoadBalancer.Ingress,
			corev1.LoadBalancerIngress{IP: ingress.IP})
	}
	if full.Spec.Type != corev1.ServiceTypeLoadBalancer {
		return reduced
	}
	keepOwnAnnotations(&reduced.ObjectMeta, full.Annotations)
	if len(full.Status.LoadBalancer.Ingress) < len(full.Spec.IPFamilies) || asksForAddresses(full) {
		reduced.Labels = full.Labels // a pool's serviceSelector may be why it lacks one
	}
	if full.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal {
		reduced.Spec.Selector = full.Spec.Selector
	}
	for _, port := range full.Spec.Ports {
		reduced.Spec.Ports = append(reduced.Spec.Ports, corev1.ServicePort{Protocol: port.Protocol, Port: port.Port})
	}
	return reduced
}

func asksForAddresses(svc *corev1.Service) bool {
	return svc.Annotations[v1alpha1.ServiceAddresses] != "" || svc.Spec.LoadBalancerIP != "" || len(svc.Spec.ExternalIPs) > 0
}

// keepOwnAnnotations copies the annotations that are of our group.
func keepOwnAnnotations(to *metav1.ObjectMeta, annotations map[string]string) {
	for key, value := range annotations {
		if strings.HasPrefix(key, v1alpha1.GroupName+"/") {
			metav1.SetMetaDataAnnotation(to, key, value)
		}
	}
}

// reduceMeta drops labels, annotations and what no plan depends on.
func reduceMeta(full metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace:         full.Namespace,
		Name:              full.Name,
		UID:               full.UID,
		ResourceVersion:   full.ResourceVersion,
		Generation:        full.Generation,
		CreationTimestamp: full.CreationTimestamp,
		DeletionTimestamp: full.DeletionTimestamp,
	}
}

// readiness is the Ready condition without its heartbeat, which changes all
// the time.
func readiness(conditions []corev1.NodeCondition) []corev1.NodeCondition {
	for _, c := range conditions {
		if c.Type == corev1.NodeReady {
			return []corev1.NodeCondition{{Type: c.Type, Status: c.Status, LastTransitionTime: c.LastTransitionTime}}
		}
	}
	return nil
}

// withoutAnnouncements is a shallow copy of a Node without that annotation.
func withoutAnnouncements(object any) any {
	n, ok := object.(*corev1.Node)
	if !ok {
		return object
	}
	shallow := *n
	shallow.Annotations = maps.Clone(n.Annotations)
	delete(shallow.Annotations, v1alpha1.NodeAnnouncements)
	return &shallow
}

// withoutReport is a shallow copy of a Node without that annotation and its version.
func withoutReport(n *corev1.Node) *corev1.Node {
	shallow := *n
	shallow.ResourceVersion = ""
	shallow.Annotations = maps.Clone(n.Annotations)
	delete(shallow.Annotations, v1alpha1.NodeSpeaker)
	return &shallow
}

// withoutCondition is a shallow copy of a Service without our condition.
func withoutCondition(object any) any {
	svc, ok := object.(*corev1.Service)
	if !ok {
		return object
	}
	shallow := *svc
	shallow.Status.Conditions = nil
	for _, c := range svc.Status.Conditions {
		if c.Type != v1alpha1.ConditionAnnounced {
			shallow.Status.Conditions = append(shallow.Status.Conditions, c)
		}
	}
	return &shallow
}

// withoutVersion is a shallow copy without the fields that change with every
// write, and without those that are compared by the statuses' writer, for
// comparing.
func withoutVersion(object any) any {
	switch o := object.(type) {
	case *corev1.Node:
		shallow := *o
		shallow.ResourceVersion = ""
		return &shallow
	case *corev1.Service:
		shallow := *o
		shallow.ResourceVersion = ""
		return &shallow
	case *discoveryv1.EndpointSlice:
		shallow := *o
		shallow.ResourceVersion, shallow.Generation = "", 0
		return &shallow
	case *corev1.Pod:
		shallow := *o
		shallow.ResourceVersion = ""
		return &shallow
	case *v1alpha1.AddressPool:
		shallow := *o
		shallow.ResourceVersion, shallow.Finalizers, shallow.Status = "", nil, v1alpha1.AddressPoolStatus{}
		return &shallow
	case *v1alpha1.BGPPeer:
		shallow := *o
		shallow.ResourceVersion, shallow.Status = "", v1alpha1.BGPPeerStatus{}
		return &shallow
	}
	return object
}
