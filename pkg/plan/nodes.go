package plan

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

// node is a Node with a speaker, judged as far as no pool or Service matters.
type node struct {
	object   *corev1.Node
	previous announce.Program
	report   announce.Report
	speaker  speaker
	// forgiven: it is not ready, and that does not count.
	forgiven bool
	// verdict is empty unless the node may announce nothing.
	verdict Verdict
	// zone is the index of the first node in the same zone.
	zone int
	// lan is what the speaker reports of the node's links.
	lan lan
	// claims are the addresses that it took over, and hears the indexes of the nodes
	// that it hears, ascending.
	claims claims
	hears  []int
	// entry is nil before somebody asks; see nodeEntry.
	entry *announce.Node
	// peers of the node, by name.
	peers []announce.Peer
	// routerID for its sessions.
	routerID routerID
}

// speaker says whether a node's speaker runs.
type speaker int

const (
	speakerNone  speaker = iota // there is and was none
	speakerAway                 // there was one: the node has a program or a report
	speakerAlive                // it is running
)

// judgeNodes returns the nodes that have or had a speaker, by name.
func judgeNodes(s *State) []*node {
	alive := s.AliveSpeakers()
	var nodes []*node
	for _, object := range s.Nodes {
		n := &node{object: object, previous: s.Previous[object.Name]}
		_, hasProgram := s.Previous[object.Name]
		text, hasReport := object.Annotations[v1alpha1.NodeSpeaker]
		// A report that cannot be read is that of a speaker all the same.
		n.report, _ = announce.DecodeReport(text)
		switch {
		case alive[object.Name]:
			n.speaker = speakerAlive
		case hasProgram || hasReport:
			n.speaker = speakerAway
		}
		if n.speaker == speakerNone {
			continue
		}
		n.lan = newLAN(object, &n.report)
		n.claims = newClaims(n.report.Takeovers)
		n.verdict = judgeNode(object)
		nodes = append(nodes, n)
	}
	slices.SortFunc(nodes, func(a, b *node) int { return cmp.Compare(a.object.Name, b.object.Name) })
	findZones(nodes)
	forgiveMassFailure(nodes)
	return nodes
}

// settle is how long a node has to be not ready before that counts. Nodes that
// turn so together, because the control plane was away, do it one after the other.
const settle = 800 * time.Millisecond

// settleReadiness passes over what has not settled yet.
func (c *computation) settleReadiness() {
	if c.state.Now.IsZero() {
		return
	}
	for _, n := range c.nodes {
		since, known := c.state.NotReadySince[n.object.Name]
		if end := since.Add(settle); n.verdict == NotReady && known && c.state.Now.Before(end) {
			n.verdict, n.forgiven = "", true
			c.wakeAt(end)
		}
	}
}

// wakeAt asks for another plan at that time.
func (c *computation) wakeAt(t time.Time) {
	if c.next.IsZero() || t.Before(c.next) {
		c.next = t
	}
}

// patience is how long a speaker may be away before another node answers for its
// addresses on the LAN: a container that is restarted, and a Pod that is
// replaced, are back by then.
const patience = 5 * time.Second

// massPatience is the patience with speakers that are away together, more than a
// third of them: all of them are being replaced, and the first one that is back
// must not get everything.
const massPatience = 30 * time.Second

// patientWith reports whether the i-th node's speaker, which is away, may still
// be about to come back.
func (c *computation) patientWith(i int) bool {
	since, ok := c.state.SpeakersAway[c.nodes[i].object.Name]
	if c.state.Now.IsZero() || !ok || c.nodes[i].forgiven {
		return true
	}
	end := since.Add(patience)
	if c.massAbsence() {
		end = since.Add(massPatience)
	}
	if !c.state.Now.Before(end) {
		return false
	}
	c.wakeAt(end)
	return true
}

// massAbsence reports whether more than a third of the speakers are away.
func (c *computation) massAbsence() bool {
	away := 0
	for _, n := range c.nodes {
		if n.speaker == speakerAway {
			away++
		}
	}
	return away > 1 && away*3 > len(c.nodes)
}

