package speaker

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/klog/v2"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/bgp"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/heartbeat"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/layer2"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/statefile"
)

// announcer is the part of bgp.Announcer that the loop needs.
type announcer interface {
	Set(ctx context.Context, s bgp.State) error
	Sessions() []announce.Session
	Received(ctx context.Context) map[string]uint64
}

// lanAnnouncer is the part of layer2.Announcer that the loop needs.
type lanAnnouncer interface {
	Set(s layer2.State)
	Status() layer2.Status
}

// speaker is the loop and what it knows.
type speaker struct {
	version   string
	nodeName  string
	announcer announcer
	lan       lanAnnouncer
	vault     *vault
	reporter  *reporter
	keeper    keeper
	gate      *gate
	endpoints *endpoints
	tidy      *tidier // nil where the process is not the speaker's alone
	fellows   exchange
	// setLinks tells who asks on the LAN what interfaces there are.
	setLinks func(links []layer2.Interface)
	// grace is how long other speakers may be away before their addresses are taken
	// over, cover whether to answer for them meanwhile.
	grace time.Duration
	cover bool
	// apiHost is the API server's address, or zero if that is a name.
	apiHost netip.Addr
	// linkTo is the index of the interface towards a host, 0 if there is none.
	linkTo func(host netip.Addr) int
	// gateways are the node's default gateways.
	gateways func() []netip.Addr
	// reach finds the interfaces towards the targets of "can-reach:".
	reach func(targets []netip.Addr) []announce.Reach

	// Inbox of the loop. Of each kind only the last one counts.
	nodes      latest[node]
	interfaces latest[inventory]
	routes     latest[struct{}]
	secrets    latest[struct{}]
	sessions   latest[struct{}]
	claims     latest[struct{}] // the LAN, or the state file, has news
	gates      latest[struct{}]
	fitness    latest[struct{}] // Services have endpoints on the node, or none any more
	fellowship latest[struct{}] // the candidates have agreed on something else
	pings      chan chan struct{}
	// heartbeatKeys are those that a keyring tells.
	heartbeatKeys latest[heartbeatKeys]

	// stopping is set when the loop ends.
	stopping atomic.Bool

	mu     sync.Mutex
	status status
}

// Run is the speaker. It returns nil after ctx ended and the sessions are
// closed: so that routers keep the routes, or with a withdrawal if the node is
// cordoned, draining or gone. An error means that it could not start.
func Run(ctx context.Context, config Config) error {
	if err := config.Validate(); err != nil {
		return err
	}
	logger := klog.FromContext(ctx)
	api, err := newClient(config.Kubeconfig, config.NodeName, config.Namespace, config.Version)
	if err != nil {
		return err
	}
	before := recall(ctx, config.StateDir, config.NodeName, api.tokenFile)
	s := newSpeaker(config.Version, config.NodeName)
	s.gate = newGate(config.KubeProxyHealthz, func() { s.gates.put(struct{}{}) })
	bgpAnnouncer := bgp.New(bgp.Config{
		ListenPort: config.BGPListenPort,
		Socket:     config.GobgpSocket,
		Logger:     gobgpLogger(logger),
		Changed:    func() { s.sessions.put(struct{}{}) },
	})
	s.announcer = bgpAnnouncer
	lan := layer2.New(layer2.Config{Changed: func() { s.claims.put(struct{}{}) }})
	s.lan = lan
	hosts := &probing{}
	fellows := heartbeat.New(heartbeat.Config{
		Changed:   func() { s.fellowship.put(struct{}{}) },
		Prober:    hosts,
		Checker:   lan,
		API:       api.alive,
		Neighbors: neighbors,
	})
	hosts.prober = layer2.NewProber(func(a layer2.ProbeAnswer) { fellows.Answered(a.Interface, a.Host, a.MAC, a.Reply) })
	s.fellows, s.setLinks = fellows, hosts.setLinks
	s.grace, s.cover = config.RestartGrace, config.CoverRestarts
	s.apiHost = api.host
	keys := newKeyring(api, config.StateDir, s.heartbeatKeys.put)
	keys.recall(ctx)
	s.tidy = newTidier()
	register(s)

	jobs := []func(context.Context) error{
		bgpAnnouncer.Run,
		lan.Run,
		s.gate.run,
		s.endpoints.run,
		s.tidy.run,
		keys.run,
		hosts.prober.Run,
		fellows.Run,
		func(ctx context.Context) error {
			return watchInterfaces(ctx, s.interfaces.put, func() { s.routes.put(struct{}{}) })
		},
	}
	if config.StateDir != "" {
		writer := statefile.NewWriter(config.StateDir, func() { s.claims.put(struct{}{}) })
		s.keeper = writer
		jobs = append(jobs, writer.Run)
	}
	if config.MetricsBindAddress != "" {
		jobs = append(jobs, func(ctx context.Context) error { return s.serve(ctx, config.MetricsBindAddress) })
	}
	// Known before the first program is carried out: IPv6 next hops depend on
	// them. An error comes up again in watchInterfaces.
	interfaces, _ := listInterfaces()
	return s.run(ctx, api, interfaces, before, jobs)
}

// run runs the loop until ctx ends, beside the jobs and what it needs of the API
// server. All of them outlive the loop, which hands over and withdraws at its end.
func (s *speaker) run(ctx context.Context, api *client, interfaces inventory, before memory, jobs []func(context.Context) error) error {
	s.reporter = newReporter(api.annotateNode)
	s.vault = newVault(api.secret, func() { s.secrets.put(struct{}{}) })
	watch := &watcher{client: api, changed: s.nodes.put, wait: backoff}
	jobs = append(jobs, watch.run, s.vault.run, s.reporter.run)

	background, closeAll := context.WithCancel(context.WithoutCancel(ctx))
	defer closeAll()
	group, background := errgroup.WithContext(background)
	for _, job := range jobs {
		group.Go(func() error { return job(background) })
	}
	group.Go(func() error {
		defer closeAll()
		ctx, stop := context.WithCancel(ctx)
		defer stop()
		defer context.AfterFunc(background, stop)() // the others end with an error only
		return s.loop(ctx, interfaces, before)
	})
	return group.Wait()
}

func newSpeaker(version, nodeName string) *speaker {
	s := &speaker{
		version:    version,
		nodeName:   nodeName,
		keeper:     noKeeper{},
		fellows:    alone{},
		setLinks:   func([]layer2.Interface) {},
		nodes:      newLatest[node](),
		interfaces: newLatest[inventory](),
		routes:     newLatest[struct{}](),
		secrets:    newLatest[struct{}](),
		sessions:   newLatest[struct{}](),
		claims:     newLatest[struct{}](),
		gates:      newLatest[struct{}](),
		fitness:    newLatest[struct{}](),
		fellowship: newLatest[struct{}](),
		pings:      make(chan chan struct{}),
		linkTo:     linkTo,
		gateways:   gateways,
		reach:      reach,

		heartbeatKeys: newLatest[heartbeatKeys](),
	}
	s.endpoints = newEndpoints(
		func() bool { return s.gate.state() == gateUnhealthy },
		func() { s.fitness.put(struct{}{}) })
	return s
}
