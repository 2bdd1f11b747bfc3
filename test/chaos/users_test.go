package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/utils/ptr"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/cluster"
)

// Who and what there is. Few of each meet more often.
var (
	namespaces   = []string{"default", "other"}
	services     = []string{"s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9"}
	applications = []string{"app0", "app1"}
	ports        = []int32{80, 443, 8080}
	shareKeys    = []string{"", "red", "green"}
	protocols    = []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP}
	policies     = []corev1.IPFamilyPolicy{corev1.IPFamilyPolicySingleStack, corev1.IPFamilyPolicyPreferDualStack, corev1.IPFamilyPolicyRequireDualStack}
	requested    = []string{"", "", "203.0.113.2", "203.0.113.20", "203.0.113.20,203.0.113.21", "192.0.2.201", "198.51.100.77", "no address"}
	externals    = []string{"203.0.113.130", "203.0.113.131"}
	sharingModes = []string{"Never", "Key", "KeyAnyNamespace", "Ports"}
	// stableNode keeps its labels, and the Pod of the Service that nobody touches.
	stableNode  = "node1"
	otherNodes  = []string{"node2", "node3"}
	annotations = []string{v1alpha1.ServicePool, v1alpha1.ServiceAddresses, v1alpha1.ServiceShareKey, v1alpha1.ServiceProtocol}
)

// mark is the label of the users' Services.
const mark = "chaos"

// poolPlan is an AddressPool, with the sizes that it may have.
type poolPlan struct {
	name  string
	sizes []string
	spec  string // its other fields
}

var poolPlans = []poolPlan{
	{"big", []string{`["203.0.113.0/27", "2001:db8:100::/120"]`, `["203.0.113.0/28", "2001:db8:100::/124"]`, `["203.0.113.16/28"]`}, `"priority": 1`},
	{"small", []string{`["203.0.113.64/30"]`, `["203.0.113.64"]`}, `"priority": 2`},
	{"lan", []string{`["192.0.2.200-192.0.2.210", "2001:db8:2::2:0/120"]`, `["192.0.2.200-192.0.2.203"]`}, `"protocols": ["Layer2"]`},
	{"both", []string{`["203.0.113.96/29"]`}, `"protocols": ["BGP"], "autoAssign": false, "sharing": "Ports"`},
	{"external", []string{`["203.0.113.128/29"]`}, `"autoAssign": false, "allowExternalIPs": true`},
}

// users change Services, what is behind them, pools and nodes.
type users struct {
	cluster *cluster.Cluster
	pools   dynamic.ResourceInterface
	rng     *rand.Rand
	done    tally
	// off is a node that is excluded or draining, if any: one at a time.
	off string
}

// change is something that a user does. A row that is not to be done is left out
// by a weight of 0.
type change struct {
	name  string
	often int
	apply func(*users, context.Context) error
}

func (c change) weight() int { return c.often }

var changes = []change{
	{"create a Service", 14, (*users).create},
	{"delete a Service", 6, (*users).delete},
	{"edit ports", 4, edit(func(u *users, s *corev1.Service) { s.Spec.Ports = u.ports() })},
	{"edit the type", 3, edit((*users).switchType)},
	{"edit the traffic policy", 4, edit((*users).switchPolicy)},
	{"edit the selector", 1, edit(func(u *users, s *corev1.Service) { s.Spec.Selector = u.selector() })},
	{"request addresses", 4, edit(func(u *users, s *corev1.Service) { annotate(s, v1alpha1.ServiceAddresses, pick(u.rng, requested)) })},
	{"request by spec.loadBalancerIP", 2, edit(func(u *users, s *corev1.Service) {
		s.Spec.LoadBalancerIP = pick(u.rng, []string{"", "203.0.113.3", "203.0.113.20"})
	})},
	{"edit the share-key", 5, edit(func(u *users, s *corev1.Service) { annotate(s, v1alpha1.ServiceShareKey, pick(u.rng, shareKeys)) })},
	{"name a pool", 3, edit(func(u *users, s *corev1.Service) {
		annotate(s, v1alpha1.ServicePool, pick(u.rng, []string{"", "big", "small", "lan", "both", "none"}))
	})},
	{"name a protocol", 2, edit(func(u *users, s *corev1.Service) {
		annotate(s, v1alpha1.ServiceProtocol, pick(u.rng, []string{"", "BGP", "Layer2"}))
	})},
	{"edit the family policy", 4, edit(func(u *users, s *corev1.Service) { s.Spec.IPFamilyPolicy = ptr.To(pick(u.rng, policies)) })},
	{"edit external addresses", 2, edit((*users).switchExternals)},
	{"take all requests back", 3, edit((*users).plain)},

	{"scale an application", 3, (*users).scale},
	{"move an application", 2, (*users).move},

	{"resize a pool", 4, (*users).resize},
	{"disable or enable a pool", 2, patch(func(u *users) string { return fmt.Sprintf(`"disabled": %t`, u.rng.IntN(3) == 0) })},
	{"edit a pool's priority", 2, patch(func(u *users) string { return fmt.Sprintf(`"priority": %d`, u.rng.IntN(4)) })},
	{"edit a pool's sharing", 3, patch(func(u *users) string { return fmt.Sprintf(`"sharing": %q`, pick(u.rng, sharingModes)) })},
	{"delete a pool", 1, (*users).deletePool},
	{"create a pool", 3, (*users).createPool},

	{"exclude or drain a node", 2, (*users).nodeOff},
	{"let a node return", 2, (*users).nodeOn},
}

