package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

const (
	// namespace of the Services.
	namespace = metav1.NamespaceDefault
	// localEndpoints is how many a Service of externalTrafficPolicy Local has.
	localEndpoints = 4
	// nextHops is an AddressPool's default for maxNextHops.
	nextHops = 16
	// otherProxy keeps the real node's kube-proxy, which is not measured, from
	// programming thousands of Services.
	otherProxy = "service.kubernetes.io/service-proxy-name"
)

func mustParse(quantity string) resource.Quantity { return resource.MustParse(quantity) }

// service is of externalTrafficPolicy Cluster or Local. Without node ports, of
// which there are too few.
func (s *site) service(name string, local bool) *corev1.Service {
	svc := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace, Labels: map[string]string{otherProxy: "none"}},
		Spec: corev1.ServiceSpec{
			Type:                          corev1.ServiceTypeLoadBalancer,
			AllocateLoadBalancerNodePorts: ptr.To(false),
			Ports:                         []corev1.ServicePort{{Port: 80}},
		},
	}
	if s.dualStack {
		svc.Spec.IPFamilyPolicy = ptr.To(corev1.IPFamilyPolicyRequireDualStack)
	}
	if local {
		svc.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	}
	return svc
}

// slice has the endpoints of the i-th Service.
func (s *site) slice(name string, i int) *discoveryv1.EndpointSlice {
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace, Labels: map[string]string{
			discoveryv1.LabelServiceName: name, discoveryv1.LabelManagedBy: "scale", otherProxy: "none",
		}},
		AddressType: discoveryv1.AddressTypeIPv4,
	}
	for k := range min(localEndpoints, len(s.nodes)) {
		at := (i*7 + k*131) % len(s.nodes)
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{address(at)}, NodeName: &s.nodes[at], Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true)},
		})
	}
	return slice
}

func serviceName(i int) string { return fmt.Sprintf("s%05d", i) }

// fill creates the Services from the from-th to the n-th, half of them with local
// endpoints, while there is no cloud-controller-manager: the API server looks at all
// ClusterIPs for each new one, which is slow enough. Then it starts the
// cloud-controller-manager, and waits until all Services have their addresses, are
// announced, and told so. addressed is from that start to the last address.
func (s *site) fill(ctx context.Context, from, n int) (addressed time.Duration, err error) {
	if err := s.Kill(ctx, realNode, s.manager, syscall.SIGTERM); err != nil {
		return 0, err
	}
	err = parallel(ctx, n-from, func(ctx context.Context, i int) error {
		i += from
		name, local := serviceName(i), i%2 == 1
		if local {
			if _, err := s.Client.DiscoveryV1().EndpointSlices(namespace).Create(ctx, s.slice(name, i), metav1.CreateOptions{}); err != nil {
				return err
			}
		}
		_, err := s.Client.CoreV1().Services(namespace).Create(ctx, s.service(name, local), metav1.CreateOptions{})
		return err
	})
	if err != nil {
		return 0, err
	}
	s.log("%d Services are there", n)
	started := time.Now()
	if err := s.StartProgram(ctx, realNode, s.manager); err != nil {
		return 0, err
	}
	err = s.waitFor(ctx, 10*time.Minute, fmt.Sprintf("%d Services are announced", n), func(ctx context.Context) (bool, error) {
		list, err := s.Client.CoreV1().Services(namespace).List(ctx, metav1.ListOptions{ResourceVersion: "0"})
		if err != nil {
			return false, err
		}
		pending, silent := 0, 0
		for i := range list.Items {
			svc := &list.Items[i]
			switch {
			case svc.Spec.Type != corev1.ServiceTypeLoadBalancer:
			case len(svc.Status.LoadBalancer.Ingress) == 0:
				pending++
			case !meta.IsStatusConditionTrue(svc.Status.Conditions, v1alpha1.ConditionAnnounced):
				silent++
			}
		}
		if pending == 0 && addressed == 0 {
			addressed = time.Since(started)
		}
		if pending+silent > 0 {
			return pause(ctx, time.Second), fmt.Errorf("%d have no address, %d no condition", pending, silent)
		}
		return true, nil
	})
	return addressed, err
}

// pause has a condition that costs the API server much asked less often.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
	return false
}

// addressesOf waits until the Service has an address of each family, and returns
// them.
func (s *site) addressesOf(ctx context.Context, name string) ([]netip.Addr, error) {
	watch, err := s.Client.CoreV1().Services(namespace).Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
	if err != nil {
		return nil, err
	}
	defer watch.Stop()
	for event := range watch.ResultChan() {
		svc, ok := event.Object.(*corev1.Service)
		if !ok || len(svc.Status.LoadBalancer.Ingress) == 0 {
			continue
		}
		var addresses []netip.Addr
		for _, ingress := range svc.Status.LoadBalancer.Ingress {
			addr, err := netip.ParseAddr(ingress.IP)
			if err != nil {
				return nil, err
			}
			addresses = append(addresses, addr)
		}
		return addresses, nil
	}
	return nil, errors.Join(fmt.Errorf("service %s has no address", name), ctx.Err())
}

func (s *site) create(ctx context.Context, name string) error {
	_, err := s.Client.CoreV1().Services(namespace).Create(ctx, s.service(name, false), metav1.CreateOptions{})
	return err
}

func (s *site) remove(ctx context.Context, name string) error {
	return s.Client.CoreV1().Services(namespace).Delete(ctx, name, metav1.DeleteOptions{})
}

// Calms: reports come 10 s after the one before at the latest, all else sooner.
const (
	soonCalm = 3 * time.Second
	allCalm  = 11 * time.Second
)

// quiet waits until the project has not written anything for so long, and returns
// its writes so far.
func (s *site) quiet(ctx context.Context, calm time.Duration) (writes, error) {
	var last writes
	since := time.Now()
	err := s.waitFor(ctx, 5*time.Minute, "the project has nothing to write", func(ctx context.Context) (bool, error) {
		now, err := s.audit.read()
		if err != nil {
			return false, err
		}
		if changed := now.since(last); changed.total() > 0 {
			last, since = now, time.Now()
			return pause(ctx, 250*time.Millisecond), fmt.Errorf("it wrote %v", changed)
		}
		return time.Since(since) > calm || pause(ctx, 250*time.Millisecond), nil
	})
	return last, err
}
