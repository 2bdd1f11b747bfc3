package plan

import (
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/utils/ptr"
)

// serviceKey is the namespace and name of a Service.
type serviceKey struct{ namespace, name string }

// endpointNodes are the nodes with an endpoint of each of the wanted Services:
// a ready one, or one that terminates but still serves if none is ready on any
// node (KEP-1669).
func endpointNodes(all []*discoveryv1.EndpointSlice, wanted map[serviceKey]bool) map[serviceKey]map[string]bool {
	if len(wanted) == 0 {
		return nil
	}
	type sets struct{ ready, serving map[string]bool }
	found := make(map[serviceKey]*sets)
	for _, slice := range all {
		key := serviceKey{slice.Namespace, slice.Labels[discoveryv1.LabelServiceName]}
		if !wanted[key] {
			continue
		}
		s := found[key]
		if s == nil {
			s = &sets{ready: make(map[string]bool), serving: make(map[string]bool)}
			found[key] = s
		}
		for i := range slice.Endpoints {
			e := &slice.Endpoints[i]
			if e.NodeName == nil {
				continue
			}
			ready := ptr.Deref(e.Conditions.Ready, true)
			switch {
			case ready:
				s.ready[*e.NodeName] = true
			case ptr.Deref(e.Conditions.Serving, ready) && ptr.Deref(e.Conditions.Terminating, false):
				s.serving[*e.NodeName] = true
			}
		}
	}
	nodes := make(map[serviceKey]map[string]bool, len(found))
	for key, s := range found {
		nodes[key] = s.ready
		if len(s.ready) == 0 {
			nodes[key] = s.serving
		}
	}
	return nodes
}
