package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Protocol is a way of announcing an address.
// +kubebuilder:validation:Enum=BGP;Layer2
type Protocol string

// Protocols of an AddressPool.
const (
	// ProtocolBGP announces addresses to routers by BGP (RFC 4271).
	ProtocolBGP Protocol = "BGP"
	// ProtocolLayer2 answers ARP (RFC 826) and NDP (RFC 4861) on the LAN.
	ProtocolLayer2 Protocol = "Layer2"
)

// SharingMode says which Services may have the same address.
// +kubebuilder:validation:Enum=Never;Key;KeyAnyNamespace;Ports
type SharingMode string

// Sharing modes of an AddressPool.
const (
	// SharingNever gives each Service addresses of its own.
	SharingNever SharingMode = "Never"
	// SharingKey lets Services of one namespace with equal share-keys share.
	SharingKey SharingMode = "Key"
	// SharingKeyAnyNamespace is SharingKey across namespaces.
	SharingKeyAnyNamespace SharingMode = "KeyAnyNamespace"
	// SharingPorts lets any Services with disjoint ports share.
	SharingPorts SharingMode = "Ports"
)

// NextHopMode says which eligible nodes are next hops of an address.
// +kubebuilder:validation:Enum=All;WithEndpoints
type NextHopMode string

// Next-hop modes of an AddressPool.
const (
	// NextHopsAll takes every eligible node under externalTrafficPolicy Cluster.
	NextHopsAll NextHopMode = "All"
	// NextHopsWithEndpoints takes only nodes with ready endpoints, whatever the
	// traffic policy.
	NextHopsWithEndpoints NextHopMode = "WithEndpoints"
)

// AddressPool is a set of addresses for LoadBalancer Services, and how they are
// announced.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,categories=baremetal-lb
// +kubebuilder:printcolumn:name="Protocols",type=string,JSONPath=`.spec.protocols`
// +kubebuilder:printcolumn:name="Capacity",type=string,JSONPath=`.status.capacity`
// +kubebuilder:printcolumn:name="Allocated",type=string,JSONPath=`.status.allocated`
// +kubebuilder:printcolumn:name="Available",type=string,JSONPath=`.status.available`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object
type AddressPool struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   AddressPoolSpec   `json:"spec"`
	Status AddressPoolStatus `json:"status,omitempty"`
}

// AddressPoolSpec is what the owner of a pool asks for.
type AddressPoolSpec struct {
	// Addresses are prefixes (203.0.113.0/24), ranges
	// (198.51.100.10-198.51.100.20) and single addresses, IPv4 or IPv6. A
	// prefix is taken whole, with its first and last address.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=95
	// +listType=atomic
	Addresses []string `json:"addresses"`

	// Protocols announce the pool's addresses.
	// +kubebuilder:default={BGP}
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=2
	// +listType=set
	Protocols []Protocol `json:"protocols,omitempty"`

	// AutoAssign false keeps the pool for Services that name it or one of its
	// addresses.
	// +kubebuilder:default=true
	AutoAssign *bool `json:"autoAssign,omitempty"`

	// Disabled stops new assignments; existing ones stay.
	// +kubebuilder:default=false
	Disabled bool `json:"disabled,omitempty"`

	// AvoidBuggyIPs skips IPv4 addresses that end in .0 or .255.
	// +kubebuilder:default=false
	AvoidBuggyIPs bool `json:"avoidBuggyIPs,omitempty"`

	// Priority orders the pools for automatic assignment: higher is tried
	// first, ties by name.
	// +kubebuilder:default=0
	Priority int32 `json:"priority,omitempty"`

	// Namespaces that may take addresses; empty means all.
	// +kubebuilder:validation:MaxItems=1024
	// +listType=set
	Namespaces []string `json:"namespaces,omitempty"`

	// NamespaceSelector selects the namespaces that may take addresses.
	NamespaceSelector *metav1.LabelSelector `json:"namespaceSelector,omitempty"`

	// ServiceSelector selects the Services that may take addresses.
	ServiceSelector *metav1.LabelSelector `json:"serviceSelector,omitempty"`

	// Sharing says which Services may have the same address.
	// +kubebuilder:default=Key
	Sharing SharingMode `json:"sharing,omitempty"`

	// AllowExternalIPs makes spec.externalIPs that lie in this pool claims on it.
	// +kubebuilder:default=false
	AllowExternalIPs bool `json:"allowExternalIPs,omitempty"`

	// NodeSelector selects the nodes that may announce; empty means all.
	NodeSelector *metav1.LabelSelector `json:"nodeSelector,omitempty"`

	// NextHops says which eligible nodes are next hops.
	// +kubebuilder:default=All
	NextHops NextHopMode `json:"nextHops,omitempty"`

	// MaxNextHops is the largest number of nodes that announce an address by
	// BGP: the ECMP width of the routers. 0 means no limit.
	// +kubebuilder:default=16
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1024
	MaxNextHops *int32 `json:"maxNextHops,omitempty"`

	// DrainDelay is how long a path stays, demoted, before it is withdrawn in a
	// planned maintenance.
	// +kubebuilder:default="10s"
	DrainDelay *metav1.Duration `json:"drainDelay,omitempty"`

	// Layer2 says how the Layer2 protocol announces.
	Layer2 *AddressPoolLayer2 `json:"layer2,omitempty"`

	// BGP says how the BGP protocol announces.
	BGP *AddressPoolBGP `json:"bgp,omitempty"`
}

