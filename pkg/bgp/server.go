package bgp

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"
	gobgp "github.com/osrg/gobgp/v4/pkg/server"
	"golang.org/x/sys/unix"
)

// Families as gobgp numbers them in the global configuration.
const (
	ipv4Unicast = 0
	ipv6Unicast = 1
)

// server is a running gobgp and what it has been told. It is not safe for
// concurrent use.
type server struct {
	gobgp    *gobgp.BgpServer
	stop     context.CancelFunc // ends the watch
	routerID netip.Addr
	classes  classes
	routes   routes
	peers    map[string]Peer
	// inspected is when foreign was last called, by peer.
	inspected map[string]time.Time
}

// startServer starts gobgp without peers and paths. It calls event, from one
// goroutine, for each change of a session's state.
func startServer(config Config, routerID netip.Addr, asn uint32, event func(*apiutil.WatchEventMessage_PeerEvent)) (*server, error) {
	options := []gobgp.ServerOption{gobgp.LoggerOption(config.Logger, new(slog.LevelVar))}
	if config.Socket != "" {
		// Whoever may connect may announce, so nobody but the owner may.
		unix.Umask(0o077)
		if err := os.Remove(config.Socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("gobgp socket: %w", err)
		}
		options = append(options, gobgp.GrpcListenAddress("unix://"+config.Socket))
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &server{
		gobgp:    gobgp.NewBgpServer(options...),
		stop:     stop,
		routerID: routerID,
		peers:    make(map[string]Peer),

		inspected: make(map[string]time.Time),
	}
	go s.gobgp.Serve() // ends in close
	if err := s.configure(ctx, config.ListenPort, asn); err != nil {
		s.close(false)
		return nil, err
	}
	watch := gobgp.WatchEventMessageCallbacks{
		OnPeerUpdate: func(e *apiutil.WatchEventMessage_PeerEvent, _ time.Time) { event(e) },
	}
	if err := s.gobgp.WatchEvent(ctx, watch, gobgp.WatchPeer()); err != nil {
		s.close(false)
		return nil, fmt.Errorf("watching BGP sessions: %w", err)
	}
	return s, nil
}

// configure starts BGP with policies that let nothing in or out.
func (s *server) configure(ctx context.Context, port int, asn uint32) error {
	global := &api.Global{
		Asn:        asn, // each peer has its own; this one is never sent
		RouterId:   s.routerID.String(),
		ListenPort: int32(port),
		// The default is a table for each family there is: 10 MB more.
		Families: []uint32{ipv4Unicast, ipv6Unicast},
	}
	if err := s.gobgp.StartBgp(ctx, &api.StartBgpRequest{Global: global}); err != nil {
		return fmt.Errorf("starting BGP on port %d: %w", port, err)
	}
	for _, p := range []*api.Policy{ownPathsOnly(), {Name: exportPolicy}} {
		if err := s.gobgp.AddPolicy(ctx, &api.AddPolicyRequest{Policy: p}); err != nil {
			return fmt.Errorf("adding the %s policy: %w", p.Name, err)
		}
	}
	for name, direction := range map[string]api.PolicyDirection{
		importPolicy: api.PolicyDirection_POLICY_DIRECTION_IMPORT,
		exportPolicy: api.PolicyDirection_POLICY_DIRECTION_EXPORT,
	} {
		assignment := &api.PolicyAssignment{
			Name:          globalTable,
			Direction:     direction,
			Policies:      []*api.Policy{{Name: name}},
			DefaultAction: api.RouteAction_ROUTE_ACTION_REJECT,
		}
		if err := s.gobgp.SetPolicyAssignment(ctx, &api.SetPolicyAssignmentRequest{Assignment: assignment}); err != nil {
			return fmt.Errorf("assigning the %s policy: %w", name, err)
		}
	}
	return nil
}

// close ends all sessions and gobgp: gracefully, without a NOTIFICATION to
// routers that agreed on Graceful Restart, or with a Cease.
func (s *server) close(graceful bool) {
	s.stop()
	if graceful {
		// An error means that it has stopped already.
		_ = s.gobgp.StopBgp(context.Background(), &api.StopBgpRequest{AllowGracefulRestart: true})
	}
	s.gobgp.Stop()
}

// setPolicy replaces the export policy. Sessions that are established are told
// nothing: see refresh.
func (s *server) setPolicy(ctx context.Context, c classes, peers map[string]Peer) error {
	if err := s.gobgp.SetPolicies(ctx, c.policies(peers)); err != nil {
		return fmt.Errorf("setting the export policy: %w", err)
	}
	s.classes = c
	return nil
}

// refresh sends the peer all its paths again, and withdraws what the policy
// rejects now (a soft reset). A session that is not established is left alone.
func (s *server) refresh(ctx context.Context, peer Peer) error {
	request := &api.ResetPeerRequest{
		Address:   peer.Address.String(),
		Soft:      true,
		Direction: api.ResetPeerRequest_DIRECTION_OUT,
	}
	if err := s.gobgp.ResetPeer(ctx, request); err != nil {
		return fmt.Errorf("peer %q: sending its paths again: %w", peer.Name, err)
	}
	return nil
}

// setRoutes changes the RIB, additions first: the prefixes that a shorter one
// replaces are withdrawn after it is there.
func (s *server) setRoutes(after routes) (removed []netip.Prefix, changed bool, err error) {
	add, removed := s.routes.diff(after)
	if err := s.addPaths(add); err != nil {
		return nil, true, err
	}
	if err := s.deletePaths(removed); err != nil {
		return nil, true, err
	}
	s.routes = after
	return removed, len(add)+len(removed) > 0, nil
}

func (s *server) addPaths(add routes) error {
	if len(add) == 0 {
		return nil
	}
	type kind struct {
		class marker
		ipv4  bool
	}
	shared := make(map[kind][]packet.PathAttributeInterface)
	paths := make([]*apiutil.Path, 0, len(add))
	for _, r := range add {
		k := kind{r.class, r.prefix.Addr().Is4()}
		if shared[k] == nil {
			shared[k] = attributes(k.ipv4, k.class)
		}
		path, err := apiPath(r.prefix, shared[k])
		if err != nil {
			return err
		}
		paths = append(paths, path)
	}
	if _, err := s.gobgp.AddPath(apiutil.AddPathRequest{Paths: paths}); err != nil {
		return fmt.Errorf("adding paths: %w", err)
	}
	return nil
}

func (s *server) deletePaths(prefixes []netip.Prefix) error {
	if len(prefixes) == 0 {
		return nil
	}
	paths := make([]*apiutil.Path, 0, len(prefixes))
	for _, p := range prefixes {
		path, err := apiPath(p, nil)
		if err != nil {
			return err
		}
		paths = append(paths, path)
	}
	if err := s.gobgp.DeletePath(apiutil.DeletePathRequest{Paths: paths}); err != nil {
		return fmt.Errorf("deleting paths: %w", err)
	}
	return nil
}

// withdrawAgain sends a withdrawal of prefixes that are not in the RIB: it adds
// them so that no peer may have them, and deletes them.
func (s *server) withdrawAgain(prefixes []netip.Prefix) error {
	var absent routes
	for _, p := range prefixes {
		if s.routes.class(p) == 0 {
			absent = append(absent, route{prefix: p})
		}
	}
	if err := s.addPaths(absent); err != nil {
		return err
	}
	for i, r := range absent {
		prefixes[i] = r.prefix
	}
	return s.deletePaths(prefixes[:len(absent)])
}

func (s *server) addPeer(ctx context.Context, p Peer) error {
	if err := s.gobgp.AddPeer(ctx, &api.AddPeerRequest{Peer: p.api()}); err != nil {
		return fmt.Errorf("adding peer %q: %w", p.Name, err)
	}
	s.peers[p.Name] = p
	return nil
}

// updatePeer changes a peer that keeps its address.
func (s *server) updatePeer(ctx context.Context, p Peer) error {
	before := s.peers[p.Name]
	request := p.api()
	if compare(before, p) == inPlace && request.GracefulRestart != nil {
		// To gobgp, a new restart time means a new session.
		request.GracefulRestart.RestartTime = uint32(seconds(before.RestartTime))
	}
	if _, err := s.gobgp.UpdatePeer(ctx, &api.UpdatePeerRequest{Peer: request}); err != nil {
		return fmt.Errorf("changing peer %q: %w", p.Name, err)
	}
	s.peers[p.Name] = p
	return nil
}

// removePeer ends a session with a Cease.
func (s *server) removePeer(ctx context.Context, p Peer) error {
	delete(s.peers, p.Name)
	delete(s.inspected, p.Name)
	if p.Password != "" {
		// gobgp's DeletePeer leaves the password on the listening socket, where
		// it would refuse the same router without one later. Its UpdatePeer
		// takes it off.
		down := p
		down.Password = ""
		request := down.api()
		request.Conf.AdminDown = true
		if _, err := s.gobgp.UpdatePeer(ctx, &api.UpdatePeerRequest{Peer: request}); err != nil {
			return fmt.Errorf("removing the password of peer %q: %w", p.Name, err)
		}
	}
	if err := s.gobgp.DeletePeer(ctx, &api.DeletePeerRequest{Address: p.Address.String()}); err != nil {
		return fmt.Errorf("removing peer %q: %w", p.Name, err)
	}
	return nil
}

// renewPeer replaces a session that has just been lost. Its next OPEN has the R
// and F bits again, which gobgp sends only for the first session of a peer, so
// that the router keeps the routes that it holds as stale; and it connects
// without gobgp's pause of five seconds.
func (s *server) renewPeer(ctx context.Context, p Peer) error {
	if err := s.gobgp.DeletePeer(ctx, &api.DeletePeerRequest{Address: p.Address.String()}); err != nil {
		return fmt.Errorf("renewing peer %q: %w", p.Name, err)
	}
	return s.addPeer(ctx, p)
}

// enablePeer lets a session come up again after the prefix limit.
func (s *server) enablePeer(ctx context.Context, p Peer) error {
	if err := s.gobgp.EnablePeer(ctx, &api.EnablePeerRequest{Address: p.Address.String()}); err != nil {
		return fmt.Errorf("enabling peer %q: %w", p.Name, err)
	}
	return nil
}

// received is how many prefixes a peer has sent: all of them, and those whose
// path is no loop to gobgp, which finds the peer's local AS number in AS_PATH and
// the router ID in ORIGINATOR_ID.
type received struct{ all, unlooped uint64 }

// received counts the prefixes that each peer has sent, by peer.
func (s *server) received(ctx context.Context) (map[string]received, error) {
	names := make(map[string]string, len(s.peers))
	for name, p := range s.peers {
		names[p.Address.String()] = name
	}
	out := make(map[string]received, len(s.peers))
	err := s.gobgp.ListPeer(ctx, &api.ListPeerRequest{}, func(p *api.Peer) {
		name, ok := names[p.GetConf().GetNeighborAddress()]
		if !ok {
			return
		}
		var n received
		for _, family := range p.GetAfiSafis() {
			n.all += family.GetState().GetReceived()
			n.unlooped += family.GetState().GetAccepted()
		}
		out[name] = n
	})
	return out, err
}

// foreign counts the prefixes of a peer that are no echo: neither is the path a
// loop, nor do we announce the prefix. It copies all that the peer has sent.
func (s *server) foreign(p Peer) (n uint64, err error) {
	for family, wanted := range map[packet.Family]bool{packet.RF_IPv4_UC: p.IPv4, packet.RF_IPv6_UC: p.IPv6} {
		if !wanted {
			continue
		}
		request := apiutil.ListPathRequest{TableType: api.TableType_TABLE_TYPE_ADJ_IN, Name: p.Address.String(), Family: family}
		err := s.gobgp.ListPath(request, func(nlri packet.NLRI, paths []*apiutil.Path) {
			prefix, ok := nlri.(*packet.IPAddrPrefix)
			if ok && s.routes.class(prefix.Prefix) != 0 {
				return
			}
			for _, path := range paths {
				if !s.looped(path, p.LocalASN) {
					n++
				}
			}
		})
		if err != nil {
			return 0, fmt.Errorf("listing what peer %q has sent: %w", p.Name, err)
		}
	}
	return n, nil
}

// looped reports whether the path was ours once.
func (s *server) looped(path *apiutil.Path, asn uint32) bool {
	for _, attribute := range path.Attrs {
		switch a := attribute.(type) {
		case *packet.PathAttributeAsPath:
			for _, segment := range a.Value {
				if slices.Contains(segment.GetAS(), asn) {
					return true
				}
			}
		case *packet.PathAttributeOriginatorId:
			if a.Value == s.routerID {
				return true
			}
		}
	}
	return false
}
