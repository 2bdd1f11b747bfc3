package planner

import (
	"slices"
	"time"

	"go4.org/netipx"
	corev1 "k8s.io/api/core/v1"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

const (
	// handoverPatience bounds how long a node goes on answering on the LAN for
	// addresses that another one has been told to answer for.
	handoverPatience = time.Second
	// unwrittenPatience bounds the same where the other one could not be told.
	// Before it ends, the plan has chosen one that can.
	unwrittenPatience = 10 * time.Second
)

// handovers delays the writes to nodes that lose addresses on the LAN, until the
// new owners report that they answer: an address that moves is answered all the
// time. What a node took over by itself it answers for already.
type handovers struct {
	since map[string]time.Time // by name of the losing node
}

// round is what the losers of one plan are compared with.
type round struct {
	next  map[string]announce.Program // by node name
	known func(node string) announce.Program
	nodes map[string]*corev1.Node
	owned map[string]*netipx.IPSet // by the next programs; see ownedBy
	began map[string]time.Time     // of the losers that wait
}

// ownedBy are the addresses that the node owns by its next program.
func (r *round) ownedBy(node string) *netipx.IPSet {
	set := r.owned[node]
	if set == nil {
		program := r.next[node]
		set = program.Owned(node)
		r.owned[node] = set
	}
	return set
}

// hold sorts the losers: due may be written, the others wait. again is how long
// the first of these is to wait.
func (h *handovers) hold(losers []pendingWrite, r *round) (due []pendingWrite, again time.Duration) {
	r.owned, r.began = make(map[string]*netipx.IPSet), make(map[string]time.Time)
	for _, pending := range losers {
		switch wait := h.wait(pending.node.Name, &pending.previous, r); {
		case wait == 0:
			due = append(due, pending)
		case again == 0 || wait < again:
			again = wait
		}
	}
	h.since = r.began // what does not wait any more begins anew the next time
	return due, again
}

// wait is how long the loser is still to keep its program; 0 means that it may
// be written.
func (h *handovers) wait(loser string, previous *announce.Program, r *round) time.Duration {
	patience := time.Duration(0)
	lost := r.lostBy(loser, previous)
	for _, gainer := range r.gainersOf(loser, lost) {
		n := r.nodes[gainer]
		if n == nil {
			continue
		}
		report := reportOf(n)
		written := r.known(gainer)
		has := written.Owned(gainer)
		awaited := r.awaited(gainer, lost, &report)
		switch {
		case len(awaited) == 0:
		case slices.ContainsFunc(awaited, func(l netipx.IPRange) bool { return !has.OverlapsRange(l) }):
			patience = max(patience, unwrittenPatience)
		case report.Epoch < written.Epoch:
			patience = max(patience, handoverPatience)
		}
	}
	if patience == 0 {
		return 0
	}
	began, waiting := h.since[loser]
	if !waiting {
		began = time.Now()
	}
	left := patience - time.Since(began)
	if left <= 0 {
		return 0
	}
	r.began[loser] = began
	return left
}

// gainersOf are the nodes that own, by the next programs, addresses that the
// loser is to lose.
func (r *round) gainersOf(loser string, lost *netipx.IPSet) []string {
	if len(lost.Ranges()) == 0 {
		return nil
	}
	var gainers []string
	for name := range r.next {
		if name != loser && slices.ContainsFunc(r.ownedBy(name).Ranges(), lost.OverlapsRange) {
			gainers = append(gainers, name)
		}
	}
	return gainers
}

// awaited are the addresses that go from a loser to the gainer, but for those that
// the gainer took over: it answers for them already, and the loser, if it lives, is
// to hear of it.
func (r *round) awaited(gainer string, lost *netipx.IPSet, report *announce.Report) []netipx.IPRange {
	var b netipx.IPSetBuilder
	b.AddSet(lost)
	b.Intersect(r.ownedBy(gainer))
	for _, t := range report.Takeovers {
		for _, taken := range t.Addresses {
			if netipx.IPRange(taken).IsValid() {
				b.RemoveRange(netipx.IPRange(taken))
			}
		}
	}
	set, err := b.IPSet()
	if err != nil {
		return lost.Ranges() // sets are valid
	}
	return set.Ranges()
}

// lostBy are the addresses that the loser owns, and is to own no longer.
func (r *round) lostBy(loser string, previous *announce.Program) *netipx.IPSet {
	var b netipx.IPSetBuilder
	b.AddSet(previous.Owned(loser))
	b.RemoveSet(r.ownedBy(loser))
	set, err := b.IPSet()
	if err != nil {
		return &netipx.IPSet{} // sets are valid
	}
	return set
}

// reportOf is what the node's speaker reports; nothing if that cannot be read.
func reportOf(n *corev1.Node) announce.Report {
	r, err := announce.DecodeReport(n.Annotations[v1alpha1.NodeSpeaker])
	if err != nil {
		return announce.Report{}
	}
	return r
}
