package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupName is the API group of AddressPool and BGPPeer, and the prefix of
// every annotation, label and condition of the project.
const GroupName = "lb.baremetal.dev"

// SchemeGroupVersion is the group and version of the types in this package.
var SchemeGroupVersion = schema.GroupVersion{Group: GroupName, Version: "v1alpha1"}

// Resources of the kinds in this package, for dynamic clients and REST paths.
var (
	AddressPoolResource = SchemeGroupVersion.WithResource("addresspools")
	BGPPeerResource     = SchemeGroupVersion.WithResource("bgppeers")
)

var schemeBuilder = runtime.NewSchemeBuilder(addKnownTypes)

// AddToScheme registers the types of this package.
var AddToScheme = schemeBuilder.AddToScheme

func addKnownTypes(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(SchemeGroupVersion,
		&AddressPool{}, &AddressPoolList{},
		&BGPPeer{}, &BGPPeerList{},
	)
	metav1.AddToGroupVersion(scheme, SchemeGroupVersion)
	return nil
}
