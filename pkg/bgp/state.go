package bgp

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

// State is everything that an Announcer announces, and to whom. The zero State
// announces nothing and holds no session.
type State struct {
	// RouterID is the BGP identifier (RFC 6286), an IPv4 address. It may be
	// invalid only when there are no peers.
	RouterID netip.Addr
	// Peers are the sessions. Names and addresses are unique.
	Peers []Peer
	// Groups are the prefixes. A prefix is in one group at most.
	Groups []Group
}

// Peer is a BGP session.
type Peer struct {
	// Name identifies the peer in Exports and Sessions.
	Name string
	// LocalASN and PeerASN are the two AS numbers; equal ones make iBGP.
	LocalASN, PeerASN uint32
	// Address and Port of the router. Port 0 is 179.
	Address netip.Addr
	Port    uint16
	// Source is the local address; the zero Addr leaves the choice to the kernel.
	Source netip.Addr
	// Password of TCP MD5 signatures (RFC 2385); empty means none.
	Password string
	// HoldTime and ConnectRetry are timers of RFC 4271 section 10, in whole
	// seconds. The keepalive interval is a third of the hold time. A new hold
	// time counts from the next session on: it does not reset the present one.
	HoldTime, ConnectRetry time.Duration
	// Passive waits for the router to connect.
	Passive bool
	// Multihop is the TTL towards an eBGP router that is not directly
	// connected; 0 means directly connected.
	Multihop uint8
	// TTLSecurity refuses packets that came from further away than Multihop
	// hops (one, if 0), by their TTL (RFC 5082).
	TTLSecurity bool
	// RestartTime is that of Graceful Restart (RFC 4724), at most 4095 s; 0
	// turns it off. A new time counts from the next session on.
	RestartTime time.Duration
	// IPv4 and IPv6 are the address families. Over a session between IPv6
	// addresses, IPv4 prefixes have an IPv6 next hop (RFC 8950) if the router
	// can do that. Over a session between IPv4 addresses, IPv6 prefixes need
	// NextHop6: without it, they are not announced there.
	IPv4, IPv6 bool
	// NextHop6 is the next hop of IPv6 prefixes over a session between IPv4
	// addresses (RFC 4760). It may change without a reset of the session.
	NextHop6 netip.Addr
}

// Group is a set of prefixes that are announced alike.
type Group struct {
	// Exports say to whom with which attributes. A peer is in one at most.
	Exports []Export
	// Prefixes are masked and ascending.
	Prefixes []netip.Prefix
}

// Export is how a group is announced to some peers.
type Export struct {
	// Peers are names. Those that are not in State.Peers are ignored, so that a
	// session that cannot be configured yet changes nothing for the others.
	Peers []string
	Attributes
}

// Attributes are path attributes.
type Attributes struct {
	// LocalPref is the LOCAL_PREF towards iBGP peers (RFC 4271 section 5.1.5).
	LocalPref uint32
	// Communities (RFC 1997) and LargeCommunities (RFC 8092), ascending.
	Communities      []uint32
	LargeCommunities []announce.LargeCommunity
	// Demoted makes routers prefer any other path: the local AS number is in
	// AS_PATH three more times, or, towards iBGP peers, LOCAL_PREF is 0. Where
	// there is no other path, traffic still comes. It is not GRACEFUL_SHUTDOWN
	// (RFC 8326), which says that the path is about to go.
	Demoted bool
}

// Limits of the protocol.
const (
	maxRestartTime = 4095 * time.Second // RFC 4724 section 3: 12 bits
	minHoldTime    = 3 * time.Second    // RFC 4271 section 4.2
)

// validate finds what gobgp would misread or refuse half-way.
func (s *State) validate() error {
	if len(s.Peers) > 0 && !s.RouterID.Is4() {
		return fmt.Errorf("router ID %v is not an IPv4 address", s.RouterID)
	}
	names := make(map[string]bool, len(s.Peers))
	addresses := make(map[netip.Addr]string, len(s.Peers))
	var errs []error
	for _, p := range s.Peers {
		if err := p.Validate(); err != nil {
			errs = append(errs, fmt.Errorf("peer %q: %w", p.Name, err))
		}
		if names[p.Name] {
			errs = append(errs, fmt.Errorf("peer %q: repeated name", p.Name))
		}
		if other, taken := addresses[p.Address]; taken {
			errs = append(errs, fmt.Errorf("peer %q: address %v is that of peer %q", p.Name, p.Address, other))
		}
		names[p.Name], addresses[p.Address] = true, p.Name
	}
	if len(s.Groups) > maxGroups {
		errs = append(errs, fmt.Errorf("%d groups exceed %d", len(s.Groups), maxGroups))
	}
	return errors.Join(errs...)
}

// Validate finds what gobgp would misread or refuse.
func (p *Peer) Validate() error {
	switch {
	case p.Name == "":
		return errors.New("no name")
	case !p.Address.IsValid() || p.Address.Is4In6() || p.Address.Zone() != "":
		return fmt.Errorf("address %v", p.Address)
	case p.Source.IsValid() && p.Source.Is4() != p.Address.Is4():
		return fmt.Errorf("source address %v is of another family", p.Source)
	case p.LocalASN == 0 || p.PeerASN == 0:
		return errors.New("AS number 0")
	case p.HoldTime < minHoldTime:
		return fmt.Errorf("hold time %v is below %v", p.HoldTime, minHoldTime)
	case p.RestartTime > maxRestartTime:
		return fmt.Errorf("restart time %v exceeds %v", p.RestartTime, maxRestartTime)
	case p.NextHop6.IsValid() && (!p.NextHop6.Is6() || p.NextHop6.Is4In6() || p.NextHop6.Zone() != ""):
		return fmt.Errorf("IPv6 next hop %v", p.NextHop6)
	case !p.IPv4 && !p.IPv6:
		return errors.New("no address family")
	}
	return nil
}
