package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab"
)

// options say how long to measure.
type options struct {
	changes int
	churn   time.Duration
}

// result is what was measured at one size. Times are in seconds.
type result struct {
	Nodes     int  `json:"nodes"`
	Services  int  `json:"services"`
	DualStack bool `json:"dualStack"`

	// Filled is from the start of the cloud-controller-manager to the address of the
	// last of New Services that waited for it.
	Filled float64 `json:"filledSeconds"`
	New    int     `json:"filledServices"`

	// Plan is the mean time to compute a plan while Services were created one at a
	// time, Latency from the creation of each to the annotation of the last node.
	Plan        float64 `json:"planSeconds"`
	Latency     float64 `json:"latencyMedianSeconds"`
	LatencyMax  float64 `json:"latencyMaxSeconds"`
	CreateCPU   float64 `json:"managerCPUSecondsPerCreate"`
	CreateBytes float64 `json:"requestBytesPerCreate"`
	WatchBytes  float64 `json:"watchBytesPerCreate"`
	// CarriedOut is how many simulated speakers carry out a program for each.
	CarriedOut float64 `json:"programsCarriedOutPerCreate"`
	// Creates and Deletes are the project's writes for one, by who and what.
	Creates map[string]float64 `json:"writesPerCreate"`
	Deletes map[string]float64 `json:"writesPerDelete"`

	// Churn is from the creation of a Service to the annotation of its last node,
	// while 20 are created and 20 are deleted each second.
	Churn    float64 `json:"churnMedianSeconds"`
	ChurnMax float64 `json:"churnMaxSeconds"`
	// ChurnAPI is the API server's part of it: the median time to create a Service.
	ChurnAPI    float64 `json:"churnCreateSeconds"`
	ChurnWrites float64 `json:"churnWritesPerSecond"`
	ChurnCPU    float64 `json:"churnManagerCores"`
	ChurnServer float64 `json:"churnAPIServerCores"`

	// IdleWrites are those of ten seconds without a change, but for Leases.
	IdleWrites int     `json:"idleWrites"`
	IdleCPU    float64 `json:"idleManagerCores"`
	IdleSpeak  float64 `json:"idleSpeakerCores"`

	// Plain and Stored are the sizes of the largest program, in bytes.
	Plain  int `json:"largestProgramPlainBytes"`
	Stored int `json:"largestProgramStoredBytes"`
	Total  int `json:"allProgramsStoredBytes"`

	ManagerRSS int `json:"managerRSSBytes"`
	// SpeakerRSS is the real speaker's, which announces SpeakerPrefixes to a router.
	SpeakerRSS      int `json:"speakerRSSBytes"`
	SpeakerPrefixes int `json:"speakerPrefixes"`

	// Recovered is from the start of a killed cloud-controller-manager to the
	// annotation of the last node for a Service that had waited for it. Rewritten
	// are the other annotations that it wrote, and Withdrawn the addresses that a
	// node lost meanwhile; both should be none.
	Recovered float64 `json:"recoveredSeconds"`
	Rewritten int     `json:"recoveryRewrittenNodes"`
	Withdrawn int     `json:"recoveryWithdrawnAddresses"`
}

// size tells results apart.
type size struct {
	nodes, services int
	dualStack       bool
}

func (r result) size() size { return size{r.Nodes, r.Services, r.DualStack} }

// order is IPv4 first, then nodes, then Services.
func (r result) order() []int {
	families := 1
	if r.DualStack {
		families = 2
	}
	return []int{families, r.Nodes, r.Services}
}

// measureSite measures at one number of nodes, with more and more Services.
func measureSite(ctx context.Context, nodes int, dualStack bool, services []int, o options) (results []result, err error) {
	err = withSite(ctx, nodes, dualStack, func(ctx context.Context, s *site) error {
		for i, n := range services {
			from := 0
			if i > 0 {
				from = services[i-1]
			}
			addressed, err := s.fill(ctx, from, n)
			if err != nil {
				return err
			}
			s.log("%d Services: %d new ones had addresses after %.1f s", n, n-from, addressed.Seconds())
			r := result{Nodes: nodes, Services: n, DualStack: dualStack, New: n - from, Filled: addressed.Seconds()}
			err = s.measure(ctx, o, &r)
			if err != nil {
				return fmt.Errorf("%d Services: %w", n, err)
			}
			results = append(results, r)
		}
		return nil
	})
	return results, err
}

func (s *site) measure(ctx context.Context, o options, r *result) error {
	if _, err := s.quiet(ctx, allCalm); err != nil {
		return err
	}
	for _, step := range []struct {
		name string
		run  func(context.Context, options, *result) error
	}{
		{"sizes", s.sizes}, {"idle", s.atRest}, {"one at a time", s.oneAtATime}, {"churn", s.churn}, {"recovery", s.recovery},
	} {
		if err := step.run(ctx, o, r); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		s.log("%d Services: %s measured", r.Services, step.name)
	}
	text, err := json.Marshal(r)
	s.log("%s", text)
	return err
}

