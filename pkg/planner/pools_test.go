package planner

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

// reading is a number at a time.
type reading struct {
	at    time.Time
	value int
}

// testPoolsInChurn has Services come and go, twenty a second.
func testPoolsInChurn(c *cluster) {
	const (
		services = 60
		every    = time.Second / 20
		// slack is for plans, which are spaced out under load, and a busy machine.
		slack = longestInterval + time.Second
	)
	t := c.t
	c.rack()
	planner := c.start("only", false)
	eventually(t, soon, func() bool { return c.poolStatus("lan").Capacity == "256" }, func() string { return fmt.Sprintf("pool status %+v", c.poolStatus("lan")) })
	shown := c.watchAllocated("lan")

	tick := time.NewTicker(every)
	defer tick.Stop()
	truth := []reading{{time.Now(), 0}}
	note := func(value int) { truth = append(truth, reading{time.Now(), value}) }
	for i := range services {
		<-tick.C
		c.service(fmt.Sprintf("s%d", i), fmt.Sprintf("203.0.113.%d", i))
		note(i + 1)
	}
	for i := range services {
		<-tick.C
		c.must(c.CoreV1().Services(metav1.NamespaceDefault).Delete(t.Context(), fmt.Sprintf("s%d", i), metav1.DeleteOptions{}))
		note(services - 1 - i)
	}
	ended := time.Now()
	eventually(t, soon, func() bool { return c.poolStatus("lan").Allocated == "0" && len(c.finalizers("lan")) == 0 },
		func() string {
			return fmt.Sprintf("pool status %+v, finalizers %q", c.poolStatus("lan"), c.finalizers("lan"))
		})
	if took := time.Since(ended); took > objectInterval+slack {
		t.Errorf("right %v after the last change", took)
	}

	// A number is shown until the next one is: then it must have been right until
	// a second ago.
	var worst time.Duration
	all := shown()
	for i := 0; i+1 < len(all); i++ {
		worst = max(worst, all[i+1].at.Sub(lastTrue(truth, all[i].value)))
	}
	t.Logf("%d numbers shown of %d; wrong for up to %v", len(all), len(truth), worst)
	if worst > objectInterval+slack {
		t.Errorf("numbers were wrong for up to %v", worst)
	}
	if len(all) < 4 {
		t.Errorf("shown: %v", all)
	}

	const path = "PATCH /apis/lb.baremetal.dev/v1alpha1/addresspools/lan"
	written := planner.writes.of(path + "/status")
	for i := 1; i < len(written); i++ {
		if apart := written[i].Sub(written[i-1]); apart < objectInterval-20*time.Millisecond { // the way to the wire varies
			t.Errorf("the status was written twice within %v", apart)
		}
	}
	if got := len(planner.writes.of(path)); got != 2 {
		t.Errorf("the finalizer was written %d times; want 2: put on, and taken off", got)
	}
}

// lastTrue is until when the value was the true one.
func lastTrue(truth []reading, value int) time.Time {
	last := time.Now() // still
	for i, r := range truth {
		if r.value == value && i+1 < len(truth) {
			last = truth[i+1].at
		}
	}
	return last
}

// watchAllocated follows status.allocated of a pool; the function that is
// returned ends that and tells what was seen.
func (c *cluster) watchAllocated(pool string) func() []reading {
	c.t.Helper()
	ctx, cancel := context.WithCancel(c.t.Context())
	watcher, err := c.pools.Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + pool})
	c.must(err)
	result := make(chan []reading, 1)
	go func() {
		var all []reading
		for event := range watcher.ResultChan() {
			object, ok := event.Object.(*unstructured.Unstructured)
			if !ok {
				continue
			}
			text, _, _ := unstructured.NestedString(object.Object, "status", "allocated")
			value, err := strconv.Atoi(text)
			if err == nil && (len(all) == 0 || all[len(all)-1].value != value) {
				all = append(all, reading{time.Now(), value})
			}
		}
		result <- all
	}()
	return func() []reading {
		watcher.Stop()
		cancel()
		return <-result
	}
}

func (c *cluster) finalizers(pool string) []string {
	c.t.Helper()
	object, err := c.pools.Get(c.t.Context(), pool, metav1.GetOptions{})
	c.must(err)
	return object.GetFinalizers()
}

// hasFinalizers waits until the pool has these and no others.
func (c *cluster) hasFinalizers(pool string, want ...string) {
	c.t.Helper()
	var got []string
	eventually(c.t, soon, func() bool { got = c.finalizers(pool); return slices.Equal(got, want) },
		func() string { return fmt.Sprintf("AddressPool %s has the finalizers %q; want %q", pool, got, want) })
}

