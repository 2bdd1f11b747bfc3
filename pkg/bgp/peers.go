package bgp

import (
	"time"

	"github.com/osrg/gobgp/v4/api"
)

const (
	// PrefixLimit is how many prefixes a router may send before its session is
	// reported. None is used, so a router should send none; but many send all
	// that they have, among it what other nodes (and this one) announce, and a
	// cluster with more addresses than this must not lose its sessions for it.
	// Echoes of our own announcements do not count.
	PrefixLimit = 100
	// PrefixMaximum is how many prefixes of a family end the session: gobgp
	// keeps even rejected ones, and this bounds the memory, to some 10 MB.
	PrefixMaximum = 10_000
	// prefixLimitHold is how long a session stays down after PrefixMaximum.
	prefixLimitHold = time.Minute
	// deferral is how long gobgp keeps updates back after a restart while it
	// waits for the routes of its peers, in seconds; its default of 360 would be
	// paid in full whenever one peer is down. We learn nothing, so we wait for
	// nothing, but 0 means the default.
	deferral = 1
	// idleHold is how long gobgp waits after it has reset a session, in seconds.
	idleHold = 1
)

// families of the session, as gobgp calls them.
func (p *Peer) families() []*api.Family {
	var out []*api.Family
	if p.IPv4 {
		out = append(out, &api.Family{Afi: api.Family_AFI_IP, Safi: api.Family_SAFI_UNICAST})
	}
	if p.IPv6 {
		out = append(out, &api.Family{Afi: api.Family_AFI_IP6, Safi: api.Family_SAFI_UNICAST})
	}
	return out
}

// api is the peer as gobgp takes it. The local AS number is always given, so
// that gobgp derives nothing from its global one.
func (p *Peer) api() *api.Peer {
	graceful := p.RestartTime > 0
	out := &api.Peer{
		Conf: &api.PeerConf{
			NeighborAddress: p.Address.String(),
			LocalAsn:        p.LocalASN,
			PeerAsn:         p.PeerASN,
			AuthPassword:    p.Password,
			Description:     p.Name,
		},
		Timers: &api.Timers{Config: &api.TimersConfig{
			HoldTime:               seconds(p.HoldTime),
			KeepaliveInterval:      max(1, seconds(p.HoldTime)/3),
			ConnectRetry:           max(1, seconds(p.ConnectRetry)),
			IdleHoldTimeAfterReset: idleHold,
		}},
		Transport: &api.Transport{
			RemotePort:  uint32(p.Port),
			PassiveMode: p.Passive,
		},
	}
	if p.Source.IsValid() {
		out.Transport.LocalAddress = p.Source.String()
	}
	switch {
	case p.TTLSecurity:
		// A packet from n hops away arrives with a TTL of 256-n (RFC 5082).
		out.TtlSecurity = &api.TtlSecurity{Enabled: true, TtlMin: 256 - uint32(max(1, p.Multihop))}
	case p.Multihop > 0:
		out.EbgpMultihop = &api.EbgpMultihop{Enabled: true, MultihopTtl: uint32(p.Multihop)}
	}
	if graceful {
		out.GracefulRestart = &api.GracefulRestart{
			Enabled:      true,
			RestartTime:  uint32(seconds(p.RestartTime)),
			DeferralTime: deferral,
			// Sent as the F bit too: without it a router flushes what it has.
			LocalRestarting: true,
		}
	}
	for _, family := range p.families() {
		out.AfiSafis = append(out.AfiSafis, &api.AfiSafi{
			Config:            &api.AfiSafiConfig{Family: family, Enabled: true},
			MpGracefulRestart: &api.MpGracefulRestart{Config: &api.MpGracefulRestartConfig{Enabled: graceful}},
			PrefixLimits:      &api.PrefixLimit{Family: family, MaxPrefixes: PrefixMaximum},
		})
	}
	return out
}

func seconds(d time.Duration) uint64 { return uint64(d / time.Second) }

// change is what turning one configuration of a peer into another takes.
type change int

const (
	// none: they are equal.
	none change = iota
	// inPlace: only timers and what the policy sets differ. The session stays as it is, and what was
	// agreed in its OPEN stays agreed: resetting it would withdraw the node's
	// routes, on all nodes of the cluster at the same time.
	inPlace
	// reset: the session has to be made anew.
	reset
)

func compare(before, after Peer) change {
	if before == after {
		return none
	}
	before.HoldTime, before.ConnectRetry = after.HoldTime, after.ConnectRetry
	before.NextHop6 = after.NextHop6
	if before.RestartTime > 0 && after.RestartTime > 0 {
		before.RestartTime = after.RestartTime
	}
	if before == after {
		return inPlace
	}
	return reset
}
