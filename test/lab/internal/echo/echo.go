// Package echo is the server behind the lab's test Services: it answers who it
// is and whom it sees.
package echo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"golang.org/x/sync/errgroup"
)

// Run serves HTTP, and datagrams on the UDP port of the same number, until ctx
// ends. Names come from the variables POD_NAME (or the host name) and NODE_NAME.
func Run(ctx context.Context, address string) error {
	pod := os.Getenv("POD_NAME")
	if pod == "" {
		pod, _ = os.Hostname()
	}
	node := os.Getenv("NODE_NAME")
	line := func(client string) string {
		return fmt.Sprintf("pod=%s node=%s client=%s\n", pod, node, client)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, line(r.RemoteAddr))
	})
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("/stream", func(w http.ResponseWriter, r *http.Request) { stream(w, r, line(r.RemoteAddr)) })

	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("echo server: %w", err)
	}
	datagrams, err := net.ListenPacket("udp", address)
	if err != nil {
		listener.Close()
		return fmt.Errorf("echo server: %w", err)
	}
	server := &http.Server{Handler: mux, BaseContext: func(net.Listener) context.Context { return ctx }}
	var g errgroup.Group
	g.Go(func() error {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("echo server: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		if err := answerDatagrams(datagrams, line); ctx.Err() == nil {
			return fmt.Errorf("echo server: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		datagrams.Close()
		grace, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		return server.Shutdown(grace)
	})
	return g.Wait()
}

// answerDatagrams answers each datagram until the socket is closed.
func answerDatagrams(socket net.PacketConn, line func(client string) string) error {
	buffer := make([]byte, 1500)
	for {
		_, client, err := socket.ReadFrom(buffer)
		if err != nil {
			return err
		}
		_, _ = socket.WriteTo([]byte(line(client.String())), client) // who lost its way back asks again
	}
}

// stream keeps a connection busy until the client or the server goes.
func stream(w http.ResponseWriter, r *http.Request, line string) {
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	flush := http.NewResponseController(w)
	for n := 0; ; n++ {
		if _, err := fmt.Fprintf(w, "%d %s", n, line); err != nil {
			return
		}
		if err := flush.Flush(); err != nil {
			return
		}
		select {
		case <-ticker.C:
		case <-r.Context().Done():
			return
		}
	}
}
