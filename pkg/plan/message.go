package plan

import (
	"cmp"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/ipam"
)

// Waiting reports whether the Service has no address, and nothing stands in its way:
// it was created a moment ago.
func (s *Service) Waiting() bool { return len(s.Addresses) == 0 && s.Refusal == nil }

// Condition is the Announced condition of a Service: who announces its
// addresses, or why nobody does. All addresses of a Service have to be
// announced for the condition to be true.
func (s *Service) Condition() (announced bool, reason, message string) {
	if s.Waiting() {
		return false, string(ipam.NoAddress), "an address is about to be assigned"
	}
	if len(s.Addresses) == 0 {
		return false, s.Refusal.Reason, "no address is assigned: " + s.Refusal.Message
	}
	announced, reason = true, "Announced"
	var messages []string
	for i := range s.Addresses {
		a := &s.Addresses[i]
		hops := a.hops()
		if problem := a.problem(hops); problem != nil {
			announced, reason = false, problem.Reason
			messages = append(messages, fmt.Sprintf("%s: %s", a.Range, problem.Message))
			continue
		}
		messages = append(messages, fmt.Sprintf("%s: %s", a.Range, a.success(hops)))
		if a.has(Kept) && announced {
			reason = "KeptLastNodes"
			messages = append(messages, a.kept())
		}
	}
	if s.Refusal != nil {
		messages = append(messages, "what else is asked for is refused: "+s.Refusal.Message)
	}
	return announced, reason, strings.Join(messages, "; ")
}

