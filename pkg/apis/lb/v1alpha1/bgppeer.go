package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// AddressFamily is an IP family of a BGP session.
// +kubebuilder:validation:Enum=IPv4;IPv6
type AddressFamily string

// Address families of a BGPPeer.
const (
	IPv4 AddressFamily = "IPv4"
	IPv6 AddressFamily = "IPv6"
)

// AnnounceMode says whose paths a session carries.
// +kubebuilder:validation:Enum=Node;Cluster
type AnnounceMode string

// Announce modes of a BGPPeer.
const (
	// AnnounceNode sends the node's own paths.
	AnnounceNode AnnounceMode = "Node"
	// AnnounceCluster sends other nodes' paths too, with those nodes as next
	// hops (RFC 7911 ADD-PATH).
	AnnounceCluster AnnounceMode = "Cluster"
)

// AdvertiseKind is a kind of address that a session announces.
// +kubebuilder:validation:Enum=LoadBalancerIPs;ExternalIPs;ClusterIPs;PodCIDRs
type AdvertiseKind string

// Kinds of addresses that a BGPPeer may be sent.
const (
	AdvertiseLoadBalancerIPs AdvertiseKind = "LoadBalancerIPs"
	AdvertiseExternalIPs     AdvertiseKind = "ExternalIPs"
	AdvertiseClusterIPs      AdvertiseKind = "ClusterIPs"
	AdvertisePodCIDRs        AdvertiseKind = "PodCIDRs"
)

// BGPPeer is a router, and the nodes that hold a BGP session with it.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,categories=baremetal-lb
// +kubebuilder:printcolumn:name="Address",type=string,JSONPath=`.spec.peerAddress`
// +kubebuilder:printcolumn:name="ASN",type=integer,JSONPath=`.spec.peerASN`
// +kubebuilder:printcolumn:name="Desired",type=integer,JSONPath=`.status.desired`
// +kubebuilder:printcolumn:name="Established",type=integer,JSONPath=`.status.established`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object
type BGPPeer struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   BGPPeerSpec   `json:"spec"`
	Status BGPPeerStatus `json:"status,omitempty"`
}

