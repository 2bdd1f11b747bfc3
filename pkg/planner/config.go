package planner

import (
	"errors"
	"fmt"

	"k8s.io/client-go/rest"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

// Config is all that Run needs to know.
type Config struct {
	// REST is how to reach the API server.
	REST *rest.Config
	// SpeakerNamespace is where the speaker Pods live.
	SpeakerNamespace string
	// LoadBalancerClass is our spec.loadBalancerClass; RequireClass leaves
	// Services without a class alone.
	LoadBalancerClass string
	RequireClass      bool
	// LeaderElect makes the planner write only while it holds the Lease
	// baremetal-planner in LeaseNamespace, under the name Identity.
	LeaderElect    bool
	LeaseNamespace string
	Identity       string
}

func (c *Config) complete() error {
	if c.SpeakerNamespace == "" {
		c.SpeakerNamespace = v1alpha1.DefaultNamespace
	}
	if c.LoadBalancerClass == "" {
		c.LoadBalancerClass = v1alpha1.LoadBalancerClass
	}
	if c.LeaseNamespace == "" {
		c.LeaseNamespace = c.SpeakerNamespace
	}
	var errs []error
	if c.REST == nil {
		errs = append(errs, errors.New("no configuration of the API server"))
	}
	if c.LeaderElect && c.Identity == "" {
		errs = append(errs, errors.New("leader election needs an identity"))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("planner: %w", err)
	}
	return nil
}
