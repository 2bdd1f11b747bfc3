package baremetal

import (
	"context"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	cloudproviderapi "k8s.io/cloud-provider/api"
	"k8s.io/cloud-provider/node/helpers"
)

// publishing is a Node with the addresses, given as TYPE:ADDRESS, and with what
// its kubelet says about --node-ip, unless it says "none".
func publishing(provided string, addresses ...string) *corev1.Node {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node1"}}
	if provided != "none" {
		node.Annotations = map[string]string{cloudproviderapi.AnnotationAlphaProvidedIPAddr: provided}
	}
	for _, text := range addresses {
		kind, address, _ := strings.Cut(text, ":")
		node.Status.Addresses = append(node.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeAddressType(kind), Address: address})
	}
	return node
}

func textOf(addresses []corev1.NodeAddress) []string {
	var text []string
	for _, address := range addresses {
		text = append(text, string(address.Type)+":"+address.Address)
	}
	return text
}

// published is what upstream makes of the metadata of a Node.
func published(node *corev1.Node) ([]corev1.NodeAddress, error) {
	metadata, err := (&instances{events: &record.FakeRecorder{}}).InstanceMetadata(context.Background(), node)
	if err != nil {
		return nil, err
	}
	provided, ok := node.Annotations[cloudproviderapi.AnnotationAlphaProvidedIPAddr]
	if !ok {
		return metadata.NodeAddresses, nil
	}
	return helpers.GetNodeAddressesFromNodeIP(provided, metadata.NodeAddresses)
}

func TestInstanceAddresses(t *testing.T) {
	for _, test := range []struct {
		name     string
		provided string
		has      []string
		want     []string // after upstream's check; nil means as it was
	}{
		{"a kubelet with --node-ip", "192.0.2.1", []string{"InternalIP:192.0.2.1", "Hostname:node1"}, nil},
		{"dual stack", "192.0.2.1,2001:db8::1", []string{"InternalIP:192.0.2.1", "InternalIP:2001:db8::1", "Hostname:node1"}, nil},
		{"dual stack, IPv6 first", "2001:db8::1,192.0.2.1", []string{"InternalIP:2001:db8::1", "InternalIP:192.0.2.1", "Hostname:node1"}, nil},
		{"written otherwise", "2001:db8::1", []string{"InternalIP:2001:DB8:0::1", "Hostname:node1"}, nil},
		{"nothing provided", "none", []string{"Hostname:node1"}, nil},
		{"nothing at all", "none", nil, nil},
		{"nothing provided, everything there", "none", []string{"Hostname:a", "InternalIP:192.0.2.1", "ExternalIP:203.0.113.1", "InternalDNS:b", "InternalIP:192.0.2.2"}, nil},

		{"hostname only", "192.0.2.1", []string{"Hostname:node1"}, []string{"InternalIP:192.0.2.1", "Hostname:node1"}},
		{"hostname only, dual stack", "192.0.2.1,2001:db8::1", []string{"Hostname:node1"}, []string{"InternalIP:192.0.2.1", "InternalIP:2001:db8::1", "Hostname:node1"}},
		{"no address", "192.0.2.1", nil, []string{"InternalIP:192.0.2.1"}},
		{"second family is new", "192.0.2.1,2001:db8::1", []string{"InternalIP:192.0.2.1", "Hostname:node1"}, []string{"InternalIP:192.0.2.1", "InternalIP:2001:db8::1", "Hostname:node1"}},
		{"the hostname looks like it", "192.0.2.1", []string{"Hostname:192.0.2.1"}, []string{"Hostname:192.0.2.1", "InternalIP:192.0.2.1"}},
		{"others are kept", "192.0.2.1", []string{"ExternalIP:203.0.113.1", "Hostname:node1", "InternalDNS:b"}, []string{"InternalIP:192.0.2.1", "ExternalIP:203.0.113.1", "Hostname:node1", "InternalDNS:b"}},
		{"published as an ExternalIP", "203.0.113.1", []string{"ExternalIP:203.0.113.1", "InternalIP:192.0.2.1", "Hostname:node1"}, nil},
		{"another --node-ip", "192.0.2.2", []string{"InternalIP:192.0.2.1", "Hostname:node1"}, []string{"InternalIP:192.0.2.2", "Hostname:node1"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			node := publishing(test.provided, test.has...)
			got, err := published(node)
			if err != nil {
				t.Fatal(err)
			}
			want := test.want
			if want == nil {
				want = test.has
			}
			if !slices.Equal(textOf(got), want) {
				t.Errorf("published: %v; want %v", textOf(got), want)
			}
			if !slices.Equal(textOf(node.Status.Addresses), test.has) {
				t.Errorf("the Node, which is not ours to change, has %v", textOf(node.Status.Addresses))
			}
			node.Status.Addresses = got
			again, err := published(node)
			if err != nil || !slices.Equal(again, got) {
				t.Errorf("the next time: %v (%v); want no change from %v", textOf(again), err, textOf(got))
			}
		})
	}
}