// BGPPeerSpec is a BGP session as its owner asks for it.
type BGPPeerSpec struct {
	// LocalASN is the AS of the nodes; a Node's local-asn annotation wins.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=4294967294
	LocalASN int64 `json:"localASN"`

	// PeerASN is the AS of the router.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=4294967294
	PeerASN int64 `json:"peerASN"`

	// PeerAddress is the router's address. Exactly one of peerAddress and
	// interface is given.
	// +kubebuilder:validation:MaxLength=45
	PeerAddress string `json:"peerAddress,omitempty"`

	// Interface is the nodes' interface of an unnumbered session.
	// +kubebuilder:validation:MaxLength=15
	Interface string `json:"interface,omitempty"`

	// PeerPort is the router's TCP port.
	// +kubebuilder:default=179
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	PeerPort int32 `json:"peerPort,omitempty"`

	// SourceAddress is the local address of the session; the default is the
	// node's address of that family.
	// +kubebuilder:validation:MaxLength=45
	SourceAddress string `json:"sourceAddress,omitempty"`

	// NodeSelector selects the nodes that hold this session; empty means all.
	NodeSelector *metav1.LabelSelector `json:"nodeSelector,omitempty"`

	// PasswordSecretRef is the TCP MD5 password (RFC 2385), in a Secret of the
	// system namespace.
	PasswordSecretRef *SecretKeyRef `json:"passwordSecretRef,omitempty"`

	// HoldTime is the BGP hold time; keepalives are sent every third of it.
	// +kubebuilder:default="9s"
	HoldTime *metav1.Duration `json:"holdTime,omitempty"`

	// ConnectRetryTime is the time between two attempts to connect.
	// +kubebuilder:default="5s"
	ConnectRetryTime *metav1.Duration `json:"connectRetryTime,omitempty"`

	// Passive waits for the router to connect.
	// +kubebuilder:default=false
	Passive bool `json:"passive,omitempty"`

	// EBGPMultihop is the TTL of packets to an eBGP router that is not directly
	// connected. 0 means directly connected.
	// +kubebuilder:default=0
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=255
	EBGPMultihop int32 `json:"ebgpMultihop,omitempty"`

	// TTLSecurity is the Generalized TTL Security Mechanism (RFC 5082).
	// +kubebuilder:default=false
	TTLSecurity bool `json:"ttlSecurity,omitempty"`

	// GracefulRestart (RFC 4724) keeps the router's routes over a restart of
	// the speaker.
	// +kubebuilder:default={}
	GracefulRestart *GracefulRestart `json:"gracefulRestart,omitempty"`

	// BFD watches the path to the router (RFC 5880).
	// +kubebuilder:default={}
	BFD *BFD `json:"bfd,omitempty"`

	// AddressFamilies of the session.
	// +kubebuilder:default={IPv4,IPv6}
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=2
	// +listType=set
	AddressFamilies []AddressFamily `json:"addressFamilies,omitempty"`

	// AddPaths limits the paths of one prefix that are sent (RFC 7911); used
	// with announce: Cluster.
	// +kubebuilder:default={}
	AddPaths *AddPaths `json:"addPaths,omitempty"`

	// Announce says whose paths the session carries.
	// +kubebuilder:default=Node
	Announce AnnounceMode `json:"announce,omitempty"`

	// NextHopSelector selects the nodes that are sent as next hops with
	// announce: Cluster; empty means all.
	NextHopSelector *metav1.LabelSelector `json:"nextHopSelector,omitempty"`

	// MaxNextHops is this router's ECMP width, for every prefix. 0 means that
	// of the pool.
	// +kubebuilder:default=0
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1024
	MaxNextHops int32 `json:"maxNextHops,omitempty"`

	// Advertise lists the kinds of addresses that the router is sent.
	// +kubebuilder:default={LoadBalancerIPs}
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=4
	// +listType=set
	Advertise []AdvertiseKind `json:"advertise,omitempty"`
}

// SecretKeyRef names a key of a Secret in the system namespace.
type SecretKeyRef struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// +kubebuilder:default=password
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Key string `json:"key,omitempty"`
}

// GracefulRestart is the Graceful Restart of BGP (RFC 4724).
type GracefulRestart struct {
	// +kubebuilder:default=true
	Enabled *bool `json:"enabled,omitempty"`
	// RestartTime is how long the router keeps routes of a lost speaker.
	// +kubebuilder:default="30s"
	RestartTime *metav1.Duration `json:"restartTime,omitempty"`
}

// BFD is Bidirectional Forwarding Detection (RFC 5880, RFC 5881, RFC 5883).
type BFD struct {
	// +kubebuilder:default=false
	Enabled bool `json:"enabled,omitempty"`
	// +kubebuilder:default="300ms"
	TransmitInterval *metav1.Duration `json:"transmitInterval,omitempty"`
	// +kubebuilder:default="300ms"
	ReceiveInterval *metav1.Duration `json:"receiveInterval,omitempty"`
	// +kubebuilder:default=3
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=255
	Multiplier int32 `json:"multiplier,omitempty"`
	// +kubebuilder:default=false
	Multihop bool `json:"multihop,omitempty"`
}

// AddPaths is the ADD-PATH capability of a session (RFC 7911).
type AddPaths struct {
	// SendMax is the largest number of paths of one prefix.
	// +kubebuilder:default=10
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=255
	SendMax *int32 `json:"sendMax,omitempty"`
}

// BGPPeerStatus is what the cloud-controller-manager knows of a peer's sessions.
type BGPPeerStatus struct {
	// Desired is the number of nodes that should hold a session.
	Desired int32 `json:"desired"`
	// Established is the number of nodes whose session is established.
	Established int32 `json:"established"`
	// Conditions of the peer: Ready.
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// BGPPeerList is a list of BGPPeers.
//
// +kubebuilder:object:root=true
// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object
type BGPPeerList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []BGPPeer `json:"items"`
}
