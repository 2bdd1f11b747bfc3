package main

import (
	"context"
	"fmt"
	"os"
	"time"
)

// scenario is one row of the table.
type scenario struct {
	name, what string
	nodes      int // 0 means as many as the soak has
	// twoNICs gives each node a second interface on the LAN, which announces.
	twoNICs  bool
	once     bool // it is run once, however many runs are asked for
	onDemand bool // it is run only if it is asked for by its name
	measure  measured
	run      func(context.Context, *site, int) (sample, error)
}

func scenarios() []scenario {
	all := []scenario{}
	for _, nodes := range []int{3, 2} {
		suffix := fmt.Sprintf("-%d", nodes)
		all = append(all,
			scenario{name: "link-cut" + suffix, what: "link of the owner cut", nodes: nodes, measure: outage, run: disturb(linkCut)},
			scenario{name: "link-cut-no-api" + suffix, what: "link of the owner cut, API server gone with it", nodes: nodes, measure: outage, run: disturb(linkCutNoAPI)},
			scenario{name: "deafened" + suffix, what: "nothing arrives at the owner; what it sends does", nodes: nodes, measure: outage, run: disturb(deafened)},
			scenario{name: "carrier-lost" + suffix, what: "carrier of the announcing NIC lost, another NIC lives", nodes: nodes, twoNICs: true, measure: outage, run: disturb(carrierLost)},
		)
	}
	return append(all,
		scenario{name: "speaker-killed", what: "owner's speaker killed (SIGKILL), down for a while", nodes: 3, measure: outage, run: disturb(speakerKilled)},
		scenario{name: "speaker-upgraded", what: "owner's speaker Pod replaced", nodes: 3, measure: outage, run: disturb(speakerUpgraded)},
		scenario{name: "speakers-rolled", what: "rolling restart of all speakers", nodes: 3, measure: outage, run: disturb(speakersRolled)},
		scenario{name: "managers-killed", what: "both cloud-controller-managers killed", nodes: 3, measure: outage, run: disturb(managersKilled)},
		scenario{name: "api-stopped", what: "API server stopped for a while", nodes: 3, measure: outage, run: disturb(apiStopped)},
		scenario{name: "drained", what: "owner drained by annotation", nodes: 3, measure: outage, run: disturb(drained)},
		scenario{name: "rebooted", what: "owner cordoned, shut down and booted", nodes: 3, measure: outage, run: disturb(rebooted)},
		scenario{name: "kube-proxy-503", what: "kube-proxy of the owner answers 503", nodes: 3, measure: outage, run: disturb(proxyFailed)},
		scenario{name: "healed-2+1", what: "owner and LAN client cut off from the rest, healed", nodes: 3, measure: doubled, run: heal(ownerAndClient)},
		scenario{name: "healed-1+1", what: "owner and LAN client cut off from the rest, healed", nodes: 2, measure: doubled, run: heal(ownerAndClient)},
		scenario{name: "healed-peers", what: "owner cut off from the other nodes only, healed", nodes: 3, measure: doubled, run: heal(ownerFromPeers)},
		scenario{name: "many", what: "link cut of a node with all addresses", nodes: 3, measure: lastClaim, run: many},
		scenario{name: "soak", what: "both cores busy, speakers of 200m, stopped for 250 ms now and then, 1 % loss", once: true, onDemand: true, measure: changes, run: soak},
	)
}

func (s scenario) nodeCount(o options) int {
	if s.nodes == 0 {
		return o.soak.nodes
	}
	return s.nodes
}

// runTimeout bounds a run, beside what it is told to wait for.
const runTimeout = 5 * time.Minute

// measure runs a scenario in a lab of its own.
func measure(ctx context.Context, s scenario, o options) (result, error) {
	r := result{Scenario: s.name, What: s.what, Nodes: s.nodeCount(o), Measured: s.measure}
	runs := o.runs
	if s.once {
		runs = 1
	}
	fmt.Fprintf(os.Stderr, "==> %s: %s, %d nodes\n", s.name, s.what, r.Nodes)
	err := withSite(ctx, s, o, func(ctx context.Context, site *site) error {
		for i := range runs {
			ctx, cancel := context.WithTimeout(ctx, runTimeout+o.speakerDown+o.apiDown+o.off+o.patience+o.soak.duration)
			sample, err := s.run(ctx, site, i)
			cancel()
			if err != nil {
				return fmt.Errorf("run %d: %w", i+1, err)
			}
			r.Samples = append(r.Samples, sample)
			fmt.Fprintf(os.Stderr, "    run %d of %d: %s\n", i+1, runs, sample.line(s.measure))
		}
		return nil
	})
	return r, err
}
