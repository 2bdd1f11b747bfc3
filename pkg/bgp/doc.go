// Package bgp announces prefixes to routers by BGP-4 (RFC 4271), with gobgp
// hidden inside: no type of gobgp appears in the API.
//
// An Announcer carries out whole states. Set may be called as often as one
// likes with the same State; what differs from the state before is changed and
// nothing else, so that a new address costs one UPDATE per peer.
//
// # How per-peer announcements work
//
// gobgp has one export policy for all peers. Every Group of a State therefore
// has a number, and its paths carry that number as an internal community. The
// export policy has one statement for each Export of each group: if the
// neighbour is one of the export's peers and the path has the group's number,
// replace the communities (which strips the number) and accept. The default is
// to reject. A new address of a known group changes no policy at all.
//
// # How restarts keep routes
//
// Run returns without a Cease NOTIFICATION when its context ends, so routers
// that agreed on Graceful Restart (RFC 4724) keep the routes. After a start the
// paths are in the RIB before the first peer is, and the OPEN says "restarting,
// forwarding state preserved" (R and F bit), for it is the kernel that forwards
// and it did not restart. To withdraw instead, Set an empty State first.
package bgp
