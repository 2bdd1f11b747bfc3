// Package chaos lets users, programs and the API server do their worst in a real
// cluster in the lab, at the same time, while package invariants watches.
//
// TestChaos runs for CHAOS_TIME (3m). What it does follows from a seed, which it
// prints and takes from CHAOS_SEED; how it meets with what the cluster does is up
// to the machine, so that a seed brings back the steps but not always their
// outcome.
package chaos
