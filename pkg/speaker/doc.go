// Package speaker is the loop on a node: it watches the node's own Node object,
// carries out the program in its annotation lb.baremetal.dev/announcements, and
// reports in the annotation lb.baremetal.dev/speaker.
//
// The API server is needed for news only. While it is away, and while what it
// says cannot be understood, the speaker goes on announcing what it announces.
package speaker
