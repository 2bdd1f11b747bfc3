package ipam

import (
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

func service(loadBalancerIP string, annotations map[string]string, families ...corev1.IPFamily) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: "web", Annotations: annotations},
		Spec:       corev1.ServiceSpec{LoadBalancerIP: loadBalancerIP, IPFamilies: families},
	}
}

func TestNewClaim(t *testing.T) {
	for _, test := range []struct {
		name    string
		service *corev1.Service
		want    string
	}{
		{"nothing", service("", nil), ""},
		{"field", service("203.0.113.1", nil), "203.0.113.1"},
		{"annotation", service("", map[string]string{v1alpha1.ServiceAddresses: " 203.0.113.1 "}), "203.0.113.1"},
		{"empty annotation", service("", map[string]string{v1alpha1.ServiceAddresses: " "}), ""},
		{"both", service("203.0.113.1", map[string]string{v1alpha1.ServiceAddresses: "203.0.113.1,203.0.113.1"}), "203.0.113.1"},
		{"several", service("", map[string]string{v1alpha1.ServiceAddresses: "203.0.113.1,203.0.113.2"}), "203.0.113.1 203.0.113.2"},
		{"two families", service("", map[string]string{v1alpha1.ServiceAddresses: "203.0.113.1, 2001:db8::1"}, corev1.IPv6Protocol, corev1.IPv4Protocol), "203.0.113.1 2001:db8::1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			claim, err := NewClaim(test.service, nil)
			if err != nil || join(claim.Requested) != test.want {
				t.Errorf("requests %v (%v); want %s", claim.Requested, err, test.want)
			}
		})
	}
	for _, test := range []struct {
		name    string
		service *corev1.Service
		reason  Reason
		words   string
	}{
		{"field", service("web", nil), MalformedRequest, "spec.loadBalancerIP"},
		{"annotation", service("", map[string]string{v1alpha1.ServiceAddresses: "203.0.113.1,"}), MalformedRequest, v1alpha1.ServiceAddresses},
		{"disagreement", service("203.0.113.1", map[string]string{v1alpha1.ServiceAddresses: "203.0.113.2"}), MalformedRequest, "remove one"},
		{"family", service("2001:db8::1", nil), FamilyUnavailable, "spec.ipFamilies"},
		{"protocol", service("", map[string]string{v1alpha1.ServiceProtocol: "ospf"}), MalformedRequest, "write BGP or Layer2"},
	} {
		t.Run("bad "+test.name, func(t *testing.T) {
			_, err := NewClaim(test.service, nil)
			var refusal *Refusal
			if !errors.As(err, &refusal) {
				t.Fatalf("error %v; want %s", err, test.reason)
			}
			checkRefusal(t, refusal, test.reason, test.words)
		})
	}
}
