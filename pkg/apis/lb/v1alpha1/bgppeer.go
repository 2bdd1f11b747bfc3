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
// +kubebuilder:validation:XValidation:rule=`(has(self.peerAddress) && size(self.peerAddress) > 0) != (has(self.interface) && size(self.interface) > 0)`,message=`exactly one of peerAddress and interface is wanted: peerAddress for a router with an address, interface for an unnumbered session`
// +kubebuilder:validation:XValidation:rule=`!(has(self.peerAddress) && size(self.peerAddress) > 0) || !(has(self.sourceAddress) && size(self.sourceAddress) > 0) || !isIP(self.peerAddress) || !isIP(self.sourceAddress) || ip(self.peerAddress).family() == ip(self.sourceAddress).family()`,message=`peerAddress and sourceAddress are of different families`,messageExpression=`'sourceAddress %s and peerAddress %s are of different families: give an IPv%d sourceAddress, or none for the default of the node'.format([dyn(self.sourceAddress), dyn(self.peerAddress), dyn(ip(self.peerAddress).family())])`,fieldPath=`.sourceAddress`
// +kubebuilder:validation:XValidation:rule=`!(has(self.interface) && size(self.interface) > 0) || !(has(self.sourceAddress) && size(self.sourceAddress) > 0)`,message=`sourceAddress does not go with interface: an unnumbered session uses the link-local address of the interface`,fieldPath=`.sourceAddress`,reason=FieldValueForbidden
// +kubebuilder:validation:XValidation:rule=`!(has(self.interface) && size(self.interface) > 0) || !has(self.ebgpMultihop) || self.ebgpMultihop == 0`,message=`ebgpMultihop does not go with interface: an unnumbered router is directly connected`,fieldPath=`.ebgpMultihop`,reason=FieldValueForbidden
// +kubebuilder:validation:XValidation:rule=`!(has(self.interface) && size(self.interface) > 0) || !has(self.bfd) || !has(self.bfd.multihop) || !self.bfd.multihop`,message=`bfd.multihop does not go with interface: an unnumbered router is directly connected`,fieldPath=`.bfd`,reason=FieldValueForbidden
// +kubebuilder:validation:XValidation:rule=`!has(self.ttlSecurity) || !self.ttlSecurity || !has(self.ebgpMultihop) || self.ebgpMultihop == 0`,message=`ttlSecurity and ebgpMultihop exclude each other: ttlSecurity expects the router one hop away; remove one`,fieldPath=`.ttlSecurity`,reason=FieldValueForbidden
// +kubebuilder:validation:XValidation:rule=`!has(self.announce) || self.announce != 'Cluster' || !has(self.addPaths) || !has(self.addPaths.sendMax) || self.addPaths.sendMax > 0`,message=`addPaths.sendMax 0 does not go with announce: Cluster, which sends a path of each node: leave it out or give the width of ECMP, such as 10`,fieldPath=`.addPaths`
type BGPPeerSpec struct {
	// LocalASN is the AS of the nodes; a Node's local-asn annotation wins.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=4294967294
	// +kubebuilder:validation:XValidation:rule=`self != 23456`,message=`localASN 23456 is AS_TRANS (RFC 6793), a placeholder: write the real AS number`
	LocalASN int64 `json:"localASN"`

	// PeerASN is the AS of the router.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=4294967294
	// +kubebuilder:validation:XValidation:rule=`self != 23456`,message=`peerASN 23456 is AS_TRANS (RFC 6793), a placeholder: write the real AS number`
	PeerASN int64 `json:"peerASN"`

	// PeerAddress is the router's address. Exactly one of peerAddress and
	// interface is given; a link-local IPv6 router is given by interface.
	// +kubebuilder:validation:MaxLength=45
	// +kubebuilder:validation:XValidation:rule=`size(self) == 0 || isIP(self)`,message=`not an address`,messageExpression=`'"%s" is refused: peerAddress is one IPv4 or IPv6 address, such as 192.0.2.1, without a length, a zone or an IPv4-mapped form'.format([self])`
	// +kubebuilder:validation:XValidation:rule=`!isIP(self) || !(ip(self).isUnspecified() || self == '255.255.255.255' || cidr(ip(self).family() == 4 ? '224.0.0.0/4' : 'ff00::/8').containsIP(self))`,message=`no unicast address`,messageExpression=`'peerAddress %s is not an address of a host (unspecified, multicast or broadcast)'.format([self])`
	// +kubebuilder:validation:XValidation:rule=`!isIP(self) || !(ip(self).family() == 6 && ip(self).isLinkLocalUnicast())`,message=`a link-local address needs an interface`,messageExpression=`'peerAddress %s is link-local, which says nothing without an interface: give spec.interface instead of peerAddress'.format([self])`
	PeerAddress string `json:"peerAddress,omitempty"`

	// Interface is the nodes' interface of an unnumbered session.
	// +kubebuilder:validation:MaxLength=15
	// +kubebuilder:validation:XValidation:rule=`size(self) == 0 || self.matches('^[^/: ]+$') && !(self in ['.', '..'])`,message=`not an interface name`,messageExpression=`'"%s" is not the name of a network interface: at most 15 characters, without slash, colon and space'.format([self])`
	Interface string `json:"interface,omitempty"`

	// PeerPort is the router's TCP port.
	// +kubebuilder:default=179
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	PeerPort int32 `json:"peerPort,omitempty"`

	// SourceAddress is the local address of the session; the default is the
	// node's address of that family.
	// +kubebuilder:validation:MaxLength=45
	// +kubebuilder:validation:XValidation:rule=`size(self) == 0 || isIP(self)`,message=`not an address`,messageExpression=`'"%s" is refused: sourceAddress is one IPv4 or IPv6 address, such as 192.0.2.10, without a length, a zone or an IPv4-mapped form'.format([self])`
	// +kubebuilder:validation:XValidation:rule=`!isIP(self) || !(ip(self).isUnspecified() || self == '255.255.255.255' || cidr(ip(self).family() == 4 ? '224.0.0.0/4' : 'ff00::/8').containsIP(self))`,message=`no unicast address`,messageExpression=`'sourceAddress %s is not an address of a host (unspecified, multicast or broadcast)'.format([self])`
	// +kubebuilder:validation:XValidation:rule=`!isIP(self) || !(ip(self).family() == 6 && ip(self).isLinkLocalUnicast())`,message=`a link-local address needs an interface`,messageExpression=`'sourceAddress %s is link-local, which says nothing without an interface: leave sourceAddress out'.format([self])`
	SourceAddress string `json:"sourceAddress,omitempty"`

	// NodeSelector selects the nodes that hold this session; empty means all.
	NodeSelector *metav1.LabelSelector `json:"nodeSelector,omitempty"`

	// PasswordSecretRef is the TCP MD5 password (RFC 2385), in a Secret of the
	// system namespace.
	PasswordSecretRef *SecretKeyRef `json:"passwordSecretRef,omitempty"`

	// HoldTime is the BGP hold time; keepalives are sent every third of it. Whole
	// seconds: 3s to 65535s, or 0s for a session that never expires (RFC 4271).
	// +kubebuilder:default="9s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=16
	// +kubebuilder:validation:XValidation:rule=`self.matches('^([0-9]{1,6}([.][0-9]{1,9})?(h|m|s|ms|us|µs|ns))+$') && duration(self) >= duration('3s') && duration(self) <= duration('65535s') && duration('%ds'.format([duration(self).getSeconds()])) == duration(self)`,message=`not a duration from 3s to 65535s in whole seconds`,messageExpression=`'"%s" is refused: holdTime is a duration from 3s to 65535s in whole seconds, such as 9s'.format([self])`
	HoldTime *metav1.Duration `json:"holdTime,omitempty"`

	// ConnectRetryTime is the time between two attempts to connect, in whole
	// seconds.
	// +kubebuilder:default="5s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=16
	// +kubebuilder:validation:XValidation:rule=`self.matches('^([0-9]{1,6}([.][0-9]{1,9})?(h|m|s|ms|us|µs|ns))+$') && duration(self) >= duration('1s') && duration(self) <= duration('1h') && duration('%ds'.format([duration(self).getSeconds()])) == duration(self)`,message=`not a duration from 1s to 1h in whole seconds`,messageExpression=`'"%s" is refused: connectRetryTime is a duration of 1s to 1h in whole seconds, such as 5s'.format([self])`
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

	// TTLSecurity is the Generalized TTL Security Mechanism (RFC 5082), for a
	// directly connected router; not with ebgpMultihop.
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
	// Name of the Secret.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule=`self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')`,message=`not the name of a Secret`,messageExpression=`'"%s" is not the name of a Secret: lower-case letters, digits, - and .'.format([self])`
	Name string `json:"name"`
	// Key in the Secret.
	// +kubebuilder:default=password
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule=`self.matches('^[-._a-zA-Z0-9]+$')`,message=`not a key of a Secret`,messageExpression=`'"%s" is not a key of a Secret: letters, digits, -, _ and .'.format([self])`
	Key string `json:"key,omitempty"`
}

