package planner

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/plan"
)

// tellMoves tells, by one Event of each Node that failed, where its addresses on the
// LAN went. They may be thousands, of as many Services, whose conditions name the new
// owners.
func (n *notices) tellMoves(moves []plan.Move, state *plan.State) {
	for len(moves) > 0 {
		first := &moves[0]
		var to []string
		for len(moves) > 0 && moves[0].From == first.From && moves[0].Why() == first.Why() {
			to = append(to, fmt.Sprintf("%s (%d)", moves[0].To, moves[0].Addresses))
			moves = moves[1:]
		}
		klog.InfoS("Addresses on the LAN have other owners", "from", first.From, "to", someOf(to), "why", first.Why())
		kind := corev1.EventTypeWarning
		if first.Verdict == plan.Leaving && !first.TakenOver {
			kind = corev1.EventTypeNormal // a node that is emptied
		}
		for _, node := range state.Nodes {
			if node.Name == first.From && n.budget.AllowN(state.Now, 1) {
				n.recorder.Event(node, kind, "AddressesMoved", fmt.Sprintf("its addresses on the LAN went to %s: %s", someOf(to), first.Why()))
			}
		}
	}
}

// mostOwners is how many new owners an Event names.
const mostOwners = 8

func someOf(owners []string) string {
	if len(owners) > mostOwners {
		return fmt.Sprintf("%s and %d more", strings.Join(owners[:mostOwners], ", "), len(owners)-mostOwners)
	}
	return strings.Join(owners, ", ")
}
