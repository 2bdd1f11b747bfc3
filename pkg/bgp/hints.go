package bgp

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"

	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// hint is why a connection with a router does not become a session.
type hint struct {
	router netip.Addr
	text   string
}

// listener is a log handler that picks hints out of gobgp's messages. gobgp
// tells of connections that it opens nowhere else: its events and its states of
// peers know only a session that has got past the OPEN messages.
type listener struct {
	slog.Handler
	router netip.Addr // whom the messages are about; invalid if no router
	tell   func(hint) // must not block
}

// Enabled implements slog.Handler. A failed dial is a debug message.
func (l *listener) Enabled(ctx context.Context, level slog.Level) bool {
	return l.router.IsValid() || l.Handler.Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (l *listener) Handle(ctx context.Context, r slog.Record) error {
	if l.router.IsValid() {
		if text := hintIn(r); text != "" {
			l.tell(hint{l.router, text})
		}
	}
	if !l.Handler.Enabled(ctx, r.Level) {
		return nil
	}
	return l.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (l *listener) WithAttrs(attrs []slog.Attr) slog.Handler {
	out := &listener{l.Handler.WithAttrs(attrs), l.router, l.tell}
	for _, a := range attrs {
		if a.Key == "Key" {
			out.router, _ = netip.ParseAddr(a.Value.String()) // of other things than peers
		}
	}
	return out
}

// WithGroup implements slog.Handler.
func (l *listener) WithGroup(name string) slog.Handler {
	return &listener{l.Handler.WithGroup(name), l.router, l.tell}
}

// hintIn is what a message says about the failure of a connection, if anything.
func hintIn(r slog.Record) string {
	var code, subcode uint8
	var cause string
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "Code":
			code = uint8(a.Value.Int64())
		case "Subcode":
			subcode = uint8(a.Value.Int64())
		case "Error", "reason":
			cause = a.Value.String()
		}
		return true
	})
	switch r.Message {
	case "failed to connect":
		// Without the addresses: "dial tcp 192.0.2.1:179: connect: connection refused".
		return "connecting: " + strings.TrimSpace(cause[strings.LastIndex(cause, ": ")+1:])
	case "outgoing connection IO error":
		if cause == "read-failed" {
			return closedByRouter
		}
	case "sent notification":
		// Others end sessions, of which gobgp tells by an event.
		switch {
		case code == packet.BGP_ERROR_OPEN_MESSAGE_ERROR:
			return notification("sent", code, subcode)
		case code == packet.BGP_ERROR_FSM_ERROR && subcode == packet.BGP_ERROR_SUB_RECEIVE_UNEXPECTED_MESSAGE_IN_OPENSENT_STATE:
			return refusedByRouter
		}
	}
	return ""
}

func notification(direction string, code, subcode uint8) string {
	return "NOTIFICATION " + direction + ": " + packet.NewNotificationErrorCode(code, subcode).String()
}

// noteHint records why there is no session.
func (a *Announcer) noteHint(h hint) {
	peer, known := a.peerAt(h.router)
	if !known {
		return
	}
	a.mu.Lock()
	s, expected := a.sessions[peer.Name]
	text := s.Error
	if expected && !s.Established() {
		text = telling(s.Error, h.text)
	}
	changed := text != s.Error
	if changed {
		s.Error = text
		a.sessions[peer.Name] = s
	}
	a.mu.Unlock()
	if changed {
		a.config.Changed()
	}
}