// AddressPoolLayer2 says how the Layer2 protocol announces.
type AddressPoolLayer2 struct {
	// Interfaces that may answer: names, shell patterns, an address of the NIC,
	// or "can-reach:ADDRESS". Empty means the interface whose subnet holds the
	// address.
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=64
	// +listType=set
	Interfaces []string `json:"interfaces,omitempty"`
}

// AddressPoolBGP says how the BGP protocol announces.
type AddressPoolBGP struct {
	// Weighted attaches a link-bandwidth community in proportion to the ready
	// endpoints of the node (externalTrafficPolicy Local).
	// +kubebuilder:default=false
	Weighted bool `json:"weighted,omitempty"`

	// Advertisements of the pool's addresses; empty means one with defaults.
	// +kubebuilder:validation:MaxItems=16
	// +listType=atomic
	Advertisements []BGPAdvertisement `json:"advertisements,omitempty"`
}

// BGPAdvertisement says to whom, and with which attributes, addresses are
// announced.
type BGPAdvertisement struct {
	// Peers are names of BGPPeers; empty means all that select the node.
	// +kubebuilder:validation:MaxItems=64
	// +listType=set
	Peers []string `json:"peers,omitempty"`

	// AggregationLength is the IPv4 prefix length that addresses are folded
	// into. Addresses of externalTrafficPolicy Local Services and those with
	// fewer next hops than eligible nodes are never folded.
	// +kubebuilder:default=32
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=32
	AggregationLength *int32 `json:"aggregationLength,omitempty"`

	// AggregationLengthV6 is the same for IPv6.
	// +kubebuilder:default=128
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=128
	AggregationLengthV6 *int32 `json:"aggregationLengthV6,omitempty"`

	// LocalPref is the LOCAL_PREF of the paths; sent to iBGP peers only.
	// +kubebuilder:default=100
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=4294967295
	LocalPref *int64 `json:"localPref,omitempty"`

	// Communities are "64500:100" or a well-known name: no-export,
	// no-advertise, local-as, no-peer, graceful-shutdown, blackhole (RFC 1997,
	// RFC 3765, RFC 8326, RFC 7999).
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=32
	// +listType=set
	Communities []string `json:"communities,omitempty"`

	// LargeCommunities are "64500:1:2" (RFC 8092).
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=32
	// +listType=set
	LargeCommunities []string `json:"largeCommunities,omitempty"`
}

// AddressPoolStatus is what the cloud-controller-manager knows of a pool.
// Counts are decimal strings, for an IPv6 pool does not fit an integer.
type AddressPoolStatus struct {
	// Capacity is the number of addresses that could be assigned.
	Capacity string `json:"capacity,omitempty"`
	// Allocated is the number of addresses that Services have.
	Allocated string `json:"allocated,omitempty"`
	// Available is the number of addresses that are free.
	Available string `json:"available,omitempty"`
	// Conditions of the pool: Ready.
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// AddressPoolList is a list of AddressPools.
//
// +kubebuilder:object:root=true
// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object
type AddressPoolList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []AddressPool `json:"items"`
}