func newUsers(t *testing.T, c *cluster.Cluster, rng *rand.Rand) *users {
	t.Helper()
	config, err := c.RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	u := &users{cluster: c, pools: client.Resource(v1alpha1.AddressPoolResource), rng: rng, done: make(tally)}
	c.Apply(t, "apiVersion: v1\nkind: Namespace\nmetadata: {name: other}\n")
	for _, p := range poolPlans {
		c.Apply(t, p.manifest(p.sizes[0]))
	}
	for i, name := range applications {
		c.Deploy(t, name, 1, otherNodes[i%len(otherNodes)])
	}
	return u
}

func (p *poolPlan) manifest(addresses string) string {
	return fmt.Sprintf(`{"apiVersion": "lb.baremetal.dev/v1alpha1", "kind": "AddressPool", "metadata": {"name": %q}, "spec": {"addresses": %s, %s}}`+"\n",
		p.name, addresses, p.spec)
}

// run changes things until the context ends. What the API server refuses, or what
// somebody else was quicker with, is counted and no error: users do such things.
func (u *users) run(ctx context.Context) error {
	for pause(ctx, between(u.rng, 20*time.Millisecond, 500*time.Millisecond)) {
		c := choose(u.rng, changes)
		changing, cancel := context.WithTimeout(ctx, 3*time.Second)
		err := c.apply(u, changing)
		cancel()
		u.done.add(c.name, err)
	}
	return nil
}

func (u *users) log(t *testing.T) { t.Logf("changes: %s", u.done) }

var errNothing = errors.New("nothing to change")

// service is a random Service of the users.
func (u *users) service(ctx context.Context) (*corev1.Service, error) {
	list, err := u.cluster.Client.CoreV1().Services("").List(ctx, metav1.ListOptions{LabelSelector: mark})
	switch {
	case err != nil:
		return nil, err
	case len(list.Items) == 0:
		return nil, errNothing
	}
	return &list.Items[u.rng.IntN(len(list.Items))], nil
}

// edit is a change of a random Service.
func edit(how func(*users, *corev1.Service)) func(*users, context.Context) error {
	return func(u *users, ctx context.Context) error {
		s, err := u.service(ctx)
		if err != nil {
			return err
		}
		how(u, s)
		_, err = u.cluster.Client.CoreV1().Services(s.Namespace).Update(ctx, s, metav1.UpdateOptions{})
		return err
	}
}

func (u *users) create(ctx context.Context) error {
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: pick(u.rng, namespaces), Name: pick(u.rng, services), Labels: map[string]string{mark: ""}},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeLoadBalancer, Selector: u.selector(), Ports: u.ports(),
			IPFamilyPolicy: ptr.To(pick(u.rng, policies)),
		},
	}
	annotate(s, v1alpha1.ServiceShareKey, pick(u.rng, shareKeys))
	if u.rng.IntN(4) == 0 {
		annotate(s, v1alpha1.ServiceAddresses, pick(u.rng, requested))
	}
	if u.rng.IntN(5) == 0 {
		s.Spec.LoadBalancerClass = ptr.To(v1alpha1.LoadBalancerClass)
	}
	if u.rng.IntN(3) == 0 {
		s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	}
	_, err := u.cluster.Client.CoreV1().Services(s.Namespace).Create(ctx, s, metav1.CreateOptions{})
	return err
}

