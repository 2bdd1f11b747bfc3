package layer2

import (
	"context"
	"fmt"
	"net/netip"
	"sync"

	"golang.org/x/net/bpf"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

// ProbeLink is an interface to ask on.
type ProbeLink struct {
	// Interface has the addresses to ask from.
	Interface Interface
	// Hosts are who may be asked: nobody else's frames are received.
	Hosts []netip.Addr
}

// ProbeAnswer is a sign of life: a host has sent a packet of ARP, a Neighbor
// Solicitation or an Advertisement, whether as an answer or not.
type ProbeAnswer struct {
	// Interface is the index of that on which it was received.
	Interface int
	Host      netip.Addr
	// MAC is the address at which the host says that it is found. Where it is not
	// what one knows, another host has the address.
	MAC announce.MAC
	// Reply means that it is the answer to a question of this node, so that the host has
	// heard that. It may still be an earlier question's.
	Reply bool
}

// Prober asks hosts whether they are there: their kernels, for these answer ARP and
// Neighbor Solicitations whatever has become of the programs. Its methods may be
// called from any goroutine.
//
// Switches and proxies answer for hosts that they have heard of, some of them for
// hours (RFC 9161). They do so for what goes to all hosts, hence a question goes to
// the host's MAC address, if that is known.
type Prober struct {
	answered func(ProbeAnswer)
	open     func(index int, f family, program []bpf.RawInstruction) (socket, error)
	wake     chan struct{}

	mu    sync.Mutex
	links []ProbeLink
	ports map[probeKey]*probePort
}

type probeKey struct {
	index  int
	family family
}

// NewProber returns a Prober that does nothing until Run. It calls answered from
// the goroutines that read: it must not block.
func NewProber(answered func(ProbeAnswer)) *Prober {
	return &Prober{
		answered: answered,
		open:     openSocket,
		wake:     make(chan struct{}, 1),
		ports:    make(map[probeKey]*probePort),
	}
}

// Set makes these the links, one for each interface. The slices must not be changed
// any more. Sockets are opened and closed by Run.
func (p *Prober) Set(links []ProbeLink) {
	p.mu.Lock()
	p.links = links
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Run keeps the sockets until ctx ends, and returns nil then. It may be called once.
func (p *Prober) Run(ctx context.Context) error {
	var readers sync.WaitGroup
	defer readers.Wait()
	defer p.adjust(ctx, nil, &readers)
	for {
		p.mu.Lock()
		links := p.links
		p.mu.Unlock()
		p.adjust(ctx, links, &readers)
		select {
		case <-ctx.Done():
			return nil
		case <-p.wake:
		}
	}
}

// adjust opens, changes and closes ports so that there is one for each link and
// family with hosts.
func (p *Prober) adjust(ctx context.Context, links []ProbeLink, readers *sync.WaitGroup) {
	wanted := make(map[probeKey]probeTarget)
	for i := range links {
		for f := range families {
			if t := newProbeTarget(&links[i], f); len(t.hosts) > 0 {
				wanted[probeKey{links[i].Interface.Index, f}] = t
			}
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, port := range p.ports {
		if _, keep := wanted[key]; !keep {
			port.close()
			delete(p.ports, key)
		}
	}
	for key, target := range wanted {
		if port := p.ports[key]; port != nil {
			port.aim(target)
			continue
		}
		port := &probePort{probeKey: key, prober: p, target: target, closed: make(chan struct{})}
		p.ports[key] = port
		readers.Go(func() { port.run(ctx) })
	}
}

// Ask sends one question to the host on the interface of that index: to its MAC
// address, or to all hosts if that is zero. An answer comes by itself or not at all.
func (p *Prober) Ask(index int, host netip.Addr, mac announce.MAC) error {
	host = host.Unmap().WithZone("")
	p.mu.Lock()
	port := p.ports[probeKey{index, familyOf(host)}]
	p.mu.Unlock()
	if port == nil {
		return fmt.Errorf("asking %v on interface %d: it is not among the hosts that were set, or Run has not begun", host, index)
	}
	if err := port.ask(host, mac); err != nil {
		return fmt.Errorf("asking %v: %w", host, err)
	}
	return nil
}
