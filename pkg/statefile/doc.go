// Package statefile is the memory of a speaker across its own restart: the
// program that it carried out last, in one file on the node's disk, and the keys of
// the heartbeats in another one. With them, a speaker that starts while the API
// server is away announces what it announced before, and is heard by its fellows.
//
// What is read is never trusted: a file that is damaged, or was written on
// another node or in another cluster, is refused as a whole, for announcing the
// addresses of somebody else is worse than announcing none.
package statefile
