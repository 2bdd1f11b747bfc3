// Package filter writes classic BPF programs for AF_PACKET sockets, so that the
// kernel wakes the process for ARP (RFC 826) and Neighbor Discovery (RFC 4861)
// about certain addresses only, or by certain hosts, and for nothing else on the
// segment.
//
// The programs also hold back what the kernel shows a socket though it is not for
// its interface: frames of other VLANs of the NIC, and of interfaces on top of it.
//
// # Membership
//
// Whether an address is in the set is a binary search over the set's ranges, down
// to a few that are tried one after the other. BPF compares 32 bits at a time, so
// an IPv6 address is searched word by word: in each word, the ranges make
// intervals that accept, or that need a look at the next word; what lies between
// them rejects.
//
// # Widening
//
// The kernel accounts programs, in its own translation, to the socket's option
// memory. Up to Linux 6.7 this is 20 KiB, of which a program here takes at most
// half, so that a socket can exchange it for another. That is enough for some 440
// IPv4 addresses wherever they are, and for 830 IPv6 addresses whose first 96 bits
// are the same (230 if 64 are, 110 if none), and for as many more as are
// neighbours of others.
//
// Where the exact set needs more, the ranges with the smallest gaps between them
// are joined, as few of them as suffices. A filter may then let foreign addresses
// pass, but never holds back one of the set: the process checks again, and has to
// anyhow, because packets that came in before a filter was exchanged were judged
// by the one before.
package filter