func (u *users) delete(ctx context.Context) error {
	s, err := u.service(ctx)
	if err != nil {
		return err
	}
	return u.cluster.Client.CoreV1().Services(s.Namespace).Delete(ctx, s.Name, metav1.DeleteOptions{})
}

func (u *users) selector() map[string]string {
	return map[string]string{"app": pick(u.rng, applications)}
}

func (u *users) ports() []corev1.ServicePort {
	n := 1 + u.rng.IntN(2)
	var list []corev1.ServicePort
	for i, at := range u.rng.Perm(len(ports))[:n] {
		list = append(list, corev1.ServicePort{Name: fmt.Sprintf("p%d", i), Protocol: pick(u.rng, protocols), Port: ports[at]})
	}
	return list
}

func annotate(s *corev1.Service, key, value string) {
	if value == "" {
		delete(s.Annotations, key)
		return
	}
	if s.Annotations == nil {
		s.Annotations = make(map[string]string)
	}
	s.Annotations[key] = value
}

func (u *users) switchType(s *corev1.Service) {
	if s.Spec.Type != corev1.ServiceTypeLoadBalancer {
		s.Spec.Type = corev1.ServiceTypeLoadBalancer
		return
	}
	s.Spec.Type = corev1.ServiceTypeClusterIP
	s.Spec.ExternalTrafficPolicy, s.Spec.HealthCheckNodePort = "", 0
	s.Spec.LoadBalancerClass, s.Spec.AllocateLoadBalancerNodePorts = nil, nil
	for i := range s.Spec.Ports {
		s.Spec.Ports[i].NodePort = 0
	}
}

func (u *users) switchPolicy(s *corev1.Service) {
	switch s.Spec.ExternalTrafficPolicy {
	case corev1.ServiceExternalTrafficPolicyLocal:
		s.Spec.ExternalTrafficPolicy, s.Spec.HealthCheckNodePort = corev1.ServiceExternalTrafficPolicyCluster, 0
	case corev1.ServiceExternalTrafficPolicyCluster:
		s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	}
}

func (u *users) switchExternals(s *corev1.Service) {
	if len(s.Spec.ExternalIPs) > 0 {
		s.Spec.ExternalIPs = nil
		return
	}
	s.Spec.ExternalIPs = []string{pick(u.rng, externals)}
}

// plain takes back what a Service asks for, but for its families.
func (u *users) plain(s *corev1.Service) {
	for _, key := range annotations {
		delete(s.Annotations, key)
	}
	s.Spec.LoadBalancerIP, s.Spec.ExternalIPs = "", nil
}

func (u *users) patchDeployment(ctx context.Context, spec string) error {
	_, err := u.cluster.Client.AppsV1().Deployments("default").Patch(ctx, pick(u.rng, applications), types.MergePatchType, []byte(spec), metav1.PatchOptions{})
	return err
}

func (u *users) scale(ctx context.Context) error {
	return u.patchDeployment(ctx, fmt.Sprintf(`{"spec": {"replicas": %d}}`, u.rng.IntN(3)))
}

func (u *users) move(ctx context.Context) error {
	node := pick(u.rng, append(otherNodes, stableNode))
	return u.patchDeployment(ctx, fmt.Sprintf(`{"spec": {"template": {"spec": {"nodeSelector": {"kubernetes.io/hostname": %q}}}}}`, node))
}

func (u *users) patchPool(ctx context.Context, name, fields string) error {
	_, err := u.pools.Patch(ctx, name, types.MergePatchType, []byte(`{"spec": {`+fields+`}}`), metav1.PatchOptions{})
	return err
}

// patch is a change of fields of a random pool.
func patch(fields func(*users) string) func(*users, context.Context) error {
	return func(u *users, ctx context.Context) error {
		return u.patchPool(ctx, pick(u.rng, poolPlans).name, fields(u))
	}
}

