package planner

import (
	"sync"

	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/legacyregistry"
)

// Metrics of the planner. They are served by the cloud-controller-manager.
var (
	planDuration = metrics.NewHistogram(&metrics.HistogramOpts{
		Namespace: "baremetal", Subsystem: "planner", Name: "plan_duration_seconds",
		Help:           "Time to compute a plan, without writing it.",
		Buckets:        metrics.ExponentialBuckets(0.0001, 4, 9),
		StabilityLevel: metrics.ALPHA,
	})
	nodeWrites = metrics.NewCounter(&metrics.CounterOpts{
		Namespace: "baremetal", Subsystem: "planner", Name: "node_writes_total",
		Help:           "Announcements written into Node annotations.",
		StabilityLevel: metrics.ALPHA,
	})
	nodeWriteErrors = metrics.NewCounter(&metrics.CounterOpts{
		Namespace: "baremetal", Subsystem: "planner", Name: "node_write_errors_total",
		Help:           "Plans that could not be written to all Nodes.",
		StabilityLevel: metrics.ALPHA,
	})
	statusWriteErrors = metrics.NewCounter(&metrics.CounterOpts{
		Namespace: "baremetal", Subsystem: "planner", Name: "status_write_errors_total",
		Help:           "Conditions and statuses that could not be written.",
		StabilityLevel: metrics.ALPHA,
	})
)

var registerMetrics = sync.OnceFunc(func() {
	legacyregistry.MustRegister(planDuration, nodeWrites, nodeWriteErrors, statusWriteErrors)
})
