package main

import (
	"errors"

	"github.com/spf13/pflag"
	cloudproviderapi "k8s.io/cloud-provider/api"
	"k8s.io/cloud-provider/options"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
	baremetal "github.com/baremetal-lb/cloud-provider-baremetal/provider"
)

// programName is the name of the command and of its Lease.
const programName = "baremetal-cloud-controller-manager"

// flags are those that upstream does not have.
type flags struct {
	speakerNamespace  string
	loadBalancerClass string
	requireClass      bool
	initializeNodes   bool
	serviceCIDRs      []string
}

func (f *flags) addTo(set *pflag.FlagSet) {
	set.StringVar(&f.speakerNamespace, "speaker-namespace", v1alpha1.DefaultNamespace, "Namespace of the speaker Pods.")
	set.StringVar(&f.loadBalancerClass, "load-balancer-class", v1alpha1.LoadBalancerClass, "The spec.loadBalancerClass of Services to serve.")
	set.BoolVar(&f.requireClass, "require-load-balancer-class", false, "Leave Services without a spec.loadBalancerClass to another controller.")
	set.BoolVar(&f.initializeNodes, "initialize-nodes", false, "Initialize nodes whose kubelets run with --cloud-provider=external: give them a provider ID and the addresses of their --node-ip, and remove the taint "+cloudproviderapi.TaintExternalCloudProvider+". Needs the rights of manifests/overlays/initialize-nodes. Nodes are never deleted.")
	set.StringSliceVar(&f.serviceCIDRs, "service-cidrs", nil, "Service CIDRs of clusters without ServiceCIDR objects, to announce ClusterIPs. Not implemented yet.")
}

// validate refuses what would be ignored, all of it at once.
func (f *flags) validate() error {
	var errs []error
	if f.speakerNamespace == "" {
		errs = append(errs, errors.New("--speaker-namespace must not be empty"))
	}
	if f.loadBalancerClass == "" {
		errs = append(errs, errors.New("--load-balancer-class must not be empty"))
	}
	if len(f.serviceCIDRs) > 0 {
		errs = append(errs, errors.New("--service-cidrs is not implemented yet: remove it"))
	}
	return errors.Join(errs...)
}

// defaultOptions are upstream's, raised to what a load balancer needs. There are
// no webhooks.
func defaultOptions() (*options.CloudControllerManagerOptions, error) {
	o, err := options.NewCloudControllerManagerOptions()
	if err != nil {
		return nil, err
	}
	o.KubeCloudShared.CloudProvider.Name = baremetal.ProviderName
	o.Generic.LeaderElection.ResourceName = programName
	o.Generic.LeaderElection.ResourceNamespace = v1alpha1.DefaultNamespace
	// An address costs four writes and no other work: the API server sets the
	// pace, not the client.
	o.Generic.ClientConnection.QPS = 1000
	o.Generic.ClientConnection.Burst = 2000
	o.ServiceController.ConcurrentServiceSyncs = 32
	o.Webhook = nil
	o.WebhookServing = nil
	return o, nil
}