func (u *users) resize(ctx context.Context) error {
	p := pick(u.rng, poolPlans)
	return u.patchPool(ctx, p.name, `"addresses": `+pick(u.rng, p.sizes))
}

func (u *users) deletePool(ctx context.Context) error {
	return u.pools.Delete(ctx, pick(u.rng, poolPlans).name, metav1.DeleteOptions{})
}

func (u *users) createPool(ctx context.Context) error {
	p := pick(u.rng, poolPlans)
	_, err := u.cluster.KubectlStdin(ctx, strings.NewReader(p.manifest(pick(u.rng, p.sizes))), "create", "-f", "-")
	return err
}

func (u *users) nodeOff(ctx context.Context) error {
	if u.off != "" {
		return errNothing
	}
	node := pick(u.rng, otherNodes)
	metadata := map[string]any{"labels": map[string]string{corev1.LabelNodeExcludeBalancers: ""}}
	if u.rng.IntN(2) == 0 {
		metadata = map[string]any{"annotations": map[string]string{v1alpha1.NodeDrain: "true"}}
	}
	err := u.patchNode(ctx, node, metadata)
	if err == nil {
		u.off = node
	}
	return err
}

func (u *users) nodeOn(ctx context.Context) error {
	if u.off == "" {
		return errNothing
	}
	err := u.patchNode(ctx, u.off, map[string]any{
		"labels":      map[string]any{corev1.LabelNodeExcludeBalancers: nil},
		"annotations": map[string]any{v1alpha1.NodeDrain: nil},
	})
	if err == nil {
		u.off = ""
	}
	return err
}

func (u *users) patchNode(ctx context.Context, name string, metadata map[string]any) error {
	text, err := json.Marshal(map[string]any{"metadata": metadata})
	if err != nil {
		return err
	}
	_, err = u.cluster.Client.CoreV1().Nodes().Patch(ctx, name, types.MergePatchType, text, metav1.PatchOptions{})
	return err
}

// heal brings back nodes, pools and applications; Services stay as they are.
func (u *users) heal(t *testing.T) {
	t.Helper()
	u.cluster.Invariants.Note("users end")
	ctx := cluster.Context(t)
	// A request that timed out may have been served.
	for _, node := range otherNodes {
		u.off = node
		if err := u.nodeOn(ctx); err != nil {
			t.Fatal(err)
		}
	}
	for i, name := range applications {
		u.cluster.Deploy(t, name, 1, otherNodes[i%len(otherNodes)])
	}
	for _, p := range poolPlans {
		if err := u.healPool(ctx, &p); err != nil {
			t.Fatalf("AddressPool %s: %v", p.name, err)
		}
	}
}

// healPool makes a pool as large as it may be. One that is being deleted stays as
// it is: it goes with its Services.
func (u *users) healPool(ctx context.Context, p *poolPlan) error {
	object, err := u.pools.Get(ctx, p.name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		_, err = u.cluster.KubectlStdin(ctx, strings.NewReader(p.manifest(p.sizes[0])), "create", "-f", "-")
		return err
	case err != nil || object.GetDeletionTimestamp() != nil:
		return err
	}
	return u.patchPool(ctx, p.name, fmt.Sprintf(`"addresses": %s, "disabled": false`, p.sizes[0]))
}

// deleteAll deletes all Services with a load balancer, and waits until they are
// gone.
func (u *users) deleteAll(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), healTime)
	defer cancel()
	names := append(slices.Clone(services), "stable")
	client := u.cluster.Client.CoreV1()
	for _, namespace := range namespaces {
		for _, name := range names {
			if err := client.Services(namespace).Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
				t.Error(err)
			}
		}
	}
	err := u.cluster.WaitFor(ctx, "all Services are gone", func(ctx context.Context) (bool, error) {
		list, err := client.Services("").List(ctx, metav1.ListOptions{})
		if err != nil {
			return false, err
		}
		for _, s := range list.Items {
			if slices.Contains(names, s.Name) {
				return false, fmt.Errorf("%s/%s is left, with finalizers %v", s.Namespace, s.Name, s.Finalizers)
			}
		}
		return true, nil
	})
	if err != nil {
		t.Error(err)
	}
}
