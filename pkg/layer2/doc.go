// Package layer2 answers ARP (RFC 826, RFC 5227) and Neighbor Discovery (RFC
// 4861) for addresses that the node owns on its LANs without having them on an
// interface, and for those of other nodes that cannot for the moment.
//
// An Announcer carries out whole states. Set may be called as often as one
// likes; what differs from the state before is changed and nothing else.
//
// # How an address is announced
//
// What the caller knows of an address is its Caution, and that decides what
// comes before the first answer: nothing (Certain, a takeover never waits), or
// three probes in 300 ms. If another host answers these, the address is held:
// not announced, reported as a conflict, and probed again every ten seconds. A
// node of the cluster that answers for a Fresh address has it on an interface, or
// will soon be told to stop: that is looked at each second. An answer to the
// probes that comes within three seconds after them counts, too. An announced
// address is made known by a burst of gratuitous packets, then once a minute, and
// is defended against other hosts, on each link at most once per ten seconds (RFC
// 5227 section 2.4).
//
// Hosts that answer for everything, proxies and virtual routers, do not count.
// Who answers a probe is therefore asked twice for an address of the node itself:
// a host that claims that one, too, is a proxy. No address is held before that
// is known, which takes up to 0.4 s by ARP, and 1.2 s by NDP.
//
// Addresses of the node itself and its gateways are never announced, whatever the
// state says; Status names them.
//
// # Other nodes' addresses
//
// A node that may have to take an address over stands by for it: its sockets,
// filters and groups are in place, so that all that a change of role takes is to
// begin. Where the owner lives but does not answer, because its speaker restarts,
// the node covers for it. It answers with the owner's MAC address as the sender's,
// and its own as the Ethernet source: hosts go on to send to the owner, and
// switches to find it where it is. It sends nothing unasked, and what others claim
// is the owner's business.
//
// Hosts ask again a second after nobody has answered. Who asked within the last
// half second is therefore answered at once when somebody is there to do so.
//
// Networks with ARP inspection drop packets whose sender is not their Ethernet
// source, and with them such answers. A node that stands by can find out: it
// checks the owner by a frame of the kind, and the owner counts what arrives.
//
// A Prober tells a host that is dead from one whose speaker is: it asks its kernel.
//
// # What is heard
//
// The sockets get what the kernel delivers to their interface: not what belongs to
// other VLANs of the same NIC, nor what is for other MAC addresses while it is
// promiscuous. For IPv6, the kernel joins the solicited-node groups, so that
// switches that snoop on MLD deliver them; groups that it forgets, for example when
// the MTU falls below 1280 for a while, are joined again within a minute.
//
// # How it is built
//
//   - select.go chooses the interfaces of an address. Pure.
//   - order.go compiles a State, traps.go finds kernel settings that spoil it.
//   - book.go decides what is sent when, with an entry for each address, a link
//     for each interface and a place for each address on a link. Time is an
//     argument, what was received comes by hear, what is to be sent goes to a
//     function: pace.go says when and how, lane.go keeps the pace on each link
//     and for each family, and lets none wait for one that cannot send.
//   - station.go is what a reader of packets needs to answer at once, without
//     the book's lock; asks.go remembers who could not be answered, checks.go
//     counts the checks.
//   - ports.go, socket.go and groups.go own the packet sockets.
//   - announcer.go puts these together.
//   - prober.go and probeport.go are the Prober, with sockets of its own.
package layer2
