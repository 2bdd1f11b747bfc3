// Package v1alpha1 is the API of cloud-provider-baremetal: the cluster-scoped
// kinds AddressPool and BGPPeer, and the keys by which Services and Nodes talk
// to it.
//
// +k8s:deepcopy-gen=package
// +groupName=lb.baremetal.dev
package v1alpha1
