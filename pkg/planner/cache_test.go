package planner

import (
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"

	lbclient "github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/client"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

// full objects have something in every field that reduce decides about.

func fullMeta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: "n", Name: name, UID: "u", ResourceVersion: "7", Generation: 3,
		CreationTimestamp: metav1.Unix(1e9, 0), DeletionTimestamp: ptr.To(metav1.Unix(2e9, 0)),
		Labels:          map[string]string{"app": "x"},
		Annotations:     map[string]string{"example.com/note": "long"},
		Finalizers:      []string{"example.com/keep"},
		OwnerReferences: []metav1.OwnerReference{{Name: "owner"}},
		ManagedFields:   []metav1.ManagedFieldsEntry{{Manager: "someone"}},
	}
}

func slimMeta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: "n", Name: name, UID: "u", ResourceVersion: "7", Generation: 3,
		CreationTimestamp: metav1.Unix(1e9, 0), DeletionTimestamp: ptr.To(metav1.Unix(2e9, 0)),
	}
}

func fullNode() *corev1.Node {
	n := &corev1.Node{ObjectMeta: fullMeta("node")}
	n.Annotations[v1alpha1.NodeAnnouncements] = "program"
	n.Annotations[v1alpha1.NodeSpeaker] = "report"
	n.Spec.PodCIDR = "10.0.0.0/24"
	n.Spec.Unschedulable = true
	n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.1"}}
	n.Status.Conditions = []corev1.NodeCondition{
		{Type: corev1.NodeDiskPressure, Status: corev1.ConditionFalse},
		{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastHeartbeatTime: metav1.Unix(1e9, 0), Reason: "KubeletReady"},
	}
	n.Status.Images = []corev1.ContainerImage{{SizeBytes: 1}}
	return n
}

func fullService() *corev1.Service {
	s := &corev1.Service{ObjectMeta: fullMeta("service")}
	s.Spec = corev1.ServiceSpec{
		Type: corev1.ServiceTypeLoadBalancer, LoadBalancerClass: ptr.To("class"),
		ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyLocal, HealthCheckNodePort: 30000,
		ClusterIP: "10.0.0.1", Ports: []corev1.ServicePort{{Port: 80}}, Selector: map[string]string{"app": "x"},
	}
	s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{
		IP: "203.0.113.1", IPMode: ptr.To(corev1.LoadBalancerIPModeVIP), Ports: []corev1.PortStatus{{Port: 80}},
	}}
	s.Status.Conditions = []metav1.Condition{
		{Type: "example.com/Checked", Status: metav1.ConditionTrue},
		{Type: v1alpha1.ConditionAnnounced, Status: metav1.ConditionTrue, Reason: "Announced", Message: "by a"},
	}
	return s
}

func fullSlice() *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{ObjectMeta: fullMeta("slice"), AddressType: discoveryv1.AddressTypeIPv4}
	s.Labels[discoveryv1.LabelServiceName] = "service"
	s.Endpoints = []discoveryv1.Endpoint{{
		Addresses: []string{"10.0.0.2"}, NodeName: ptr.To("node"), TargetRef: &corev1.ObjectReference{Name: "pod"},
		Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true)},
	}}
	return s
}

func fullPod() *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: fullMeta("pod")}
	p.Spec.NodeName = "node"
	p.Spec.Containers = []corev1.Container{{Name: "speaker"}}
	p.Status.Phase = corev1.PodRunning
	p.Status.Conditions = []corev1.PodCondition{
		{Type: corev1.PodScheduled, Status: corev1.ConditionTrue},
		{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastProbeTime: metav1.Unix(1e9, 0)},
	}
	return p
}

func fullPool() *v1alpha1.AddressPool {
	return &v1alpha1.AddressPool{
		ObjectMeta: fullMeta("pool"),
		Spec:       v1alpha1.AddressPoolSpec{Addresses: []string{"203.0.113.0/24"}},
		Status:     v1alpha1.AddressPoolStatus{Capacity: "256"},
	}
}

func fullPeer() *v1alpha1.BGPPeer {
	return &v1alpha1.BGPPeer{
		ObjectMeta: fullMeta("peer"),
		Spec:       v1alpha1.BGPPeerSpec{PeerAddress: "192.0.2.1"},
		Status:     v1alpha1.BGPPeerStatus{Desired: 1},
	}
}