func (c *cluster) patchPool(name string, kind types.PatchType, patch string) {
	c.t.Helper()
	_, err := c.pools.Patch(c.t.Context(), name, kind, []byte(patch), metav1.PatchOptions{})
	c.must(err)
}

func (c *cluster) deletePool(name string) {
	c.t.Helper()
	c.must(c.pools.Delete(c.t.Context(), name, metav1.DeleteOptions{}))
}

func (c *cluster) deleteService(name string) {
	c.t.Helper()
	c.must(c.CoreV1().Services(metav1.NamespaceDefault).Delete(c.t.Context(), name, metav1.DeleteOptions{}))
}

// isGone waits until the pool is no more.
func (c *cluster) isGone(pool string, within time.Duration) {
	c.t.Helper()
	var object *unstructured.Unstructured
	eventually(c.t, within, func() bool {
		var err error
		object, err = c.pools.Get(c.t.Context(), pool, metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	}, func() string { return fmt.Sprintf("AddressPool %s is still there: %v", pool, object) })
}

// hasReady waits for the Ready condition of a pool; the message has to hold all
// of the texts.
func (c *cluster) hasReady(pool, reason string, texts ...string) {
	c.t.Helper()
	var got []metav1.Condition
	eventually(c.t, soon, func() bool {
		got = c.poolStatus(pool).Conditions
		return len(got) == 1 && got[0].Reason == reason &&
			!slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(got[0].Message, text) })
	}, func() string { return fmt.Sprintf("AddressPool %s: %+v; want %s with %q", pool, got, reason, texts) })
}

// planned waits until a planner that was just started has planned and written.
func (c *cluster) planned(marker string) {
	c.t.Helper()
	c.pool(marker, "192.0.2.248/30")
	c.hasReady(marker, "Ready")
	c.deletePool(marker)
}

// goes is how soon a pool is gone after its last address was released, with room
// for a busy machine.
const goes = objectInterval + time.Second

func testDeletingPools(c *cluster) {
	c.rack()
	c.pool("second", "198.51.100.0/24")
	c.pool("idle", "192.0.2.128/25")
	planner := c.start("first", false)
	c.service("web", "203.0.113.1")
	c.service("api", "203.0.113.2")
	c.service("else", "198.51.100.1")
	c.hasFinalizers("lan", v1alpha1.PoolInUse)
	c.hasFinalizers("second", v1alpha1.PoolInUse)
	c.hasFinalizers("idle")

	c.deletePool("idle")
	c.isGone("idle", atOnce)
	c.deletePool("lan")
	c.hasReady("lan", "Deleting", "is being deleted", "2 in use", "default/api, default/web", v1alpha1.ServicePool)
	c.hasReady("second", "Ready")
	c.announces("a", atOnce, "198.51.100.1", "203.0.113.1-203.0.113.2")

	// Another planner knows no more than what it finds.
	planner.stop()
	planner = c.start("second", false)
	c.planned("marker")
	c.hasFinalizers("lan", v1alpha1.PoolInUse)
	c.announces("a", atOnce, "198.51.100.1", "203.0.113.1-203.0.113.2")

	// A Service on its way out has its address still.
	c.patchService("web", `{"metadata": {"finalizers": ["example.com/hold"]}}`)
	c.deleteService("web")
	c.deleteService("api")
	c.hasReady("lan", "Deleting", "1 in use", "Services default/web)")
	c.hasFinalizers("lan", v1alpha1.PoolInUse)
	c.patchService("web", `{"metadata": {"finalizers": null}}`)
	c.isGone("lan", goes)
	c.announces("a", soon, "198.51.100.1")
	c.hasFinalizers("second", v1alpha1.PoolInUse)

	// The last address is released while nobody looks.
	planner.stop()
	c.deletePool("second")
	c.deleteService("else")
	c.hasFinalizers("second", v1alpha1.PoolInUse)
	c.start("third", false)
	c.isGone("second", soon)
}

