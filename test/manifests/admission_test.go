package manifests

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/apiserver/pkg/admission"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/cel/environment"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

// compile does what the API server does with a policy, in the environment of
// 1.30: a 1.31 server, the oldest served, compiles new policies with that.
func compile(t *testing.T, policy admissionregistrationv1.ValidatingAdmissionPolicy) validating.Validator {
	t.Helper()
	compiler, err := plugincel.NewCompositedCompiler(environment.MustBaseEnvSet(version.MajorMinor(1, 30)))
	if err != nil {
		t.Fatal(err)
	}
	options := plugincel.OptionalVariableDeclarations{HasAuthorizer: true}
	check := func(accessor plugincel.ExpressionAccessor) {
		if result := compiler.CompileCELExpression(accessor, options, environment.NewExpressions); result.Error != nil {
			t.Errorf("%s: %s: %v", policy.Name, accessor.GetExpression(), result.Error)
		}
	}
	for _, variable := range policy.Spec.Variables {
		accessor := &validating.Variable{Name: variable.Name, Expression: variable.Expression}
		check(accessor)
		compiler.CompileAndStoreVariable(accessor, options, environment.NewExpressions)
	}
	var matches, validations, messages []plugincel.ExpressionAccessor
	for i := range policy.Spec.MatchConditions {
		matches = append(matches, (*matchconditions.MatchCondition)(&policy.Spec.MatchConditions[i]))
	}
	for _, validation := range policy.Spec.Validations {
		validations = append(validations, &validating.ValidationCondition{Expression: validation.Expression, Message: validation.Message, Reason: validation.Reason})
		if validation.MessageExpression == "" {
			messages = append(messages, nil)
			continue
		}
		messages = append(messages, &validating.MessageExpressionCondition{MessageExpression: validation.MessageExpression})
		check(messages[len(messages)-1])
	}
	for _, accessor := range append(matches, validations...) {
		check(accessor)
	}
	condition := func(accessors []plugincel.ExpressionAccessor) plugincel.ConditionEvaluator {
		return compiler.CompileCondition(accessors, options, environment.NewExpressions)
	}
	return validating.NewValidator(condition(validations),
		matchconditions.NewMatcher(condition(matches), policy.Spec.FailurePolicy, "policy", "validate", policy.Name),
		condition(nil), condition(messages), policy.Spec.FailurePolicy, nil)
}

type compiledPolicy struct {
	admissionregistrationv1.ValidatingAdmissionPolicy
	validating.Validator
}

// installations are the directories that install policies, with those whose
// files they take.
var installations = map[string][]string{
	"base":                      {"base"},
	"overlays/initialize-nodes": {"base", "overlays/initialize-nodes"},
}

// policies are those that an installation has and a binding denies with, by name.
// A policy of an overlay takes the place of that of the base.
func policies(t *testing.T, installation string) map[string]admissionregistrationv1.ValidatingAdmissionPolicy {
	t.Helper()
	all := map[string]admissionregistrationv1.ValidatingAdmissionPolicy{}
	bound := map[string]bool{}
	for _, directory := range installations[installation] {
		for _, obj := range load(t) {
			if filepath.Dir(obj.file) != filepath.Join(root, directory) {
				continue
			}
			switch obj.GetKind() {
			case "ValidatingAdmissionPolicy":
				policy := decode[admissionregistrationv1.ValidatingAdmissionPolicy](t, obj)
				all[policy.Name] = policy
			case "ValidatingAdmissionPolicyBinding":
				binding := decode[admissionregistrationv1.ValidatingAdmissionPolicyBinding](t, obj)
				if slices.Contains(binding.Spec.ValidationActions, admissionregistrationv1.Deny) {
					bound[binding.Spec.PolicyName] = true
				}
			}
		}
	}
	if len(all) != 5 {
		t.Errorf("%s has %d policies", installation, len(all))
	}
	for name, policy := range all {
		if !bound[name] {
			t.Errorf("no binding denies with %s", name)
		}
		if policy.Spec.FailurePolicy == nil || *policy.Spec.FailurePolicy != admissionregistrationv1.Fail {
			t.Errorf("%s: failurePolicy %v", name, policy.Spec.FailurePolicy)
		}
	}
	return all
}

// compiled are the policies of an installation.
func compiled(t *testing.T, installation string) []compiledPolicy {
	t.Helper()
	var all []compiledPolicy
	for _, policy := range policies(t, installation) {
		all = append(all, compiledPolicy{policy, compile(t, policy)})
	}
	return all
}

func serviceAccount(name, node string) user.Info {
	info := &user.DefaultInfo{
		Name:   "system:serviceaccount:" + v1alpha1.DefaultNamespace + ":" + name,
		Groups: []string{"system:serviceaccounts", "system:authenticated"},
	}
	if node != "" {
		info.Extra = map[string][]string{"authentication.kubernetes.io/node-name": {node}}
	}
	return info
}

