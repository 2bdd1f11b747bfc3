package load

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func lastReport(t *testing.T, out *bytes.Buffer) Report {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	var r Report
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRequests(t *testing.T) {
	var count atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if count.Add(1) == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "pod=a node=b client=c")
	}))
	defer server.Close()
	var out bytes.Buffer
	o := Options{URL: server.URL, Rate: 100, Duration: 300 * time.Millisecond}
	if err := Main(t.Context(), o, nil, &out); err != nil {
		t.Fatal(err)
	}
	r := lastReport(t, &out)
	if r.Failed != 1 || r.Errors["status 503"] != 1 || r.OK < 5 || r.Sent != r.OK+1 || r.Pods["a"] != r.OK || r.Nodes["b"] != r.OK {
		t.Errorf("%+v", r)
	}
}

func TestStreamEndsAtTheFirstFailure(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for n := range 3 {
			fmt.Fprintf(w, "%d pod=a node=b client=c\n", n)
		}
	}))
	defer server.Close()
	var out bytes.Buffer
	if err := Main(t.Context(), Options{URL: server.URL, Stream: true, Duration: 5 * time.Second}, nil, &out); err != nil {
		t.Fatal(err)
	}
	if r := lastReport(t, &out); r.OK != 3 || r.Failed != 1 || r.Pods["a"] != 3 {
		t.Errorf("%+v", r)
	}
}

func TestDatagrams(t *testing.T) {
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		b := make([]byte, 100)
		for n := 0; ; n++ {
			_, client, err := server.ReadFrom(b)
			if err != nil {
				return // the end of the test
			}
			if n > 0 { // the first one is lost
				_, _ = server.WriteTo([]byte("pod=a node=b client=c\n"), client)
			}
		}
	}()
	var out bytes.Buffer
	o := Options{URL: "udp://" + server.LocalAddr().String(), Rate: 50, Timeout: 100 * time.Millisecond, Duration: 500 * time.Millisecond}
	if err := Main(t.Context(), o, nil, &out); err != nil {
		t.Fatal(err)
	}
	if r := lastReport(t, &out); r.Failed != 1 || r.OK < 5 || r.Nodes["b"] != r.OK {
		t.Errorf("%+v", r)
	}
}

func TestStopsWithItsInput(t *testing.T) {
	var out bytes.Buffer
	o := Options{URL: "http://127.0.0.1:1", Rate: 10, UntilEOF: true}
	if err := Main(t.Context(), o, strings.NewReader(""), &out); err != nil {
		t.Fatal(err)
	}
	if r := lastReport(t, &out); r.OK != 0 {
		t.Errorf("%+v", r)
	}
}