func TestReduceKeepsWhatAPlanReads(t *testing.T) {
	node := &corev1.Node{ObjectMeta: slimMeta("node")}
	node.Labels = map[string]string{"app": "x"}
	node.Annotations = map[string]string{v1alpha1.NodeAnnouncements: "program", v1alpha1.NodeSpeaker: "report"}
	node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.1"}}
	node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}

	service := &corev1.Service{ObjectMeta: slimMeta("service")}
	service.Spec = corev1.ServiceSpec{
		Type: corev1.ServiceTypeLoadBalancer, LoadBalancerClass: ptr.To("class"),
		ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyLocal, HealthCheckNodePort: 30000,
		Ports: []corev1.ServicePort{{Port: 80}}, Selector: map[string]string{"app": "x"},
	}
	service.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "203.0.113.1"}}
	service.Status.Conditions = fullService().Status.Conditions

	slice := &discoveryv1.EndpointSlice{ObjectMeta: slimMeta("slice")}
	slice.Labels = map[string]string{discoveryv1.LabelServiceName: "service"}
	slice.Endpoints = []discoveryv1.Endpoint{{NodeName: ptr.To("node"), Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true)}}}

	pod := &corev1.Pod{ObjectMeta: slimMeta("pod")}
	pod.Spec.NodeName = "node"
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}

	pool, peer := fullPool(), fullPeer()
	pool.ManagedFields, peer.ManagedFields = nil, nil

	tombstone := cache.DeletedFinalStateUnknown{Key: "n/x"}
	for _, test := range []struct{ full, want any }{
		{fullNode(), node},
		{fullService(), service},
		{fullSlice(), slice},
		{fullPod(), pod},
		{fullPool(), pool},
		{fullPeer(), peer},
		{tombstone, tombstone},
		{&corev1.Node{}, &corev1.Node{}},
		{&corev1.Service{}, &corev1.Service{}},
		{&corev1.Pod{}, &corev1.Pod{}},
	} {
		got, err := reduce(test.full)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%T (- want, + got):\n%s", test.full, diff)
		}
		again, err := reduce(got)
		if err != nil || !reflect.DeepEqual(got, again) {
			t.Errorf("%T reduced twice: %v (%v); want %v", test.full, again, err, got)
		}
	}
}

// changed is a full object before and after a change and a write.
func changed[T interface{ SetResourceVersion(string) }](build func() T, change func(T)) [2]any {
	before, after := build(), build()
	change(after)
	after.SetResourceVersion("8")
	return [2]any{before, after}
}

