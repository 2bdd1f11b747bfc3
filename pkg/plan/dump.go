package plan

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

// ReadDump reads a State from what "kubectl get -o yaml" prints: Lists and
// single objects, in YAML documents. Objects of kinds that no plan depends on
// are passed over. Programs that Nodes carry become the previous ones; one
// that cannot be read counts as none, as it does for the planner.
func ReadDump(r io.Reader) (*State, error) {
	s := &State{
		Previous:          make(map[string]announce.Program),
		LoadBalancerClass: v1alpha1.LoadBalancerClass,
	}
	documents := utilyaml.NewYAMLReader(bufio.NewReader(r))
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return s, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading a dump: %w", err)
		}
		if len(bytes.TrimSpace(document)) == 0 {
			continue
		}
		if err := s.add(document); err != nil {
			return nil, err
		}
	}
}

func (s *State) add(document []byte) error {
	var head struct {
		metav1.TypeMeta   `json:",inline"`
		metav1.ObjectMeta `json:"metadata"`
		Items             []runtime.RawExtension `json:"items"`
	}
	if err := yaml.Unmarshal(document, &head); err != nil {
		return fmt.Errorf("reading a dump: %w", err)
	}
	for _, item := range head.Items {
		if err := s.add(item.Raw); err != nil {
			return err
		}
	}
	var err error
	switch head.Kind {
	case "Namespace":
		if head.Name == metav1.NamespaceSystem {
			s.Cluster = string(head.UID)
		}
		err = appendObject(&s.Namespaces, document)
	case "Node":
		err = appendObject(&s.Nodes, document)
		if program, malformed := announce.Decode(head.Annotations[v1alpha1.NodeAnnouncements]); malformed == nil {
			s.Previous[head.Name] = program
		}
	case "Service":
		err = appendObject(&s.Services, document)
	case "EndpointSlice":
		err = appendObject(&s.EndpointSlices, document)
	case "Pod":
		if head.Labels[v1alpha1.SpeakerPodLabel] == v1alpha1.SpeakerPodName {
			err = appendObject(&s.SpeakerPods, document)
		}
	case "AddressPool":
		err = appendObject(&s.Pools, document)
	case "BGPPeer":
		err = appendObject(&s.Peers, document)
	}
	if err != nil {
		return fmt.Errorf("reading %s %s from a dump: %w", head.Kind, head.Name, err)
	}
	return nil
}

func appendObject[T corev1.Node | corev1.Namespace | corev1.Service | corev1.Pod | discoveryv1.EndpointSlice | v1alpha1.AddressPool | v1alpha1.BGPPeer](to *[]*T, document []byte) error {
	object := new(T)
	if err := yaml.UnmarshalStrict(document, object); err != nil {
		return err
	}
	*to = append(*to, object)
	return nil
}
