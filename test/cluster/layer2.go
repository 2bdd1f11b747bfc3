package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab"
)

// Layer2Pool returns the YAML of an AddressPool that is announced on the LAN,
// with further lines of its spec.
func Layer2Pool(name, addresses string, spec ...string) string {
	lines := ""
	for _, line := range spec {
		lines += "  " + line + "\n"
	}
	return fmt.Sprintf(`
apiVersion: lb.baremetal.dev/v1alpha1
kind: AddressPool
metadata: {name: %s}
spec:
  addresses: [%s]
  protocols: [Layer2]
%s`, name, addresses, lines)
}

// Addresses waits until a Service in the default namespace has n addresses, and
// returns them.
func (c *Cluster) Addresses(t testing.TB, service string, n int) []string {
	t.Helper()
	var addresses []string
	err := c.WaitFor(Context(t), fmt.Sprintf("Service %s has %d addresses", service, n), func(ctx context.Context) (bool, error) {
		svc, err := c.Client.CoreV1().Services("default").Get(ctx, service, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		addresses = nil
		for _, ingress := range svc.Status.LoadBalancer.Ingress {
			addresses = append(addresses, ingress.IP)
		}
		if len(addresses) != n {
			return false, fmt.Errorf("it has %q", addresses)
		}
		return true, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return addresses
}

// Owners asks the LAN who has each address, from the LAN client, and returns
// the hosts by address. It is an error if an address is told to be at no MAC
// address, at several, or at one that no host of the lab has.
func (c *Cluster) Owners(ctx context.Context, addresses ...string) (map[string]string, error) {
	hosts, err := c.HostsByMAC(ctx)
	if err != nil {
		return nil, err
	}
	answers, err := c.Ask(ctx, lab.LAN, lab.AskOptions{Addresses: addresses, Wait: 200 * time.Millisecond})
	if err != nil {
		return nil, err
	}
	owners := make(map[string]string, len(answers))
	var errs []error
	for _, a := range answers {
		if len(a.MACs) != 1 || hosts[a.MACs[0]] == "" {
			errs = append(errs, fmt.Errorf("%s is at %q", a.Address, a.MACs))
			continue
		}
		owners[a.Address.String()] = hosts[a.MACs[0]]
	}
	const shown = 5
	if len(errs) > shown {
		errs = append(errs[:shown], fmt.Errorf("and %d more", len(errs)-shown))
	}
	return owners, errors.Join(errs...)
}

// Owner is the node that an address is at, by the wire.
func (c *Cluster) Owner(t testing.TB, address string) string {
	t.Helper()
	owners, err := c.Owners(Context(t), address)
	if err != nil {
		t.Fatal(err)
	}
	return owners[address]
}

// WaitOwner waits until an address is at one of these nodes, or at any one, and
// returns it.
func (c *Cluster) WaitOwner(t testing.TB, address string, nodes ...string) string {
	t.Helper()
	owners := c.WaitOwners(t, []string{address}, func(owners map[string]string) error {
		if owner := owners[address]; len(nodes) > 0 && !slices.Contains(nodes, owner) {
			return fmt.Errorf("it is at %s, not at one of %v", owner, nodes)
		}
		return nil
	})
	return owners[address]
}

// WaitOwners waits until each address is at exactly one host and, unless it is
// nil, want has nothing against these owners.
func (c *Cluster) WaitOwners(t testing.TB, addresses []string, want func(owners map[string]string) error) map[string]string {
	t.Helper()
	var owners map[string]string
	err := c.WaitFor(Context(t), fmt.Sprintf("owners of %d addresses", len(addresses)), func(ctx context.Context) (bool, error) {
		var err error
		if owners, err = c.Owners(ctx, addresses...); err == nil && want != nil {
			err = want(owners)
		}
		return err == nil, err
	})
	if err != nil {
		t.Fatal(err)
	}
	return owners
}

// CountByNode counts the addresses of each owner.
func CountByNode(owners map[string]string) map[string]int {
	counts := make(map[string]int)
	for _, node := range owners {
		counts[node]++
	}
	return counts
}

// WaitReport waits until the report of a node's speaker is as wanted.
func (c *Cluster) WaitReport(t testing.TB, node, what string, want func(announce.Report) bool) announce.Report {
	t.Helper()
	var report announce.Report
	err := c.WaitFor(Context(t), fmt.Sprintf("the speaker on %s reports %s", node, what), func(ctx context.Context) (bool, error) {
		object, err := c.Client.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		text := object.Annotations[v1alpha1.NodeSpeaker]
		if report, err = announce.DecodeReport(text); err != nil {
			return false, err
		}
		if !want(report) {
			return false, fmt.Errorf("it reports %s", text)
		}
		return true, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return report
}