func TestWhatWakesThePlanner(t *testing.T) {
	condition := func(s *corev1.Service) *metav1.Condition { return &s.Status.Conditions[1] }
	for name, test := range map[string]struct {
		update [2]any
		want   bool
	}{
		"a resync": {update: [2]any{fullPod(), fullPod()}, want: true},

		"a Node's heartbeat":                {update: changed(fullNode, func(n *corev1.Node) { n.Status.Conditions[1].LastHeartbeatTime = metav1.Now() })},
		"a Node's images":                   {update: changed(fullNode, func(n *corev1.Node) { n.Status.Images = nil })},
		"a cordon":                          {update: changed(fullNode, func(n *corev1.Node) { n.Spec.Unschedulable = false })},
		"an annotation of others":           {update: changed(fullNode, func(n *corev1.Node) { n.Annotations["example.com/note"] = "new" })},
		"a Node's readiness":                {update: changed(fullNode, func(n *corev1.Node) { n.Status.Conditions[1].Status = corev1.ConditionUnknown }), want: true},
		"a Node's label":                    {update: changed(fullNode, func(n *corev1.Node) { n.Labels["app"] = "y" }), want: true},
		"a Node's address":                  {update: changed(fullNode, func(n *corev1.Node) { n.Status.Addresses = nil }), want: true},
		"a Node's drain":                    {update: changed(fullNode, func(n *corev1.Node) { n.Annotations[v1alpha1.NodeDrain] = "true" }), want: true},
		"a Node being deleted":              {update: changed(fullNode, func(n *corev1.Node) { n.DeletionTimestamp = nil }), want: true},
		"a speaker's report":                {update: changed(fullNode, func(n *corev1.Node) { n.Annotations[v1alpha1.NodeSpeaker] = "new" }), want: true},
		"announcements of others":           {update: changed(fullNode, func(n *corev1.Node) { n.Annotations[v1alpha1.NodeAnnouncements] = "forged" }), want: true},
		"announcements removed":             {update: changed(fullNode, func(n *corev1.Node) { delete(n.Annotations, v1alpha1.NodeAnnouncements) }), want: true},
		"announcements of ours":             {update: changed(fullNode, func(n *corev1.Node) { n.Annotations[v1alpha1.NodeAnnouncements] = "ours" })},
		"announcements of ours, with more":  {update: changed(fullNode, func(n *corev1.Node) { n.Annotations[v1alpha1.NodeAnnouncements] = "ours"; n.Labels = nil }), want: true},
		"a Service's target ports":          {update: changed(fullService, func(s *corev1.Service) { s.Spec.Ports[0].TargetPort.IntVal = 8080 })},
		"a Service's ports":                 {update: changed(fullService, func(s *corev1.Service) { s.Spec.Ports = nil }), want: true},
		"a Service's ipMode":                {update: changed(fullService, func(s *corev1.Service) { s.Status.LoadBalancer.Ingress[0].IPMode = nil })},
		"a Service's type":                  {update: changed(fullService, func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeClusterIP }), want: true},
		"a Service's class":                 {update: changed(fullService, func(s *corev1.Service) { s.Spec.LoadBalancerClass = nil }), want: true},
		"a Service's address":               {update: changed(fullService, func(s *corev1.Service) { s.Status.LoadBalancer.Ingress[0].IP = "203.0.113.2" }), want: true},
		"a Service's traffic policy":        {update: changed(fullService, func(s *corev1.Service) { s.Spec.ExternalTrafficPolicy = "" }), want: true},
		"our condition, edited":             {update: changed(fullService, func(s *corev1.Service) { condition(s).Message = "forged" }), want: true},
		"our condition, removed":            {update: changed(fullService, func(s *corev1.Service) { s.Status.Conditions = s.Status.Conditions[:1] }), want: true},
		"our condition, by us":              {update: changed(fullService, func(s *corev1.Service) { condition(s).Message = "ours" })},
		"our condition, by us, with more":   {update: changed(fullService, func(s *corev1.Service) { condition(s).Message = "ours"; s.Status.LoadBalancer.Ingress = nil }), want: true},
		"an endpoint's address":             {update: changed(fullSlice, func(s *discoveryv1.EndpointSlice) { s.Endpoints[0].Addresses = nil; s.Generation++ })},
		"an endpoint's readiness":           {update: changed(fullSlice, func(s *discoveryv1.EndpointSlice) { s.Endpoints[0].Conditions.Ready = ptr.To(false) }), want: true},
		"an endpoint's node":                {update: changed(fullSlice, func(s *discoveryv1.EndpointSlice) { s.Endpoints[0].NodeName = ptr.To("other") }), want: true},
		"a speaker Pod's probe":             {update: changed(fullPod, func(p *corev1.Pod) { p.Status.Conditions[1].LastProbeTime = metav1.Now() })},
		"a speaker Pod's readiness":         {update: changed(fullPod, func(p *corev1.Pod) { p.Status.Conditions[1].Status = corev1.ConditionFalse }), want: true},
		"a speaker Pod's end":               {update: changed(fullPod, func(p *corev1.Pod) { p.DeletionTimestamp = ptr.To(metav1.Unix(3e9, 0)) }), want: true},
		"an AddressPool's status":           {update: changed(fullPool, func(p *v1alpha1.AddressPool) { p.Status.Allocated = "1" })},
		"an AddressPool's finalizers":       {update: changed(fullPool, func(p *v1alpha1.AddressPool) { p.Finalizers = []string{v1alpha1.PoolInUse} })},
		"an AddressPool's deletion":         {update: changed(fullPool, func(p *v1alpha1.AddressPool) { p.DeletionTimestamp = ptr.To(metav1.Unix(3e9, 0)) }), want: true},
		"an AddressPool's addresses":        {update: changed(fullPool, func(p *v1alpha1.AddressPool) { p.Spec.Addresses = nil }), want: true},
		"a BGPPeer's status":                {update: changed(fullPeer, func(p *v1alpha1.BGPPeer) { p.Status.Established = 1 })},
		"a BGPPeer's address":               {update: changed(fullPeer, func(p *v1alpha1.BGPPeer) { p.Spec.PeerAddress = "192.0.2.2" }), want: true},
		"a write that changes only version": {update: changed(fullService, func(*corev1.Service) {})},
	} {
		t.Run(name, func(t *testing.T) {
			wrote := ours{
				program: func(n *corev1.Node) bool { return n.Annotations[v1alpha1.NodeAnnouncements] == "ours" },
				condition: func(s *corev1.Service) bool {
					return len(s.Status.Conditions) > 1 && condition(s).Message == "ours"
				},
			}
			var reduced, copies [2]any
			for i, object := range test.update {
				reduced[i], _ = reduce(object)
				copies[i] = deepCopy(reduced[i])
			}
			if got := wrote.matters(reduced[0], reduced[1]); got != test.want {
				t.Errorf("matters: %t; want %t", got, test.want)
			}
			if diff := cmp.Diff(copies, reduced); diff != "" {
				t.Errorf("the cache was changed:\n%s", diff)
			}
		})
	}
}

func deepCopy(object any) any {
	switch o := object.(type) {
	case *corev1.Node:
		return o.DeepCopy()
	case *corev1.Service:
		return o.DeepCopy()
	}
	return object
}

