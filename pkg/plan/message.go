package plan

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Condition is the Announced condition of a Service: who announces its
// addresses, or why nobody does. All addresses of a Service have to be
// announced for the condition to be true.
func (s *Service) Condition() (announced bool, reason, message string) {
	if len(s.Addresses) == 0 {
		return false, "NoAddress", "no address is assigned yet; the Events of the Service say why"
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
		message := fmt.Sprintf("%s: announced by %s", a.Range, names(a.Announcers()))
		if down := a.cutOff(); len(down) > 0 {
			message += fmt.Sprintf("; no BGP session is up on %s", names(down))
		}
		if a.has(NoRoom) {
			message += "; " + explanations[NoRoom]
		}
		messages = append(messages, message)
		if a.has(Kept) && announced {
			reason = "KeptLastNodes"
			messages = append(messages, "labels or the pool's nodeSelector rule these nodes out, but no other node is left: correct them")
		}
	}
	return announced, reason, strings.Join(messages, "; ")
}

// problem is why nobody announces the address; nil if somebody does.
func (a *Address) problem() *Problem {
	if a.Problem != nil {
		return a.Problem
	}
	if announcers := a.Announcers(); len(announcers) > 0 {
		if len(a.cutOff()) == len(announcers) {
			return &Problem{"NoSession", fmt.Sprintf("assigned to %s, but no BGP session is up there; see the BGPPeers", names(announcers))}
		}
		return nil
	}
	if len(a.Nodes) == 0 {
		return &Problem{string(NoSpeaker), "no node runs a speaker; check the DaemonSet baremetal-speaker"}
	}
	// The verdict that was reached last in the order of judging is the nearest
	// to an announcement, and so the most useful one to tell.
	byVerdict := make(map[Verdict][]string)
	for _, n := range a.Nodes {
		byVerdict[n.Verdict] = append(byVerdict[n.Verdict], n.Node)
	}
	verdicts := slices.Collect(maps.Keys(byVerdict))
	slices.SortFunc(verdicts, func(x, y Verdict) int {
		return cmp.Compare(slices.Index(nearest, x), slices.Index(nearest, y))
	})
	var parts []string
	for _, v := range verdicts {
		parts = append(parts, fmt.Sprintf("%s: %s", names(byVerdict[v]), explanations[v]))
	}
	return &Problem{string(verdicts[0]), "no node announces it: " + strings.Join(parts, "; ")}
}

// cutOff are the announcers whose announcement reaches nobody.
func (a *Address) cutOff() []string {
	var nodes []string
	for _, n := range a.Nodes {
		if n.Verdict.announces() && n.CutOff {
			nodes = append(nodes, n.Node)
		}
	}
	return nodes
}

func (a *Address) has(v Verdict) bool {
	return slices.ContainsFunc(a.Nodes, func(n NodeVerdict) bool { return n.Verdict == v })
}

// nearest orders the verdicts by how near they are to an announcement.
var nearest = []Verdict{NoRoom, Retains, SpeakerAway, NoEndpoint, NoPeer, NotReady, Draining, Excluded, NotSelected, Deleting}

// explanations say what a verdict means and what to do, for a list of nodes.
var explanations = map[Verdict]string{
	NotSelected: "not selected by the pool's nodeSelector",
	Excluded:    "excluded by the label node.kubernetes.io/exclude-from-external-load-balancers; remove it to let them announce",
	Draining:    "draining (annotation lb.baremetal.dev/drain)",
	Deleting:    "being deleted",
	NotReady:    "not Ready",
	NoPeer:      "no BGPPeer for this pool and address family selects them; create one or check its nodeSelector",
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
