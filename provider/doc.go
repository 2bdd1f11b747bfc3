// Package baremetal is the cloud provider: cloudprovider.Interface for clusters
// without a cloud. It has load balancers, and instances only to initialize Nodes.
//
// The upstream service controller drives it. That controller sees Services
// through a View, which shows it those that are ours, whatever their
// loadBalancerClass, and lets the provider hand Services back to its queue
// without writing to the API. Addresses come from pkg/ipam; who announces them
// is decided elsewhere (pkg/planner), so nodes make no difference here.
//
// Event handlers only note what changed. One goroutine, run, takes the notes and
// does what the caches call for; upstream's workers do the rest, one of them per
// Service at a time:
//
//	by        event                   state                       step
//	run       Service changed, or     gone                        Forget: all that it had is free
//	          upstream's write of     cache older than the write  none, until the cache shows it
//	          it has ended            not ours                    Follow: it has what it records
//	                                  ours                        Observe: free what it left and records no more
//	                                  ours, waiting               Assign again
//	                                  ours, status tampered with  Requeue: upstream writes it again
//	run       AddressPool changed     any                         SetPools: adopt what is recorded in new pools
//	run       Node changed            any                         SetNodes: keep off their addresses
//	run       pool, Node, Namespace   waiting                     Assign, first come first served, then Requeue
//	          changed, address free
//	upstream  ensure                  ours                        Assign, or wait in the line
//	upstream  delete                  has addresses               Release: they retire until Observe or Forget
package baremetal
