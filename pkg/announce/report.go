package announce

import (
	"encoding/json"
	"fmt"
	"net/netip"
)

// Report is what a node's speaker tells the planner and people about itself.
type Report struct {
	// Version of the speaker program.
	Version string `json:"version"`
	// Formats are the versions of Program that the speaker reads.
	Formats []int `json:"formats"`
	// Epoch and Hash are of the program that the speaker carries out.
	Epoch int64  `json:"epoch,omitempty"`
	Hash  string `json:"hash,omitempty"`
	// Error says why the newest program is not carried out, or not wholly.
	Error string `json:"error,omitempty"`
	// Leaving means that the speaker is about to stop, and not to come back soon:
	// its addresses on the LAN are for others.
	Leaving bool `json:"leaving,omitempty"`
	// NotForwarding is why the node must not attract traffic although its speaker
	// works: kube-proxy says so. Its addresses on the LAN are for others.
	NotForwarding string `json:"notForwarding,omitempty"`
	// Hears are the names of the nodes that stand by for the same addresses as
	// this one and live: their speaker is heard, or their kernel answers.
	Hears []string `json:"hears,omitempty"`
	// Takeovers are the addresses that this node owns by now although its program
	// says that another one does, until a program agrees.
	Takeovers []Takeover `json:"takeovers,omitempty"`
	// Interfaces that could announce, by name.
	Interfaces []Interface `json:"interfaces,omitempty"`
	// Reach answers Program.Reach, by target.
	Reach []Reach `json:"reach,omitempty"`
	// Sessions are the BGP sessions, by peer.
	Sessions []Session `json:"sessions,omitempty"`
	// Conflicts are the claims of others on addresses of the node, by address.
	Conflicts []Conflict `json:"conflicts,omitempty"`
	// Problems are what stands in the way of single addresses or of later
	// restarts, each with its remedy.
	Problems []string `json:"problems,omitempty"`
}

// Takeover is a set of addresses that a candidate took over from their owner
// without the planner.
type Takeover struct {
	// Epoch is that of the addresses in the program, Term the number of takeovers
	// since it was given; see Layer2.Epoch.
	Epoch uint32 `json:"epoch,omitempty"`
	Term  uint32 `json:"term"`
	// Addresses are disjoint, ascending ranges.
	Addresses []Range `json:"addresses"`
}

// Interface is a network interface of the node that could announce.
type Interface struct {
	Name string `json:"name"`
	MAC  string `json:"mac,omitempty"`
	// Prefixes are the global addresses with their lengths; where there are none,
	// the link-local one of IPv6, for the fellows on the link.
	Prefixes []netip.Prefix `json:"prefixes,omitempty"`
	// NoCarrier means that the interface is up but its link is not.
	NoCarrier bool `json:"noCarrier,omitempty"`
}

// Reach is the interface through which the node's kernel reaches a target.
type Reach struct {
	Target    netip.Addr `json:"target"`
	Interface string     `json:"interface,omitempty"`
	// Error is why there is no interface.
	Error string `json:"error,omitempty"`
}

// Conflict is a claim of another host on an address that the node owns on the
// LAN (RFC 5227, RFC 4862 section 5.4).
type Conflict struct {
	Address   netip.Addr `json:"address"`
	Interface string     `json:"interface"`
	MAC       MAC        `json:"mac"`
	// Held means that the node does not announce the address.
	Held bool `json:"held,omitempty"`
	// Proxy means that the other host answers for addresses of nodes, too, or
	// has the MAC address of a virtual router: probably it does not use this one.
	Proxy bool `json:"proxy,omitempty"`
}

// Session is the state of a BGP session.
type Session struct {
	// Peer is the name of the BGPPeer.
	Peer string `json:"peer"`
	// State is that of the BGP state machine (RFC 4271 section 8.2.2), in lower
	// case: idle, connect, active, opensent, openconfirm, established.
	State string `json:"state"`
	// Error is why the session is not as it should be: the last NOTIFICATION,
	// a missing Secret, a prefix limit.
	Error string `json:"error,omitempty"`
}

// Established reports whether the session is established.
func (s Session) Established() bool { return s.State == StateEstablished }

// StateEstablished is the State of an established session.
const StateEstablished = "established"

// maxReport bounds a report, which other writers of the Node share the
// annotations' 256 KiB with.
const maxReport = 32 << 10

// EncodeReport writes a report as JSON.
func EncodeReport(r Report) (string, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return "", fmt.Errorf("encoding the speaker report: %w", err)
	}
	if len(text) > maxReport {
		return "", fmt.Errorf("encoding the speaker report: %d bytes exceed %d", len(text), maxReport)
	}
	return string(text), nil
}

// DecodeReport reads a report. Unknown fields are ignored: a newer speaker may
// tell more.
func DecodeReport(value string) (Report, error) {
	if len(value) > maxReport {
		return Report{}, fmt.Errorf("decoding the speaker report: %d bytes exceed %d", len(value), maxReport)
	}
	var r Report
	if err := json.Unmarshal([]byte(value), &r); err != nil {
		return Report{}, fmt.Errorf("decoding the speaker report: %w", err)
	}
	return r, nil
}
