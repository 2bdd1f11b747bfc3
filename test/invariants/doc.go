// Package invariants watches a cluster through its API, and reports what must
// never be so: an address that two Services have though they may not share it,
// an address that moves although nobody asked for it, one that leaks, and one
// that the wrong nodes announce.
//
// It knows nothing of how the project decides. The rules are written a second
// time here, as plainly as can be, and read only what users see: Services,
// Nodes with their annotations, EndpointSlices, AddressPools, BGPPeers, and the
// Pods of speakers.
//
// # How it judges
//
// A rule is a function from what the API shows to findings. Most of them are
// true for a moment in a cluster that works: a node is excluded, and a little
// later its program is written. So a finding has a grace, and becomes a
// Violation when it outlasts it. One rule remembers: addresses have moved only
// where they were different before (see moves).
//
// Grace is counted while somebody could act. The clock of a finding stands still
// while the API server is away and for a moment after it returned, while nobody
// holds the Lease of the program that has to mend it, and while the caller says
// so (Suspend). A status that was wrong and was mended within its grace is a
// Disturbance, which is told apart.
//
// # Use
//
//	checker := invariants.Check(t, config, invariants.Options{})
//
// fails the test at its end with all violations and the history of the objects
// concerned. What a test provokes on purpose it declares where it does so:
//
//	end := checker.Permit(invariants.Moved, "Service default/web", "its status is forged")
//	...
//	end()
//
// The command in watch does the same for people.
package invariants
