// Package planner is the loop around package plan: it watches the cluster,
// computes plans, and writes what they say: one annotation per Node, the
// Announced condition of Services, the status of AddressPools and BGPPeers, the
// finalizer of AddressPools that are in use, and Events. It also keeps the Secret
// with the key of the speakers' heartbeats.
//
// It never reads the memory of the address allocator: all that a plan depends
// on are API objects. Of several planners, the holder of a Lease writes.
package planner