// TestAdmissionPolicies is about what is the same in all installations.
func TestAdmissionPolicies(t *testing.T) {
	for installation := range installations {
		t.Run(installation, func(t *testing.T) { testAdmissionPolicies(t, compiled(t, installation)) })
	}
}

func testAdmissionPolicies(t *testing.T, compiled []compiledPolicy) {
	var (
		speaker   = serviceAccount("baremetal-speaker", "node1")
		elsewhere = serviceAccount("baremetal-speaker", "node2")
		unbound   = serviceAccount("baremetal-speaker", "")
		manager   = serviceAccount("baremetal-cloud-controller-manager", "node1")
		kubelet   = &user.DefaultInfo{Name: "system:node:node1", Groups: []string{"system:nodes", "system:authenticated"}}
		admin     = &user.DefaultInfo{Name: "admin", Groups: []string{"system:masters"}}
	)
	annotate := func(key, value string) func(*corev1.Node) {
		return func(node *corev1.Node) { metav1.SetMetaDataAnnotation(&node.ObjectMeta, key, value) }
	}
	none := func(*corev1.Node) {}
	managedFields := func(node *corev1.Node) {
		node.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "x"}}
		node.ResourceVersion = "7"
	}
	label := func(node *corev1.Node) { metav1.SetMetaDataLabel(&node.ObjectMeta, "a", "b") }
	taint := func(node *corev1.Node) {
		node.Spec.Taints = []corev1.Taint{{Key: "a", Effect: corev1.TaintEffectNoExecute}}
	}
	cordon := func(node *corev1.Node) { node.Spec.Unschedulable = true }
	finalizer := func(node *corev1.Node) { node.Finalizers = []string{"a/b"} }
	owner := func(node *corev1.Node) { node.OwnerReferences = []metav1.OwnerReference{{Name: "x"}} }
	status := func(node *corev1.Node) { node.Status.NodeInfo.KubeletVersion = "v1" }
	forget := func(key string) func(*corev1.Node) {
		return func(node *corev1.Node) { delete(node.Annotations, key) }
	}

	for _, test := range []struct {
		name   string
		who    user.Info
		change func(*corev1.Node)
		want   string // in the message, or "" for allowed
	}{
		{"own report", speaker, annotate(v1alpha1.NodeSpeaker, "new"), ""},
		{"own report with managed fields", speaker, managedFields, ""},
		{"no change", speaker, none, ""},
		{"removes its report", speaker, forget(v1alpha1.NodeSpeaker), ""},
		{"other node", elsewhere, annotate(v1alpha1.NodeSpeaker, "new"), "the speaker on node node2 may not change node node1"},
		{"token without a node", unbound, annotate(v1alpha1.NodeSpeaker, "new"), "the speaker's token names no node"},
		{"program", speaker, annotate(v1alpha1.NodeAnnouncements, "new"), "a speaker may change the annotation lb.baremetal.dev/speaker of a node, not lb.baremetal.dev/announcements"},
		{"removes the program", speaker, forget(v1alpha1.NodeAnnouncements), "not lb.baremetal.dev/announcements"},
		{"changes another annotation", speaker, annotate("example.com/other", "new"), "not example.com/other"},
		{"adds another annotation", speaker, annotate("example.com/more", "new"), "not example.com/more"},
		{"removes another annotation", speaker, forget("example.com/other"), "not example.com/other"},
		{"removes all annotations", speaker, func(node *corev1.Node) { node.Annotations = nil }, "not "},
		{"large report", speaker, annotate(v1alpha1.NodeSpeaker, strings.Repeat("x", 49153)), "larger than 48 KiB"},
		{"label", speaker, label, "a speaker may not change labels of a node"},
		{"taint", speaker, taint, "a speaker may not change spec"},
		{"cordon", speaker, cordon, "a speaker may not change spec"},
		{"finalizer", speaker, finalizer, "a speaker may not change finalizers"},
		{"owner", speaker, owner, "a speaker may not change ownerReferences"},
		{"status", speaker, status, "a speaker may not change status"},

		{"program", manager, annotate(v1alpha1.NodeAnnouncements, "new"), ""},
		{"removes the program", manager, forget(v1alpha1.NodeAnnouncements), ""},
		{"report", manager, annotate(v1alpha1.NodeSpeaker, "new"), "the cloud-controller-manager may change the annotation lb.baremetal.dev/announcements of a node, not lb.baremetal.dev/speaker"},
		{"drain", manager, annotate(v1alpha1.NodeDrain, "true"), "not lb.baremetal.dev/drain"},
		{"label", manager, label, "the cloud-controller-manager may not change labels"},
		{"taint", manager, taint, "the cloud-controller-manager may not change spec"},
		{"status", manager, status, "the cloud-controller-manager may not change status"},

		{"program", kubelet, annotate(v1alpha1.NodeAnnouncements, "new"), "a kubelet may not change the annotation lb.baremetal.dev/announcements of node node1"},
		{"removes the program", kubelet, forget(v1alpha1.NodeAnnouncements), "a kubelet may not change"},
		{"other annotation", kubelet, annotate("example.com/other", "new"), ""},
		{"status", kubelet, status, ""},
		{"program", admin, annotate(v1alpha1.NodeAnnouncements, "new"), ""},
	} {
		for _, subresource := range []string{"", "status"} {
			old := &corev1.Node{
				TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
				ObjectMeta: metav1.ObjectMeta{
					Name: "node1",
					Annotations: map[string]string{
						v1alpha1.NodeSpeaker: "old", v1alpha1.NodeAnnouncements: "old", "example.com/other": "old",
					},
				},
			}
			updated := old.DeepCopy()
			test.change(updated)
			got := decide(t, compiled, test.who, admission.Update, subresource, updated, old)
			checkDecision(t, test.who.GetName()+": "+test.name+" "+subresource, got, test.want)
		}
	}

	// Nodes whose fields are all absent.
	bare := &corev1.Node{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"}, ObjectMeta: metav1.ObjectMeta{Name: "node1"}}
	reported := bare.DeepCopy()
	annotate(v1alpha1.NodeSpeaker, "first")(reported)
	checkDecision(t, "first report", decide(t, compiled, speaker, admission.Update, "", reported, bare), "")

	// A kubelet may register its Node, but not with a program.
	checkDecision(t, "register", decide(t, compiled, kubelet, admission.Create, "", bare, nil), "")
	forged := bare.DeepCopy()
	annotate(v1alpha1.NodeAnnouncements, "forged")(forged)
	checkDecision(t, "register with a program", decide(t, compiled, kubelet, admission.Create, "", forged, nil), "a kubelet may not change")
}

