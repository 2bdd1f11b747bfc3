package layer2

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"go4.org/netipx"
	"golang.org/x/net/bpf"
	"k8s.io/klog/v2"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/layer2/internal/filter"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/layer2/internal/wire"
)

// probeTarget is a ProbeLink as far as it concerns a family.
type probeTarget struct {
	name   string
	mac    announce.MAC
	own    []netip.Prefix
	hosts  map[netip.Addr]bool
	ranges []netipx.IPRange // of the hosts
}

func newProbeTarget(l *ProbeLink, f family) probeTarget {
	t := probeTarget{name: l.Interface.Name, mac: l.Interface.MAC, hosts: make(map[netip.Addr]bool)}
	for _, p := range l.Interface.Prefixes {
		if addr := p.Addr().Unmap().WithZone(""); familyOf(addr) == f && isHost(addr) {
			t.own = append(t.own, netip.PrefixFrom(addr, p.Bits()))
		}
	}
	var hosts []netip.Addr
	for _, addr := range l.Hosts {
		if addr = addr.Unmap().WithZone(""); familyOf(addr) == f && isHost(addr) {
			t.hosts[addr] = true
			hosts = append(hosts, addr)
		}
	}
	t.ranges = rangesOf(hosts)
	return t
}

// source is the node's own address to ask the host from: of its subnet, so that the
// answer needs no router.
func (t *probeTarget) source(host netip.Addr) netip.Addr {
	var other netip.Addr
	for _, p := range t.own {
		if p.Contains(host) {
			return p.Addr()
		}
		if !other.IsValid() || other.IsLinkLocalUnicast() {
			other = p.Addr()
		}
	}
	return other
}

// heard is the host that has sent the message, and its MAC address.
func (t *probeTarget) heard(m *wire.Message) (host netip.Addr, mac announce.MAC, ok bool) {
	if m.Source == t.mac || m.SenderMAC == t.mac {
		return netip.Addr{}, announce.MAC{}, false // looped back
	}
	if host, mac, ok = m.Claims(); ok && t.hosts[host] {
		return host, mac, true
	}
	// An advertisement of another of its addresses.
	return m.Sender, m.Source, t.hosts[m.Sender]
}

// replied reports whether the message answers a question of this node: it is to nobody
// else.
func (t *probeTarget) replied(m *wire.Message) bool {
	return m.Destination == t.mac && (m.Kind == wire.ARPReply || m.Kind == wire.Advertisement && m.Solicited)
}

// probePort is a socket of a Prober, with the goroutine that reads it and opens it
// again when it dies.
type probePort struct {
	probeKey
	prober *Prober
	closed chan struct{}

	mu     sync.Mutex
	target probeTarget
	socket socket // nil while there is none
}

// run reads until close.
func (p *probePort) run(ctx context.Context) {
	logger := klog.FromContext(ctx)
	before := ""
	for {
		opened, err := p.read()
		select {
		case <-p.closed:
			return
		default:
		}
		switch text := err.Error(); {
		case opened:
			logger.V(2).Info("Socket lost", "interface", p.index, "protocol", p.family)
			before = ""
		case text != before:
			logger.Info("Hosts cannot be asked", "problem", text)
			before = text
		}
		select {
		case <-p.closed:
			return
		case <-time.After(reopenTime):
		}
	}
}

// read opens the socket and reads it until it dies.
func (p *probePort) read() (opened bool, err error) {
	s, err := p.connect()
	if err != nil {
		return false, err
	}
	defer p.disconnect(s)
	buffer := make([]byte, frameSize)
	for {
		n, err := s.Read(buffer)
		if err != nil {
			return true, err
		}
		m, err := wire.ParseFrame(buffer[:n])
		if err != nil {
			continue
		}
		p.mu.Lock()
		host, mac, ok := p.target.heard(&m)
		reply := p.target.replied(&m)
		p.mu.Unlock()
		if ok {
			p.prober.answered(ProbeAnswer{Interface: p.index, Host: host, MAC: mac, Reply: reply})
		}
	}
}

func (p *probePort) connect() (socket, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.closed:
		return nil, errClosed
	default:
	}
	program, err := p.program(p.target.ranges)
	if err != nil {
		return nil, err
	}
	s, err := p.prober.open(p.index, p.family, program)
	if err != nil {
		return nil, errors.New(explain(p.target.name, p.family, err))
	}
	p.socket = s
	return s, nil
}

// disconnect closes the socket, which ends its reader.
func (p *probePort) disconnect(s socket) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.socket == s {
		p.drop()
	}
}

// drop is disconnect. The lock is held.
func (p *probePort) drop() {
	if p.socket != nil {
		_ = p.socket.Close() // it is not used any more either way
		p.socket = nil
	}
}

// close ends the port and its goroutine.
func (p *probePort) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.closed)
	p.drop()
}

// aim changes whom the port hears and asks. A socket that does not take the filter
// is opened again with it.
func (p *probePort) aim(t probeTarget) {
	p.mu.Lock()
	defer p.mu.Unlock()
	same := slices.Equal(p.target.ranges, t.ranges)
	p.target = t
	if same || p.socket == nil {
		return
	}
	program, err := p.program(t.ranges)
	if err == nil {
		err = p.socket.SetFilter(program)
	}
	if err != nil {
		p.drop()
	}
}

// program is the filter that lets these hosts' frames through.
func (k probeKey) program(hosts []netipx.IPRange) ([]bpf.RawInstruction, error) {
	if k.family == ipv4 {
		return filter.ARPFrom(k.index, hosts)
	}
	return filter.NDPFrom(k.index, hosts)
}

// ask sends a question.
func (p *probePort) ask(host netip.Addr, mac announce.MAC) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := &p.target
	source := t.source(host)
	switch {
	case !t.hosts[host]:
		return fmt.Errorf("it is not among the hosts of interface %s that were set", t.name)
	case t.mac == announce.MAC{}:
		return fmt.Errorf("interface %s has no MAC address", t.name)
	case !source.IsValid():
		return fmt.Errorf("interface %s has no address for %v to ask from: give it one", t.name, p.family)
	case p.socket == nil:
		return fmt.Errorf("interface %s has no socket for %v yet", t.name, p.family)
	}
	frame := wire.NDPQuestion(t.mac, source, host, mac)
	if p.family == ipv4 {
		frame = wire.ARPQuestion(t.mac, source, host, mac)
	}
	err := p.socket.Write(frame)
	if isGone(err) {
		p.drop() // the reader is not always told
	}
	return err
}
