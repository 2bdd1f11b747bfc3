package speaker

import (
	"sync"

	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/legacyregistry"
)

const metricsPrefix = "baremetal_speaker"

var (
	reportWrites = metrics.NewCounterVec(&metrics.CounterOpts{
		Subsystem:      metricsPrefix,
		Name:           "report_writes_total",
		Help:           "Writes of the report into the Node's annotation, by result (success or error).",
		StabilityLevel: metrics.ALPHA,
	}, []string{"result"})
	programErrors = metrics.NewCounterVec(&metrics.CounterOpts{
		Subsystem:      metricsPrefix,
		Name:           "program_errors_total",
		Help:           "Programs that were not carried out, by reason (version, malformed, older or failed).",
		StabilityLevel: metrics.ALPHA,
	}, []string{"reason"})

	sessionDesc = metrics.NewDesc(metricsPrefix+"_bgp_session_state",
		"The state of the BGP session with a peer: 1 for the state that it is in.",
		[]string{"peer", "state"}, nil, metrics.ALPHA, "")
	receivedDesc = metrics.NewDesc(metricsPrefix+"_bgp_prefixes_received",
		"Prefixes that a peer has sent. None is used.",
		[]string{"peer"}, nil, metrics.ALPHA, "")
	prefixesDesc = metrics.NewDesc(metricsPrefix+"_prefixes_announced",
		"Prefixes that are announced by BGP to at least one peer.",
		nil, nil, metrics.ALPHA, "")
	lanDesc = metrics.NewDesc(metricsPrefix+"_layer2_addresses",
		"Addresses on the LAN that the node is a candidate of, by state: announced, probing (the LAN is being asked), held (another host uses the address), covered (answered for an owner whose speaker is away) or standby.",
		[]string{"state"}, nil, metrics.ALPHA, "")
	lanPacketsDesc = metrics.NewDesc(metricsPrefix+"_layer2_packets_total",
		"ARP and NDP packets, by kind: answered, answered_for (an owner whose speaker is away), gratuitous and probe were sent; claim (by another host, on an address of ours) and malformed were received; dropped and failed could not be read or sent in time.",
		[]string{"kind"}, nil, metrics.ALPHA, "")
	lanConflictsDesc = metrics.NewDesc(metricsPrefix+"_layer2_conflicts",
		"Addresses of the node that another host claims on the LAN, by state: held (not announced) or defended.",
		[]string{"state"}, nil, metrics.ALPHA, "")
	adjacencyDesc = metrics.NewDesc(metricsPrefix+"_heartbeat_adjacency",
		"What is known of a node that shares addresses on the LAN, on an interface: 1 for up, serving (it answers ARP or NDP, but no heartbeats arrive), silent (only its kernel answers), dead or unheard.",
		[]string{"node", "interface", "liveness"}, nil, metrics.ALPHA, "")
	heartbeatDesc = metrics.NewDesc(metricsPrefix+"_heartbeats_total",
		"Heartbeats, by kind: sent, received, dropped (nobody had time for them), or why they were not accepted: hops, receiver, sender, key, hmac, format, replay, introduction (the first one of a process, which is no fault).",
		[]string{"kind"}, nil, metrics.ALPHA, "")
	takeoverDesc = metrics.NewDesc(metricsPrefix+"_layer2_takeovers_total",
		"Addresses on the LAN that the node took over from an owner that died, or gave them away, before the planner said so.",
		nil, nil, metrics.ALPHA, "")
	endpointsDesc = metrics.NewDesc(metricsPrefix+"_health_check_ports",
		"Health check ports of Services under externalTrafficPolicy Local that the node announces or is a candidate of, by state: unfit (kube-proxy says that there is no endpoint on the node) or fit.",
		[]string{"state"}, nil, metrics.ALPHA, "")
	epochDesc = metrics.NewDesc(metricsPrefix+"_program_epoch",
		"Epoch of the program that is carried out: the time of its plan in milliseconds since 1970.",
		nil, nil, metrics.ALPHA, "")
)

