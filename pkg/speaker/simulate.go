package speaker

import (
	"context"
	"net/netip"

	"k8s.io/client-go/rest"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/bgp"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/layer2"
)

// Simulated is a node that is not there: what a speaker would find on it, and
// what takes the place of its announcers. See Simulate.
type Simulated struct {
	// Name of the Node.
	Name string
	// Interfaces are reported.
	Interfaces []announce.Interface
	// BGP and LAN are told what to announce, from one goroutine at a time.
	BGP interface {
		Set(ctx context.Context, s bgp.State) error
		Sessions() []announce.Session
	}
	LAN interface{ Set(s layer2.State) }
}

// Simulate is Run on a node that is not there: the real loop, which watches a
// Node, carries out its programs and reports, without the machine that it is
// about. A thousand of them fit into one process, to measure what a cluster of
// so many nodes costs. It blocks until ctx ends, and returns nil then. api is how
// to reach the API server, namespace where the Secrets are.
func Simulate(ctx context.Context, api *rest.Config, namespace string, node Simulated) error {
	client, err := newClientFor(rest.CopyConfig(api), node.Name, namespace, "simulated")
	if err != nil {
		return err
	}
	s := newSpeaker("simulated", node.Name)
	s.announcer = simulatedBGP{node}
	s.lan = simulatedLAN{node}
	s.gate = newGate("", func() {})
	s.linkTo = func(netip.Addr) int { return 0 }
	s.gateways = func() []netip.Addr { return nil }
	s.reach = func([]netip.Addr) []announce.Reach { return nil }
	var interfaces inventory
	for _, i := range node.Interfaces {
		interfaces.nics = append(interfaces.nics, nic{Interface: i})
	}
	return s.run(ctx, client, interfaces, memory{}, nil)
}

// simulatedBGP adds what a router could do.
type simulatedBGP struct{ node Simulated }

func (b simulatedBGP) Set(ctx context.Context, s bgp.State) error { return b.node.BGP.Set(ctx, s) }

func (b simulatedBGP) Sessions() []announce.Session { return b.node.BGP.Sessions() }

// Received is empty: no router sends prefixes.
func (simulatedBGP) Received(context.Context) map[string]uint64 { return nil }

// simulatedLAN adds what the LAN could do.
type simulatedLAN struct{ node Simulated }

func (l simulatedLAN) Set(s layer2.State) { l.node.LAN.Set(s) }

// Status is empty: nobody is on the LAN.
func (simulatedLAN) Status() layer2.Status { return layer2.Status{} }
