package main

import (
	"context"
	"regexp"
	"slices"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/cluster"
)

// stage is a part of the tests that wants the same of its surroundings.
type stage struct {
	title    string
	file     string // base name of its log and its report
	tests    []string
	notReady int // nodes that take no Pods
	// prepare arranges the surroundings. Without it the tests are left out, and
	// the title says why.
	prepare func(context.Context, *cluster.Cluster) error
}

// Tests that want the same.
var (
	plain = []string{
		"should be able to change the type and ports of a TCP service",
		"should be able to change the type and ports of a UDP service",
		"should only allow access from service loadbalancer source ranges",
		"should handle load balancer cleanup finalizer for service",
		"should be able to create LoadBalancer Service without NodePort and change it",
		"should be able to preserve UDP traffic when server pod cycles for a LoadBalancer service on different nodes",
		"should be able to preserve UDP traffic when server pod cycles for a LoadBalancer service on the same nodes",
		"should not have connectivity disruption during rolling update with externalTrafficPolicy=Cluster",
		"should not have connectivity disruption during rolling update with externalTrafficPolicy=Local",
		"ExternalTrafficPolicy: Local should work for type=LoadBalancer",
		"ExternalTrafficPolicy: Local should only target nodes with endpoints",
		"ExternalTrafficPolicy: Local should work from pods",
	}
	spread = []string{
		"ExternalTrafficPolicy: Local should target all nodes with endpoints",
	}
	affinity = []string{
		"should have session affinity work for LoadBalancer service with Local traffic policy",
		"should have session affinity work for LoadBalancer service with Cluster traffic policy",
		"should be able to switch session affinity for LoadBalancer service with Cluster traffic policy",
	}
	affinityAndSpread = []string{
		"should be able to switch session affinity for LoadBalancer service with Local traffic policy",
	}
)

// stages are all tests.
//
// Those of session affinity ask over many connections of one client and expect
// the same Pod. kube-proxy remembers which Pod it gave to a client on each node
// for itself; so they want all connections of a client to come to one node. On
// Layer 2 they do, with BGP if the pool has maxNextHops: 1.
//
// With externalTrafficPolicy Local that node passes them on to its own Pods only.
// One test wants different Pods all the same, and affinity later: the Pods must
// all be there.
func stages(o options) []stage {
	oneNode := stage{
		title: "All Pods are on one node", file: "one-node", tests: affinityAndSpread,
		notReady: o.nodes - 1, prepare: cordonAllButOne,
	}
	if o.layer2 {
		return []stage{
			{title: "Layer 2", file: "layer2", tests: slices.Concat(plain, affinity), prepare: nothing},
			oneNode,
			{title: "on Layer 2 one node receives all traffic to an address", tests: spread},
		}
	}
	return []stage{
		{title: "BGP", file: "bgp", tests: slices.Concat(plain, spread), prepare: nothing},
		{title: "BGP, one next hop for each address", file: "one-next-hop", tests: affinity, prepare: oneNextHop},
		oneNode,
	}
}

// only are the tests of the stage that match.
func (s stage) only(focus *regexp.Regexp) []string {
	var tests []string
	for _, t := range s.tests {
		if focus.MatchString(t) {
			tests = append(tests, t)
		}
	}
	return tests
}

func nothing(context.Context, *cluster.Cluster) error { return nil }

// oneNextHop lets each address be announced by one node.
func oneNextHop(ctx context.Context, c *cluster.Cluster) error {
	_, err := c.Kubectl(ctx, "patch", "addresspool", "main", "--type=merge", `--patch={"spec":{"maxNextHops":1}}`)
	return err
}

// cordonAllButOne leaves new Pods only node1 to run on.
func cordonAllButOne(ctx context.Context, c *cluster.Cluster) error {
	_, err := c.Kubectl(ctx, "cordon", "--selector", "kubernetes.io/hostname!=node1")
	return err
}
