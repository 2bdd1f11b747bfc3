package planner

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/plan"
)

// busyServer answers as an API server does that has more to do than it can (API
// Priority and Fairness): come back in a second.
type busyServer struct {
	mu      sync.Mutex
	busy    bool
	refused int
	written map[string]bool
}

// ServeHTTP implements http.Handler.
func (s *busyServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	if s.busy {
		s.refused++
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusTooManyRequests)
		return
	}
	name := r.URL.Path[len("/api/v1/nodes/"):]
	s.written[name] = true
	_ = json.NewEncoder(w).Encode(&corev1.Node{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"}, ObjectMeta: metav1.ObjectMeta{Name: name, ResourceVersion: "2"},
	})
}

// TestWritesComeBackWhenTheyAreTold: while the API server pushes back, a plan of many
// nodes sends as many requests as may be under way, each no sooner than it was told,
// and in the end writes each node.
func TestWritesComeBackWhenTheyAreTold(t *testing.T) {
	const many = 100
	server := &busyServer{busy: true, written: make(map[string]bool)}
	listener := httptest.NewServer(server)
	defer listener.Close()
	client, err := kubernetes.NewForConfig(&rest.Config{Host: listener.URL, QPS: -1})
	if err != nil {
		t.Fatal(err)
	}
	var nodes []*corev1.Node
	p := &plan.Plan{Programs: make(map[string]announce.Program)}
	for i := range many {
		nodes = append(nodes, nodeAt("1", fmt.Sprintf("node%d", i)))
		p.Programs[nodes[i].Name] = programOf(0, "203.0.113.1")
	}
	began := time.Now()
	recovered := time.AfterFunc(2500*time.Millisecond, func() {
		server.mu.Lock()
		defer server.mu.Unlock()
		server.busy = false
	})
	defer recovered.Stop()
	if _, err := newNodeWriter(client).write(t.Context(), nodes, p); err != nil {
		t.Error(err)
	}
	took := time.Since(began)
	server.mu.Lock()
	defer server.mu.Unlock()
	if len(server.written) != many {
		t.Errorf("%d of %d nodes are written", len(server.written), many)
	}
	if most := parallelNodeWrites * (1 + int(took/time.Second)); server.refused > most {
		t.Errorf("%d refused requests in %v, want %d at most", server.refused, took, most)
	}
}