// testFinalizersOfOthers has others write finalizers all the time, while the pool
// goes in and out of use.
func testFinalizersOfOthers(c *cluster) {
	t := c.t
	c.rack()
	c.patchPool("lan", types.MergePatchType, `{"metadata": {"finalizers": ["example.com/0"]}}`)
	c.start("only", false)
	want := []string{"example.com/0"}
	for _, inUse := range []bool{true, false, true} {
		others := c.addFinalizers("lan", len(want))
		if inUse {
			c.service("web", "203.0.113.1")
		} else {
			c.deleteService("web")
		}
		eventually(t, soon, func() bool { return slices.Contains(c.finalizers("lan"), v1alpha1.PoolInUse) == inUse },
			func() string { return fmt.Sprintf("in use: %t; finalizers %q", inUse, c.finalizers("lan")) })
		want = append(want, others()...)
		got := slices.DeleteFunc(c.finalizers("lan"), func(f string) bool { return f == v1alpha1.PoolInUse })
		if !slices.Equal(got, want) {
			t.Fatalf("finalizers of others %q; want %q", got, want)
		}
	}

	// Ours comes back when somebody takes it off, and no others go with it.
	c.patchPool("lan", types.MergePatchType, `{"metadata": {"finalizers": ["example.com/0"]}}`)
	c.hasFinalizers("lan", "example.com/0", v1alpha1.PoolInUse)
	c.deletePool("lan")
	c.hasReady("lan", "Deleting", "default/web")
	c.deleteService("web")
	c.hasFinalizers("lan", "example.com/0")
	c.hasReady("lan", "Deleting", "no Service has an address of it any more", "metadata.finalizers")
	c.patchPool("lan", types.MergePatchType, `{"metadata": {"finalizers": null}}`)
	c.isGone("lan", atOnce)
}

// addFinalizers adds finalizers, numbered from first, until the function that is
// returned is called, which tells them.
func (c *cluster) addFinalizers(pool string, first int) (stop func() []string) {
	done := make(chan struct{})
	result := make(chan []string, 1)
	go func() {
		var added []string
		defer func() { result <- added }()
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			finalizer := fmt.Sprintf("example.com/%d", first+len(added))
			patch := fmt.Sprintf(`[{"op": "add", "path": "/metadata/finalizers/-", "value": %q}]`, finalizer)
			if _, err := c.pools.Patch(c.t.Context(), pool, types.JSONPatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
				c.t.Error(err)
				return
			}
			added = append(added, finalizer)
		}
	}()
	return func() []string {
		close(done)
		return <-result
	}
}

func testEvents(c *cluster) {
	t := c.t
	c.rack()
	c.start("only", false)
	c.service("fine", "203.0.113.1")
	began := time.Now()
	c.service("local", "203.0.113.2")
	c.patchService("local", `{"spec": {"externalTrafficPolicy": "Local"}}`)
	var events []corev1.Event
	eventually(t, soon, func() bool { events = c.events("local"); return len(events) > 0 }, func() string { return "no Event" })
	if took := time.Since(began); took < settling {
		t.Errorf("an Event after %v; want none within %v", took, settling)
	}
	if e := events[0]; len(events) != 1 || e.Reason != "NoEndpoint" || e.Type != corev1.EventTypeWarning || !strings.Contains(e.Message, "203.0.113.2: no node announces it") {
		t.Errorf("Events %+v", events)
	}
	c.hasConditions("local", soon, foreignText, "lb.baremetal.dev/Announced=False NoEndpoint: "+events[0].Message)
	if got := c.events("fine"); len(got) > 0 {
		t.Errorf("Events of a Service that is announced: %+v", got)
	}

	c.deletePool("lan")
	c.hasEvent("fine", "PoolDeleting", `AddressPool "lan" is being deleted`)
	c.patchPool("lan", types.MergePatchType, `{"metadata": {"finalizers": null}}`)
	c.hasEvent("fine", "OutsidePools", "add it to a pool, or delete the Service")
	c.announces("a", atOnce, "203.0.113.1")
}

// hasEvent waits for an Event of a Service, with the text in its message.
func (c *cluster) hasEvent(service, reason, text string) {
	c.t.Helper()
	eventually(c.t, soon, func() bool {
		return slices.ContainsFunc(c.events(service), func(e corev1.Event) bool { return e.Reason == reason && strings.Contains(e.Message, text) })
	}, func() string {
		return fmt.Sprintf("Events of Service %s: %+v; want %s", service, c.events(service), reason)
	})
}

// events are those of a Service.
func (c *cluster) events(service string) []corev1.Event {
	c.t.Helper()
	svc, err := c.CoreV1().Services(metav1.NamespaceDefault).Get(c.t.Context(), service, metav1.GetOptions{})
	c.must(err)
	list, err := c.CoreV1().Events(metav1.NamespaceDefault).List(c.t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.uid=" + string(svc.UID)})
	c.must(err)
	return list.Items
}
