package plan

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

// Defaults of a BGPPeer, as in its CRD: dumps and tests may lack them.
const (
	defaultHoldTime     = 9 * time.Second
	defaultConnectRetry = 5 * time.Second
	defaultRestartTime  = 30 * time.Second
	defaultBGPPort      = 179
)

// routerID is a node's BGP identifier, or why it has none.
type routerID struct {
	addr netip.Addr
	err  error
}

// resolvePeers gives each node its sessions, and returns the verdicts on the
// BGPPeers by name. A malformed annotation of one node costs only the sessions
// of that node.
func resolvePeers(s *State, nodes []*node) []Peer {
	for _, n := range nodes {
		n.routerID = routerIDOf(n.object)
	}
	peers := slices.Clone(s.Peers)
	// The older of two BGPPeers has the older right to a router's address.
	slices.SortFunc(peers, func(a, b *v1alpha1.BGPPeer) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	out := make([]Peer, 0, len(peers))
	for _, p := range peers {
		if p.DeletionTimestamp != nil {
			continue
		}
		out = append(out, resolvePeer(p, nodes))
	}
	for _, n := range nodes {
		slices.SortFunc(n.peers, func(a, b announce.Peer) int { return cmp.Compare(a.Name, b.Name) })
	}
	slices.SortFunc(out, func(a, b Peer) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// selectedBy are the nodes that hold the session. An edit of labels or of the
// selector that leaves none is probably a mistake: those that hold it go on.
func selectedBy(p *v1alpha1.BGPPeer, nodes []*node) (selected []*node, kept bool) {
	for _, n := range nodes {
		if selects(p.Spec.NodeSelector, n.object.Labels) {
			selected = append(selected, n)
		}
	}
	if len(selected) > 0 {
		return selected, false
	}
	for _, n := range nodes {
		if slices.ContainsFunc(n.previous.Peers, func(had announce.Peer) bool { return had.Name == p.Name }) {
			selected = append(selected, n)
		}
	}
	return selected, len(selected) > 0
}

func resolvePeer(p *v1alpha1.BGPPeer, nodes []*node) Peer {
	result := Peer{Name: p.Name, Problems: unsupportedInPeer(&p.Spec)}
	if p.Spec.PeerAddress == "" {
		return result // unnumbered: told by unsupportedInPeer
	}
	var broken, down []string
	selected, kept := selectedBy(p, nodes)
	for _, n := range selected {
		result.Desired++
		session, err := sessionOf(p, n)
		if err == nil {
			err = alone(session, n)
		}
		if err != nil {
			broken = append(broken, fmt.Sprintf("node %s: %v", n.object.Name, err))
			continue
		}
		n.peers = append(n.peers, session)
		if why := sessionProblem(n, p.Name); why != "" {
			down = append(down, fmt.Sprintf("node %s: %s", n.object.Name, why))
		} else {
			result.Established++
		}
	}
	if kept {
		result.Problems = append(result.Problems, Problem{"KeptLastNodes",
			"spec.nodeSelector selects no node with a speaker; those that hold the session go on: correct the selector or the labels"})
	}
	if result.Desired == 0 {
		result.Problems = append(result.Problems, Problem{"NoNode",
			"no node with a speaker matches spec.nodeSelector: label the nodes, or check that the speaker DaemonSet runs"})
	}
	if len(broken) > 0 {
		result.Problems = append(result.Problems, Problem{"NodeMisconfigured", list(broken)})
	}
	if len(down) > 0 {
		result.Problems = append(result.Problems, Problem{"NotEstablished", list(down)})
	}
	return result
}

// alone refuses a second session of a node with one router: it would displace
// the first.
func alone(session announce.Peer, n *node) error {
	for i := range n.peers {
		if n.peers[i].Address == session.Address {
			return fmt.Errorf("BGPPeer %s, which is older, has the address %s, too; delete one of the two", n.peers[i].Name, session.Address)
		}
	}
	return nil
}

// sessionProblem is why a session is not established, as the node's speaker
// tells it.
func sessionProblem(n *node, peer string) string {
	for _, session := range n.report.Sessions {
		if session.Peer != peer {
			continue
		}
		switch {
		case session.Established() && session.Error == "" && n.speaker == speakerAlive:
			return ""
		case n.speaker != speakerAlive:
			return "its speaker is not running"
		case session.Error != "":
			return session.State + ": " + session.Error
		}
		return session.State
	}
	return "the speaker has not reported the session yet"
}

func sessionOf(p *v1alpha1.BGPPeer, n *node) (announce.Peer, error) {
	spec := &p.Spec
	if n.routerID.err != nil {
		return announce.Peer{}, n.routerID.err
	}
	address, err := parseAddr(spec.PeerAddress)
	if err != nil {
		return announce.Peer{}, fmt.Errorf("spec.peerAddress: %w", err)
	}
	localASN, err := localASNOf(spec, n.object)
	if err != nil {
		return announce.Peer{}, err
	}
	source, err := sourceOf(spec, n.object, address)
	if err != nil {
		return announce.Peer{}, err
	}
	session := announce.Peer{
		Name:         p.Name,
		LocalASN:     localASN,
		PeerASN:      uint32(spec.PeerASN),
		Address:      address,
		Port:         uint16(spec.PeerPort),
		Source:       source,
		HoldTime:     durationOr(spec.HoldTime, defaultHoldTime),
		ConnectRetry: durationOr(spec.ConnectRetryTime, defaultConnectRetry),
		Passive:      spec.Passive,
		Multihop:     uint8(spec.EBGPMultihop),
		TTLSecurity:  spec.TTLSecurity,
		RestartTime:  announce.Duration(defaultRestartTime),
		IPv4:         len(spec.AddressFamilies) == 0 || slices.Contains(spec.AddressFamilies, v1alpha1.IPv4),
		IPv6:         len(spec.AddressFamilies) == 0 || slices.Contains(spec.AddressFamilies, v1alpha1.IPv6),
	}
	if session.Port == 0 {
		session.Port = defaultBGPPort
	}
	if ref := spec.PasswordSecretRef; ref != nil {
		session.Password = &announce.SecretKey{Name: ref.Name, Key: ref.Key}
		if ref.Key == "" {
			session.Password.Key = "password"
		}
	}
	if gr := spec.GracefulRestart; gr != nil {
		session.RestartTime = durationOr(gr.RestartTime, defaultRestartTime)
		if !ptr.Deref(gr.Enabled, true) {
			session.RestartTime = 0
		}
	}
	return session, nil
}

func durationOr(d *metav1.Duration, otherwise time.Duration) announce.Duration {
	if d == nil {
		return announce.Duration(otherwise)
	}
	return announce.Duration(d.Duration)
}

func localASNOf(spec *v1alpha1.BGPPeerSpec, n *corev1.Node) (uint32, error) {
	text, ok := n.Annotations[v1alpha1.NodeLocalASN]
	if !ok {
		return uint32(spec.LocalASN), nil
	}
	asn, err := strconv.ParseUint(text, 10, 32)
	if err != nil || asn == 0 || asn == 1<<32-1 {
		return 0, fmt.Errorf("annotation %s: %q is not an AS number between 1 and 4294967294", v1alpha1.NodeLocalASN, text)
	}
	return uint32(asn), nil
}

// sourceOf is the local address of a session: that of the BGPPeer, else that
// of the Node's annotation if it has the right family, else the node's own
// address of that family. The zero Addr leaves the choice to the kernel.
func sourceOf(spec *v1alpha1.BGPPeerSpec, n *corev1.Node, router netip.Addr) (netip.Addr, error) {
	if spec.SourceAddress != "" {
		source, err := parseAddr(spec.SourceAddress)
		if err != nil {
			return netip.Addr{}, fmt.Errorf("spec.sourceAddress: %w", err)
		}
		if source.Is4() != router.Is4() {
			return netip.Addr{}, fmt.Errorf("spec.sourceAddress %s and spec.peerAddress %s are of two families", source, router)
		}
		return source, nil
	}
	if text, ok := n.Annotations[v1alpha1.NodeSourceAddress]; ok {
		source, err := parseAddr(strings.TrimSpace(text))
		if err != nil {
			return netip.Addr{}, fmt.Errorf("annotation %s: %w", v1alpha1.NodeSourceAddress, err)
		}
		if source.Is4() == router.Is4() {
			return source, nil
		}
	}
	for _, addr := range internalAddresses(n) {
		if addr.Is4() == router.Is4() && !router.IsLinkLocalUnicast() {
			return addr, nil
		}
	}
	return netip.Addr{}, nil
}

// routerIDOf is the node's annotation, else its first IPv4 address, else a
// number derived from its UID (RFC 6286 asks for no more than uniqueness).
func routerIDOf(n *corev1.Node) routerID {
	if text, ok := n.Annotations[v1alpha1.NodeRouterID]; ok {
		addr, err := parseAddr(strings.TrimSpace(text))
		if err != nil || !addr.Is4() || addr.IsUnspecified() {
			return routerID{err: fmt.Errorf("annotation %s: %q is not an IPv4 address", v1alpha1.NodeRouterID, text)}
		}
		return routerID{addr: addr}
	}
	for _, addr := range internalAddresses(n) {
		if addr.Is4() {
			return routerID{addr: addr}
		}
	}
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(n.UID)) // never fails
	var id [4]byte
	binary.BigEndian.PutUint32(id[:], hash.Sum32()|1) // 0 is not an identifier
	return routerID{addr: netip.AddrFrom4(id)}
}

func internalAddresses(n *corev1.Node) []netip.Addr {
	var addrs []netip.Addr
	for _, a := range n.Status.Addresses {
		if a.Type != corev1.NodeInternalIP {
			continue
		}
		if addr, err := parseAddr(a.Address); err == nil {
			addrs = append(addrs, addr)
		}
	}
	return addrs
}

func parseAddr(text string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%q is not an IP address", text)
	}
	return addr.Unmap().WithZone(""), nil
}

// list joins texts for a message, and cuts long lists.
func list(texts []string) string {
	const most = 8
	if len(texts) > most {
		return fmt.Sprintf("%s; and %d more", strings.Join(texts[:most], "; "), len(texts)-most)
	}
	return strings.Join(texts, "; ")
}
