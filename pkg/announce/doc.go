// Package announce is the language between the planner and the speakers: the
// value of the Node annotation lb.baremetal.dev/announcements (Program), the
// value of lb.baremetal.dev/speaker (Report), and their codec.
//
// A Program is the whole state of a node's speaker, never a delta. Its text is
// canonical: equal states are equal bytes, so a planner that computes the same
// plan twice writes nothing, and a hash tells equality at a glance.
package announce
