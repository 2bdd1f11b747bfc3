package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab"
)

// many cuts the link of the first node when it has all addresses, and measures
// when the last one of them is first claimed by another node.
func many(ctx context.Context, s *site, run int) (sample, error) {
	addresses, err := s.bulk(ctx, s.options.addresses)
	if err != nil {
		return sample{}, err
	}
	owner := s.nodes[0]
	if err := s.gather(ctx, owner, addresses); err != nil {
		return sample{}, err
	}
	result, err := s.lastClaim(ctx, owner, addresses)
	return result, errors.Join(err, s.recover(ctx))
}

func (s *site) lastClaim(ctx context.Context, owner string, addresses []string) (result sample, err error) {
	mac, err := s.MAC(ctx, owner, "eth0")
	if err != nil {
		return result, err
	}
	heard, err := s.StartCapture(ctx, lab.LAN, lab.CaptureOptions{Claims: true})
	if err != nil {
		return result, err
	}
	cut := time.Now()
	if err = s.Cut(ctx, owner); err == nil {
		limited, cancel := context.WithTimeout(ctx, s.options.patience)
		err = s.WaitFor(limited, "every address is claimed", func(context.Context) (bool, error) {
			first := firstClaims(heard.Packets(), mac, cut)
			result.First, result.Last = time.Hour, 0
			for _, address := range addresses {
				at, ok := first[netip.MustParseAddr(address)]
				if !ok {
					return false, fmt.Errorf("%s is not, %d of %d are", address, len(first), len(addresses))
				}
				result.First, result.Last = min(result.First, at), max(result.Last, at)
			}
			return true, nil
		})
		if err != nil && limited.Err() != nil && ctx.Err() == nil {
			result.Unended, result.First, result.Last, err = true, 0, s.options.patience, nil
		}
		cancel()
	}
	_, stopped := heard.Stop()
	return result, errors.Join(err, stopped)
}

// bulk makes sure that there are n Services with addresses of the pool many, and
// returns these. They have no node ports, of which there are too few for
// thousands, and no endpoints.
func (s *site) bulk(ctx context.Context, n int) ([]string, error) {
	services := s.Client.CoreV1().Services("default")
	selected := metav1.ListOptions{LabelSelector: "app=bulk"}
	present, err := services.List(ctx, selected)
	if err != nil {
		return nil, err
	}
	group, creating := errgroup.WithContext(ctx)
	group.SetLimit(16)
	for i := len(present.Items); i < n; i++ {
		group.Go(func() error {
			_, err := services.Create(creating, &corev1.Service{
				ObjectMeta: metav1.ObjectMeta{
					Name: fmt.Sprintf("bulk-%05d", i), Namespace: "default",
					Labels:      map[string]string{"app": "bulk"},
					Annotations: map[string]string{v1alpha1.ServicePool: "many"},
				},
				Spec: corev1.ServiceSpec{
					Type: corev1.ServiceTypeLoadBalancer, AllocateLoadBalancerNodePorts: ptr.To(false),
					Ports: []corev1.ServicePort{{Port: 80}},
				},
			}, metav1.CreateOptions{})
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	var addresses []string
	err = s.WaitFor(ctx, fmt.Sprintf("%d Services have addresses", n), func(ctx context.Context) (bool, error) {
		list, err := services.List(ctx, selected)
		if err != nil {
			return false, err
		}
		addresses = nil
		for _, svc := range list.Items {
			for _, ingress := range svc.Status.LoadBalancer.Ingress {
				addresses = append(addresses, ingress.IP)
			}
		}
		if len(addresses) != n {
			return false, fmt.Errorf("%d have", len(addresses))
		}
		return true, nil
	})
	slices.Sort(addresses)
	return addresses, err
}

// gather moves addresses to one node, and gives them back the others to stand
// by.
func (s *site) gather(ctx context.Context, node string, addresses []string) error {
	others := s.others(target{owner: node})
	label := func(value string) error {
		command := slices.Concat([]string{"label", "--overwrite", "node"}, others, []string{corev1.LabelNodeExcludeBalancers + value})
		_, err := s.Kubectl(ctx, command...)
		return err
	}
	if err := label("=true"); err != nil {
		return err
	}
	err := s.WaitFor(ctx, "all addresses are at "+node, func(ctx context.Context) (bool, error) {
		owners, err := s.Owners(ctx, addresses...)
		if err != nil {
			return false, err
		}
		for address, owner := range owners {
			if owner != node {
				return false, fmt.Errorf("%s is at %s", address, owner)
			}
		}
		return true, nil
	})
	if err := errors.Join(err, label("-")); err != nil {
		return err
	}
	return s.waitStandbys(ctx, node, len(addresses), min(len(others), 2))
}

// waitStandbys waits until a node's program has standbys for all of so many
// addresses of its own.
func (s *site) waitStandbys(ctx context.Context, node string, addresses, standbys int) error {
	return s.WaitFor(ctx, fmt.Sprintf("%d addresses of %s have %d standbys", addresses, node, standbys), func(ctx context.Context) (bool, error) {
		object, err := s.Client.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		program, err := announce.Decode(object.Annotations[v1alpha1.NodeAnnouncements])
		if err != nil {
			return false, err
		}
		owned := program.Addresses(func(g *announce.Group) bool {
			return g.Layer2 != nil && len(g.Layer2.Candidates) > standbys && g.Layer2.Candidates[0] == node
		})
		n := 0
		for _, r := range owned.Ranges() {
			for a := r.From(); a.IsValid() && a.Compare(r.To()) <= 0; a = a.Next() {
				n++
			}
		}
		if n < addresses {
			return false, fmt.Errorf("%d have", n)
		}
		return true, nil
	})
}
