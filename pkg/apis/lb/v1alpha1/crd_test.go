package v1alpha1_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	crdvalidation "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel/model"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apimachinery/pkg/util/version"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/environment"
	"sigs.k8s.io/yaml"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

// crd is a generated CustomResourceDefinition with what an API server makes of
// it: the same libraries default and validate here as there.
type crd struct {
	definition apiextensions.CustomResourceDefinition
	structural *structuralschema.Structural
	schema     validation.SchemaValidator
	rules      *cel.Validator
}

func loadCRD(t testing.TB, plural string) *crd {
	t.Helper()
	file := filepath.Join("..", "..", "..", "..", "manifests", "crds", v1alpha1.GroupName+"_"+plural+".yaml")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var external apiextensionsv1.CustomResourceDefinition
	if err := yaml.UnmarshalStrict(data, &external); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	apiextensionsv1.SetDefaults_CustomResourceDefinition(&external)
	apiextensionsv1.SetDefaults_CustomResourceDefinitionSpec(&external.Spec)
	external.Status.StoredVersions = []string{v1alpha1.SchemeGroupVersion.Version}

	c := &crd{}
	if err := apiextensionsv1.Convert_v1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(&external, &c.definition, nil); err != nil {
		t.Fatal(err)
	}
	schema := c.definition.Spec.Validation
	if schema == nil {
		schema = c.definition.Spec.Versions[0].Schema
	}
	if c.structural, err = structuralschema.NewStructural(schema.OpenAPIV3Schema); err != nil {
		t.Fatal(err)
	}
	if c.schema, _, err = validation.NewSchemaValidator(schema.OpenAPIV3Schema); err != nil {
		t.Fatal(err)
	}
	c.rules = cel.NewValidator(c.structural, true, celconfig.PerCallLimit)
	return c
}

// create does to obj what creating it would: prune, default, validate.
func (c *crd) create(obj map[string]any) field.ErrorList {
	// As from a client: numbers become int64 and float64.
	data, err := json.Marshal(obj)
	if err != nil {
		return field.ErrorList{field.InternalError(nil, err)}
	}
	clear(obj)
	if err := json.Unmarshal(data, &obj); err != nil {
		return field.ErrorList{field.InternalError(nil, err)}
	}
	convertNumbers(obj)
	if unknown := pruning.PruneWithOptions(obj, c.structural, true, structuralschema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true}); len(unknown) > 0 {
		return field.ErrorList{field.InternalError(nil, fmt.Errorf("unknown fields %q", unknown))}
	}
	defaulting.PruneNonNullableNullsWithoutDefaults(obj, c.structural)
	defaulting.Default(obj, c.structural)
	if errs := validation.ValidateCustomResource(nil, obj, c.schema); len(errs) > 0 {
		return errs
	}
	errs := listtype.ValidateListSetsAndMaps(nil, c.structural, obj)
	celErrs, _ := c.rules.Validate(context.Background(), nil, c.structural, obj, nil, celconfig.RuntimeCELCostBudget)
	return append(errs, celErrs...)
}

func convertNumbers(value any) {
	switch value := value.(type) {
	case map[string]any:
		for key, element := range value {
			if f, ok := element.(float64); ok && f == float64(int64(f)) {
				value[key] = int64(f)
			}
			convertNumbers(element)
		}
	case []any:
		for i, element := range value {
			if f, ok := element.(float64); ok && f == float64(int64(f)) {
				value[i] = int64(f)
			}
			convertNumbers(element)
		}
	}
}

// object is kind "name: test" with a spec of YAML lines.
func object(t testing.TB, kind, spec string) map[string]any {
	t.Helper()
	var parsed map[string]any
	if err := yaml.UnmarshalStrict([]byte(spec), &parsed); err != nil {
		t.Fatalf("%v in:\n%s", err, spec)
	}
	return map[string]any{
		"apiVersion": v1alpha1.SchemeGroupVersion.String(),
		"kind":       kind,
		"metadata":   map[string]any{"name": "test"},
		"spec":       parsed,
	}
}

var plurals = []string{v1alpha1.AddressPoolResource.Resource, v1alpha1.BGPPeerResource.Resource}

// The API server refuses a CRD whose rules do not compile, or whose estimated
// cost is over the budget of a rule or of the CRD.
func TestCRDsAreValid(t *testing.T) {
	for _, plural := range plurals {
		c := loadCRD(t, plural)
		for _, err := range crdvalidation.ValidateCustomResourceDefinition(context.Background(), &c.definition) {
			t.Errorf("%s: %v", plural, err)
		}
	}
}

// A 1.31 server, the oldest served, compiles the rules of a new CRD with what a
// 1.30 server knew, so that a downgrade keeps working: the 1.30 environment is
// the one that counts, the 1.31 one is tested for good measure.
func TestRulesCompileOnOldServers(t *testing.T) {
	for _, minor := range []uint{30, 31} {
		env := environment.MustBaseEnvSet(version.MajorMinor(1, minor))
		for _, plural := range plurals {
			c := loadCRD(t, plural)
			count := 0
			walk(field.NewPath(""), c.structural, func(path *field.Path, s *structuralschema.Structural) {
				if len(s.XValidations) == 0 {
					return
				}
				results, err := cel.Compile(s, model.SchemaDeclType(s, false), celconfig.PerCallLimit, env, cel.NewExpressionsEnvLoader())
				if err != nil {
					t.Fatalf("1.%d: %v: %v", minor, path, err)
				}
				for i, result := range results {
					count++
					if result.Error != nil {
						t.Errorf("1.%d: %v rule %d: %v", minor, path, i, result.Error)
					}
					if result.MessageExpressionError != nil {
						t.Errorf("1.%d: %v messageExpression %d: %v", minor, path, i, result.MessageExpressionError)
					}
				}
			})
			if count == 0 {
				t.Errorf("%s has no rules", plural)
			}
		}
	}
}