// kept says why the nodes would not announce the address, were there others.
func (a *Address) kept() string {
	edited := []Verdict{NotSelected, Excluded, NoInterface}
	if o := a.Layer2; o != nil && o.verdict == Kept && !slices.Contains(edited, o.standing.verdict(o.owner)) {
		return fmt.Sprintf("%s says that it does not forward, but no other node is better: see notForwarding in the speakers' reports, and look at kube-proxy", o.Owner())
	}
	return "labels or the pool's nodeSelector (on the LAN, its interfaces) rule these nodes out, but no other node is left: correct them"
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
	return a.bgp != nil && a.bgp.reaches() || a.Layer2 != nil && a.Layer2.answers()
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
		reason, message := "AddressClaimed", strings.Join(a.Layer2.claims(), "; ")
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

// hops are the names of the nodes that announce an address by BGP; what those that
// are cut off announce reaches nobody.
type hops struct{ all, cutOff []string }

func (a *Address) hops() (h hops) {
	if a.bgp == nil {
		return h
	}
	for i := range a.bgp.announcers() {
		n := &a.bgp.family.verdicts[i]
		h.all = append(h.all, n.Node)
		if n.CutOff {
			h.cutOff = append(h.cutOff, n.Node)
		}
	}
	return h
}

// success says who announces the address, and what is not as it should be.
func (a *Address) success(h hops) string {
	var parts []string
	if len(h.all) > 0 {
		parts = append(parts, "announced by "+names(h.all))
	}
	if len(h.cutOff) > 0 {
		parts = append(parts, "no BGP session is up on "+names(h.cutOff))
	}
	if a.Layer2 != nil {
		if problem := a.Layer2.problem(); problem != nil {
			parts = append(parts, "on the LAN: "+problem.Message)
		} else {
			parts = append(parts, "announced on the LAN by "+a.Layer2.Owner())
			parts = append(parts, a.Layer2.warnings()...)
		}
	}
	if a.bgp != nil && len(h.all) == 0 {
		parts = append(parts, "by BGP: "+whyNot(a.bgp.verdicts()).Message)
	}
	if a.has(NoRoom) {
		parts = append(parts, explanations[NoRoom])
	}
	if outside := a.outside(); outside != nil {
		parts = append(parts, outside.Message)
	}
	if a.address != nil && len(a.address.leaving) > 0 {
		parts = append(parts, "Services that share it were edited such that they cannot any more: one of them is about to leave it")
	}
	return strings.Join(parts, "; ")
}

// problem is why nobody announces the address; nil if somebody does, in one way
// or the other.
func (a *Address) problem(h hops) *Problem {
	if a.Problem != nil {
		return a.Problem
	}
	var problems []*Problem
	if a.bgp != nil {
		problems = append(problems, a.bgpProblem(h))
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

func (a *Address) bgpProblem(h hops) *Problem {
	switch {
	case len(h.all) == 0:
		return whyNot(a.bgp.verdicts())
	case len(h.cutOff) == len(h.all):
		return &Problem{"NoSession", fmt.Sprintf("assigned to %s, but no BGP session is up there; see the BGPPeers", names(h.all))}
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
		return whyNot(o.verdicts())
	case o.Conflict != nil && o.Conflict.Held:
		return &Problem{"AddressInUse", fmt.Sprintf("in use by another host: %s answered %s on its %s; it is announced as soon as that host is silent: find it, or take the address out of the pool",
			o.claimant(), o.Owner(), o.Conflict.Interface)}
	}
	return nil
}

// warnings are what is not as it should be, though the address is announced.
func (o *Ownership) warnings() []string {
	return append(o.silence(), o.claims()...)
}

// silence is that of an owner that only those that stand by hear.
func (o *Ownership) silence() []string {
	if o.verdict != Heard {
		return nil
	}
	what := "that node is not Ready"
	if o.standing.verdict(o.owner) == SpeakerAway {
		what = "its speaker is not running"
	}
	return []string{what + ", but nodes that stand by hear it"}
}

// claims are what others do on the LAN.
func (o *Ownership) claims() []string {
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
func whyNot(nodes iter.Seq[NodeVerdict]) *Problem {
	type group struct {
		verdict Verdict
		first   []string // nodes
		count   int
	}
	var groups []group
	for n := range nodes {
		at := slices.IndexFunc(groups, func(g group) bool { return g.verdict == n.Verdict })
		if at < 0 {
			at = len(groups)
			groups = append(groups, group{verdict: n.Verdict})
		}
		g := &groups[at]
		if g.count++; g.count <= mostNames {
			g.first = append(g.first, n.Node)
		}
	}
	if len(groups) == 0 {
		return &Problem{string(NoSpeaker), "no node runs a speaker; check the DaemonSet baremetal-speaker"}
	}
	// The verdict that was reached last in the order of judging is the nearest
	// to an announcement, and so the most useful one to tell.
	slices.SortFunc(groups, func(x, y group) int {
		return cmp.Compare(slices.Index(nearest, x.verdict), slices.Index(nearest, y.verdict))
	})
	var parts []string
	for _, g := range groups {
		if explanation, ok := explanations[g.verdict]; ok {
			parts = append(parts, fmt.Sprintf("%s: %s", someNames(g.first, g.count), explanation))
		}
	}
	return &Problem{string(groups[0].verdict), "no node announces it: " + strings.Join(parts, "; ")}
}

// has reports whether some node has the verdict, Kept or NoRoom.
func (a *Address) has(v Verdict) bool {
	return a.Layer2 != nil && a.Layer2.owner >= 0 && a.Layer2.verdict == v || a.bgp != nil && a.bgp.has(v)
}

// nearest orders the verdicts by how near they are to an announcement.
var nearest = []Verdict{NoRoom, Retains, Surplus, Standby, Spare, SpeakerAway, NotForwarding, NoEndpoint, NoPeer, NoInterface, NoReport, Unwritable, Leaving, NotReady, Draining, Excluded, NotSelected, Deleting}

// explanations say what a verdict means and what to do, for a list of nodes.
var explanations = map[Verdict]string{
	NotSelected:   "not selected by the pool's nodeSelector",
	Excluded:      "excluded by the label node.kubernetes.io/exclude-from-external-load-balancers; remove it to let them announce",
	Draining:      "draining (annotation lb.baremetal.dev/drain)",
	Deleting:      "being deleted",
	NotReady:      "not Ready",
	Unwritable:    "the annotation lb.baremetal.dev/announcements cannot be written; see the log of the cloud-controller-manager",
	NoReport:      "the speaker has not reported its interfaces yet",
	Leaving:       "the speaker is stopping, for the node is being emptied",
	NoPeer:        "no BGPPeer for this pool and address family selects them; create one or check its nodeSelector",
	NoInterface:   "no interface with a carrier has a subnet with the address, or is one that the pool's layer2.interfaces or the Node's annotation lb.baremetal.dev/layer2-interfaces names",
	NotForwarding: "kube-proxy is not healthy there; see notForwarding in the speaker's report",
	NoEndpoint:    "no ready endpoint of the Service there, and it asks for local ones",
	NoRoom:        "the node's announcements have reached the size of an annotation; use contiguous addresses or fewer Services",
	Retains:       "the speaker is not running",
	SpeakerAway:   "the speaker is not running",
}

// mostNames is how many nodes a message names.
const mostNames = 8

// names lists nodes for a message, and cuts long lists.
func names(nodes []string) string { return someNames(nodes, len(nodes)) }

// someNames lists the first of so many nodes.
func someNames(first []string, count int) string {
	if count > mostNames {
		return fmt.Sprintf("%s and %d more nodes", strings.Join(first[:mostNames], ", "), count-mostNames)
	}
	return strings.Join(first, ", ")
}
