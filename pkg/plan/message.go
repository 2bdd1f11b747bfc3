package plan

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/ipam"
)

// Condition is the Announced condition of a Service: who announces its
// addresses, or why nobody does. All addresses of a Service have to be
// announced for the condition to be true.
func (s *Service) Condition() (announced bool, reason, message string) {
	if len(s.Addresses) == 0 && s.Refusal != nil {
		return false, s.Refusal.Reason, "no address is assigned: " + s.Refusal.Message
	}
	if len(s.Addresses) == 0 {
		return false, string(ipam.NoAddress), "an address is about to be assigned"
	}
	announced, reason = true, "Announced"
	var messages []string
	for i := range s.Addresses {
		a := &s.Addresses[i]
		if problem := a.problem(); problem != nil {
			announced, reason = false, problem.Reason
			messages = append(messages, fmt.Sprintf("%s: %s", a.Range, problem.Message))
			continue
		}
		messages = append(messages, fmt.Sprintf("%s: %s", a.Range, a.success()))
		if a.has(Kept) && announced {
			reason = "KeptLastNodes"
			messages = append(messages, "labels or the pool's nodeSelector (on the LAN, its interfaces) rule these nodes out, but no other node is left: correct them")
		}
	}
	if s.Refusal != nil {
		messages = append(messages, "what else is asked for is refused: "+s.Refusal.Message)
	}
	return announced, reason, strings.Join(messages, "; ")
}

// Announced reports whether somebody announces each of the Service's addresses: the
// status of its condition, without the words.
func (s *Service) Announced() bool {
	for i := range s.Addresses {
		if !s.Addresses[i].announced() {
			return false
		}
	}
	return len(s.Addresses) > 0
}

func (a *Address) announced() bool {
	if a.Problem != nil {
		return false
	}
	reaches := func(n NodeVerdict) bool { return n.Verdict.announces() && !n.CutOff }
	return slices.ContainsFunc(a.BGP, reaches) || a.Layer2 != nil && a.Layer2.answers()
}

// Warnings are for Events: what other hosts on the LAN do to the Service's
// addresses, and which of these are on their way out of all pools.
func (s *Service) Warnings() []Problem {
	var out []Problem
	for i := range s.Addresses {
		a := &s.Addresses[i]
		if outside := a.outside(); outside != nil {
			out = append(out, Problem{outside.Reason, fmt.Sprintf("%s: %s", a.Range, outside.Message)})
		}
		if a.Layer2 == nil || a.Layer2.Conflict == nil {
			continue
		}
		reason, message := "AddressClaimed", strings.Join(a.Layer2.warnings(), "; ")
		if problem := a.Layer2.problem(); problem != nil && a.Layer2.Conflict.Held {
			reason, message = problem.Reason, problem.Message
		}
		out = append(out, Problem{reason, fmt.Sprintf("%s: %s", a.Range, message)})
	}
	return out
}

// outside tells of an address that no pool gives out any more, and which is kept.
func (a *Address) outside() *Problem {
	switch {
	case a.pool == nil:
		return nil
	case a.Pool == "":
		return &Problem{"OutsidePools", fmt.Sprintf("lies in no AddressPool any more (the last one was %q); it is kept and announced as before: add it to a pool, or delete the Service", a.pool.name)}
	case a.pool.object.DeletionTimestamp != nil:
		return &Problem{"PoolDeleting", fmt.Sprintf("AddressPool %q is being deleted, which waits for this address; it is kept and announced until the Service is deleted or asks for another one", a.pool.name)}
	}
	return nil
}

// success says who announces the address, and what is not as it should be.
func (a *Address) success() string {
	var parts []string
	if hops := a.NextHops(); len(hops) > 0 {
		parts = append(parts, "announced by "+names(hops))
	}
	if down := a.cutOff(); len(down) > 0 {
		parts = append(parts, "no BGP session is up on "+names(down))
	}
	if a.Layer2 != nil {
		if problem := a.Layer2.problem(); problem != nil {
			parts = append(parts, "on the LAN: "+problem.Message)
		} else {
			parts = append(parts, "announced on the LAN by "+a.Layer2.Owner())
			parts = append(parts, a.Layer2.warnings()...)
		}
	}
	if a.BGP != nil && len(a.NextHops()) == 0 {
		parts = append(parts, "by BGP: "+whyNot(a.BGP).Message)
	}
	if a.has(NoRoom) {
		parts = append(parts, explanations[NoRoom])
	}
	if outside := a.outside(); outside != nil {
		parts = append(parts, outside.Message)
	}
	return strings.Join(parts, "; ")
}

// problem is why nobody announces the address; nil if somebody does, in one way
// or the other.
func (a *Address) problem() *Problem {
	if a.Problem != nil {
		return a.Problem
	}
	var problems []*Problem
	if a.BGP != nil {
		problems = append(problems, a.bgpProblem())
	}
	if a.Layer2 != nil {
		problems = append(problems, a.Layer2.problem())
	}
	if slices.Contains(problems, nil) {
		return nil
	}
	if len(problems) == 1 {
		return problems[0]
	}
	return &Problem{problems[0].Reason, fmt.Sprintf("by BGP: %s; on the LAN: %s", problems[0].Message, problems[1].Message)}
}

