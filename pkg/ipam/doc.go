// Package ipam turns AddressPools and the claims of Services into addresses.
//
// It is pure: no client, no clock, no socket. Pools is a compiled set of
// AddressPools and says which pool an address belongs to; the planner and the
// provider compile the same objects to the same answer. Allocator holds who has
// which address, and decides who gets one or why not.
//
// An address passes through three states. It is free; it is held by a Service,
// by Adopt or Assign; and after Release, or when the Service was given another
// one, it is retiring: no longer the Service's, but not free either while the
// Service's status in the API still shows it. Were it free at once, a crash
// between two status writes would leave two Services recorded with it.
package ipam
