package bgp

import (
	"fmt"
	"strings"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

// adminPrefixLimit is gobgp's state of a session that it ended for PrefixMaximum.
const adminPrefixLimit = api.PeerState_ADMIN_STATE_PFX_CT

// stateNames are the states of RFC 4271 section 8.2.2 as announce.Session has
// them.
var stateNames = map[packet.FSMState]string{
	packet.BGP_FSM_IDLE:        "idle",
	packet.BGP_FSM_CONNECT:     "connect",
	packet.BGP_FSM_ACTIVE:      "active",
	packet.BGP_FSM_OPENSENT:    "opensent",
	packet.BGP_FSM_OPENCONFIRM: "openconfirm",
	packet.BGP_FSM_ESTABLISHED: announce.StateEstablished,
}

// noteSession records a session's new state. It reports whether the session
// came up, and whether it was lost in a way that makes the router keep our
// routes.
func (a *Announcer) noteSession(p Peer, e *apiutil.WatchEventMessage_PeerEvent) (up, lost bool) {
	state, known := stateNames[e.Peer.State.SessionState]
	if !known {
		return false, false
	}
	var changed bool
	a.mu.Lock()
	if s, expected := a.sessions[p.Name]; expected {
		next := announce.Session{Peer: p.Name, State: state, Error: s.Error}
		switch {
		case next.Established() && s.Established():
		case next.Established():
			next.Error = ""
		case e.Peer.State.AdminState == adminPrefixLimit:
			next.Error = fmt.Sprintf("the router sent more than %d prefixes; the session stays down for %v", PrefixMaximum, prefixLimitHold)
		case state == "idle":
			next.Error = telling(s.Error, reasonOf(e, s.Established()))
		}
		up = next.Established() && !s.Established()
		lost = s.Established() && !next.Established() && graceful(e)
		changed = s != next
		a.sessions[p.Name] = next
	}
	a.mu.Unlock()
	if changed {
		a.config.Changed()
	}
	return up, lost
}

// tooMany is the error of an established session with more than PrefixLimit
// prefixes that are not our own. It has no number, so that the report does not
// change with it.
var tooMany = fmt.Sprintf("the router sends more than %d prefixes; none is used", PrefixLimit)

// noteReceived records which established sessions receive too much. Of those
// that are not in counts it changes nothing.
func (a *Announcer) noteReceived(counts map[string]uint64) {
	changed := false
	a.mu.Lock()
	for name, s := range a.sessions {
		if _, counted := counts[name]; !counted || !s.Established() {
			continue
		}
		before := s.Error
		switch {
		case counts[name] > PrefixLimit:
			s.Error = tooMany
		case s.Error == tooMany:
			s.Error = ""
		}
		changed = changed || s.Error != before
		a.sessions[name] = s
	}
	a.mu.Unlock()
	if changed {
		a.config.Changed()
	}
}

// graceful reports whether the session ended without a NOTIFICATION.
func graceful(e *apiutil.WatchEventMessage_PeerEvent) bool {
	switch e.Peer.State.DisconnectReason {
	case api.PeerState_DISCONNECT_REASON_GRACEFUL_RESTART,
		api.PeerState_DISCONNECT_REASON_READ_FAILED,
		api.PeerState_DISCONNECT_REASON_WRITE_FAILED:
		return e.Peer.State.AdminState != adminPrefixLimit
	}
	return false
}

const (
	closedByRouter = "connection closed by the router"
	// refusedByRouter: gobgp throws away a NOTIFICATION that comes before the
	// session is established, and tells only that it was no KEEPALIVE.
	refusedByRouter = "the router refuses our OPEN message: what it is configured to expect differs, most often an AS number"
)

// telling is the error to keep. What follows from the cause before (a connection
// that is closed after a NOTIFICATION) does not hide it.
func telling(before, after string) string {
	notified := strings.HasPrefix(before, "NOTIFICATION")
	switch {
	case after == "",
		after == refusedByRouter && notified,
		after == closedByRouter && (notified || before == refusedByRouter):
		return before
	}
	return after
}

// reasonOf is why a session ended, in words, if that is known.
func reasonOf(e *apiutil.WatchEventMessage_PeerEvent, established bool) string {
	message := e.Peer.State.DisconnectMessage
	switch e.Peer.State.DisconnectReason {
	case api.PeerState_DISCONNECT_REASON_IDLE_TIMER_EXPIRED,
		api.PeerState_DISCONNECT_REASON_UNSPECIFIED:
		return ""
	case api.PeerState_DISCONNECT_REASON_GRACEFUL_RESTART,
		api.PeerState_DISCONNECT_REASON_READ_FAILED:
		return closedByRouter
	case api.PeerState_DISCONNECT_REASON_BAD_PEER_AS:
		return notification("sent", packet.BGP_ERROR_OPEN_MESSAGE_ERROR, packet.BGP_ERROR_SUB_BAD_PEER_AS)
	case api.PeerState_DISCONNECT_REASON_INVALID_MSG:
		if !established {
			return refusedByRouter
		}
		return "the router sent an invalid message"
	case api.PeerState_DISCONNECT_REASON_NOTIFICATION_RECEIVED:
		return strings.Replace(message, "notification-received ", "NOTIFICATION received: ", 1)
	case api.PeerState_DISCONNECT_REASON_NOTIFICATION_SENT:
		return strings.Replace(message, "notification-sent ", "NOTIFICATION sent: ", 1)
	}
	return strings.ReplaceAll(message, "-", " ")
}

// expectSession makes a session for a new peer known.
func (a *Announcer) expectSession(p Peer) {
	a.mu.Lock()
	a.sessions[p.Name] = announce.Session{Peer: p.Name, State: "idle"}
	a.mu.Unlock()
	a.config.Changed()
}

// failSession notes why a session cannot be configured.
func (a *Announcer) failSession(name string, err error) {
	failed := announce.Session{Peer: name, State: "idle", Error: err.Error()}
	a.mu.Lock()
	changed := a.sessions[name] != failed
	a.sessions[name] = failed
	a.mu.Unlock()
	if changed {
		a.config.Changed()
	}
}

func (a *Announcer) failSessions(err error) {
	for _, p := range a.desired.Peers {
		a.failSession(p.Name, err)
	}
}

// forgetSessions drops those that are not desired any more.
func (a *Announcer) forgetSessions() {
	names := make(map[string]bool, len(a.desired.Peers))
	for _, p := range a.desired.Peers {
		names[p.Name] = true
	}
	a.mu.Lock()
	before := len(a.sessions)
	for name := range a.sessions {
		if !names[name] {
			delete(a.sessions, name)
		}
	}
	changed := len(a.sessions) != before
	a.mu.Unlock()
	if changed {
		a.config.Changed()
	}
}
