package kubeapi

import (
	"context"
	"errors"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestPatientDialWaitsForTheServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		dial := func(context.Context, string, string) (net.Conn, error) {
			if time.Since(start) < 20*time.Second {
				return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
			}
			client, server := net.Pipe()
			server.Close()
			return client, nil
		}
		conn, err := dialPatiently(context.Background(), dial, "tcp", "192.0.2.1:6443")
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		if waited := time.Since(start); waited > 20*time.Second+retryInterval {
			t.Errorf("connected %v after the server came back", waited-20*time.Second)
		}
	})
}

func TestPatientDialEnds(t *testing.T) {
	refused := func(context.Context, string, string) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	}
	for _, test := range []struct {
		name    string
		timeout time.Duration
		want    time.Duration
	}{
		{"with the request", time.Second, time.Second},
		{"by itself", time.Hour, patience},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(context.Background(), test.timeout)
				defer cancel()
				start := time.Now()
				_, err := dialPatiently(ctx, refused, "tcp", "192.0.2.1:6443")
				if !errors.Is(err, syscall.ECONNREFUSED) {
					t.Errorf("error %v; want that of the last attempt", err)
				}
				if waited := time.Since(start); waited != test.want {
					t.Errorf("gave up after %v; want %v", waited, test.want)
				}
			})
		})
	}
}

func TestPatientDialFailsAtOnceOnOtherErrors(t *testing.T) {
	wrong := errors.New("no such host")
	calls := 0
	_, err := dialPatiently(context.Background(), func(context.Context, string, string) (net.Conn, error) {
		calls++
		return nil, wrong
	}, "tcp", "192.0.2.1:6443")
	if !errors.Is(err, wrong) || calls != 1 {
		t.Errorf("error %v after %d calls; want %v after 1", err, calls, wrong)
	}
}
