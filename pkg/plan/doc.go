// Package plan decides who announces what. Compute is a pure function of
// Kubernetes objects and of the programs that the speakers had before, so that
// a plan can be replayed from a dump of a cluster and read as text.
//
// The way of an address through the package:
//
//	Service.status ─▶ pool (whose address is it?) ─▶ nodes (who is eligible?)
//	    ─▶ next hops (who of them?) ─▶ one announce.Program per node
//
// Every node that does not announce an address has a Verdict that says why.
package plan
