package main

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

// A leader that could not renew the Lease goes on when it gets it back, and
// serves at once; the process is the same.
func TestLeaderOutlivesTheAPIServer(t *testing.T) {
	c := newCluster(t)
	c.pool("lan", "203.0.113.0/24")
	c.namespace(v1alpha1.DefaultNamespace)
	leader := start(t, c.server, "--leader-elect=true", "--leader-elect-lease-duration=4s", "--leader-elect-renew-deadline=2s", "--leader-elect-retry-period=500ms")
	c.service("one")
	c.has("one", "203.0.113.0", soon)

	c.server.Kill()
	eventually(t, 20*time.Second, "the Lease cannot be renewed", func() bool { return leader.logged("Failed to renew lease") })
	c.server.Restart(t)
	begin := time.Now()
	c.service("two")
	c.has("two", "203.0.113.1", 5*time.Second)
	t.Logf("served %v after the return", time.Since(begin))
	if leader.ended() {
		t.Error("the process ended")
	}
}

// A leader that finds that somebody else led meanwhile starts over.
func TestDeposedLeaderEnds(t *testing.T) {
	c := newCluster(t)
	c.namespace(v1alpha1.DefaultNamespace)
	leader := start(t, c.server, "--leader-elect=true", "--leader-elect-lease-duration=4s", "--leader-elect-renew-deadline=2s", "--leader-elect-retry-period=500ms")
	eventually(t, soon, "it leads", func() bool { return leader.logged("Started \"service-lb-controller\"") })

	leases := c.CoordinationV1().Leases(v1alpha1.DefaultNamespace)
	eventually(t, soon, "another one takes the Lease for a moment", func() bool {
		lease, err := leases.Get(t.Context(), programName, metav1.GetOptions{})
		if err != nil {
			return false
		}
		now := metav1.NowMicro()
		lease.Spec.HolderIdentity = ptr.To("another")
		lease.Spec.LeaseTransitions = ptr.To(ptr.Deref(lease.Spec.LeaseTransitions, 0) + 1)
		lease.Spec.LeaseDurationSeconds = ptr.To[int32](4) // longer than the leader goes on trying
		lease.Spec.AcquireTime, lease.Spec.RenewTime = &now, &now
		_, err = leases.Update(t.Context(), lease, metav1.UpdateOptions{})
		return err == nil
	})
	eventually(t, 30*time.Second, "the deposed leader ends", leader.ended)
	if !leader.logged("another process held the Lease") {
		t.Error("it does not say why")
	}
}