func walk(path *field.Path, s *structuralschema.Structural, visit func(*field.Path, *structuralschema.Structural)) {
	visit(path, s)
	for name, property := range s.Properties {
		walk(path.Child(name), &property, visit)
	}
	if s.Items != nil {
		walk(path.Child("[]"), s.Items, visit)
	}
}

// Each rule speaks for itself: the text an API server makes up shows CEL.
func TestRulesHaveMessages(t *testing.T) {
	for _, plural := range plurals {
		walk(field.NewPath(""), loadCRD(t, plural).structural, func(path *field.Path, s *structuralschema.Structural) {
			for _, rule := range s.XValidations {
				if rule.Message == "" {
					t.Errorf("%s %v: no message for %s", plural, path, rule.Rule)
				}
			}
		})
	}
}

// The defaults are those of the API section of the design.
func TestDefaults(t *testing.T) {
	for _, test := range []struct {
		plural, kind, spec, want string
	}{
		{
			"addresspools", "AddressPool", `{addresses: [203.0.113.0/24], layer2: {}, bgp: {advertisements: [{}]}, protocols: [BGP, Layer2]}`, `
addresses: [203.0.113.0/24]
protocols: [BGP, Layer2]
autoAssign: true
disabled: false
avoidBuggyIPs: false
priority: 0
sharing: Key
allowExternalIPs: false
nextHops: All
maxNextHops: 16
drainDelay: 10s
layer2: {}
bgp:
  weighted: false
  advertisements:
  - aggregationLength: 32
    aggregationLengthV6: 128
    localPref: 100
`,
		},
		{
			"addresspools", "AddressPool", `{addresses: [203.0.113.0/24]}`, `
addresses: [203.0.113.0/24]
protocols: [BGP]
autoAssign: true
disabled: false
avoidBuggyIPs: false
priority: 0
sharing: Key
allowExternalIPs: false
nextHops: All
maxNextHops: 16
drainDelay: 10s
`,
		},
		{
			"bgppeers", "BGPPeer", `{localASN: 64512, peerASN: 64500, peerAddress: 192.0.2.1, passwordSecretRef: {name: tor-a}}`, `
localASN: 64512
peerASN: 64500
peerAddress: 192.0.2.1
peerPort: 179
passwordSecretRef: {name: tor-a, key: password}
holdTime: 9s
connectRetryTime: 5s
passive: false
ebgpMultihop: 0
ttlSecurity: false
gracefulRestart: {enabled: true, restartTime: 30s}
bfd: {enabled: false, transmitInterval: 300ms, receiveInterval: 300ms, multiplier: 3, multihop: false}
addressFamilies: [IPv4, IPv6]
addPaths: {sendMax: 10}
announce: Node
maxNextHops: 0
advertise: [LoadBalancerIPs]
`,
		},
	} {
		obj := object(t, test.kind, test.spec)
		if errs := loadCRD(t, test.plural).create(obj); len(errs) > 0 {
			t.Errorf("%s: %v", test.kind, errs)
		}
		want := object(t, test.kind, test.want)
		convertNumbers(want)
		if diff := cmp.Diff(want["spec"], obj["spec"]); diff != "" {
			t.Errorf("%s defaults (-want +got):\n%s", test.kind, diff)
		}
	}
}

// What the API server lets through, the typed clients decode.
func TestDefaultedObjectsDecode(t *testing.T) {
	obj := object(t, "BGPPeer", `{localASN: 64512, peerASN: 64500, peerAddress: 192.0.2.1}`)
	if errs := loadCRD(t, "bgppeers").create(obj); len(errs) > 0 {
		t.Fatal(errs)
	}
	var peer v1alpha1.BGPPeer
	if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(obj, &peer, true); err != nil {
		t.Fatal(err)
	}
	if peer.Spec.HoldTime.Seconds() != 9 || *peer.Spec.AddPaths.SendMax != 10 {
		t.Errorf("decoded %+v", peer.Spec)
	}
}

// testSpecs creates objects with the given lines over a base and compares the
// errors: an empty want means accepted, otherwise exactly one error that holds
// want.
func testSpecs(t *testing.T, plural, kind, base string, tests []specTest) {
	t.Helper()
	c := loadCRD(t, plural)
	for _, test := range tests {
		obj := object(t, kind, base)
		spec := obj["spec"].(map[string]any)
		for key, value := range object(t, kind, test.spec)["spec"].(map[string]any) {
			if value == nil {
				delete(spec, key)
				continue
			}
			spec[key] = value
		}
		errs := c.create(obj)
		switch {
		case test.want == "" && len(errs) > 0:
			t.Errorf("%s\n  refused: %v", test.spec, errs)
		case test.want != "" && len(errs) == 0:
			t.Errorf("%s\n  accepted, want: %s", test.spec, test.want)
		case test.want != "" && len(errs) > 1:
			t.Errorf("%s\n  refused with %d errors, want one: %v", test.spec, len(errs), errs)
		case test.want != "" && !strings.Contains(errs[0].Error(), test.want):
			t.Errorf("%s\n   got: %v\n  want: %s", test.spec, errs[0], test.want)
		}
	}
}

type specTest struct{ spec, want string }
