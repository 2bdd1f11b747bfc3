package invariants

import (
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

// Options of a Judge. The zero value is that of an installation by
// manifests/base.
type Options struct {
	// Namespace of the speaker Pods and of the Leases. Default
	// v1alpha1.DefaultNamespace.
	Namespace string
	// NoLeases is for programs without leader election: they are taken to run
	// all the time.
	NoLeases bool
	// RequireClass is set where Services without a class are another
	// controller's.
	RequireClass bool

	// Grace is how long a status may be wrong: an address of two Services, or
	// one that moved. Default 1.5s; what a deposed leader still writes is to be
	// repaired within a second.
	Grace time.Duration
	// HandOver is how long the programs of nodes may name different owners of
	// an address. Default 2s.
	HandOver time.Duration
	// Slow is how long all else may be wrong. Default 10s: conditions and counts
	// make way for what carries traffic, and machines are busy.
	Slow time.Duration
	// AfterOutage is how long clocks stand still after the API server returned.
	// Default 5s.
	AfterOutage time.Duration
	// AfterElection is the same after a Lease was acquired. Default 2s.
	AfterElection time.Duration
}

func (o Options) withDefaults() Options {
	if o.Namespace == "" {
		o.Namespace = v1alpha1.DefaultNamespace
	}
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&o.Grace, 1500 * time.Millisecond},
		{&o.HandOver, 2 * time.Second},
		{&o.Slow, 10 * time.Second},
		{&o.AfterOutage, 5 * time.Second},
		{&o.AfterElection, 2 * time.Second},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	return o
}

// Patience with a speaker that is away before another node has to own its
// addresses on the LAN, see docs/decisions/layer2-ownership.md.
const (
	speakerPatience     = 5 * time.Second
	massSpeakerPatience = 30 * time.Second
)
