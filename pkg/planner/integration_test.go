package planner

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/apiserver"
)

const (
	foreignText = "example.com/Checked=True Test: not ours"
	byBoth      = "lb.baremetal.dev/Announced=True Announced: %s: announced by a, b"
)

// TestPlanner runs planners against one API server, one test after the other:
// each planner takes the whole cluster as its own.
func TestPlanner(t *testing.T) {
	server := apiserver.Start(t)
	t.Run("life", func(t *testing.T) { testLife(newCluster(t, server)) })
	t.Run("repair", func(t *testing.T) { testRepair(newCluster(t, server)) })
	t.Run("replaced objects", func(t *testing.T) { testReplaced(newCluster(t, server)) })
	t.Run("many conditions", func(t *testing.T) { testManyConditions(newCluster(t, server)) })
	t.Run("pools in churn", func(t *testing.T) { testPoolsInChurn(newCluster(t, server)) })
	t.Run("deleting pools", func(t *testing.T) { testDeletingPools(newCluster(t, server)) })
	t.Run("finalizers of others", func(t *testing.T) { testFinalizersOfOthers(newCluster(t, server)) })
	t.Run("events", func(t *testing.T) { testEvents(newCluster(t, server)) })
	t.Run("takeovers", func(t *testing.T) { testTakeovers(newCluster(t, server)) })
	t.Run("handover", func(t *testing.T) { testHandover(newCluster(t, server)) })
	t.Run("key of the heartbeats", func(t *testing.T) { testHeartbeatKey(newCluster(t, server)) })
	t.Run("rotations of several planners", func(t *testing.T) { testRotations(newCluster(t, server)) })
	t.Run("key behind the fence", func(t *testing.T) { testKeyBehindFence(newCluster(t, server)) })
	outage := func() {
		server.Kill()
		server.Restart(t)
	}
	for _, leaderElect := range []bool{false, true} {
		t.Run(fmt.Sprintf("outage, leader election %t", leaderElect), func(t *testing.T) {
			testOutage(newCluster(t, server), outage, leaderElect)
		})
	}
}

// rack makes two nodes, a pool and a router.
func (c *cluster) rack() {
	c.t.Helper()
	c.pool("lan", "203.0.113.0/24")
	c.peer("tor", "192.0.2.1")
	c.node("a", "192.0.2.11")
	c.node("b", "192.0.2.12")
}

func testLife(c *cluster) {
	t := c.t
	planner := c.start("only", false)
	c.rack()
	c.service("web", "203.0.113.1")

	first := c.announces("a", soon, "203.0.113.1")
	c.announces("b", soon, "203.0.113.1")
	system, err := c.CoreV1().Namespaces().Get(t.Context(), metav1.NamespaceSystem, metav1.GetOptions{})
	c.must(err)
	if first.Cluster != string(system.UID) {
		t.Errorf("cluster %q; want %q", first.Cluster, system.UID)
	}
	if len(first.Peers) != 1 || first.Peers[0].Address != netip.MustParseAddr("192.0.2.1") || first.Peers[0].Source != netip.MustParseAddr("192.0.2.11") {
		t.Errorf("peers %+v", first.Peers)
	}

	c.hasConditions("web", soon, foreignText, fmt.Sprintf(byBoth, "203.0.113.1"))
	eventually(t, soon, func() bool { s := c.poolStatus("lan"); return s.Allocated == "1" },
		func() string { return fmt.Sprintf("pool status %+v", c.poolStatus("lan")) })
	if s := c.poolStatus("lan"); s.Capacity != "256" || s.Available != "255" || len(s.Conditions) != 1 || s.Conditions[0].Status != metav1.ConditionTrue {
		t.Errorf("pool status %+v", s)
	}
	c.peerHas("tor", 2, 0, metav1.ConditionFalse)
	c.annotate("a", v1alpha1.NodeSpeaker, reportText(t, "tor=established"))
	c.annotate("b", v1alpha1.NodeSpeaker, reportText(t, "tor=established"))
	c.peerHas("tor", 2, 2, metav1.ConditionTrue)

	began := time.Now()
	c.service("api", "203.0.113.2")
	second := c.announces("a", soon, "203.0.113.1-203.0.113.2")
	t.Logf("create to annotation: %v", time.Since(began))
	if second.Epoch <= first.Epoch || second.Hash == first.Hash {
		t.Errorf("epoch %d and hash %s after %d and %s", second.Epoch, second.Hash, first.Epoch, first.Hash)
	}
	c.announces("b", soon, "203.0.113.1-203.0.113.2")
	c.hasConditions("api", soon, foreignText, fmt.Sprintf(byBoth, "203.0.113.2"))
	c.hasConditions("web", soon, foreignText, fmt.Sprintf(byBoth, "203.0.113.1"))
	eventually(t, soon, func() bool { return c.poolStatus("lan").Allocated == "2" },
		func() string { return fmt.Sprintf("pool status %+v", c.poolStatus("lan")) })

	c.nothingIsWritten(planner)

	c.patchService("web", `{"spec": {"type": "ClusterIP"}}`)
	c.announces("a", soon, "203.0.113.2")
	c.announces("b", soon, "203.0.113.2")
	c.hasConditions("web", soon, foreignText)
	c.must(c.CoreV1().Services(metav1.NamespaceDefault).Delete(t.Context(), "api", metav1.DeleteOptions{}))
	if last := c.announces("a", soon); last.Epoch <= second.Epoch {
		t.Errorf("epoch %d after %d", last.Epoch, second.Epoch)
	}
	planner.stop()
}