// collector tells the present state of the speaker when metrics are scraped.
type collector struct {
	metrics.BaseStableCollector
	speaker *speaker
}

// DescribeWithStability implements metrics.StableCollector.
func (c *collector) DescribeWithStability(descs chan<- *metrics.Desc) {
	for _, d := range []*metrics.Desc{sessionDesc, receivedDesc, prefixesDesc, lanDesc, lanPacketsDesc, lanConflictsDesc,
		adjacencyDesc, heartbeatDesc, takeoverDesc, endpointsDesc, epochDesc} {
		descs <- d
	}
}

// CollectWithStability implements metrics.StableCollector.
func (c *collector) CollectWithStability(out chan<- metrics.Metric) {
	status := c.speaker.snapshot()
	for _, s := range status.sessions {
		out <- metrics.NewLazyConstMetric(sessionDesc, metrics.GaugeValue, 1, s.Peer, s.State)
	}
	for peer, n := range status.received {
		out <- metrics.NewLazyConstMetric(receivedDesc, metrics.GaugeValue, float64(n), peer)
	}
	out <- metrics.NewLazyConstMetric(prefixesDesc, metrics.GaugeValue, float64(status.prefixes))
	lan := status.lan
	for state, n := range map[string]int{"announced": lan.Announced, "probing": lan.Probing, "held": lan.Held,
		"covered": lan.Covered, "standby": lan.StandingBy} {
		out <- metrics.NewLazyConstMetric(lanDesc, metrics.GaugeValue, float64(n), state)
	}
	for kind, n := range map[string]uint64{
		"answered": lan.Answered, "answered_for": lan.AnsweredFor, "gratuitous": lan.Gratuitous, "probe": lan.Probes, "claim": lan.Claims, "malformed": lan.Malformed,
		"dropped": lan.Dropped, "failed": lan.Failed,
	} {
		out <- metrics.NewLazyConstMetric(lanPacketsDesc, metrics.CounterValue, float64(n), kind)
	}
	held := 0
	for _, c := range lan.Conflicts {
		if c.Held {
			held++
		}
	}
	out <- metrics.NewLazyConstMetric(lanConflictsDesc, metrics.GaugeValue, float64(held), "held")
	out <- metrics.NewLazyConstMetric(lanConflictsDesc, metrics.GaugeValue, float64(len(lan.Conflicts)-held), "defended")
	for _, a := range status.adjacencies {
		out <- metrics.NewLazyConstMetric(adjacencyDesc, metrics.GaugeValue, 1, a.Node, a.Interface, a.Liveness.String())
	}
	beats := status.heartbeats
	for kind, n := range map[string]uint64{"sent": beats.Sent, "received": beats.Received, "dropped": beats.Dropped} {
		out <- metrics.NewLazyConstMetric(heartbeatDesc, metrics.CounterValue, float64(n), kind)
	}
	for reason, n := range beats.Rejected {
		out <- metrics.NewLazyConstMetric(heartbeatDesc, metrics.CounterValue, float64(n), reason)
	}
	out <- metrics.NewLazyConstMetric(takeoverDesc, metrics.CounterValue, float64(beats.Takeovers))
	for state, n := range map[string]int{"fit": status.fit, "unfit": status.unfit} {
		out <- metrics.NewLazyConstMetric(endpointsDesc, metrics.GaugeValue, float64(n), state)
	}
	out <- metrics.NewLazyConstMetric(epochDesc, metrics.GaugeValue, float64(status.epoch))
}

var registerOnce sync.Once

// register makes the metrics of the process's one speaker known.
func register(s *speaker) {
	registerOnce.Do(func() {
		legacyregistry.MustRegister(reportWrites, programErrors)
		legacyregistry.CustomMustRegister(&collector{speaker: s})
	})
}
