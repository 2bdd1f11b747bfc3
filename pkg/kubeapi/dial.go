// Package kubeapi holds what the programs have in common when they talk to the
// API server: connections that come back at once after an outage.
package kubeapi

import (
	"context"
	"errors"
	"net"
	"syscall"
	"time"

	"k8s.io/client-go/rest"
)

const (
	// retryInterval is the time between two attempts to connect to an API
	// server that refuses.
	retryInterval = 200 * time.Millisecond
	// patience bounds how long one request waits for a connection, so that
	// requests without a deadline end and are logged.
	patience = 30 * time.Second
	// dialTimeout bounds one attempt.
	dialTimeout = 5 * time.Second
)

// Patient makes config wait for an API server that refuses connections, instead
// of failing each request at once. Reflectors back off for up to 30 seconds
// after a series of failures and would see the API server's return that late;
// now their request is under way already when it returns. Dead connections are
// noticed after about ten seconds.
func Patient(config *rest.Config) {
	dialer := &net.Dialer{
		Timeout: dialTimeout,
		KeepAliveConfig: net.KeepAliveConfig{
			Enable: true, Idle: 4 * time.Second, Interval: 2 * time.Second, Count: 3,
		},
	}
	dial := dialer.DialContext
	if config.Dial != nil {
		dial = config.Dial
	}
	config.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		return dialPatiently(ctx, dial, network, address)
	}
}

func dialPatiently(ctx context.Context, dial func(context.Context, string, string) (net.Conn, error), network, address string) (net.Conn, error) {
	bounded, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	retry := time.NewTicker(retryInterval)
	defer retry.Stop()
	for {
		conn, err := dial(bounded, network, address)
		if err == nil || !mayPass(err) {
			return conn, err
		}
		select {
		case <-retry.C:
		case <-bounded.Done():
			return nil, err
		}
	}
}

// mayPass reports whether the error is that of a server that is away.
func mayPass(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) ||
		errors.Is(err, syscall.EHOSTUNREACH) ||
		errors.Is(err, syscall.ENETUNREACH) ||
		errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, context.DeadlineExceeded) ||
		isTimeout(err)
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}