func (a *Address) bgpProblem() *Problem {
	hops := a.NextHops()
	switch {
	case len(hops) == 0:
		return whyNot(a.BGP)
	case len(a.cutOff()) == len(hops):
		return &Problem{"NoSession", fmt.Sprintf("assigned to %s, but no BGP session is up there; see the BGPPeers", names(hops))}
	}
	return nil
}

// answers reports whether the owner answers for the address.
func (o *Ownership) answers() bool {
	return o.owner >= 0 && o.verdict.announces() && (o.Conflict == nil || !o.Conflict.Held)
}

func (o *Ownership) problem() *Problem {
	switch {
	case o.owner < 0 || !o.verdict.announces():
		return whyNot(o.Nodes())
	case o.Conflict != nil && o.Conflict.Held:
		return &Problem{"AddressInUse", fmt.Sprintf("in use by another host: %s answered %s on its %s; it is announced as soon as that host is silent: find it, or take the address out of the pool",
			o.claimant(), o.Owner(), o.Conflict.Interface)}
	}
	return nil
}

// warnings are what others do on the LAN, though the address is announced.
func (o *Ownership) warnings() []string {
	switch {
	case o.Conflict == nil || o.Conflict.Held:
		return nil
	case o.Conflict.Proxy:
		return []string{fmt.Sprintf("%s, which looks like a proxy or a virtual router, answers for it, too", o.claimant())}
	}
	return []string{fmt.Sprintf("%s claims it, too, as seen by %s on its %s; it is defended", o.claimant(), o.Owner(), o.Conflict.Interface)}
}

func (o *Ownership) claimant() string {
	if o.Claimant != "" {
		return fmt.Sprintf("%s (node %s)", o.Conflict.MAC, o.Claimant)
	}
	return o.Conflict.MAC.String()
}

// whyNot says why none of the nodes announces.
func whyNot(nodes []NodeVerdict) *Problem {
	if len(nodes) == 0 {
		return &Problem{string(NoSpeaker), "no node runs a speaker; check the DaemonSet baremetal-speaker"}
	}
	// The verdict that was reached last in the order of judging is the nearest
	// to an announcement, and so the most useful one to tell.
	byVerdict := make(map[Verdict][]string)
	for _, n := range nodes {
		byVerdict[n.Verdict] = append(byVerdict[n.Verdict], n.Node)
	}
	verdicts := slices.Collect(maps.Keys(byVerdict))
	slices.SortFunc(verdicts, func(x, y Verdict) int {
		return cmp.Compare(slices.Index(nearest, x), slices.Index(nearest, y))
	})
	var parts []string
	for _, v := range verdicts {
		if explanation, ok := explanations[v]; ok {
			parts = append(parts, fmt.Sprintf("%s: %s", names(byVerdict[v]), explanation))
		}
	}
	return &Problem{string(verdicts[0]), "no node announces it: " + strings.Join(parts, "; ")}
}

// cutOff are the next hops whose announcement reaches nobody.
func (a *Address) cutOff() []string {
	var nodes []string
	for _, n := range a.BGP {
		if n.Verdict.announces() && n.CutOff {
			nodes = append(nodes, n.Node)
		}
	}
	return nodes
}

// has reports whether some node has the verdict.
func (a *Address) has(v Verdict) bool {
	return a.Layer2 != nil && a.Layer2.owner >= 0 && a.Layer2.verdict == v ||
		slices.ContainsFunc(a.BGP, func(n NodeVerdict) bool { return n.Verdict == v })
}

// nearest orders the verdicts by how near they are to an announcement.
var nearest = []Verdict{NoRoom, Retains, Surplus, Standby, Spare, SpeakerAway, NoEndpoint, NoPeer, NoInterface, NoReport, Unwritable, Leaving, NotReady, Draining, Excluded, NotSelected, Deleting}

// explanations say what a verdict means and what to do, for a list of nodes.
var explanations = map[Verdict]string{
	NotSelected: "not selected by the pool's nodeSelector",
	Excluded:    "excluded by the label node.kubernetes.io/exclude-from-external-load-balancers; remove it to let them announce",
	Draining:    "draining (annotation lb.baremetal.dev/drain)",
	Deleting:    "being deleted",
	NotReady:    "not Ready",
	Unwritable:  "the annotation lb.baremetal.dev/announcements cannot be written; see the log of the cloud-controller-manager",
	NoReport:    "the speaker has not reported its interfaces yet",
	Leaving:     "the speaker is stopping, for the node is being emptied",
	NoPeer:      "no BGPPeer for this pool and address family selects them; create one or check its nodeSelector",
	NoInterface: "no interface with a carrier has a subnet with the address, or is one that the pool's layer2.interfaces or the Node's annotation lb.baremetal.dev/layer2-interfaces names",
	NoEndpoint:  "no ready endpoint of the Service there, and it asks for local ones",
	NoRoom:      "the node's announcements have reached the size of an annotation; use contiguous addresses or fewer Services",
	Retains:     "the speaker is not running",
	SpeakerAway: "the speaker is not running",
}

// names lists nodes for a message, and cuts long lists.
func names(nodes []string) string {
	const most = 8
	if len(nodes) > most {
		return fmt.Sprintf("%s and %d more nodes", strings.Join(nodes[:most], ", "), len(nodes)-most)
	}
	return strings.Join(nodes, ", ")
}
