package keeper

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/addr"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/internal/control"
)

// service is what may be asked of a lab.
type service struct {
	keeper *keeper
}

// Status tells how the lab and its hosts fare.
func (s *service) Status(_ control.None, reply *control.Status) error {
	reply.Name = s.keeper.config.Name
	s.keeper.mu.Lock()
	var hosts []*host
	for _, h := range s.keeper.hosts {
		hosts = append(hosts, h)
	}
	s.keeper.mu.Unlock()
	slices.SortFunc(hosts, compareHosts)
	for _, h := range hosts {
		reply.Hosts = append(reply.Hosts, h.status())
	}
	return nil
}

// compareHosts puts nodes last, by their numbers.
func compareHosts(a, b *host) int {
	if a.node != b.node {
		return a.node - b.node
	}
	order := []string{ControlPlane, RouterHost, LANHost, FarHost}
	return slices.Index(order, a.name) - slices.Index(order, b.name)
}

// Shutdown ends the lab. The caller sees its connection close.
func (s *service) Shutdown(control.None, *control.None) error {
	os.Exit(0)
	return nil
}

// Cut takes a host, or one of its interfaces, off the network.
func (s *service) Cut(r control.CutRequest, _ *control.None) error {
	h, err := s.keeper.find(r.Host)
	if err != nil {
		return err
	}
	return h.setCut(true, r)
}

// Restore connects a host again.
func (s *service) Restore(r control.CutRequest, _ *control.None) error {
	h, err := s.keeper.find(r.Host)
	if err != nil {
		return err
	}
	return h.setCut(false, r)
}

func (s *service) tell(method string, r control.SignalRequest) error {
	h, err := s.keeper.find(r.Host)
	if err != nil {
		return err
	}
	return h.call(method, r)
}

// Kill takes a program down until it is started.
func (s *service) Kill(r control.SignalRequest, _ *control.None) error { return s.tell("Kill", r) }

// Start lets a program run again.
func (s *service) Start(r control.SignalRequest, _ *control.None) error { return s.tell("Start", r) }

// Restart ends a program that comes back at once.
func (s *service) Restart(r control.SignalRequest, _ *control.None) error {
	return s.tell("Restart", r)
}

// Signal sends a program a signal.
func (s *service) Signal(r control.SignalRequest, _ *control.None) error { return s.tell("Signal", r) }

// SetQuota bounds the CPU time of a program.
func (s *service) SetQuota(r control.QuotaRequest, _ *control.None) error {
	h, err := s.keeper.find(r.Host)
	if err != nil {
		return err
	}
	return h.call("SetQuota", r)
}

// PowerOff switches a host off, without any notice to what runs in it.
func (s *service) PowerOff(name string, _ *control.None) error {
	h, err := s.keeper.find(name)
	if err != nil {
		return err
	}
	return h.powerOff()
}

// PowerOn boots a host that is off.
func (s *service) PowerOn(name string, _ *control.None) error {
	h, err := s.keeper.find(name)
	if err != nil {
		return err
	}
	return s.keeper.boot(h)
}

// Reboot is a power loss, and the boot that follows.
func (s *service) Reboot(name string, none *control.None) error {
	if err := s.PowerOff(name, none); err != nil {
		return err
	}
	return s.PowerOn(name, none)
}

func (k *keeper) boot(h *host) error {
	k.mu.Lock()
	spec, err := k.describe(h)
	k.mu.Unlock()
	if err != nil {
		return err
	}
	return h.boot(spec, k.config.Command)
}

// AddNode adds a node and answers with its name.
func (s *service) AddNode(r control.NodeRequest, reply *string) error {
	k := s.keeper
	k.mu.Lock()
	defer k.mu.Unlock()
	n := 1
	for k.hosts[nodeName(n)] != nil {
		n++
	}
	if n > addr.MaxNodes {
		return errors.New("the address plan has no room for another node")
	}
	h := &host{name: nodeName(n), node: n}
	k.nodes[n], k.hosts[h.name] = r, h
	*reply = h.name
	spec, err := k.describe(h)
	if err != nil {
		return err
	}
	if err := h.boot(spec, k.config.Command); err != nil {
		return err
	}
	if err := k.changeRoutes("AddRoutes", n); err != nil {
		return err
	}
	if err := k.changeFilter(func(*filter) {}); err != nil {
		return err
	}
	return k.reconfigureRouter()
}

// AddInterface gives a node a second interface on the LAN.
func (s *service) AddInterface(r control.InterfaceRequest, _ *control.None) error {
	h, err := s.keeper.find(r.Host)
	if err != nil {
		return err
	}
	if h.node == 0 {
		return fmt.Errorf("%s is no node", r.Host)
	}
	s.keeper.mu.Lock()
	defer s.keeper.mu.Unlock()
	if len(h.extra) > 0 {
		return fmt.Errorf("%s has a second interface, %s", r.Host, h.extra[0].Name)
	}
	link := secondLink(h.node, r.Name)
	spec := control.Host{Links: []control.Link{link}, Sysctls: map[string]string{}}
	setCommonSysctls(&spec)
	if err := h.addLink(control.LinkUp{Link: link, Sysctls: spec.Sysctls}); err != nil {
		return err
	}
	h.extra = append(h.extra, link)
	// What is dropped or lost is so on the new interface, too.
	return s.keeper.changeFilter(func(*filter) {})
}

// RemoveNode switches a node off and forgets it.
func (s *service) RemoveNode(name string, _ *control.None) error {
	k := s.keeper
	k.mu.Lock()
	defer k.mu.Unlock()
	h, ok := k.hosts[name]
	if !ok || h.node == 0 {
		return fmt.Errorf("no node %q", name)
	}
	if h.status().Up {
		if err := h.powerOff(); err != nil {
			return err
		}
	}
	delete(k.hosts, name)
	delete(k.nodes, h.node)
	if err := k.changeRoutes("RemoveRoutes", h.node); err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(k.config.Dir, "hosts", name)); err != nil {
		return err
	}
	return k.reconfigureRouter()
}

// changeRoutes tells those who reach Pods about the network of a node. The
// lock is held.
func (k *keeper) changeRoutes(method string, n int) error {
	var g errgroup.Group
	for _, h := range k.hosts {
		if h.node == n || h.node == 0 && h.name != ControlPlane || !h.status().Up {
			continue
		}
		g.Go(func() error { return h.call(method, podRoutesOf(n)) })
	}
	return g.Wait()
}

// ConfigureRouter changes the configuration of the running router.
func (s *service) ConfigureRouter(r control.RouterRequest, _ *control.None) error {
	k := s.keeper
	k.mu.Lock()
	defer k.mu.Unlock()
	k.config.Router.Extra, k.config.Router.NodeExtra, k.config.Router.Password = r.Extra, r.NodeExtra, r.Password
	if r.HoldTime != 0 {
		k.config.Router.HoldTime = r.HoldTime
	}
	return k.reconfigureRouter()
}
