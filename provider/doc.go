// Package baremetal is the cloud provider: cloudprovider.Interface for clusters
// without a cloud. It has load balancers and nothing else.
//
// The upstream service controller drives it. That controller sees Services
// through a View, which shows it those that are ours, whatever their
// loadBalancerClass, and lets the provider hand Services back to its queue
// without writing to the API. Addresses come from pkg/ipam; who announces them
// is decided elsewhere (pkg/planner), so nodes make no difference here.
package baremetal