// TestDue: what of a cluster's life has to be planned, and how soon.
func TestDue(t *testing.T) {
	lb, err := lbclient.New(&rest.Config{Host: "http://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	objects := newObjects(fake.NewClientset(), lb, "speakers")
	add := func(to cache.SharedIndexInformer, object any) {
		t.Helper()
		if err := to.GetStore().Add(object); err != nil {
			t.Fatal(err)
		}
	}
	service := func(name string, change func(*corev1.Service)) *corev1.Service {
		svc := serviceAt(1, name)
		svc.Spec.Type = corev1.ServiceTypeLoadBalancer
		svc.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "203.0.113.1"}}
		change(svc)
		add(objects.services, svc)
		return svc
	}
	slice := func(service string) *discoveryv1.EndpointSlice {
		return &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: service, Labels: map[string]string{discoveryv1.LabelServiceName: service}}}
	}
	local := func(s *corev1.Service) { s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal }
	pending := func(s *corev1.Service) { s.Status.LoadBalancer.Ingress = nil }
	for name, test := range map[string]struct {
		object any
		want   due
	}{
		"announced":                            {service("announced", func(*corev1.Service) {}), dueNow},
		"pending":                              {service("pending", pending), dueSoon},
		"internal":                             {service("internal", func(s *corev1.Service) { pending(s); s.Spec.Type = corev1.ServiceTypeClusterIP }), dueNever},
		"internal, with a condition":           {service("was", func(s *corev1.Service) { pending(s); s.Spec.Type = ""; s.Status.Conditions = []metav1.Condition{{}} }), dueSoon},
		"a Pod of a local one":                 {slice(service("local", local).Name), dueNow},
		"a Pod of a local one that is pending": {slice(service("local-pending", func(s *corev1.Service) { local(s); pending(s) }).Name), dueSoon},
		"a Pod of another one":                 {slice("announced"), dueNever},
		"a Pod of an internal one":             {slice("internal"), dueNever},
		"a Pod of none that is known":          {slice("unknown"), dueNever},
		"endpoints of nothing":                 {&discoveryv1.EndpointSlice{}, dueNever},
		"a node":                               {nodeAt("1", "a"), dueNow},
		"what was deleted unseen":              {cache.DeletedFinalStateUnknown{Obj: slice("unknown")}, dueNow},
	} {
		if got := objects.due(test.object); got != test.want {
			t.Errorf("%s: %d, want %d", name, got, test.want)
		}
	}
	const report = `{"version":"v1","formats":[1],"epoch":7,"hears":["a"]}`
	reports := func(text string, change func(*corev1.Node)) *corev1.Node {
		n := nodeAt("1", "b", "program")
		n.Annotations[v1alpha1.NodeSpeaker] = text
		change(n)
		return n
	}
	for name, test := range map[string]struct {
		text   string
		change func(*corev1.Node)
		want   due
	}{
		"another one heard":             {text: `{"version":"v1","formats":[1],"epoch":7,"hears":["c"]}`, want: dueSoon},
		"nobody heard":                  {text: `{"version":"v1","formats":[1],"epoch":7}`, want: dueSoon},
		"another epoch":                 {text: `{"version":"v1","formats":[1],"epoch":8,"hears":["a"]}`, want: dueNow},
		"nobody heard, another epoch":   {text: `{"version":"v1","formats":[1],"epoch":8}`, want: dueNow},
		"nobody heard, and a takeover":  {text: `{"version":"v1","formats":[1],"epoch":7,"takeovers":[{"term":1,"addresses":["203.0.113.1"]}]}`, want: dueNow},
		"nobody heard, not forwarding":  {text: `{"version":"v1","formats":[1],"epoch":7,"notForwarding":"503"}`, want: dueNow},
		"what cannot be read":           {text: `{`, want: dueNow},
		"nobody heard, and a new label": {text: `{"version":"v1","formats":[1],"epoch":7}`, change: func(n *corev1.Node) { n.Labels = map[string]string{"a": "b"} }, want: dueNow},
		"drained":                       {text: report, change: func(n *corev1.Node) { n.Annotations[v1alpha1.NodeDrain] = "true" }, want: dueNow},
	} {
		before := reports(report, func(*corev1.Node) {})
		after := reports(test.text, func(n *corev1.Node) {
			n.ResourceVersion = "2"
			if test.change != nil {
				test.change(n)
			}
		})
		if got := objects.dueAfter(before, after); got != test.want {
			t.Errorf("a report, %s: %d, want %d", name, got, test.want)
		}
	}
	add(objects.pools, &v1alpha1.AddressPool{ObjectMeta: metav1.ObjectMeta{Name: "main"}, Spec: v1alpha1.AddressPoolSpec{NextHops: v1alpha1.NextHopsWithEndpoints}})
	for name, want := range map[string]due{"announced": dueNow, "internal": dueNever} {
		if got := objects.due(slice(name)); got != want {
			t.Errorf("a Pod of the %s one, where endpoints always matter: %d, want %d", name, got, want)
		}
	}
}
