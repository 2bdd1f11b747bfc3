package manifests

import (
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

// The examples hold together: the types decode them without unknown fields, and
// what one names another defines.
func TestExamples(t *testing.T) {
	pools := map[string]bool{}
	secrets := map[string]bool{}
	var examples []object
	for _, obj := range load(t) {
		if filepath.Base(filepath.Dir(obj.file)) != "examples" {
			continue
		}
		examples = append(examples, obj)
		switch obj.GetKind() {
		case "AddressPool":
			pools[decode[v1alpha1.AddressPool](t, obj).Name] = true
		case "Secret":
			secrets[decode[corev1.Secret](t, obj).Name] = true
		}
	}
	for _, obj := range examples {
		switch obj.GetKind() {
		case "BGPPeer":
			peer := decode[v1alpha1.BGPPeer](t, obj)
			if ref := peer.Spec.PasswordSecretRef; ref != nil && !secrets[ref.Name] {
				t.Errorf("%s: no Secret %s", obj.file, ref.Name)
			}
		case "Service":
			service := decode[corev1.Service](t, obj)
			if pool := service.Annotations[v1alpha1.ServicePool]; pool != "" && !pools[pool] {
				t.Errorf("%s: no AddressPool %s", obj.file, pool)
			}
		case "AddressPool", "Secret":
		default:
			t.Errorf("%s: unexpected kind %s", obj.file, obj.GetKind())
		}
	}
	if len(pools) == 0 {
		t.Error("no examples")
	}
}
