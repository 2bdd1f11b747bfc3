package baremetal

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/record"
	cloudprovider "k8s.io/cloud-provider"
	cloudproviderapi "k8s.io/cloud-provider/api"
	netutils "k8s.io/utils/net"
)

// providerIDPrefix begins the provider IDs that this provider gives.
const providerIDPrefix = ProviderName + "://"

// reasonProvidedNodeIP is of the Event about a Node whose kubelet names
// addresses that cannot be used.
const reasonProvidedNodeIP = "InvalidProvidedNodeIP"

// instances implements cloudprovider.InstancesV2 for machines that no cloud
// knows more about than their Nodes say: the kubelet is the authority on its
// node's addresses, and nobody but an administrator knows whether a machine is
// gone for good. It is safe for concurrent use.
type instances struct {
	events record.EventRecorder
}

var _ cloudprovider.InstancesV2 = (*instances)(nil)

// InstanceExists is always true. To say otherwise of a Node that is NotReady
// asks for its deletion, and there is nobody to ask whether the machine is only
// switched off.
func (*instances) InstanceExists(context.Context, *corev1.Node) (bool, error) { return true, nil }

// InstanceShutdown is always false: a machine that is off cannot be told from
// one that is cut off.
func (*instances) InstanceShutdown(context.Context, *corev1.Node) (bool, error) { return false, nil }

// InstanceMetadata is what the Node says of itself, completed by a provider ID
// and by the addresses that its kubelet was started with. It names no instance
// type, zone or region: labels are the administrator's.
func (i *instances) InstanceMetadata(_ context.Context, node *corev1.Node) (*cloudprovider.InstanceMetadata, error) {
	addresses, err := instanceAddresses(node)
	if err != nil {
		i.events.Event(node, corev1.EventTypeWarning, reasonProvidedNodeIP, err.Error())
		return nil, err
	}
	return &cloudprovider.InstanceMetadata{ProviderID: providerID(node), NodeAddresses: addresses}, nil
}

// providerID is the one that the Node has or, as it can be set only once, one
// that stays right for as long as the Node exists: its name. That is unique in
// the cluster, it is what the kubelet's certificate and its Lease are bound to,
// and a machine that joins again has it again. The Node's UID would be another
// one then; machine ID and system UUID change when a machine is installed anew
// or gets another mainboard, and clones and cheap boards have them in common.
func providerID(node *corev1.Node) string {
	if node.Spec.ProviderID != "" {
		return node.Spec.ProviderID
	}
	return providerIDPrefix + node.Name
}

// instanceAddresses are those that the Node publishes, as they are, and after
// them those of its kubelet's --node-ip that are not among them: upstream
// refuses to initialize a Node without all of these. A kubelet leaves addresses
// alone once there are any, so that a changed --node-ip shows only here.
func instanceAddresses(node *corev1.Node) ([]corev1.NodeAddress, error) {
	addresses := slices.Clone(node.Status.Addresses)
	text, ok := node.Annotations[cloudproviderapi.AnnotationAlphaProvidedIPAddr]
	if !ok {
		return addresses, nil
	}
	provided, err := parseProvidedNodeIP(text)
	if err != nil {
		return nil, fmt.Errorf("node %q: annotation %s is %q: %w; "+
			"correct --node-ip of its kubelet to one address, or one of each family separated by a comma, and start the kubelet again",
			node.Name, cloudproviderapi.AnnotationAlphaProvidedIPAddr, text, err)
	}
	for _, ip := range provided {
		if !publishes(addresses, ip) {
			addresses = append(addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: ip.String()})
		}
	}
	return addresses, nil
}

// publishes reports whether the IP is among the addresses as an IP: the name of
// a host may look like one. An ExternalIP is enough, for upstream as well; an
// InternalIP beside it would push out the node's other ones.
func publishes(addresses []corev1.NodeAddress, ip netip.Addr) bool {
	return slices.ContainsFunc(addresses, func(address corev1.NodeAddress) bool {
		if address.Type != corev1.NodeInternalIP && address.Type != corev1.NodeExternalIP {
			return false
		}
		published, ok := netip.AddrFromSlice(netutils.ParseIPSloppy(address.Address))
		return ok && published.Unmap() == ip
	})
}

// parseProvidedNodeIP reads what a kubelet says about its --node-ip: an address,
// or one of each family. What it accepts, upstream accepts; it is stricter where
// a kubelet never writes what upstream would let pass.
func parseProvidedNodeIP(text string) ([]netip.Addr, error) {
	var provided []netip.Addr
	for one := range strings.SplitSeq(text, ",") {
		ip, err := netip.ParseAddr(one)
		if err != nil || ip.Zone() != "" || ip.Is4In6() {
			return nil, fmt.Errorf("%q is no IP address", one)
		}
		if ip.IsUnspecified() || ip.IsLoopback() || ip.IsMulticast() || ip.IsLinkLocalUnicast() {
			return nil, fmt.Errorf("%s cannot be the address of a node", ip)
		}
		provided = append(provided, ip)
	}
	if len(provided) > 2 || len(provided) == 2 && provided[0].Is4() == provided[1].Is4() {
		return nil, fmt.Errorf("a node has one address of a family")
	}
	return provided, nil
}
