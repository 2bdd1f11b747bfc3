package plan

import (
	"fmt"
	"strings"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

// What an AddressPool or a BGPPeer asks for and this version does not do yet is
// told in the object's Ready condition. The default drainDelay is the exception:
// all pools have it, and draining nodes withdraw at once.

const reasonNotSupported = "NotSupported"

func notSupported(fields []string) []Problem {
	if len(fields) == 0 {
		return nil
	}
	return []Problem{{reasonNotSupported, "not supported by this version and without effect: " + strings.Join(fields, "; ")}}
}

func unsupportedInPeer(spec *v1alpha1.BGPPeerSpec) []Problem {
	var fields []string
	if spec.Interface != "" {
		fields = append(fields, "spec.interface (unnumbered sessions); give spec.peerAddress")
	}
	if spec.BFD != nil && spec.BFD.Enabled {
		fields = append(fields, "spec.bfd.enabled; a short spec.holdTime detects failures meanwhile")
	}
	if spec.Announce == v1alpha1.AnnounceCluster {
		fields = append(fields, "spec.announce: Cluster; nodes announce their own paths")
	}
	if spec.NextHopSelector != nil {
		fields = append(fields, "spec.nextHopSelector")
	}
	if spec.MaxNextHops != 0 {
		fields = append(fields, "spec.maxNextHops; that of the pool counts")
	}
	for _, kind := range spec.Advertise {
		if kind != v1alpha1.AdvertiseLoadBalancerIPs {
			fields = append(fields, fmt.Sprintf("spec.advertise: %s", kind))
		}
	}
	return notSupported(fields)
}

func unsupportedInPool(spec *v1alpha1.AddressPoolSpec) []Problem {
	var fields []string
	if spec.BGP != nil && spec.BGP.Weighted {
		fields = append(fields, "spec.bgp.weighted; all next hops weigh the same")
	}
	if spec.DrainDelay != nil && spec.DrainDelay.Duration != defaultDrainDelay {
		fields = append(fields, "spec.drainDelay; draining nodes withdraw at once")
	}
	return notSupported(fields)
}

// defaultDrainDelay is that of the CRD.
const defaultDrainDelay = 10 * time.Second