// peerHas waits for the status of a BGPPeer.
func (c *cluster) peerHas(name string, desired, established int32, ready metav1.ConditionStatus) {
	c.t.Helper()
	var s v1alpha1.BGPPeerStatus
	eventually(c.t, soon, func() bool {
		s = c.peerStatus(name)
		return s.Desired == desired && s.Established == established && len(s.Conditions) == 1 && s.Conditions[0].Status == ready
	}, func() string { return fmt.Sprintf("status of BGPPeer %s: %+v", name, s) })
}

// nothingIsWritten makes changes that matter to nobody, and then a new
// AddressPool: when its status is written, all before it was planned.
func (c *cluster) nothingIsWritten(planner running) {
	t := c.t
	t.Helper()
	before := c.versions()
	seen := len(planner.writes.all())
	c.annotate("b", "example.com/heartbeat", "1")
	c.annotate("b", v1alpha1.NodeSpeaker, reportText(t, "tor=established", "unknown=idle"))
	_, err := c.CoreV1().Services(metav1.NamespaceDefault).Create(t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "internal"},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}},
	}, metav1.CreateOptions{})
	c.must(err)
	c.pool("next", "198.51.100.0/24")
	eventually(t, soon, func() bool { return c.poolStatus("next").Capacity == "256" },
		func() string { return fmt.Sprintf("pool status %+v", c.poolStatus("next")) })

	after := c.versions()
	for _, ours := range []string{"Node b", "Service internal", "AddressPool next"} {
		delete(before, ours)
		delete(after, ours)
	}
	if !maps.Equal(before, after) {
		t.Errorf("versions were %v and are %v, though nothing changed", before, after)
	}
	want := []string{"PATCH /apis/lb.baremetal.dev/v1alpha1/addresspools/next/status"}
	if got := planner.writes.all()[seen:]; !slices.Equal(got, want) {
		t.Errorf("written: %q; want %q", got, want)
	}
}

func testRepair(c *cluster) {
	t := c.t
	c.rack()
	c.service("web", "203.0.113.1")
	c.start("only", false)
	current := c.announces("a", soon, "203.0.113.1")
	c.announces("b", soon, "203.0.113.1")

	foreign := func(epoch int64) string {
		p := current
		p.Epoch = epoch
		p.Groups = slices.Clone(p.Groups)
		p.Groups[0].Addresses = []announce.Range{announce.Single(netip.MustParseAddr("203.0.113.99"))}
		p.Normalize()
		text, err := announce.Encode(p)
		c.must(err)
		return text
	}
	for _, change := range []struct {
		name  string
		value any
		epoch int64
	}{
		{name: "removed", value: nil},
		{name: "emptied", value: ""},
		{name: "cut off", value: `{"version": 1, "epoch": `},
		{name: "another version", value: `{"version": 99}`},
		{name: "edited by hand", value: `{"version":1,"epoch":1,"hash":"0","groups":[]}`},
		{name: "written by another planner", value: foreign(current.Epoch + 1)},
		{name: "written by a planner of another time", value: foreign(1)},
		{name: "written by a planner whose clock is ahead", value: foreign(current.Epoch + 1e9), epoch: current.Epoch + 1e9},
	} {
		began := time.Now()
		c.annotate("a", v1alpha1.NodeAnnouncements, change.value)
		p := c.announces("a", atOnce, "203.0.113.1")
		t.Logf("%s: repaired within %v", change.name, time.Since(began))
		if p.Hash != current.Hash || p.Epoch <= max(current.Epoch, change.epoch) {
			t.Errorf("%s: hash %s, epoch %d; want %s and more than %d", change.name, p.Hash, p.Epoch, current.Hash, current.Epoch)
		}
		current = p
	}

	c.hasConditions("web", soon, foreignText, fmt.Sprintf(byBoth, "203.0.113.1"))
	for name, patch := range map[string]string{
		"removed": `{"status": {"conditions": [%s]}}`,
		"edited":  `{"status": {"conditions": [%s, {"type": "lb.baremetal.dev/Announced", "status": "False", "reason": "Foreign", "message": "", "lastTransitionTime": "2020-01-01T00:00:00Z"}]}}`,
	} {
		other, err := json.Marshal(foreignCondition)
		c.must(err)
		began := time.Now()
		c.patchService("web", fmt.Sprintf(patch, other), "status")
		c.hasConditions("web", atOnce, foreignText, fmt.Sprintf(byBoth, "203.0.113.1"))
		t.Logf("condition %s: repaired within %v", name, time.Since(began))
	}
}

