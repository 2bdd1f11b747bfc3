package bgp

import (
	"bytes"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestListener(t *testing.T) {
	t.Parallel()
	var heard []string
	var out bytes.Buffer
	router := netip.MustParseAddr("192.0.2.1")
	logger := slog.New(&listener{
		Handler: slog.NewTextHandler(&out, nil),
		tell: func(h hint) {
			if h.router != router {
				t.Errorf("router %v", h.router)
			}
			heard = append(heard, h.text)
		},
	})
	peer := logger.With(slog.String("Topic", "Peer"), slog.String("Key", router.String()))
	expect := func(want ...string) {
		t.Helper()
		if !slices.Equal(heard, want) {
			t.Errorf("heard %q, want %q", heard, want)
		}
		heard = nil
	}
	peer.Debug("failed to connect", slog.String("Error", "dial tcp 192.0.2.2:0->192.0.2.1:179: connect: connection refused"))
	expect("connecting: connection refused")
	peer.Debug("failed to connect", slog.String("Error", "odd"))
	expect("connecting: odd")
	peer.Debug("outgoing connection IO error", slog.String("reason", "read-failed"))
	expect(closedByRouter)
	peer.Info("sent notification", slog.Int("Code", 2), slog.Int("Subcode", 2))
	expect("NOTIFICATION sent: code 2(open) subcode 2(bad peer as)")
	peer.Info("sent notification", slog.Int("Code", 6), slog.Int("Subcode", 2))
	peer.Debug("try to connect")
	logger.Debug("failed to connect", slog.String("Error", "about nobody"))
	logger.With(slog.String("Key", "0.0.0.0/0 prefix")).Debug("failed to connect")
	expect()
	// What is written is what was written without the listener.
	if text := out.String(); strings.Count(text, "\n") != 2 || strings.Contains(text, "DEBUG") {
		t.Errorf("written:\n%s", text)
	}
}

func TestTelling(t *testing.T) {
	t.Parallel()
	const sent = "NOTIFICATION sent: x"
	for _, test := range []struct{ before, after, want string }{
		{"", closedByRouter, closedByRouter},
		{sent, "", sent},
		{sent, closedByRouter, sent},
		{sent, refusedByRouter, sent},
		{refusedByRouter, closedByRouter, refusedByRouter},
		{refusedByRouter, sent, sent},
		{"connecting: connection refused", refusedByRouter, refusedByRouter},
		{"connecting: connection refused", closedByRouter, closedByRouter},
		{sent, "connecting: connection refused", "connecting: connection refused"},
	} {
		if got := telling(test.before, test.after); got != test.want {
			t.Errorf("%q, then %q: %q", test.before, test.after, got)
		}
	}
}
