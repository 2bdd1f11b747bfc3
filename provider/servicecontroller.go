package baremetal

import (
	"context"
	"fmt"

	cloudprovider "k8s.io/cloud-provider"
	"k8s.io/cloud-provider/app"
	"k8s.io/cloud-provider/app/config"
	"k8s.io/cloud-provider/controllers/service"
	controllermanager "k8s.io/controller-manager/app"
	"k8s.io/controller-manager/controller"

	utilfeature "k8s.io/apiserver/pkg/util/feature"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
)

// ServiceController constructs the upstream service controller over the View of
// a *Cloud. It is an app.InitFuncConstructor.
func ServiceController(init app.ControllerInitContext, completed *config.CompletedConfig, cloud cloudprovider.Interface) app.InitFunc {
	return func(ctx context.Context, manager controllermanager.ControllerContext) (controller.Interface, bool, error) {
		ours, ok := cloud.(*Cloud)
		if !ok {
			return nil, false, fmt.Errorf("service controller: the cloud provider is %T", cloud)
		}
		client, err := completed.ClientBuilder.Client(init.ClientName)
		if err != nil {
			return nil, false, fmt.Errorf("service controller: client: %w", err)
		}
		services, err := newServiceController(ours, client,
			completed.SharedInformers.Core().V1().Nodes(),
			completed.ComponentConfig.KubeCloudShared.ClusterName,
		)
		if err != nil {
			return nil, false, fmt.Errorf("service controller: %w", err)
		}
		go services.Run(ctx, int(completed.ComponentConfig.ServiceController.ConcurrentServiceSyncs), manager.ControllerManagerMetrics)
		return nil, true, nil
	}
}

// newServiceController is upstream's, between what it may see and what it may write.
func newServiceController(cloud *Cloud, client kubernetes.Interface, nodes coreinformers.NodeInformer, clusterName string) (*service.Controller, error) {
	return service.New(cloud, quietClient{cloud.balancer.writes.watch(client)}, cloud.Services(), anyNodes{nodes},
		clusterName, utilfeature.DefaultFeatureGate)
}
