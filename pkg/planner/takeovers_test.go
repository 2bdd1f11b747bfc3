package planner

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

// onLink reports the n-th node's interface on the LAN, and what else is given.
func (c *cluster) onLink(node string, n byte, change func(*announce.Report)) {
	c.t.Helper()
	r := announce.Report{Version: "test", Formats: []int{announce.FormatVersion}, Interfaces: []announce.Interface{{
		Name: "eth0", MAC: announce.MAC{2, 0, 0x5e, 0, 0x53, n}.String(),
		Prefixes: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{203, 0, 113, n}), 24)},
	}}}
	change(&r)
	text, err := announce.EncodeReport(r)
	c.must(err)
	c.annotate(node, v1alpha1.NodeSpeaker, text)
}

// owned waits until all of the nodes are told of the owner and its epoch.
func (c *cluster) owned(owner string, epoch uint32, nodes ...string) *announce.Layer2 {
	c.t.Helper()
	var told *announce.Layer2
	for _, node := range nodes {
		eventually(c.t, soon, func() bool {
			p, _ := c.program(node)
			told = nil
			if len(p.Groups) == 1 {
				told = p.Groups[0].Layer2
			}
			return told.OwnedBy(owner) && told.Epoch == epoch
		}, func() string {
			return fmt.Sprintf("%s is told %+v; want owner %s, epoch %d", node, told, owner, epoch)
		})
	}
	return told
}

// testTakeovers has nodes a, b, and c own an address by turns.
func testTakeovers(c *cluster) {
	t := c.t
	nothing := func(*announce.Report) {}
	c.create(c.pools, "AddressPool", "lan", map[string]any{"addresses": []any{"203.0.113.200/29"}, "protocols": []any{"Layer2"}})
	for i, name := range []string{"a", "b", "c"} {
		c.node(name, fmt.Sprintf("203.0.113.%d", i+1))
		c.onLink(name, byte(i+1), nothing)
	}
	c.service("web", "203.0.113.201")
	planner := c.start("only", false)
	told := c.owned("a", 0, "a", "b", "c")
	if !told.Probe || !slices.Equal(told.Candidates, []string{"a", "b", "c"}) {
		t.Fatalf("%+v of a new address", told)
	}
	c.hasConditions("web", soon, foreignText, "lb.baremetal.dev/Announced=True Announced: 203.0.113.201: announced on the LAN by a")

	// b takes it over, which becomes official without a wait for a.
	took := func(r *announce.Report) {
		r.Takeovers = []announce.Takeover{{Term: 1, Addresses: []announce.Range{announce.Single(netip.MustParseAddr("203.0.113.201"))}}}
	}
	began := time.Now()
	c.onLink("b", 2, took)
	if told = c.owned("b", 1, "b", "a", "c"); told.Probe || told.Candidates[0] != "b" {
		t.Errorf("%+v of an address that was taken over", told)
	}
	t.Logf("official after %v", time.Since(began))
	c.hasNodeEvent("a", "its addresses on the LAN went to b (1): nodes that stood by did not hear it")

	// The report of the past changes nothing, and neither does who hears whom.
	c.planned("before")
	before, seen := c.versions(), len(planner.writes.all())
	c.onLink("a", 1, func(r *announce.Report) { r.Hears = []string{"b", "c"} })
	c.onLink("b", 2, func(r *announce.Report) { took(r); r.Hears = []string{"a", "c"} })
	c.onLink("c", 3, func(r *announce.Report) { r.Hears = []string{"a", "b"} })
	c.planned("after")
	after := c.versions()
	for _, versions := range []map[string]string{before, after} {
		maps.DeleteFunc(versions, func(object, _ string) bool { return object != "Service web" })
	}
	if !maps.Equal(before, after) {
		t.Errorf("versions were %v and are %v, though nothing changed", before, after)
	}
	for _, request := range planner.writes.all()[seen:] {
		if strings.Contains(request, "/nodes/") {
			t.Errorf("written: %s", request)
		}
	}

	// b is cut off from the API server, but heard; then it is not.
	ready := func(status corev1.ConditionStatus) {
		patch := statusPatch(t, corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: status, LastTransitionTime: metav1.NewTime(time.Now())}}})
		_, err := c.CoreV1().Nodes().Patch(t.Context(), "b", types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
		c.must(err)
	}
	ready(corev1.ConditionUnknown)
	c.hasConditions("web", soon, foreignText,
		"lb.baremetal.dev/Announced=True Announced: 203.0.113.201: announced on the LAN by b; that node is not Ready, but nodes that stand by hear it")
	heir := told.Candidates[1]
	c.owned("b", 1, heir)
	c.onLink("a", 1, nothing)
	c.onLink("c", 3, nothing)
	c.owned(heir, 2, heir)
	c.hasNodeEvent("b", "its addresses on the LAN went to "+heir+" (1): not Ready")
}

// hasNodeEvent waits for an Event of a Node, with the text in its message.
func (c *cluster) hasNodeEvent(node, text string) {
	c.t.Helper()
	object, err := c.CoreV1().Nodes().Get(c.t.Context(), node, metav1.GetOptions{})
	c.must(err)
	var list *corev1.EventList
	eventually(c.t, soon, func() bool {
		list, err = c.CoreV1().Events(metav1.NamespaceDefault).List(c.t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.uid=" + string(object.UID)})
		c.must(err)
		return slices.ContainsFunc(list.Items, func(e corev1.Event) bool { return e.Reason == "AddressesMoved" && strings.Contains(e.Message, text) })
	}, func() string { return fmt.Sprintf("Events of Node %s: %+v; want %q", node, list.Items, text) })
}
