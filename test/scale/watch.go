package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

// nodeWatch is one that watches all Nodes, as a CNI, a scheduler or a monitoring
// system does.
type nodeWatch struct {
	bytes atomic.Int64

	mu sync.Mutex
	// now are the nodes' programs, and log those that came since record.
	now     map[string]string
	log     []told
	changed chan struct{} // closed and replaced at each change of a program
}

// told is what a node was told, and when.
type told struct {
	at          time.Time
	node, value string
}

// watchNodes watches until ctx ends.
func watchNodes(ctx context.Context, config *rest.Config, group *errgroup.Group) (*nodeWatch, error) {
	w := &nodeWatch{now: make(map[string]string), changed: make(chan struct{})}
	config = rest.CopyConfig(config)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return countBody{next: next, read: func(n int) { w.bytes.Add(int64(n)) }}
	})
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	list, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	for _, n := range list.Items {
		w.now[n.Name] = n.Annotations[v1alpha1.NodeAnnouncements]
	}
	watching, err := client.CoreV1().Nodes().Watch(ctx, metav1.ListOptions{ResourceVersion: list.ResourceVersion})
	if err != nil {
		return nil, err
	}
	group.Go(func() error {
		defer watching.Stop()
		for event := range watching.ResultChan() {
			w.note(event)
		}
		if ctx.Err() == nil {
			return errors.New("the watch of Nodes ended")
		}
		return nil
	})
	return w, nil
}

func (w *nodeWatch) note(event watch.Event) {
	n, ok := event.Object.(*corev1.Node)
	if !ok {
		return
	}
	value := n.Annotations[v1alpha1.NodeAnnouncements]
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.now[n.Name] == value {
		return
	}
	w.now[n.Name] = value
	w.log = append(w.log, told{time.Now(), n.Name, value})
	close(w.changed)
	w.changed = make(chan struct{})
}

// record begins a new log.
func (w *nodeWatch) record() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log = nil
}

// recorded is the log from an index on, and what is closed when there is more.
func (w *nodeWatch) recorded(from int) ([]told, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log[from:], w.changed
}

// last waits until the addresses are in the programs of n nodes each, and returns
// when that was.
func (w *nodeWatch) last(ctx context.Context, addresses []netip.Addr, n int) (time.Time, error) {
	nodes := make(map[string]int)
	left := n * len(addresses)
	for from := 0; ; {
		log, changed := w.recorded(from)
		from += len(log)
		for _, t := range log {
			p, err := announce.Decode(t.value)
			if err != nil {
				return time.Time{}, err
			}
			has := 0
			for _, a := range addresses {
				if p.Contains(a) {
					has++
				}
			}
			left -= has - nodes[t.node]
			if nodes[t.node] = has; left == 0 {
				return t.at, nil
			}
		}
		select {
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("%v lack %d nodes: %w", addresses, left, ctx.Err())
		case <-changed:
		}
	}
}

// programs are those of all nodes now.
func (w *nodeWatch) programs() map[string]string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.now)
}

// told returns, for each list of addresses, when the n-th node was told of all of
// them; zero where that never was.
func (w *nodeWatch) told(lists [][]netip.Addr, n int) ([]time.Time, error) {
	owner := make(map[netip.Addr]int)
	for i, addresses := range lists {
		for _, a := range addresses {
			owner[a] = i
		}
	}
	type key struct {
		node string
		addr netip.Addr
	}
	seen := make(map[key]bool)
	counts := make([]int, len(lists))
	last := make([]time.Time, len(lists))
	log, _ := w.recorded(0)
	for _, t := range log {
		p, err := announce.Decode(t.value)
		if err != nil {
			return nil, err
		}
		for a, i := range owner {
			k := key{t.node, a}
			if seen[k] || !p.Contains(a) {
				continue
			}
			seen[k] = true
			if counts[i]++; counts[i] == n*len(lists[i]) {
				last[i] = t.at
			}
		}
	}
	return last, nil
}
