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
// +kubebuilder:validation:XValidation:rule=`!has(self.layer2) || 'Layer2' in self.protocols`,message=`layer2 is set, but protocols has no Layer2: add Layer2 to spec.protocols or remove spec.layer2`,fieldPath=`.layer2`,reason=FieldValueForbidden
// +kubebuilder:validation:XValidation:rule=`!has(self.bgp) || 'BGP' in self.protocols`,message=`bgp is set, but protocols has no BGP: add BGP to spec.protocols or remove spec.bgp`,fieldPath=`.bgp`,reason=FieldValueForbidden
type AddressPoolSpec struct {
	// The rules of addresses, for CEL as of Kubernetes 1.31 has no order of
	// addresses, no functions and no bindings. [x].map(v, f(v))[0] binds x to v.
	//
	// The bounds of an entry are four uints [first, first, last, last], the upper
	// and lower 64 bits of its first and last address, IPv4 as ::ffff:a.b.c.d. An
	// IPv6 text is brought to eight groups by replacing :: by as many zeros as its
	// colons leave room for; a group becomes a number as the hexadecimal float
	// 0x0<group>p0. A prefix adds its host bits to the last address. Lists are
	// compared in [cidr(x)] == [...], for 1.31 takes the cost of comparing two
	// prefixes as unlimited. A rule that needs bounds passes over an entry that an
	// earlier rule refuses, so that each mistake is reported once; an overlap is
	// one with itself or with another, hence "<= 1".
	//
	// Tests hold the copies of the expression equal, and its results to netipx.

	// Addresses are prefixes (203.0.113.0/24), ranges
	// (198.51.100.10-198.51.100.20) and single addresses, IPv4 or IPv6. A
	// prefix is taken whole, with its first and last address.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=95
	// +listType=atomic
	// +kubebuilder:validation:items:XValidation:rule=`(self.contains('/') ? isCIDR(self) : isIP(self.substring(0, (self + '-').replace('/', '-').indexOf('-'))) && isIP(self.substring(self.indexOf('-') + 1, (self + '/').indexOf('/'))))`,message=`not an address`,messageExpression=`self.contains('%') ? '%s has a zone: addresses of a pool have none'.format([self]) : self.matches('(?i)^::ffff:[0-9a-f]') ? '%s is an IPv4-mapped IPv6 address: write the IPv4 address'.format([self]) : '"%s" is not an address: write a prefix (203.0.113.0/24), a range without spaces (198.51.100.10-198.51.100.20) or one address (198.51.100.7)'.format([self])`
	// +kubebuilder:validation:items:XValidation:rule=`!(self.contains('/') ? isCIDR(self) : isIP(self.substring(0, (self + '-').replace('/', '-').indexOf('-'))) && isIP(self.substring(self.indexOf('-') + 1, (self + '/').indexOf('/')))) || self.contains(':') != self.contains('.')`,message=`mixes IPv4 and IPv6`,messageExpression=`self.contains('-') ? '%s mixes IPv4 and IPv6: both ends of a range are of one family, IPv6 in hexadecimal'.format([self]) : '%s has a dotted part: write IPv6 in hexadecimal'.format([self])`
	// +kubebuilder:validation:items:XValidation:rule=`!isCIDR(self) || [cidr(self)] == [cidr(self).masked()]`,message=`has host bits set`,messageExpression=`'%s has host bits set: write %s for the prefix, or the address without a length'.format([self, string(cidr(self).masked())])`
	// +kubebuilder:validation:items:XValidation:rule=`!(self.contains(':') != self.contains('.') && (self.contains('/') ? isCIDR(self) && [cidr(self)] == [cidr(self).masked()] : isIP(self.substring(0, (self + '-').replace('/', '-').indexOf('-'))) && isIP(self.substring(self.indexOf('-') + 1, (self + '/').indexOf('/'))))) || [[[[self.substring(0, (self + '-').replace('/', '-').indexOf('-')), self.substring(self.indexOf('-') + 1, (self + '/').indexOf('/'))].map(t, [t.contains(':') ? ('0x0' + t.replace('::', ':' + '0:0:0:0:0:0:'.substring(0, 18 - 2 * t.split(':').size())).replace(':', 'p0 0x0') + 'p0').split(' ', 8).map(h, uint(double(h))) : [0u, 0u, 0u, 0u, 0u, 0xffffu] + t.split('.', 4).map(o, uint(o))].map(h, [h[0] * 0x1000000000000u + h[1] * 0x100000000u + h[2] * 0x10000u + h[3], t.contains(':') ? h[4] * 0x1000000000000u + h[5] * 0x100000000u + h[6] * 0x10000u + h[7] : h[5] * 0x100000000u + h[6] * 0x1000000u + h[7] * 0x10000u + h[8] * 0x100u + h[9]])[0]), [[self.contains('/') ? cidr(self).prefixLength() + (self.contains(':') ? 0 : 96) : 128].map(p, [64 - p, 128 - p].map(n, n <= 0 ? 0u : n >= 64 ? 0xffffffffffffffffu : uint(double('0x1p%d'.format([n]))) - 1u))[0]]]].map(b, [b[0][0][0], b[0][0][1], b[0][1][0] + b[1][0][0], b[0][1][1] + b[1][0][1]])[0]].all(b, b[0] < b[2] || b[0] == b[2] && b[1] <= b[3])`,message=`range is reversed`,messageExpression=`'range %s is reversed: write the lower address first, %s-%s'.format([self, self.substring(self.indexOf('-') + 1, (self + '/').indexOf('/')), self.substring(0, (self + '-').replace('/', '-').indexOf('-'))])`
	// +kubebuilder:validation:items:XValidation:rule=`!(self.contains(':') != self.contains('.') && (self.contains('/') ? isCIDR(self) && [cidr(self)] == [cidr(self).masked()] : isIP(self.substring(0, (self + '-').replace('/', '-').indexOf('-'))) && isIP(self.substring(self.indexOf('-') + 1, (self + '/').indexOf('/'))))) || [[[[self.substring(0, (self + '-').replace('/', '-').indexOf('-')), self.substring(self.indexOf('-') + 1, (self + '/').indexOf('/'))].map(t, [t.contains(':') ? ('0x0' + t.replace('::', ':' + '0:0:0:0:0:0:'.substring(0, 18 - 2 * t.split(':').size())).replace(':', 'p0 0x0') + 'p0').split(' ', 8).map(h, uint(double(h))) : [0u, 0u, 0u, 0u, 0u, 0xffffu] + t.split('.', 4).map(o, uint(o))].map(h, [h[0] * 0x1000000000000u + h[1] * 0x100000000u + h[2] * 0x10000u + h[3], t.contains(':') ? h[4] * 0x1000000000000u + h[5] * 0x100000000u + h[6] * 0x10000u + h[7] : h[5] * 0x100000000u + h[6] * 0x1000000u + h[7] * 0x10000u + h[8] * 0x100u + h[9]])[0]), [[self.contains('/') ? cidr(self).prefixLength() + (self.contains(':') ? 0 : 96) : 128].map(p, [64 - p, 128 - p].map(n, n <= 0 ? 0u : n >= 64 ? 0xffffffffffffffffu : uint(double('0x1p%d'.format([n]))) - 1u))[0]]]].map(b, [b[0][0][0], b[0][0][1], b[0][1][0] + b[1][0][0], b[0][1][1] + b[1][0][1]])[0]].all(b, self.contains(':') ? [[0u, 0u], [0xfe80000000000000u, 0xfebfffffffffffffu], [0xff00000000000000u, 0xffffffffffffffffu]].all(r, b[2] < r[0] || r[1] < b[0]) : [[0xffff00000000u, 0xffff00ffffffu], [0xffff7f000000u, 0xffff7fffffffu], [0xffffa9fe0000u, 0xffffa9feffffu], [0xffffe0000000u, 0xffffffffffffu]].all(r, b[3] < r[0] || r[1] < b[1]))`,message=`no unicast address`,messageExpression=`'%s holds addresses that cannot be announced: %s'.format([self, self.contains(':') ? 'unspecified, loopback and IPv4-mapped (::/64), link-local (fe80::/10) and multicast (ff00::/8) are refused' : 'this network (0.0.0.0/8), loopback (127.0.0.0/8), link-local (169.254.0.0/16), multicast and reserved (224.0.0.0/3) are refused'])`
	// +kubebuilder:validation:XValidation:rule=`[self.map(e, e.contains(':') != e.contains('.') && (e.contains('/') ? isCIDR(e) && [cidr(e)] == [cidr(e).masked()] : isIP(e.substring(0, (e + '-').replace('/', '-').indexOf('-'))) && isIP(e.substring(e.indexOf('-') + 1, (e + '/').indexOf('/')))), [[[e.substring(0, (e + '-').replace('/', '-').indexOf('-')), e.substring(e.indexOf('-') + 1, (e + '/').indexOf('/'))].map(t, [t.contains(':') ? ('0x0' + t.replace('::', ':' + '0:0:0:0:0:0:'.substring(0, 18 - 2 * t.split(':').size())).replace(':', 'p0 0x0') + 'p0').split(' ', 8).map(h, uint(double(h))) : [0u, 0u, 0u, 0u, 0u, 0xffffu] + t.split('.', 4).map(o, uint(o))].map(h, [h[0] * 0x1000000000000u + h[1] * 0x100000000u + h[2] * 0x10000u + h[3], t.contains(':') ? h[4] * 0x1000000000000u + h[5] * 0x100000000u + h[6] * 0x10000u + h[7] : h[5] * 0x100000000u + h[6] * 0x1000000u + h[7] * 0x10000u + h[8] * 0x100u + h[9]])[0]), [[e.contains('/') ? cidr(e).prefixLength() + (e.contains(':') ? 0 : 96) : 128].map(p, [64 - p, 128 - p].map(n, n <= 0 ? 0u : n >= 64 ? 0xffffffffffffffffu : uint(double('0x1p%d'.format([n]))) - 1u))[0]]]].map(b, [b[0][0][0], b[0][0][1], b[0][1][0] + b[1][0][0], b[0][1][1] + b[1][0][1]])[0])].all(all, all.all(a, all.filter(b, (a[0] < b[2] || a[0] == b[2] && a[1] <= b[3]) && (b[0] < a[2] || b[0] == a[2] && b[1] <= a[3])).size() <= 1))`,message=`entries overlap: an address may be listed once`,messageExpression=`'entries overlap: %s. An address may be listed once; remove or shrink one of them'.format([[self.map(e, e.contains(':') != e.contains('.') && (e.contains('/') ? isCIDR(e) && [cidr(e)] == [cidr(e).masked()] : isIP(e.substring(0, (e + '-').replace('/', '-').indexOf('-'))) && isIP(e.substring(e.indexOf('-') + 1, (e + '/').indexOf('/')))), [[[e.substring(0, (e + '-').replace('/', '-').indexOf('-')), e.substring(e.indexOf('-') + 1, (e + '/').indexOf('/'))].map(t, [t.contains(':') ? ('0x0' + t.replace('::', ':' + '0:0:0:0:0:0:'.substring(0, 18 - 2 * t.split(':').size())).replace(':', 'p0 0x0') + 'p0').split(' ', 8).map(h, uint(double(h))) : [0u, 0u, 0u, 0u, 0u, 0xffffu] + t.split('.', 4).map(o, uint(o))].map(h, [h[0] * 0x1000000000000u + h[1] * 0x100000000u + h[2] * 0x10000u + h[3], t.contains(':') ? h[4] * 0x1000000000000u + h[5] * 0x100000000u + h[6] * 0x10000u + h[7] : h[5] * 0x100000000u + h[6] * 0x1000000u + h[7] * 0x10000u + h[8] * 0x100u + h[9]])[0]), [[e.contains('/') ? cidr(e).prefixLength() + (e.contains(':') ? 0 : 96) : 128].map(p, [64 - p, 128 - p].map(n, n <= 0 ? 0u : n >= 64 ? 0xffffffffffffffffu : uint(double('0x1p%d'.format([n]))) - 1u))[0]]]].map(b, [b[0][0][0], b[0][0][1], b[0][1][0] + b[1][0][0], b[0][1][1] + b[1][0][1]])[0])].map(all, self.filter(e, e.contains(':') != e.contains('.') && (e.contains('/') ? isCIDR(e) && [cidr(e)] == [cidr(e).masked()] : isIP(e.substring(0, (e + '-').replace('/', '-').indexOf('-'))) && isIP(e.substring(e.indexOf('-') + 1, (e + '/').indexOf('/')))) && [[[[e.substring(0, (e + '-').replace('/', '-').indexOf('-')), e.substring(e.indexOf('-') + 1, (e + '/').indexOf('/'))].map(t, [t.contains(':') ? ('0x0' + t.replace('::', ':' + '0:0:0:0:0:0:'.substring(0, 18 - 2 * t.split(':').size())).replace(':', 'p0 0x0') + 'p0').split(' ', 8).map(h, uint(double(h))) : [0u, 0u, 0u, 0u, 0u, 0xffffu] + t.split('.', 4).map(o, uint(o))].map(h, [h[0] * 0x1000000000000u + h[1] * 0x100000000u + h[2] * 0x10000u + h[3], t.contains(':') ? h[4] * 0x1000000000000u + h[5] * 0x100000000u + h[6] * 0x10000u + h[7] : h[5] * 0x100000000u + h[6] * 0x1000000u + h[7] * 0x10000u + h[8] * 0x100u + h[9]])[0]), [[e.contains('/') ? cidr(e).prefixLength() + (e.contains(':') ? 0 : 96) : 128].map(p, [64 - p, 128 - p].map(n, n <= 0 ? 0u : n >= 64 ? 0xffffffffffffffffu : uint(double('0x1p%d'.format([n]))) - 1u))[0]]]].map(b, [b[0][0][0], b[0][0][1], b[0][1][0] + b[1][0][0], b[0][1][1] + b[1][0][1]])[0]].exists(a, all.filter(b, (a[0] < b[2] || a[0] == b[2] && a[1] <= b[3]) && (b[0] < a[2] || b[0] == a[2] && b[1] <= a[3])).size() > 1)))[0]])`
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
	// +kubebuilder:validation:items:MaxLength=63
	// +kubebuilder:validation:items:XValidation:rule=`self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')`,message=`not the name of a namespace`,messageExpression=`'"%s" is not the name of a namespace: lower-case letters, digits and -'.format([self])`
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
	// planned maintenance; 0s to 1h.
	// +kubebuilder:default="10s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=16
	// +kubebuilder:validation:XValidation:rule=`self.matches('^([0-9]{1,6}([.][0-9]{1,9})?(h|m|s|ms|us|µs|ns))+$') && duration(self) >= duration('0s') && duration(self) <= duration('1h')`,message=`not a duration from 0s to 1h`,messageExpression=`'"%s" is refused: drainDelay is a duration of 0s to 1h, such as 10s'.format([self])`
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
	// +kubebuilder:validation:items:XValidation:rule=`self.startsWith('can-reach:') || self.matches('^[^/ ]+$')`,message=`not an interface`,messageExpression=`'"%s" is not an interface: write a name (eth0), a shell pattern (eno*), an address of the NIC, or can-reach:ADDRESS; no slash and no space'.format([self])`
	// +kubebuilder:validation:items:XValidation:rule=`!self.startsWith('can-reach:') || isIP(self.substring(10))`,message=`can-reach: wants an address`,messageExpression=`'"%s": can-reach: is followed by one address, such as can-reach:192.0.2.1, without a zone or a length'.format([self])`
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
	// +kubebuilder:validation:items:MaxLength=253
	// +kubebuilder:validation:items:XValidation:rule=`self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')`,message=`not the name of a BGPPeer`,messageExpression=`'"%s" is not the name of a BGPPeer: lower-case letters, digits, - and .'.format([self])`
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
	// +kubebuilder:validation:items:XValidation:rule=`self in ['no-export', 'no-advertise', 'local-as', 'no-export-subconfed', 'no-peer', 'graceful-shutdown', 'blackhole'] || self.matches('^(0|[1-9][0-9]{0,4}):(0|[1-9][0-9]{0,4})$') && self.split(':').all(n, int(n) <= 65535)`,message=`not a community`,messageExpression=`'"%s" is not a community: write ASN:VALUE with both 0 to 65535 (64500:100; use largeCommunities for a 4-byte ASN), or no-export, no-advertise, local-as, no-export-subconfed, no-peer, graceful-shutdown, blackhole'.format([self])`
	Communities []string `json:"communities,omitempty"`

	// LargeCommunities are "64500:1:2" (RFC 8092).
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=32
	// +listType=set
	// +kubebuilder:validation:items:XValidation:rule=`self.matches('^(0|[1-9][0-9]{0,9})(:(0|[1-9][0-9]{0,9})){2}$') && self.split(':').all(n, int(n) <= 4294967295)`,message=`not a large community`,messageExpression=`'"%s" is not a large community: write three numbers of 0 to 4294967295, such as 64500:1:2'.format([self])`
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
