package v1alpha1

// LoadBalancerClass is the value of Service spec.loadBalancerClass that asks
// for this load balancer by name.
const LoadBalancerClass = GroupName + "/baremetal"

// Keys on a Service, written by people.
const (
	// ServicePool names the AddressPool that the Service takes addresses from.
	ServicePool = GroupName + "/pool"
	// ServiceAddresses is a comma-separated list of requested addresses.
	ServiceAddresses = GroupName + "/addresses"
	// ServiceShareKey lets Services with equal keys share an address.
	ServiceShareKey = GroupName + "/share-key"
	// ServiceProtocol limits the choice to pools that speak it: BGP or Layer2.
	ServiceProtocol = GroupName + "/protocol"
)

// ConditionAnnounced is the condition in a Service's status that says which
// nodes announce its addresses, or why none does. Its presence also marks a
// Service as served by this project.
const ConditionAnnounced = GroupName + "/Announced"

// ConditionReady is the condition of AddressPools and BGPPeers.
const ConditionReady = "Ready"

// PoolInUse is the finalizer on an AddressPool while Services have addresses of
// it: a pool that is deleted stays, and keeps them announced, until the last one
// is released. The planner puts it on and takes it off.
const PoolInUse = GroupName + "/addresses-in-use"

// Keys on a Node, written by people.
const (
	// NodeLocalASN is the node's own AS number; it wins over a BGPPeer's localASN.
	NodeLocalASN = GroupName + "/local-asn"
	// NodeRouterID is the node's BGP identifier, an IPv4 address.
	NodeRouterID = GroupName + "/router-id"
	// NodeSourceAddress is the local address of the node's BGP sessions.
	NodeSourceAddress = GroupName + "/source-address"
	// NodeLayer2Interfaces is a comma-separated list like spec.layer2.interfaces
	// of an AddressPool; it wins over that on the node.
	NodeLayer2Interfaces = GroupName + "/layer2-interfaces"
	// NodeDrain ("true") moves all announcements away for planned maintenance.
	NodeDrain = GroupName + "/drain"
)

// Keys on a Node, each with one writer.
const (
	// NodeAnnouncements is the whole program of the node's speaker, written by
	// the planner.
	NodeAnnouncements = GroupName + "/announcements"
	// NodeSpeaker is the report of the node's speaker, written by that speaker.
	NodeSpeaker = GroupName + "/speaker"
)

// SecretRotate ("true"), written by people on the Secret with the key of the
// heartbeats, asks for a new key. The planner takes it off when there is one.
const SecretRotate = GroupName + "/rotate"

// SpeakerPodLabel and SpeakerPodName select the speaker Pods in the speaker
// namespace: the label app.kubernetes.io/name=baremetal-speaker.
const (
	SpeakerPodLabel = "app.kubernetes.io/name"
	SpeakerPodName  = "baremetal-speaker"
)

// DefaultNamespace is the namespace that manifests/ installs into.
const DefaultNamespace = "baremetal-lb-system"
