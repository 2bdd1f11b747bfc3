package kubelet

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/klog/v2"
)

const (
	// ServerPort is where a kubelet serves the API server: the usual one.
	ServerPort = 10250
	// APIServerUser is who may ask: the name in the API server's certificate.
	APIServerUser = "kube-apiserver-kubelet-client"

	// streamIdleTimeout is how long a command may say nothing: a real kubelet's
	// default.
	streamIdleTimeout = 4 * time.Hour
)

// serve answers what the API server asks of a node, until ctx ends: to execute
// a command in a container, and for the log of one.
func (k *kubelet) serve(ctx context.Context) error {
	config, err := k.serverTLS()
	if err != nil {
		return fmt.Errorf("kubelet server of %s: %w", k.config.NodeName, err)
	}
	listener, err := net.Listen("tcp", net.JoinHostPort("", strconv.Itoa(ServerPort)))
	if err != nil {
		return fmt.Errorf("kubelet server of %s: %w", k.config.NodeName, err)
	}
	mux := http.NewServeMux()
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		mux.HandleFunc(method+" /exec/{namespace}/{pod}/{container}", k.serveExec)
	}
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", k.serveLog)
	server := &http.Server{
		Handler:           onlyAPIServer(mux),
		TLSConfig:         config,
		ReadHeaderTimeout: requestTimeout,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := server.ServeTLS(listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("kubelet server of %s: %w", k.config.NodeName, err)
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		return server.Close()
	})
	return g.Wait()
}

// serverTLS asks every client for a certificate of the cluster.
func (k *kubelet) serverTLS() (*tls.Config, error) {
	certificate, err := tls.LoadX509KeyPair(k.config.ServerCert, k.config.ServerKey)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(k.config.ClientCA)
	if err != nil {
		return nil, err
	}
	clients := x509.NewCertPool()
	if !clients.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("no certificate in %s", k.config.ClientCA)
	}
	return &tls.Config{
		Certificates: []tls.Certificate{certificate},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    clients,
		MinVersion:   tls.VersionTLS12,
	}, nil
}

// onlyAPIServer turns away the other holders of certificates of the cluster,
// such as the kubelets themselves.
func onlyAPIServer(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user := r.TLS.PeerCertificates[0].Subject.CommonName; user != APIServerUser {
			http.Error(w, fmt.Sprintf("%s may not ask a kubelet: ask the API server", user), http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// requestedContainer is the name of the container that a request is about, as
// the runtime knows it.
func requestedContainer(r *http.Request) string {
	return containerName(r.PathValue("namespace"), r.PathValue("pod"), r.PathValue("container"))
}

func (k *kubelet) serveExec(w http.ResponseWriter, r *http.Request) {
	options, err := remotecommand.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if options.TTY {
		http.Error(w, "the lab has no terminals: leave -t out", http.StatusBadRequest)
		return
	}
	remotecommand.ServeExec(w, r, executor{k}, "", "", requestedContainer(r), r.Form["command"], options,
		streamIdleTimeout, remotecommand.DefaultStreamCreationTimeout, remotecommand.SupportedStreamingProtocols)
}

// serveLog sends what the container has written, over all its runs.
func (k *kubelet) serveLog(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	for _, unknown := range []string{"follow", "previous", "sinceSeconds", "sinceTime", "timestamps"} {
		if v := query.Get(unknown); v != "" && v != "false" {
			http.Error(w, fmt.Sprintf("the lab's logs know no %s: use labctl logs", unknown), http.StatusBadRequest)
			return
		}
	}
	text, err := os.ReadFile(k.logFile(requestedContainer(r)))
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	if n, err := strconv.Atoi(query.Get("tailLines")); err == nil {
		text = lastLines(text, n)
	}
	if n, err := strconv.Atoi(query.Get("limitBytes")); err == nil && n < len(text) {
		text = text[:n]
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if _, err := w.Write(text); err != nil {
		klog.V(2).InfoS("A client left before the end of a log", "err", err)
	}
}

// lastLines returns the last n lines of a text.
func lastLines(text []byte, n int) []byte {
	if n <= 0 {
		return nil
	}
	for i := len(text) - 2; i >= 0; i-- {
		if text[i] != '\n' {
			continue
		}
		if n--; n == 0 {
			return text[i+1:]
		}
	}
	return text
}