// testReplaced plans for objects of which others of that name took the place.
func testReplaced(c *cluster) {
	t := c.t
	c.rack()
	c.service("web", "203.0.113.1")
	planner := c.start("only", false)
	c.announces("a", soon, "203.0.113.1")
	c.hasConditions("web", soon, foreignText, fmt.Sprintf(byBoth, "203.0.113.1"))
	for range 3 {
		c.must(c.CoreV1().Nodes().Delete(t.Context(), "a", metav1.DeleteOptions{}))
		c.node("a", "192.0.2.13")
		c.must(c.CoreV1().Services(metav1.NamespaceDefault).Delete(t.Context(), "web", metav1.DeleteOptions{}))
		c.service("web", "203.0.113.1")
	}
	eventually(t, soon, func() bool {
		p, ok := c.program("a")
		return ok && len(p.Peers) == 1 && p.Peers[0].Source == netip.MustParseAddr("192.0.2.13")
	}, func() string { p, ok := c.program("a"); return fmt.Sprintf("%t, %+v", ok, p) })
	c.announces("a", soon, "203.0.113.1")
	c.hasConditions("web", soon, foreignText, fmt.Sprintf(byBoth, "203.0.113.1"))

	// What the writers send is refused where the UID is another one.
	node, err := c.CoreV1().Nodes().Get(t.Context(), "a", metav1.GetOptions{})
	c.must(err)
	node.UID = "another"
	w := newNodeWriter(c)
	if err := w.writeOne(t.Context(), pendingWrite{node: node, value: "x"}); err != nil {
		t.Errorf("writing to a Node that was replaced: %v", err)
	}
	if len(w.known) > 0 {
		t.Errorf("the write to a Node that was replaced counts: %v", w.known)
	}
	c.announces("a", atOnce, "203.0.113.1")
	planner.stop()
}

// testManyConditions has more conditions to write than fit into a burst.
func testManyConditions(c *cluster) {
	const services = 60
	c.rack()
	c.start("only", false)
	for i := range services {
		c.service(fmt.Sprintf("s%d", i), fmt.Sprintf("203.0.113.%d", i))
	}
	c.announces("a", soon, fmt.Sprintf("203.0.113.0-203.0.113.%d", services-1))
	began := time.Now()
	for i := range services {
		c.hasConditions(fmt.Sprintf("s%d", i), soon, foreignText, fmt.Sprintf(byBoth, fmt.Sprintf("203.0.113.%d", i)))
	}
	c.t.Logf("all conditions written %v after the programs", time.Since(began))
}

func testHandover(c *cluster) {
	t := c.t
	c.rack()
	c.service("one", "203.0.113.1")
	first := c.start("first", true)
	before := c.announces("a", soon, "203.0.113.1")
	c.announces("b", soon, "203.0.113.1")
	second := c.start("second", true)
	eventually(t, soon, func() bool { return second.writes.askedForLease() }, func() string { return "the second planner does not want the Lease" })
	c.service("two", "203.0.113.2")
	c.announces("a", soon, "203.0.113.1-203.0.113.2")
	c.hasConditions("two", soon, foreignText, fmt.Sprintf(byBoth, "203.0.113.2"))
	if holder := c.holder(); holder != "first" {
		t.Errorf("the Lease is held by %q", holder)
	}
	if got := second.writes.all(); len(got) > 0 {
		t.Errorf("the second planner writes without the Lease: %q", got)
	}

	first.stop()
	began := time.Now()
	written := len(first.writes.all())
	c.service("three", "203.0.113.3")
	after := c.announces("a", soon, "203.0.113.1-203.0.113.3")
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("the second planner took over after %v", took)
	} else {
		t.Logf("the second planner took over after %v", took)
	}
	if holder := c.holder(); holder != "second" {
		t.Errorf("the Lease is held by %q", holder)
	}
	if after.Epoch <= before.Epoch {
		t.Errorf("epoch %d after %d", after.Epoch, before.Epoch)
	}
	c.hasConditions("three", soon, foreignText, fmt.Sprintf(byBoth, "203.0.113.3"))
	if got := len(first.writes.all()); got != written {
		t.Errorf("the first planner wrote after its end: %q", first.writes.all()[written:])
	}
	second.stop()
	if holder := c.holder(); holder != "" {
		t.Errorf("the Lease is held by %q after all planners ended", holder)
	}
}

// testOutage goes on after the API server was away.
func testOutage(c *cluster, outage func(), leaderElect bool) {
	t := c.t
	c.rack()
	c.service("one", "203.0.113.1")
	c.start("only", leaderElect)
	before := c.announces("a", soon, "203.0.113.1")
	c.hasConditions("one", soon, foreignText, fmt.Sprintf(byBoth, "203.0.113.1"))

	outage()
	if p, _ := c.program("a"); p.Hash != before.Hash || p.Epoch != before.Epoch {
		t.Errorf("the program was written anew: %+v", p)
	}
	began := time.Now()
	c.service("two", "203.0.113.2")
	c.announces("a", soon, "203.0.113.1-203.0.113.2")
	t.Logf("planned %v after the API server's return", time.Since(began))
	c.hasConditions("two", soon, foreignText, fmt.Sprintf(byBoth, "203.0.113.2"))
}
