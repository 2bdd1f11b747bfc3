package main

import (
	"context"
	"io"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/rest"
	cloudprovider "k8s.io/cloud-provider"
	"k8s.io/cloud-provider/app"
	"k8s.io/cloud-provider/app/config"
	"k8s.io/cloud-provider/options"
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

	// fence holds back upstream's writes once the Lease is to be given up.
	fence fence
	// unfenced is how to reach the API server past the fence.
	unfenced atomic.Pointer[rest.Config]
	leading  atomic.Bool
}

// cloud is upstream's hook between configuration and start. It ends the process
// where it cannot go on, as upstream's own does.
func (m *manager) cloud(completed *config.CompletedConfig) cloudprovider.Interface {
	m.connect(completed)
	m.plan(rest.CopyConfig(m.unfenced.Load()))

	shared := completed.ComponentConfig.KubeCloudShared.CloudProvider
	cloudprovider.RegisterCloudProvider(baremetal.ProviderName, func(io.Reader) (cloudprovider.Interface, error) {
		return baremetal.New(baremetal.Options{
			LoadBalancerClass: m.flags.loadBalancerClass,
			RequireClass:      m.flags.requireClass,
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
// absent API server, fenced, and sparing of memory.
func (m *manager) connect(completed *config.CompletedConfig) {
	kubeapi.Patient(completed.Kubeconfig)
	m.unfenced.Store(rest.CopyConfig(completed.Kubeconfig))
	completed.Kubeconfig.Wrap(m.fence.wrap)
	completed.VersionedClient = completed.ClientBuilder.ClientOrDie("shared-informers")
	resync := completed.ComponentConfig.Generic.MinResyncPeriod.Duration
	completed.SharedInformers = informers.NewSharedInformerFactoryWithOptions(completed.VersionedClient,
		time.Duration(float64(resync)*(1+rand.Float64())),
		informers.WithTransform(baremetal.Trim),
	)
}

// plan runs the planner, which has a Lease of its own, beside upstream.
func (m *manager) plan(cluster *rest.Config) {
	m.beside.Go(func() error {
		// A planner that cannot work must not leave a half of the program behind.
		defer m.end()
		election := m.options.Generic.LeaderElection
		return planner.Run(m.ctx, planner.Config{
			REST:              rest.AddUserAgent(cluster, planner.LeaseName),
			SpeakerNamespace:  m.flags.speakerNamespace,
			LoadBalancerClass: m.flags.loadBalancerClass,
			RequireClass:      m.flags.requireClass,
			LeaderElect:       election.LeaderElect,
			LeaseNamespace:    election.ResourceNamespace,
			Identity:          hostname() + "_" + string(uuid.NewUUID()),
		})
	})
}

// serviceController is called when this process leads, and not before.
func (m *manager) serviceController(init app.ControllerInitContext, completed *config.CompletedConfig, cloud cloudprovider.Interface) app.InitFunc {
	start := baremetal.ServiceController(init, completed, cloud)
	return func(ctx context.Context, c controllermanager.ControllerContext) (controller.Interface, bool, error) {
		m.leading.Store(true)
		return start(ctx, c)
	}
}

func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return programName
	}
	return name
}
