// Package wire reads and writes the Ethernet frames of address resolution: ARP
// (RFC 826, with the probes and announcements of RFC 5227) and the Neighbor
// Solicitations and Advertisements of IPv6 (RFC 4861; duplicate address
// detection after RFC 4862 section 5.4).
//
// A parser gets what anybody on the segment may send. It refuses whatever the
// RFCs tell a receiver to discard (RFC 4861 sections 7.1.1 and 7.1.2), and what
// no honest host sends: link-layer addresses that are groups, addresses that
// cannot be a host's. It allocates nothing, for good frames and for bad ones, so
// that a flood costs time only. For that reason the parsing is done by hand;
// tests compare it with github.com/mdlayher/arp and github.com/mdlayher/ndp,
// which do the writing.
//
// Frames that are written end where their message ends: drivers pad.
package wire
