package baremetal

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/informers"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	cloudprovider "k8s.io/cloud-provider"
	"k8s.io/klog/v2"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/client"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

// ProviderName is the value of --cloud-provider.
const ProviderName = "baremetal"

// component names this program's clients to the API server.
const component = "baremetal-load-balancer"

// Options say which Services are ours, and whether Nodes are.
type Options struct {
	// LoadBalancerClass is the class that asks for us by name.
	LoadBalancerClass string
	// RequireClass leaves Services without a class to another controller.
	RequireClass bool
	// InitializeNodes has InstancesV2, by which upstream initializes Nodes.
	InitializeNodes bool
}

// Cloud implements cloudprovider.Interface and cloudprovider.InformerUser. The
// cloud-controller-manager calls Initialize and SetInformers, in this order and
// once, when it leads; a new leader is a new Cloud, which adopts what Services
// have recorded.
type Cloud struct {
	classes  *classes
	balancer *balancer
	view     *View
	// instances is nil unless Nodes are to be initialized.
	instances *instances
	stop      <-chan struct{}
}

var (
	_ cloudprovider.Interface    = (*Cloud)(nil)
	_ cloudprovider.InformerUser = (*Cloud)(nil)
)

// New returns a Cloud that does nothing before Initialize.
func New(options Options) *Cloud {
	if options.LoadBalancerClass == "" {
		options.LoadBalancerClass = v1alpha1.LoadBalancerClass
	}
	classes := newClasses(options)
	cloud := &Cloud{classes: classes, balancer: newBalancer(classes)}
	if options.InitializeNodes {
		cloud.instances = &instances{}
	}
	return cloud
}

// Initialize makes the clients of our own kinds and of Events. The upstream gives
// no way to return an error, so a configuration without a client ends the process.
func (c *Cloud) Initialize(clientBuilder cloudprovider.ControllerClientBuilder, stop <-chan struct{}) {
	if c.stop != nil {
		klog.Fatal("The provider was initialized twice: leader migration is not supported")
	}
	c.stop = stop
	if err := c.connect(clientBuilder); err != nil {
		klog.Fatalf("Cannot reach AddressPools and Events: %v", err)
	}
}

func (c *Cloud) connect(clientBuilder cloudprovider.ControllerClientBuilder) error {
	config, err := clientBuilder.Config(component)
	if err != nil {
		return fmt.Errorf("client configuration: %w", err)
	}
	core, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	broadcaster := record.NewBroadcaster(record.WithContext(wait.ContextForChannel(c.stop)))
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: core.CoreV1().Events("")})
	events := broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: component})
	c.balancer.notices.events = events
	if c.instances != nil {
		c.instances.events = events
	}
	lb, err := client.New(config)
	if err != nil {
		return err
	}
	return c.balancer.watchPools(lb.AddressPools(0), c.stop)
}

// SetInformers takes Services, Nodes and Namespaces from the factory, which the
// caller starts, and begins to serve when they are in.
func (c *Cloud) SetInformers(factory informers.SharedInformerFactory) {
	factory.InformerFor(&corev1.Service{}, newServiceInformer)
	core := factory.Core().V1()
	c.view = newView(core.Services(), c.classes, c.balancer.ready)
	if err := c.balancer.watchCore(core, c.view); err != nil {
		klog.Fatalf("Cannot watch Services: %v", err)
	}
	go c.balancer.run(c.stop)
}

// newServiceInformer is an informer that reads what is, not what a watch cache
// once saw: where the API server does not stream lists, client-go would take the
// first one from the cache of any replica, and adopt without the addresses that
// the last leader gave out a moment ago. One list per start costs little.
func newServiceInformer(client kubernetes.Interface, resync time.Duration) cache.SharedIndexInformer {
	return coreinformers.NewFilteredServiceInformer(client, metav1.NamespaceAll, resync,
		cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc},
		func(options *metav1.ListOptions) {
			if options.ResourceVersion == "0" {
				options.ResourceVersion = ""
			}
		})
}

// LoadBalancer is the interface that this provider is about.
func (c *Cloud) LoadBalancer() (cloudprovider.LoadBalancer, bool) { return c.balancer, true }

// Services is the informer to give to the upstream service controller. It is nil
// before SetInformers.
func (c *Cloud) Services() *View { return c.view }

// Instances is not supported.
func (c *Cloud) Instances() (cloudprovider.Instances, bool) { return nil, false }

// InstancesV2 is there to initialize Nodes, and only if Options ask for it: no
// Node is touched otherwise.
func (c *Cloud) InstancesV2() (cloudprovider.InstancesV2, bool) {
	if c.instances == nil {
		return nil, false
	}
	return c.instances, true
}

// Zones is not supported.
func (c *Cloud) Zones() (cloudprovider.Zones, bool) { return nil, false }

// Clusters is not supported.
func (c *Cloud) Clusters() (cloudprovider.Clusters, bool) { return nil, false }

// Routes is not supported: pod routes are the CNI's.
func (c *Cloud) Routes() (cloudprovider.Routes, bool) { return nil, false }

// ProviderName is "baremetal".
func (c *Cloud) ProviderName() string { return ProviderName }

// HasClusterID is true: there is nothing outside the cluster to tag.
func (c *Cloud) HasClusterID() bool { return true }