// sound reports whether nothing but labels and selectors keeps the node from
// announcing.
func (n *node) sound() bool {
	return n.object.DeletionTimestamp == nil && n.object.Annotations[v1alpha1.NodeDrain] != "true" &&
		(n.forgiven || nodeReady(n.object)) && !n.report.Leaving
}

// AliveSpeakers are the names of the nodes whose speaker runs.
func (s *State) AliveSpeakers() map[string]bool {
	alive := make(map[string]bool)
	for _, pod := range s.SpeakerPods {
		if pod.DeletionTimestamp == nil && podReady(pod) {
			alive[pod.Spec.NodeName] = true
		}
	}
	if len(s.SpeakerPods) > 0 {
		return alive
	}
	for _, n := range s.Nodes {
		if n.Annotations[v1alpha1.NodeSpeaker] != "" {
			alive[n.Name] = true
		}
	}
	return alive
}

func podReady(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// judgeNode is the verdict on the Node object alone; empty means that it may
// announce. Cordoned nodes may: a bare cordon changes nothing while things run.
func judgeNode(n *corev1.Node) Verdict {
	switch {
	case n.DeletionTimestamp != nil:
		return Deleting
	case labelTrue(n.Labels, corev1.LabelNodeExcludeBalancers):
		return Excluded
	case n.Annotations[v1alpha1.NodeDrain] == "true":
		return Draining
	case !nodeReady(n):
		return NotReady
	}
	return ""
}

// labelTrue follows the service controller: the label counts unless its value
// is a false boolean.
func labelTrue(set map[string]string, key string) bool {
	value, ok := set[key]
	if !ok {
		return false
	}
	b, err := strconv.ParseBool(value)
	return err != nil || b
}

func nodeReady(n *corev1.Node) bool {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// findZones tells the nodes which of them are in the same zone. Those that are in
// none are so together.
func findZones(nodes []*node) {
	first := make(map[string]int)
	for i, n := range nodes {
		name := n.object.Labels[corev1.LabelTopologyZone]
		if _, known := first[name]; !known {
			first[name] = i
		}
		n.zone = first[name]
	}
}

// forgiveMassFailure ignores readiness when more than a third of the nodes
// that could announce are not ready: then the control plane's view is more
// likely to be wrong than the nodes are. One node is no mass, but for the only
// one: of two nodes, the other takes over.
func forgiveMassFailure(nodes []*node) {
	eligible, notReady := 0, 0
	for _, n := range nodes {
		switch n.verdict {
		case "":
			eligible++
		case NotReady:
			eligible++
			notReady++
		}
	}
	if notReady*3 <= eligible || notReady == 1 && eligible > 1 {
		return
	}
	for _, n := range nodes {
		if n.verdict == NotReady {
			// Their Pods are not ready either, says the same control plane.
			n.verdict, n.forgiven = "", true
		}
	}
}

// notForwarding reports whether the node's speaker says so.
func (n *node) notForwarding() bool {
	return n.report.NotForwarding != "" && n.speaker == speakerAlive
}

// massNotForwarding reports whether more than a third of the nodes that could
// announce, and not just one, say that they do not forward.
func massNotForwarding(nodes []*node) bool {
	eligible, without := 0, 0
	for _, n := range nodes {
		if n.verdict != "" {
			continue
		}
		eligible++
		if n.notForwarding() {
			without++
		}
	}
	return without > 1 && without*3 > eligible
}

// selects reports whether the selector matches; nil selects everything. The
// API server validates selectors; one that is malformed all the same selects
// nothing.
func selects(selector *metav1.LabelSelector, set map[string]string) bool {
	if selector == nil {
		return true
	}
	if len(selector.MatchExpressions) == 0 {
		for k, v := range selector.MatchLabels {
			if have, ok := set[k]; !ok || have != v {
				return false
			}
		}
		return true
	}
	compiled, err := metav1.LabelSelectorAsSelector(selector)
	return err == nil && compiled.Matches(labels.Set(set))
}

func sortedKeys[V any](m map[string]V) []string {
	return slices.Sorted(maps.Keys(m))
}