func TestMalformedProvidedNodeIP(t *testing.T) {
	for provided, want := range map[string]string{
		"":                                "is no IP address",
		"node1":                           `"node1" is no IP address`,
		"192.0.2.1,":                      `"" is no IP address`,
		"192.0.2.1, 2001:db8::1":          "is no IP address",
		"192.0.2.1/24":                    "is no IP address",
		"192.0.2.01":                      "is no IP address",
		"2001:db8::1%eth0":                "is no IP address",
		"::ffff:192.0.2.1":                "is no IP address",
		"0.0.0.0":                         "0.0.0.0 cannot be the address of a node",
		"::1":                             "::1 cannot be the address of a node",
		"fe80::1":                         "fe80::1 cannot be the address of a node",
		"224.0.0.1":                       "224.0.0.1 cannot be the address of a node",
		"192.0.2.1,192.0.2.2":             "one address of a family",
		"192.0.2.1,2001:db8::1,192.0.2.2": "one address of a family",
	} {
		events := record.NewFakeRecorder(1)
		_, err := (&instances{events: events}).InstanceMetadata(t.Context(), publishing(provided, "InternalIP:192.0.2.1"))
		if err == nil {
			t.Errorf("%q is accepted", provided)
			continue
		}
		for _, text := range []string{want, `node "node1"`, cloudproviderapi.AnnotationAlphaProvidedIPAddr, "--node-ip"} {
			if !strings.Contains(err.Error(), text) {
				t.Errorf("%q: error %q does not say %q", provided, err, text)
			}
		}
		if event := <-events.Events; !strings.HasSuffix(event, err.Error()) {
			t.Errorf("%q: Event %q; want the error", provided, event)
		}
	}
}

// FuzzProvidedNodeIP: what is accepted here, upstream accepts too, and leads to
// addresses that stay.
func FuzzProvidedNodeIP(f *testing.F) {
	f.Add("192.0.2.1", "192.0.2.1")
	f.Add("192.0.2.1,2001:db8::1", "2001:DB8::1")
	f.Add("2001:db8::1,192.0.2.1", "node1")
	f.Add("0.0.0.0", "::ffff:192.0.2.1")
	f.Fuzz(func(t *testing.T, provided, has string) {
		if _, err := parseProvidedNodeIP(provided); err != nil {
			return
		}
		node := publishing(provided, "Hostname:"+has, "InternalIP:"+has)
		got, err := published(node)
		if err != nil {
			t.Fatal(err)
		}
		node.Status.Addresses = got
		again, err := published(node)
		if err != nil || !slices.Equal(again, got) {
			t.Fatalf("%v, and then %v (%v)", got, again, err)
		}
		for one := range strings.SplitSeq(provided, ",") {
			if !publishes(got, netip.MustParseAddr(one)) {
				t.Errorf("%s is not among %v", one, got)
			}
		}
	})
}

func TestInstances(t *testing.T) {
	if instances, ok := New(Options{}).InstancesV2(); instances != nil || ok {
		t.Error("there are instances, which nobody asked for")
	}
	cloud := New(Options{InitializeNodes: true})
	cloud.instances.events = record.NewFakeRecorder(1)
	instances, ok := cloud.InstancesV2()
	if !ok {
		t.Fatal("no instances")
	}
	for provided, want := range map[string]string{"": "baremetal://node1", "metal3://a/b": "metal3://a/b"} {
		node := publishing("none")
		node.Spec.ProviderID = provided
		node.Labels = map[string]string{corev1.LabelTopologyZone: "rack1"}
		node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionFalse}}
		if exists, err := instances.InstanceExists(t.Context(), node); !exists || err != nil {
			t.Errorf("a node that is NotReady exists: %v (%v)", exists, err)
		}
		if shutdown, err := instances.InstanceShutdown(t.Context(), node); shutdown || err != nil {
			t.Errorf("a node that is NotReady is shut down: %v (%v)", shutdown, err)
		}
		metadata, err := instances.InstanceMetadata(t.Context(), node)
		if err != nil {
			t.Fatal(err)
		}
		if metadata.ProviderID != want {
			t.Errorf("provider ID %q; want %q", metadata.ProviderID, want)
		}
		// Anything else would become labels.
		metadata.ProviderID, metadata.NodeAddresses = "", nil
		if !reflect.ValueOf(*metadata).IsZero() {
			t.Errorf("metadata %+v", metadata)
		}
	}
}
