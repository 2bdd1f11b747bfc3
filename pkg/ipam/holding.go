package ipam

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

// holding is what a Service has. There is one per Service, so its size counts.
type holding struct {
	owner Owner
	// all are the addresses that it has, and behind them those that retire.
	all     []netip.Addr
	current int
	// asked is what the claim that was served last asked for, where that was
	// anything.
	asked *request
	// terms of sharing; nil where they cannot matter.
	terms *Terms
	// known is false between Adopt and the first Assign or Release, when only the
	// record says what the Service has.
	known bool
	// settled is that of the record it was adopted from.
	settled bool
	// foreign Services are another controller's: nobody shares with them.
	foreign bool
}

// request is the part of a claim that, when the user changes it, asks for
// another address.
type request struct {
	pool     string
	protocol v1alpha1.Protocol
	// external addresses, as text.
	external string
}

func askedBy(claim *Claim) request {
	r := request{pool: claim.Pool, protocol: claim.Protocol}
	if len(claim.External) > 0 {
		r.external = fmt.Sprint(claim.External)
	}
	return r
}

// has are the addresses that the Service has.
func (h *holding) has() []netip.Addr {
	if h == nil {
		return nil
	}
	return h.all[:h.current]
}

// key is the share-key.
func (h *holding) key() string {
	if h.terms == nil {
		return ""
	}
	return h.terms.Key
}

// take makes addr the last one that the Service has.
func (h *holding) take(addr netip.Addr) {
	if i := slices.Index(h.all, addr); i >= h.current {
		h.all = slices.Delete(h.all, i, i+1)
	} else if i >= 0 {
		return
	}
	h.all = slices.Insert(h.all, h.current, addr)
	h.current++
}

// retire makes addr, which the Service has, one that it had.
func (h *holding) retire(addr netip.Addr) {
	if i := slices.Index(h.has(), addr); i >= 0 {
		h.all = append(slices.Delete(h.all, i, i+1), addr)
		h.current--
	}
}

// drop forgets addr.
func (h *holding) drop(addr netip.Addr) {
	i := slices.Index(h.all, addr)
	if i < 0 {
		return
	}
	h.all = slices.Delete(h.all, i, i+1)
	if i < h.current {
		h.current--
	}
}

// request is what the claim that was served last asked for.
func (h *holding) request() request {
	if h.asked == nil {
		return request{}
	}
	return *h.asked
}

func (h *holding) ask(r request) {
	switch {
	case r == request{}:
		h.asked = nil
	case r != h.request():
		kept := r // so that r itself need not be on the heap
		h.asked = &kept
	}
}
