package plan

import (
	"slices"

	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/utils/ptr"
)

// endpoints are where a Service has endpoints: nodes by their indexes.
type endpoints struct {
	// nodes are those that count, ascending.
	nodes []int

	ready []int
	// serving ones terminate, but still serve (KEP-1669).
	serving []int
	// anyReady is true also where the ready one is on a node without a speaker.
	anyReady bool
}

// settle finds the nodes that count: where none is ready on any node, those that
// still serve.
func (e *endpoints) settle() {
	e.nodes = e.serving
	if e.anyReady {
		e.nodes = e.ready
	}
	slices.Sort(e.nodes)
	e.nodes = slices.Compact(e.nodes)
}

// findEndpoints tells the Services where they have endpoints. It passes over
// those whose endpoints cannot matter.
func (c *computation) findEndpoints(services []*service) {
	wanted := make(map[serviceKey]*service)
	always := c.anyPoolWantsEndpoints()
	for _, s := range services {
		if always || s.local {
			wanted[s.key] = s
		}
	}
	if len(wanted) == 0 {
		return
	}
	for _, slice := range c.state.EndpointSlices {
		if s := wanted[serviceKey{slice.Namespace, slice.Labels[discoveryv1.LabelServiceName]}]; s != nil {
			c.addEndpoints(&s.endpoints, slice)
		}
	}
	for _, s := range services {
		s.endpoints.settle()
	}
}

func (c *computation) anyPoolWantsEndpoints() bool {
	for _, p := range c.pools {
		if p.withEndpoints {
			return true
		}
	}
	return false
}

func (c *computation) addEndpoints(to *endpoints, slice *discoveryv1.EndpointSlice) {
	for i := range slice.Endpoints {
		e := &slice.Endpoints[i]
		if e.NodeName == nil {
			continue
		}
		node, known := c.indexes[*e.NodeName]
		ready := ptr.Deref(e.Conditions.Ready, true)
		to.anyReady = to.anyReady || ready
		switch {
		case !known:
		case ready:
			to.ready = append(to.ready, node)
		case ptr.Deref(e.Conditions.Serving, ready) && ptr.Deref(e.Conditions.Terminating, false):
			to.serving = append(to.serving, node)
		}
	}
}