// decide lets all policies for Nodes judge and returns the messages of those that
// deny.
func decide(t *testing.T, compiled []compiledPolicy, who user.Info, operation admission.Operation, subresource string, object, old *corev1.Node) []string {
	t.Helper()
	gvk := corev1.SchemeGroupVersion.WithKind("Node")
	gvr := corev1.SchemeGroupVersion.WithResource("nodes")
	versioned := &admission.VersionedAttributes{VersionedKind: gvk, VersionedObject: object}
	var oldObject runtime.Object
	if old != nil {
		oldObject = old
		versioned.VersionedOldObject = old
	}
	versioned.Attributes = admission.NewAttributesRecord(object, oldObject, gvk, "", object.Name, gvr, subresource, operation, nil, false, who)
	var denials []string
	for _, policy := range compiled {
		if !operates(policy.ValidatingAdmissionPolicy, operation, gvr.Resource) {
			continue
		}
		result := policy.Validate(t.Context(), gvr, versioned, nil, nil, celconfig.RuntimeCELCostBudget, nil)
		for _, decision := range result.Decisions {
			if decision.Action == validating.ActionDeny {
				denials = append(denials, decision.Message)
			}
			if decision.Evaluation == validating.EvalError {
				t.Errorf("%s: %s", policy.Name, decision.Message)
			}
		}
	}
	return denials
}

func operates(policy admissionregistrationv1.ValidatingAdmissionPolicy, operation admission.Operation, resource string) bool {
	for _, rule := range policy.Spec.MatchConstraints.ResourceRules {
		if slices.Contains(rule.Operations, admissionregistrationv1.OperationType(operation)) && slices.Contains(rule.Resources, resource) {
			return true
		}
	}
	return false
}

func checkDecision(t *testing.T, name string, denials []string, want string) {
	t.Helper()
	switch {
	case want == "" && len(denials) > 0:
		t.Errorf("%s: denied: %q", name, denials)
	case want != "" && len(denials) != 1:
		t.Errorf("%s: denied with %q, want one message with %q", name, denials, want)
	case want != "" && !strings.Contains(denials[0], want):
		t.Errorf("%s: denied with %q, want %q", name, denials[0], want)
	}
}

// A policy that matches other resources than those RBAC lets its subject write
// would guard nothing.
func TestPoliciesMatchWhatTheirSubjectsWrite(t *testing.T) {
	for installation := range installations {
		for name, policy := range policies(t, installation) {
			got := map[string]bool{}
			for _, rule := range policy.Spec.MatchConstraints.ResourceRules {
				for _, resource := range rule.Resources {
					got[resource] = true
				}
			}
			want := map[string]bool{"nodes": true, "nodes/status": true}
			switch name {
			case "baremetal-cloud-controller-manager-addresspools":
				want = map[string]bool{"addresspools": true} // a write of their status changes nothing else
			case "baremetal-cloud-controller-manager-secrets":
				want = map[string]bool{"secrets": true}
			}
			if !maps.Equal(got, want) {
				t.Errorf("%s: %s matches %v", installation, name, got)
			}
		}
	}
}
