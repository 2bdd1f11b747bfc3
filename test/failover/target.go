package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// target is the Service of a run.
type target struct {
	address netip.Addr
	owner   string // the node that has the address
	spot    string // the node of the Pod that answers: another one
}

// service takes TCP and UDP. It selects no Pod before its owner is known.
func service(family string) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: LoadBalancer
  ipFamilies: [%s]
  selector: {app: echo, runs-on: nowhere}
  ports:
  - {name: tcp, port: 80, targetPort: 8080}
  - {name: udp, port: 80, targetPort: 8080, protocol: UDP}
`, family)
}

// target makes a new Service, for IPv4 in the first run, for IPv6 in the next,
// and so on in turn, and waits until every node forwards to the one Pod that
// answers.
func (s *site) target(ctx context.Context, run int) (target, error) {
	// After an outage of the API server kube-proxy may take a minute to find it again.
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	var t target
	services := s.Client.CoreV1().Services("default")
	if err := services.Delete(ctx, "web", metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return t, err
	}
	err := s.WaitFor(ctx, "the Service of the last run is gone", func(ctx context.Context) (bool, error) {
		_, err := services.Get(ctx, "web", metav1.GetOptions{})
		return apierrors.IsNotFound(err), nil
	})
	if err != nil {
		return t, err
	}
	if err := s.apply(ctx, service([]string{"IPv4", "IPv6"}[run%2])); err != nil {
		return t, err
	}
	err = s.WaitFor(ctx, "the Service has an address", func(ctx context.Context) (bool, error) {
		svc, err := services.Get(ctx, "web", metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		if len(svc.Status.LoadBalancer.Ingress) == 0 {
			return false, errors.New("its status is empty")
		}
		t.address, err = netip.ParseAddr(svc.Status.LoadBalancer.Ingress[0].IP)
		return err == nil, err
	})
	if err != nil {
		return t, err
	}
	if t.owner, err = s.waitOwner(ctx, t.address.String(), s.nodes...); err != nil {
		return t, err
	}
	others := slices.DeleteFunc(slices.Clone(s.nodes), func(node string) bool { return node == t.owner })
	t.spot = others[len(others)-1]
	patch := fmt.Sprintf(`{"spec":{"selector":{"runs-on":%q}}}`, t.spot)
	if _, err := services.Patch(ctx, "web", types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		return t, err
	}
	for _, node := range s.nodes {
		if err := s.waitForwards(ctx, node, t); err != nil {
			return t, err
		}
	}
	return t, nil
}

// url of the target, for a protocol of the load: http or udp.
func (t target) url(protocol string) string {
	url := protocol + "://" + netip.AddrPortFrom(t.address, 80).String()
	if protocol == "http" {
		url += "/"
	}
	return url
}

// waitForwards waits until kube-proxy on a node has its rules for the address: asked
// from the node itself, another one could answer.
func (s *site) waitForwards(ctx context.Context, node string, t target) error {
	family := "ip"
	if t.address.Is6() {
		family = "ip6"
	}
	return s.WaitFor(ctx, fmt.Sprintf("kube-proxy on %s forwards %s", node, t.address), func(ctx context.Context) (bool, error) {
		rules, err := s.On(ctx, node, "nft", "list", "map", family, "kube-proxy", "service-ips")
		tcp, udp := fmt.Sprintf("%s . tcp . 80", t.address), fmt.Sprintf("%s . udp . 80", t.address)
		return strings.Contains(rules, tcp) && strings.Contains(rules, udp), err
	})
}

// waitOwner waits until an address is at one of these nodes, by the wire, and
// returns it.
func (s *site) waitOwner(ctx context.Context, address string, nodes ...string) (string, error) {
	var owner string
	err := s.WaitFor(ctx, fmt.Sprintf("%s is at one of %v", address, nodes), func(ctx context.Context) (bool, error) {
		owners, err := s.Owners(ctx, address)
		owner = owners[address]
		if err == nil && !slices.Contains(nodes, owner) {
			err = fmt.Errorf("it is at %s", owner)
		}
		return err == nil, err
	})
	return owner, err
}
