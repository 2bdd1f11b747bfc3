package planner

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

// handoverPatience bounds how long a node goes on answering on the LAN for
// addresses that another one has been told to answer for.
const handoverPatience = time.Second

// handovers delays the writes to nodes that lose addresses on the LAN, until the
// new owners report that they answer: an address that moves is answered all the
// time.
type handovers struct {
	since map[string]time.Time // by name of the losing node
}

// wait is how long the loser is still to keep its program; 0 means that it may
// be written. next are the programs by node name, and known returns the epoch
// that was written to a node.
func (h *handovers) wait(loser *corev1.Node, previous *announce.Program, next map[string]announce.Program, nodes map[string]*corev1.Node, known func(node string) int64) time.Duration {
	pending := false
	for _, gainer := range gainersOf(loser.Name, previous, next) {
		if n := nodes[gainer]; n != nil && reportedEpoch(n) < known(gainer) {
			pending = true
			break
		}
	}
	if !pending {
		delete(h.since, loser.Name)
		return 0
	}
	if h.since == nil {
		h.since = make(map[string]time.Time)
	}
	began, waiting := h.since[loser.Name]
	if !waiting {
		began = time.Now()
		h.since[loser.Name] = began
	}
	if left := handoverPatience - time.Since(began); left > 0 {
		return left
	}
	delete(h.since, loser.Name)
	return 0
}

// gainersOf are the nodes that own, by the next programs, addresses that the
// loser owns by its previous one.
func gainersOf(loser string, previous *announce.Program, next map[string]announce.Program) []string {
	had := previous.Owned(loser)
	if len(had.Ranges()) == 0 {
		return nil
	}
	var gainers []string
	for name, program := range next {
		if name != loser && slices.ContainsFunc(program.Owned(name).Ranges(), had.OverlapsRange) {
			gainers = append(gainers, name)
		}
	}
	return gainers
}

// reportedEpoch is the epoch that the node's speaker reports to carry out.
func reportedEpoch(n *corev1.Node) int64 {
	r, err := announce.DecodeReport(n.Annotations[v1alpha1.NodeSpeaker])
	if err != nil {
		return 0
	}
	return r.Epoch
}
