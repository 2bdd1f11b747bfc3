package speaker

import (
	"context"
	"net"
	"net/http"
	"time"
)

// askTimeout bounds one question to kube-proxy.
const askTimeout = time.Second

// kubeProxyTransport opens a connection per question. One that is kept would outlive
// a kube-proxy that hangs, and it is the present one that is asked.
func kubeProxyTransport() *http.Transport {
	return &http.Transport{
		Proxy:                  nil, // the environment is meant for requests that leave the node
		DialContext:            (&net.Dialer{Timeout: askTimeout}).DialContext,
		DisableKeepAlives:      true,
		MaxResponseHeaderBytes: 16 << 10,
	}
}

// kubeProxyClient asks by the transport, and is not sent elsewhere.
func kubeProxyClient(transport http.RoundTripper) *http.Client {
	return &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// askKubeProxy returns the status of one answer.
func askKubeProxy(ctx context.Context, client *http.Client, url string) (status int, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, err
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, err
	}
	// The status is all that is asked for; the body is not read.
	_ = response.Body.Close()
	return response.StatusCode, nil
}
