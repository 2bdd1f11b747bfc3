// Package e2e tests the project as its users have it: installed from manifests/
// into a real cluster in the lab, with real traffic through a BGP router and from
// the LAN.
package e2e
