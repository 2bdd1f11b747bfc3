package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"
)

// resignTimeout bounds what giving up the Lease may take; after it the Lease
// runs out by itself.
const resignTimeout = 3 * time.Second

// resign gives up the Lease, so that the next leader need not wait until it runs
// out. Upstream does not do that: it leaves its workers running until the process
// ends. So their writes are stopped first, and the Lease is given up only when
// none is under way.
func (m *manager) resign() {
	if !m.leading.Load() || !m.options.Generic.LeaderElection.LeaderElect {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), resignTimeout)
	defer cancel()
	if err := m.fence.close(ctx); err != nil {
		klog.ErrorS(err, "Writes are still under way; the Lease is left to run out")
		return
	}
	if err := m.releaseLease(ctx); err != nil {
		klog.ErrorS(err, "The Lease is left to run out")
	}
}

// releaseLease empties the Lease as client-go's leaderelection does. As long as
// this process leads nobody else can hold the Lease, so the holder is looked at
// only to be sure; upstream keeps the identity, "host_uuid", to itself.
func (m *manager) releaseLease(ctx context.Context) error {
	client, err := kubernetes.NewForConfig(m.unfenced.Load())
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	election := m.options.Generic.LeaderElection
	name := "lease " + election.ResourceNamespace + "/" + election.ResourceName
	leases := client.CoordinationV1().Leases(election.ResourceNamespace)
	lease, err := leases.Get(ctx, election.ResourceName, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if holder := ptr.Deref(lease.Spec.HolderIdentity, ""); !strings.HasPrefix(holder, hostname()+"_") {
		return fmt.Errorf("%s is held by %q", name, holder)
	}
	now := metav1.NowMicro()
	lease.Spec.HolderIdentity = ptr.To("")
	lease.Spec.LeaseDurationSeconds = ptr.To[int32](1)
	lease.Spec.AcquireTime, lease.Spec.RenewTime = &now, &now
	if _, err := leases.Update(ctx, lease, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	klog.InfoS("Gave up the Lease", "lease", klog.KRef(election.ResourceNamespace, election.ResourceName))
	return nil
}
