package planner

import (
	"strings"
	"testing"

	"k8s.io/client-go/rest"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

func TestConfigDefaults(t *testing.T) {
	c := Config{REST: &rest.Config{}, SpeakerNamespace: "speakers"}
	if err := c.complete(); err != nil {
		t.Fatal(err)
	}
	if c.LeaseNamespace != "speakers" || c.LoadBalancerClass != v1alpha1.LoadBalancerClass {
		t.Errorf("completed to %+v", c)
	}
	c = Config{REST: &rest.Config{}, LeaderElect: true, Identity: "me"}
	if err := c.complete(); err != nil || c.SpeakerNamespace != v1alpha1.DefaultNamespace || c.LeaseNamespace != v1alpha1.DefaultNamespace {
		t.Errorf("completed to %+v (%v)", c, err)
	}
}

func TestConfigErrorsAreToldTogether(t *testing.T) {
	err := Run(t.Context(), Config{LeaderElect: true})
	if err == nil || !strings.Contains(err.Error(), "API server") || !strings.Contains(err.Error(), "identity") {
		t.Errorf("error %v; want both mistakes", err)
	}
}