// GracefulRestart is the Graceful Restart of BGP (RFC 4724).
type GracefulRestart struct {
	// Enabled negotiates Graceful Restart.
	// +kubebuilder:default=true
	Enabled *bool `json:"enabled,omitempty"`
	// RestartTime is how long the router keeps routes of a lost speaker, in
	// whole seconds: 1s to 4095s, for the wire has 12 bits (RFC 4724).
	// +kubebuilder:default="30s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=16
	// +kubebuilder:validation:XValidation:rule=`self.matches('^([0-9]{1,6}([.][0-9]{1,9})?(h|m|s|ms|us|µs|ns))+$') && duration(self) >= duration('1s') && duration(self) <= duration('4095s') && duration('%ds'.format([duration(self).getSeconds()])) == duration(self)`,message=`not a duration from 1s to 4095s in whole seconds`,messageExpression=`'"%s" is refused: restartTime is a duration of 1s to 4095s in whole seconds, such as 30s'.format([self])`
	RestartTime *metav1.Duration `json:"restartTime,omitempty"`
}

// BFD is Bidirectional Forwarding Detection (RFC 5880, RFC 5881, RFC 5883).
type BFD struct {
	// Enabled runs BFD to the router.
	// +kubebuilder:default=false
	Enabled bool `json:"enabled,omitempty"`
	// TransmitInterval is the shortest time between two packets, 10ms to 1m.
	// +kubebuilder:default="300ms"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=16
	// +kubebuilder:validation:XValidation:rule=`self.matches('^([0-9]{1,6}([.][0-9]{1,9})?(h|m|s|ms|us|µs|ns))+$') && duration(self) >= duration('10ms') && duration(self) <= duration('1m')`,message=`not a duration from 10ms to 1m`,messageExpression=`'"%s" is refused: transmitInterval is a duration of 10ms to 1m, such as 300ms'.format([self])`
	TransmitInterval *metav1.Duration `json:"transmitInterval,omitempty"`
	// ReceiveInterval is the shortest time between two packets of the router
	// that is accepted, 10ms to 1m.
	// +kubebuilder:default="300ms"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=16
	// +kubebuilder:validation:XValidation:rule=`self.matches('^([0-9]{1,6}([.][0-9]{1,9})?(h|m|s|ms|us|µs|ns))+$') && duration(self) >= duration('10ms') && duration(self) <= duration('1m')`,message=`not a duration from 10ms to 1m`,messageExpression=`'"%s" is refused: receiveInterval is a duration of 10ms to 1m, such as 300ms'.format([self])`
	ReceiveInterval *metav1.Duration `json:"receiveInterval,omitempty"`
	// Multiplier is the number of lost packets that is a failure.
	// +kubebuilder:default=3
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=255
	Multiplier int32 `json:"multiplier,omitempty"`
	// Multihop runs BFD over several hops (RFC 5883).
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
