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
		services, err := service.New(ours, quietClient{ours.balancer.writes.watch(client)},
			ours.Services(),
			completed.SharedInformers.Core().V1().Nodes(),
			completed.ComponentConfig.KubeCloudShared.ClusterName,
			utilfeature.DefaultFeatureGate,
		)
		if err != nil {
			return nil, false, fmt.Errorf("service controller: %w", err)
		}
		go services.Run(ctx, int(completed.ComponentConfig.ServiceController.ConcurrentServiceSyncs), manager.ControllerManagerMetrics)
		return nil, true, nil
	}
}
