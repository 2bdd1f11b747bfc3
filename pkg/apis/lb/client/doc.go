// Package client reads and writes the kinds of lb.baremetal.dev: typed informers
// and status patches over one REST client, without a generated clientset.
package client
