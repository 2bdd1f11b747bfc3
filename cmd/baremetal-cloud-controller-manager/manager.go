package main

import (
	"context"
	"io"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/rest"
	cloudprovider "k8s.io/cloud-provider"
	"k8s.io/cloud-provider/app"
	"k8s.io/cloud-provider/app/config"
	"k8s.io/cloud-provider/names"
	"k8s.io/cloud-provider/options"
	componentbase "k8s.io/component-base/config"
	controllermanager "k8s.io/controller-manager/app"
	"k8s.io/controller-manager/controller"
	"k8s.io/klog/v2"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/kubeapi"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/planner"
	baremetal "github.com/baremetal-lb/cloud-provider-baremetal/provider"
)

// manager is what upstream's callbacks share.
type manager struct {
	flags   flags
	options *options.CloudControllerManagerOptions
	// ctx ends, by end, when the program is to end.
	ctx context.Context
	end context.CancelFunc
	// beside runs upstream and, beside it, the planner.
	beside *errgroup.Group

	// fence holds back upstream's writes unless this process leads.
	fence kubeapi.Fence
	// elected is closed when this process leads for the first time.
	elected <-chan struct{}
}

// cloud is upstream's hook between configuration and start. It ends the process
// where it cannot go on, as upstream's own does.
func (m *manager) cloud(completed *config.CompletedConfig) cloudprovider.Interface {
	unfenced := m.connect(completed)
	m.plan(unfenced, completed.ComponentConfig.Generic.LeaderElection)
	if err := m.elect(unfenced, completed); err != nil {
		klog.Fatalf("Leader election could not be set up: %v", err)
	}

	shared := completed.ComponentConfig.KubeCloudShared.CloudProvider
	cloudprovider.RegisterCloudProvider(baremetal.ProviderName, func(io.Reader) (cloudprovider.Interface, error) {
		return baremetal.New(baremetal.Options{
			LoadBalancerClass: m.flags.loadBalancerClass,
			RequireClass:      m.flags.requireClass,
			InitializeNodes:   m.flags.initializeNodes,
		}), nil
	})
	cloud, err := cloudprovider.InitCloudProvider(shared.Name, shared.CloudConfigFile)
	if err != nil {
		klog.Fatalf("Cloud provider could not be initialized: %v", err)
	}
	if cloud == nil {
		klog.Fatalf("--cloud-provider=%s names no cloud provider: it must be %s", shared.Name, baremetal.ProviderName)
	}
	return cloud
}

// connect makes all that upstream builds from the configuration patient with an
// absent API server, fenced, and sparing of memory. It returns how to reach the
// API server past the fence.
func (m *manager) connect(completed *config.CompletedConfig) *rest.Config {
	kubeapi.Patient(completed.Kubeconfig)
	unfenced := rest.CopyConfig(completed.Kubeconfig)
	completed.Kubeconfig.Wrap(m.fence.Wrap)
	completed.VersionedClient = completed.ClientBuilder.ClientOrDie("shared-informers")
	resync := completed.ComponentConfig.Generic.MinResyncPeriod.Duration
	completed.SharedInformers = informers.NewSharedInformerFactoryWithOptions(completed.VersionedClient,
		time.Duration(float64(resync)*(1+rand.Float64())),
		informers.WithTransform(baremetal.Trim),
	)
	return unfenced
}

// elect takes part in the election of a leader in place of upstream, whose
// controllers are held back until this process leads.
func (m *manager) elect(unfenced *rest.Config, completed *config.CompletedConfig) error {
	elected := make(chan struct{})
	settings := completed.ComponentConfig.Generic.LeaderElection
	if !settings.LeaderElect {
		close(elected)
		m.elected = elected
		m.fence.Open()
		return nil
	}
	completed.ComponentConfig.Generic.LeaderElection.LeaderElect = false
	e, err := newElection(unfenced, settings, completed.EventRecorder, &m.fence)
	if err != nil {
		return err
	}
	m.elected = e.elected
	m.beside.Go(func() error {
		defer m.end()
		return e.run(m.ctx)
	})
	return nil
}

// plan runs the planner, which has a Lease of its own, beside upstream.
func (m *manager) plan(cluster *rest.Config, election componentbase.LeaderElectionConfiguration) {
	m.beside.Go(func() error {
		// A planner that cannot work must not leave a half of the program behind.
		defer m.end()
		return planner.Run(m.ctx, planner.Config{
			REST:              cluster, // copied by the planner
			SpeakerNamespace:  m.flags.speakerNamespace,
			LoadBalancerClass: m.flags.loadBalancerClass,
			RequireClass:      m.flags.requireClass,
			LeaderElect:       election.LeaderElect,
			LeaseNamespace:    election.ResourceNamespace,
			Identity:          identity(),
		})
	})
}

// controllers are upstream's, by name. There is no cloud-node-lifecycle
// controller among them, whatever the flags: it deletes Nodes.
func (m *manager) controllers() map[string]app.ControllerInitFuncConstructor {
	constructors := map[string]app.ControllerInitFuncConstructor{}
	for name, constructor := range map[string]app.InitFuncConstructor{
		names.ServiceLBController: baremetal.ServiceController,
		names.CloudNodeController: baremetal.NodeController,
	} {
		constructors[name] = app.ControllerInitFuncConstructor{
			InitContext: app.ControllerInitContext{ClientName: programName},
			Constructor: m.whenElected(constructor),
		}
	}
	return constructors
}

// whenElected starts upstream's controller when this process leads.
func (m *manager) whenElected(constructor app.InitFuncConstructor) app.InitFuncConstructor {
	return func(init app.ControllerInitContext, completed *config.CompletedConfig, cloud cloudprovider.Interface) app.InitFunc {
		start := constructor(init, completed, cloud)
		return func(ctx context.Context, c controllermanager.ControllerContext) (controller.Interface, bool, error) {
			select {
			case <-m.elected:
				return start(ctx, c)
			case <-m.ctx.Done():
				return nil, false, nil
			}
		}
	}
}
