// Package heartbeat decides which candidate of an address on the LAN answers for
// it, without the API server.
//
// The candidates of an address tell each other every 100 ms that they live, and
// what they own. When the owner is not heard any more and its kernel does not answer
// ARP or Neighbor Solicitations either, the next candidate claims its addresses;
// where only the speaker is away, it covers for it. Two owners that meet compare
// their claims: the greater pair of epoch, which the planner counts, and term, which
// the candidates count, is right. A node that hears nobody at all is the one that is
// cut off, and claims nothing.
//
// The core is a state machine without clock and socket; its election is explored
// exhaustively by TestModel. An Exchange is the loop around it. The packets, and
// what they are safe from, are described in docs/reference/heartbeat.md.
package heartbeat