// sizes measures what nodes are told.
func (s *site) sizes(_ context.Context, _ options, r *result) error {
	for node, value := range s.watch.programs() {
		p, err := announce.Decode(value)
		if err != nil {
			return fmt.Errorf("node %s: %w", node, err)
		}
		plain, err := json.Marshal(p)
		if err != nil {
			return err
		}
		r.Plain, r.Stored = max(r.Plain, len(plain)), max(r.Stored, len(value))
		r.Total += len(value)
		if node == realNode {
			r.SpeakerPrefixes = count(p)
		}
	}
	return nil
}

// count is the number of addresses of a program.
func count(p announce.Program) (n int) {
	for _, g := range p.Groups {
		for _, addresses := range g.Addresses {
			for range addresses.All() {
				n++
			}
		}
	}
	return n
}

// idle is how long nothing is changed.
const idle = 10 * time.Second

// atRest measures what is done when nothing changes.
func (s *site) atRest(ctx context.Context, _ options, r *result) error {
	before, err := s.audit.read()
	if err != nil {
		return err
	}
	manager, speaker, err := s.usage(ctx)
	if err != nil {
		return err
	}
	started := time.Now()
	pause(ctx, idle)
	managerNow, speakerNow, err := s.usage(ctx)
	if err != nil {
		return err
	}
	took := time.Since(started).Seconds()
	r.IdleCPU = (managerNow.CPU - manager.CPU).Seconds() / took
	r.IdleSpeak = (speakerNow.CPU - speaker.CPU).Seconds() / took
	r.ManagerRSS, r.SpeakerRSS = managerNow.RSS, speakerNow.RSS
	after, err := s.audit.read()
	if err != nil {
		return err
	}
	if written := after.since(before); written.total() > 0 {
		r.IdleWrites = written.total()
		s.log("though nothing changed: %v", written)
	}
	return ctx.Err()
}

// usage is that of the cloud-controller-manager and of the real speaker.
func (s *site) usage(ctx context.Context) (manager, speaker lab.Usage, err error) {
	if manager, err = s.ProgramUsage(ctx, realNode, s.manager); err != nil {
		return manager, speaker, err
	}
	speaker, err = s.ProgramUsage(ctx, realNode, s.speaker)
	return manager, speaker, err
}

// told is how many nodes announce an address of a Service of externalTrafficPolicy
// Cluster.
func (s *site) told() int { return min(nextHops, len(s.nodes)) }

// oneAtATime creates Services, each when the one before is announced and a second
// and a half has passed, and deletes them likewise.
func (s *site) oneAtATime(ctx context.Context, o options, r *result) error {
	before, err := s.quiet(ctx, soonCalm)
	if err != nil {
		return err
	}
	usage, _, err := s.usage(ctx)
	if err != nil {
		return err
	}
	plans, err := s.managerMetrics(ctx)
	if err != nil {
		return err
	}
	bytes, sets := s.watch.bytes.Load(), s.carriedOut()
	started := time.Now()
	var latencies []time.Duration
	turn := time.NewTicker(1500 * time.Millisecond)
	defer turn.Stop()
	for i := range o.changes {
		name := fmt.Sprintf("one-%d", i)
		s.watch.record()
		created := time.Now()
		if err := s.create(ctx, name); err != nil {
			return err
		}
		last, err := s.lastTold(ctx, name)
		if err != nil {
			return err
		}
		latencies = append(latencies, last.Sub(created))
		<-turn.C
	}
	after, err := s.quiet(ctx, allCalm)
	if err != nil {
		return err
	}
	usageNow, _, err := s.usage(ctx)
	if err != nil {
		return err
	}
	plansNow, err := s.managerMetrics(ctx)
	if err != nil {
		return err
	}
	n := float64(o.changes)
	resting := r.IdleCPU * time.Since(started).Seconds()
	r.CreateCPU = max(0, (usageNow.CPU-usage.CPU).Seconds()-resting) / n
	r.Plan = (plansNow.planSeconds - plans.planSeconds) / max(1, plansNow.plans-plans.plans)
	r.CreateBytes = (plansNow.requestBytes - plans.requestBytes) / n
	r.WatchBytes = float64(s.watch.bytes.Load()-bytes) / n
	r.CarriedOut = float64(s.carriedOut()-sets) / n
	if len(s.nodes) > nextHops && r.CarriedOut < float64(nextHops-1) { // one may be the real one
		return fmt.Errorf("%.1f simulated speakers carried out what %d were told", r.CarriedOut, nextHops)
	}
	r.Creates = after.since(before).per(n)
	slices.Sort(latencies)
	r.Latency, r.LatencyMax = latencies[len(latencies)/2].Seconds(), latencies[len(latencies)-1].Seconds()

	for i := range o.changes {
		if err := s.remove(ctx, fmt.Sprintf("one-%d", i)); err != nil {
			return err
		}
		<-turn.C
	}
	deleted, err := s.quiet(ctx, allCalm)
	r.Deletes = deleted.since(after).per(n)
	return err
}

