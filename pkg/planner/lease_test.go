package planner

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/kubeapi"
)

// elected is a planner that only competes for the Lease.
type elected struct {
	t      *testing.T
	name   string
	client *leaseClient
	works  *atomic.Int32 // planners that work now
	work   func(context.Context)
	// begins and ends of its terms.
	begins, ends []time.Time
}

func (e *elected) run(ctx context.Context) error {
	p := &planner{
		config: Config{LeaderElect: true, LeaseNamespace: "default", Identity: e.name},
		leases: e.client.CoordinationV1(),
		fence:  &kubeapi.Fence{},
	}
	return p.lead(ctx, func(ctx context.Context) error {
		if e.works.Add(1) > 1 {
			e.t.Errorf("%s works while another one does", e.name)
		}
		e.begins = append(e.begins, time.Now())
		e.work(ctx)
		e.ends = append(e.ends, time.Now())
		e.works.Add(-1)
		return nil
	})
}

// leaseClient is an API server for Leases that can be cut off from one client.
type leaseClient struct {
	kubernetes.Interface
	coordinationclient.CoordinationV1Interface
	coordinationclient.LeaseInterface
	// cut is told of each request before it is made; none lets all through.
	cut atomic.Pointer[func(context.Context) error]
}

func newLeaseClient(server *fake.Clientset) *leaseClient {
	return &leaseClient{
		Interface:               server,
		CoordinationV1Interface: server.CoordinationV1(),
		LeaseInterface:          server.CoordinationV1().Leases("default"),
	}
}

func (c *leaseClient) CoordinationV1() coordinationclient.CoordinationV1Interface { return c }

func (c *leaseClient) Leases(string) coordinationclient.LeaseInterface { return c }

func (c *leaseClient) RESTClient() rest.Interface { return nil }

func (c *leaseClient) Get(ctx context.Context, name string, o metav1.GetOptions) (*coordinationv1.Lease, error) {
	if err := c.through(ctx); err != nil {
		return nil, err
	}
	return c.LeaseInterface.Get(ctx, name, o)
}

func (c *leaseClient) Update(ctx context.Context, lease *coordinationv1.Lease, o metav1.UpdateOptions) (*coordinationv1.Lease, error) {
	if err := c.through(ctx); err != nil {
		return nil, err
	}
	return c.LeaseInterface.Update(ctx, lease, o)
}

func (c *leaseClient) through(ctx context.Context) error {
	if cut := c.cut.Load(); cut != nil {
		return (*cut)(ctx)
	}
	return nil
}

func untilDone(ctx context.Context) { <-ctx.Done() }

// pair starts two planners, of which the first has the Lease.
func pair(t *testing.T) (first, second *elected, stopFirst func()) {
	t.Helper()
	works := &atomic.Int32{}
	server := fake.NewClientset()
	first = &elected{t: t, name: "first", client: newLeaseClient(server), works: works, work: untilDone}
	second = &elected{t: t, name: "second", client: newLeaseClient(server), works: works, work: untilDone}
	stop := func(e *elected) func() {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- e.run(ctx) }()
		return func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("%s: %v", e.name, err)
			}
		}
	}
	stopFirst = stop(first)
	synctest.Wait()
	if len(first.begins) != 1 {
		t.Fatal("the first one does not lead")
	}
	stopSecond := stop(second)
	t.Cleanup(stopSecond)
	return first, second, stopFirst
}

func TestLeaseIsHandedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second, stopFirst := pair(t)
		// What is under way ends before another one starts.
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if len(first.begins) != 1 || len(second.begins) != 0 {
			t.Fatalf("terms: %v and %v", first.begins, second.begins)
		}
		stopFirst()
		stopped := time.Now()
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if len(second.begins) != 1 || second.begins[0].Sub(stopped) > 1200*time.Millisecond {
			t.Errorf("the first stopped at %v, the second began at %v", stopped, second.begins)
		}
	})
}

func TestLeaseIsKeptUntilTheWorkHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const slow = 10 * time.Second
		works := &atomic.Int32{}
		client := newLeaseClient(fake.NewClientset())
		e := &elected{t: t, name: "first", client: client, works: works}
		holder := func() string {
			lease, err := client.Get(context.Background(), LeaseName, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			return *lease.Spec.HolderIdentity
		}
		ctx, cancel := context.WithCancel(t.Context())
		e.work = func(ctx context.Context) {
			<-ctx.Done()
			time.Sleep(slow) // a write that does not end
			if holder() != "first" {
				t.Errorf("the Lease was given up while the work went on")
			}
		}
		ended := make(chan error, 1)
		go func() { ended <- e.run(ctx) }()
		time.Sleep(time.Second)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if holder() != "" {
			t.Errorf("the Lease is held by %q", holder())
		}
	})
}

// TestWorkEndsWithTheLease cuts the first planner off from its Lease in several
// ways. Its other writes might still get through.
func TestWorkEndsWithTheLease(t *testing.T) {
	for name, cut := range map[string]func(ctx context.Context, until time.Time) error{
		"refused": func(context.Context, time.Time) error { return errors.New("refused") },
		// Requests wait for the server's return, if they have the time.
		"hanging": func(ctx context.Context, until time.Time) error {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(time.Until(until)):
				return nil
			}
		},
	} {
		for _, away := range []time.Duration{5500 * time.Millisecond, 6500 * time.Millisecond, 8 * time.Second, 20 * time.Second} {
			t.Run(name+" for "+away.String(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					first, second, stopFirst := pair(t)
					time.Sleep(3 * time.Second)
					synctest.Wait()
					until := time.Now().Add(away)
					through := func(ctx context.Context) error {
						if time.Now().Before(until) {
							return cut(ctx, until)
						}
						return nil
					}
					first.client.cut.Store(&through)
					time.Sleep(30 * time.Second)
					synctest.Wait()
					stopFirst()
					if len(first.ends) == 0 || first.ends[0].Sub(until.Add(-away)) > term {
						t.Errorf("the terms of the first began at %v and ended at %v", first.begins, first.ends)
					}
					if away > leaseDuration+3*retryPeriod && len(second.begins) == 0 {
						t.Error("the second does not work, though the first is cut off")
					}
				})
			})
		}
	}
}
