package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	servicehelpers "k8s.io/cloud-provider/service/helpers"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

// floor is a load balancer that decides nothing: it gives the next address to
// each new Service, and tells one node's speaker to announce it.
type floor struct {
	client  kubernetes.Interface
	node    string
	next    netip.Addr
	program announce.Program
	// events makes it send, on the side, the two Events that the service
	// controller sends for each Service.
	events bool
}

func newFloor(client kubernetes.Interface, node *corev1.Node, events bool) *floor {
	return &floor{
		client: client,
		events: events,
		node:   node.Name,
		next:   netip.MustParseAddr("203.0.113.1"),
		program: announce.Program{
			RouterID: netip.MustParseAddr(node.Status.Addresses[0].Address),
			Peers: []announce.Peer{{
				Name: "tor", LocalASN: 64512, PeerASN: 64500, Address: netip.MustParseAddr("192.0.2.1"), Port: 179,
				HoldTime: announce.Duration(9 * time.Second), ConnectRetry: announce.Duration(5 * time.Second),
				RestartTime: announce.Duration(30 * time.Second), IPv4: true,
			}},
		},
	}
}

// run serves each Service that is created, until the context ends.
func (f *floor) run(ctx context.Context) error {
	if err := f.announce(ctx); err != nil {
		return err
	}
	services, err := f.client.CoreV1().Services("default").Watch(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	defer services.Stop()
	var aside errgroup.Group
	defer func() { _ = aside.Wait() }() // an Event that failed is not what is measured
	tell := func(svc *corev1.Service, reason, message string) {
		if f.events {
			aside.Go(func() error { return writeEvent(ctx, f.client, svc, reason, message) })
		}
	}
	for event := range services.ResultChan() {
		svc, ok := event.Object.(*corev1.Service)
		if !ok || event.Type != watch.Added || svc.Spec.Type != corev1.ServiceTypeLoadBalancer {
			continue
		}
		address := f.next
		f.next = f.next.Next()
		tell(svc, "EnsuringLoadBalancer", "Ensuring load balancer")
		if err := writeFloor(ctx, f.client, svc, address.String()); err != nil {
			return err
		}
		tell(svc, "EnsuredLoadBalancer", "Ensured load balancer")
		f.program.Groups = append(f.program.Groups, announce.Group{
			Pool: "floor", BGP: &announce.BGP{Peers: []string{"tor"}, LocalPref: 100},
			Addresses: []announce.Range{announce.Single(address)},
		})
		if err := f.announce(ctx); err != nil {
			return err
		}
	}
	return nil
}

// withdraw leaves nothing announced.
func (f *floor) withdraw(ctx context.Context) error {
	f.program.Peers, f.program.Groups = nil, nil
	return f.announce(ctx)
}

func (f *floor) announce(ctx context.Context) error {
	f.program.Normalize()
	f.program.Epoch = announce.NextEpoch(time.Now(), f.program.Epoch)
	value, err := announce.Encode(f.program)
	if err != nil {
		return err
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{v1alpha1.NodeAnnouncements: value}}})
	if err != nil {
		return err
	}
	_, err = f.client.CoreV1().Nodes().Patch(ctx, f.node, types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}

// writeFloor is what a load balancer cannot do without: a finalizer, then the
// address in the status.
func writeFloor(ctx context.Context, client kubernetes.Interface, svc *corev1.Service, address string) error {
	services := client.CoreV1().Services(svc.Namespace)
	finalizer := fmt.Appendf(nil, `{"metadata":{"finalizers":[%q]}}`, servicehelpers.LoadBalancerCleanupFinalizer)
	if _, err := services.Patch(ctx, svc.Name, types.StrategicMergePatchType, finalizer, metav1.PatchOptions{}); err != nil {
		return err
	}
	status := fmt.Appendf(nil, `{"status":{"loadBalancer":{"ingress":[{"ip":%q,"ipMode":"VIP"}]}}}`, address)
	_, err := services.Patch(ctx, svc.Name, types.StrategicMergePatchType, status, metav1.PatchOptions{}, "status")
	return err
}

// floorBulk does the writes for n pending Services with 32 workers, the two
// Events of the service controller included.
func (b *bench) floorBulk(ctx context.Context, n int) (time.Duration, error) {
	if err := b.scaleManager(ctx, 0); err != nil {
		return 0, err
	}
	pending, err := b.createPending(ctx, n)
	if err != nil {
		return 0, err
	}
	started := time.Now()
	group, working := errgroup.WithContext(ctx)
	group.SetLimit(32)
	for i, svc := range pending {
		group.Go(func() error {
			if err := writeEvent(working, b.Client, svc, "EnsuringLoadBalancer", "Ensuring load balancer"); err != nil {
				return err
			}
			if err := writeFloor(working, b.Client, svc, scaleAddress(i).String()); err != nil {
				return err
			}
			return writeEvent(working, b.Client, svc, "EnsuredLoadBalancer", "Ensured load balancer")
		})
	}
	if err := group.Wait(); err != nil {
		return 0, err
	}
	took := time.Since(started)
	return took, b.removeServices(ctx)
}

func writeEvent(ctx context.Context, client kubernetes.Interface, svc *corev1.Service, reason, message string) error {
	now := metav1.Now()
	_, err := client.CoreV1().Events(svc.Namespace).Create(ctx, &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{GenerateName: svc.Name + ".", Namespace: svc.Namespace},
		InvolvedObject: corev1.ObjectReference{Kind: "Service", Namespace: svc.Namespace, Name: svc.Name, UID: svc.UID, APIVersion: "v1", ResourceVersion: svc.ResourceVersion},
		Reason:         reason, Message: message, Type: corev1.EventTypeNormal,
		FirstTimestamp: now, LastTimestamp: now, Count: 1,
		Source: corev1.EventSource{Component: "service-controller"},
	}, metav1.CreateOptions{})
	return err
}

// scaleAddress is the i-th address of the lab's pool for scale.
func scaleAddress(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{198, 19, byte(128 + i>>8), byte(i)})
}
