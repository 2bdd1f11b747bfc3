// Package plan decides who announces what. Compute is a pure function of
// Kubernetes objects and of the programs that the speakers had before, so that
// a plan can be replayed from a dump of a cluster and read as text.
//
// The way of an address through the package:
//
//	Service.status ─▶ address (whose is it, who has it now?) ─▶ pool (whose address is it?)
//	    ─▶ nodes (who is eligible?) ─▶ next hops, owner (who of them?)
//	    ─▶ one announce.Program per node
//
// Every node that does not announce an address has a Verdict that says why.
//
// Clusters have a thousand nodes and ten thousand Services, and most plans change
// next to nothing. So nothing is done for each address and node: the nodes are
// judged once for all addresses of a pool that are alike (family for BGP, standing
// for the LAN), and an address has only what differs, as short lists of nodes.
// Verdicts are made of the two when somebody asks for them.
package plan
