package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab"
)

// managerMetrics are some of the cloud-controller-manager's metrics.
type managerMetrics struct {
	plans, planSeconds float64
	requestBytes       float64 // of all its requests
}

// managerMetrics asks the cloud-controller-manager.
func (s *site) managerMetrics(ctx context.Context) (m managerMetrics, err error) {
	admin, err := s.RESTConfig()
	if err != nil {
		return m, err
	}
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, // it signs its certificate itself
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return s.Dial(ctx, lab.ControlPlane, network, address)
		},
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://192.0.2.11:10258/metrics", nil)
	if err != nil {
		return m, err
	}
	request.Header.Set("Authorization", "Bearer "+admin.BearerToken)
	response, err := client.Do(request)
	if err != nil {
		return m, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return m, fmt.Errorf("metrics of the cloud-controller-manager: %s", response.Status)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(response.Body)
	if err != nil {
		return m, err
	}
	m.plans, m.planSeconds = sums(families["baremetal_planner_plan_duration_seconds"])
	_, m.requestBytes = sums(families["rest_client_request_size_bytes"])
	return m, nil
}

// sums are those of a histogram over all its labels.
func sums(f *dto.MetricFamily) (count, sum float64) {
	for _, m := range f.GetMetric() {
		count += float64(m.GetHistogram().GetSampleCount())
		sum += m.GetHistogram().GetSampleSum()
	}
	return count, sum
}