func (w writes) per(n float64) map[string]float64 {
	out := make(map[string]float64, len(w))
	for what, k := range w {
		out[what] = float64(k) / n
	}
	return out
}

// lastTold waits until all nodes that are to announce the Service are told.
func (s *site) lastTold(ctx context.Context, name string) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	addresses, err := s.addressesOf(ctx, name)
	if err != nil {
		return time.Time{}, err
	}
	return s.watch.last(ctx, addresses, s.told())
}

// churn creates 20 Services a second, and deletes each eight seconds
// after it has its address.
func (s *site) churn(ctx context.Context, o options, r *result) error {
	before, err := s.audit.read()
	if err != nil {
		return err
	}
	usage, _, err := s.usage(ctx)
	if err != nil {
		return err
	}
	server, err := s.ProgramUsage(ctx, lab.ControlPlane, "kube-apiserver")
	if err != nil {
		return err
	}
	const rate, life = 20, 8 * time.Second
	n := int(o.churn.Seconds() * rate)
	created, answered := make([]time.Time, n), make([]time.Duration, n)
	addresses := make([][]netip.Addr, n)
	s.watch.record()
	started := time.Now()
	turn := time.NewTicker(time.Second / rate)
	defer turn.Stop()
	group, working := errgroup.WithContext(ctx)
	for i := range n {
		group.Go(func() (err error) {
			name := fmt.Sprintf("churn-%d", i)
			created[i] = time.Now()
			if err = s.create(working, name); err != nil {
				return err
			}
			answered[i] = time.Since(created[i])
			if addresses[i], err = s.addressesOf(working, name); err != nil {
				return err
			}
			pause(working, life)
			return s.remove(working, name)
		})
		select {
		case <-turn.C:
		case <-working.Done():
			return group.Wait()
		}
	}
	if err := group.Wait(); err != nil {
		return err
	}
	took := time.Since(started).Seconds()
	usageNow, _, err := s.usage(ctx)
	if err != nil {
		return err
	}
	r.ChurnCPU = (usageNow.CPU - usage.CPU).Seconds() / took
	serverNow, err := s.ProgramUsage(ctx, lab.ControlPlane, "kube-apiserver")
	if err != nil {
		return err
	}
	r.ChurnServer = (serverNow.CPU - server.CPU).Seconds() / took
	after, err := s.audit.read()
	if err != nil {
		return err
	}
	written := after.since(before)
	s.log("churn: %v", written)
	r.ChurnWrites = float64(written.total()) / took
	if _, err := s.quiet(ctx, soonCalm); err != nil {
		return err
	}
	last, err := s.watch.told(addresses, s.told())
	if err != nil {
		return err
	}
	var latencies []time.Duration
	for i, at := range last {
		if at.IsZero() {
			return fmt.Errorf("service churn-%d was deleted before all its nodes were told", i)
		}
		latencies = append(latencies, at.Sub(created[i]))
	}
	slices.Sort(latencies)
	slices.Sort(answered)
	r.ChurnAPI = answered[n/2].Seconds()
	r.Churn, r.ChurnMax = latencies[n/2].Seconds(), latencies[n-1].Seconds()
	return nil
}

// recovery kills the cloud-controller-manager and starts it again, when a Service
// waits for it.
func (s *site) recovery(ctx context.Context, _ options, r *result) error {
	before, err := s.programs()
	if err != nil {
		return err
	}
	if err := s.Kill(ctx, realNode, s.manager, syscall.SIGKILL); err != nil {
		return err
	}
	const name = "canary"
	if err := s.create(ctx, name); err != nil {
		return err
	}
	s.watch.record()
	started := time.Now()
	if err := s.StartProgram(ctx, realNode, s.manager); err != nil {
		return err
	}
	last, err := s.lastTold(ctx, name)
	if err != nil {
		return err
	}
	r.Recovered = last.Sub(started).Seconds()
	if _, err := s.quiet(ctx, allCalm); err != nil {
		return err
	}
	log, _ := s.watch.recorded(0)
	written := make(map[string]bool)
	for _, t := range log {
		written[t.node] = true
		p, err := announce.Decode(t.value)
		if err != nil {
			return err
		}
		had := before[t.node]
		for _, g := range had.Groups {
			for _, addresses := range g.Addresses {
				for a := range addresses.All() {
					if !p.Contains(a) {
						r.Withdrawn++
					}
				}
			}
		}
	}
	r.Rewritten = max(0, len(written)-s.told())
	return errors.Join(s.remove(ctx, name), err)
}

// programs are those of all nodes, decoded.
func (s *site) programs() (map[string]announce.Program, error) {
	programs := make(map[string]announce.Program, len(s.nodes))
	for node, value := range s.watch.programs() {
		p, err := announce.Decode(value)
		if err != nil {
			return nil, fmt.Errorf("node %s: %w", node, err)
		}
		programs[node] = p
	}
	return programs, nil
}
