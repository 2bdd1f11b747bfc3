package ipam

import "fmt"

// Reason is why a claim was refused: one CamelCase word, fit for the reason of
// an Event or a condition.
type Reason string

// Reasons of a Refusal.
const (
	// NoPool: there is no AddressPool for the claim, or not the one it names.
	NoPool Reason = "NoPool"
	// PoolExhausted: every address of the pools that would do is taken.
	PoolExhausted Reason = "PoolExhausted"
	// PoolDisabled: the pool gives out nothing, by spec.disabled or because it is
	// being deleted.
	PoolDisabled Reason = "PoolDisabled"
	// PoolForbidden: the pool is not for this Service.
	PoolForbidden Reason = "PoolForbidden"
	// PoolMalformed: the pool's spec cannot be understood.
	PoolMalformed Reason = "PoolMalformed"
	// AddressInUse: another Service has the requested address.
	AddressInUse Reason = "AddressInUse"
	// SharingConflict: another Service has the address, and the two cannot share it.
	SharingConflict Reason = "SharingConflict"
	// NotInAnyPool: the requested address lies in no AddressPool.
	NotInAnyPool Reason = "NotInAnyPool"
	// NodeAddress: the requested address is a node's own.
	NodeAddress Reason = "NodeAddress"
	// FamilyUnavailable: no pool has addresses of an IP family that the Service
	// needs, or the Service does not have the family of a requested address.
	FamilyUnavailable Reason = "FamilyUnavailable"
	// NoAddress: nothing was decided yet.
	NoAddress Reason = "NoAddress"
	// AddressConflict: the Service shows an address that another one has.
	AddressConflict Reason = "AddressConflict"
	// MalformedRequest: an annotation or field of the Service cannot be
	// understood.
	MalformedRequest Reason = "MalformedRequest"
)

// unsettled are the reasons of a Service that shows no address by right.
var unsettled = []Reason{
	NoPool, PoolExhausted, PoolDisabled, PoolForbidden, PoolMalformed, AddressInUse, SharingConflict, NotInAnyPool,
	NodeAddress, NoAddress, AddressConflict, FamilyUnavailable, MalformedRequest,
}

// Refusal is the error of a claim that got no address. Its message names the
// pool, the reason and what to do; it is written for the user.
type Refusal struct {
	Reason  Reason
	Message string
}

// Error implements error.
func (r *Refusal) Error() string {
	return string(r.Reason) + ": " + r.Message
}

func refuse(reason Reason, format string, args ...any) *Refusal {
	return &Refusal{Reason: reason, Message: fmt.Sprintf(format, args...)}
}
