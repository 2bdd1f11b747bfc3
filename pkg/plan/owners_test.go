package plan

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"go4.org/netipx"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

// lanCluster is a cluster whose pool is announced on the LAN of all nodes.
func lanCluster(nodes, services int) *State {
	s := cluster(nodes)
	s.Pools[0].Spec.Protocols = []v1alpha1.Protocol{v1alpha1.ProtocolLayer2}
	s.Peers = nil
	for i, n := range s.Nodes {
		report(n, announce.Report{Interfaces: []announce.Interface{{
			Name: "eth0", MAC: macOf(i).String(), Prefixes: []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("198.18.%d.%d/16", 255-i/250, i%250+1))},
		}}})
	}
	for i := range services {
		s.addService(i + 1)
	}
	return s
}

func macOf(node int) announce.MAC { return announce.MAC{2, 0, 0x5e, 0, 0x53, byte(node + 1)} }

func report(n *corev1.Node, r announce.Report) {
	text, err := json.Marshal(r)
	if err != nil {
		panic(err)
	}
	n.Annotations[v1alpha1.NodeSpeaker] = string(text)
}

func setReady(n *corev1.Node, ready corev1.ConditionStatus) {
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready}}
}

// owners are the owners of the addresses, by Service.
func owners(p *Plan) map[string]string {
	out := make(map[string]string)
	for i := range p.Services {
		out[p.Services[i].Name] = p.Services[i].Addresses[0].Layer2.Owner()
	}
	return out
}

// spread is how many addresses each node owns, smallest first.
func spread(p *Plan) []int {
	count := make(map[string]int)
	for _, owner := range owners(p) {
		count[owner]++
	}
	var out []int
	for _, n := range count {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

func TestOwnersAreSpreadAndStick(t *testing.T) {
	s := lanCluster(3, 300)
	before := s.advance()
	if got := spread(before); !slices.Equal(got, []int{100, 100, 100}) {
		t.Fatalf("owners are spread %v", got)
	}
	setReady(s.Nodes[0], corev1.ConditionUnknown)
	failed := s.advance()
	if got := spread(failed); !slices.Equal(got, []int{150, 150}) {
		t.Fatalf("after the loss of a node, owners are spread %v", got)
	}
	for svc, owner := range owners(failed) {
		if was := owners(before)[svc]; was != "node01" && was != owner {
			t.Errorf("%s moved from %s to %s for nothing", svc, was, owner)
		}
	}
	setReady(s.Nodes[0], corev1.ConditionTrue)
	for range 2 {
		back := s.advance()
		for svc, owner := range owners(back) {
			if owners(failed)[svc] != owner {
				t.Fatalf("%s moved back to %s", svc, owner)
			}
		}
	}
	// New addresses go to the node that has none.
	s.addService(301)
	if owner := owners(s.advance())["s00301"]; owner != "node01" {
		t.Errorf("a new address went to %s, want node01, which has none", owner)
	}
}

func TestTwoNodesFailOver(t *testing.T) {
	s := lanCluster(2, 4)
	s.advance()
	setReady(s.Nodes[0], corev1.ConditionUnknown)
	if got := spread(s.advance()); !slices.Equal(got, []int{4}) {
		t.Errorf("owners are spread %v, want all on the node that is left", got)
	}
	// The last one keeps what it has, whatever the control plane thinks of it.
	setReady(s.Nodes[1], corev1.ConditionUnknown)
	for svc, owner := range owners(s.advance()) {
		if owner != "node02" {
			t.Errorf("%s went to %q", svc, owner)
		}
	}
}

func TestMassFailureMovesNothing(t *testing.T) {
	s := lanCluster(3, 30)
	before := owners(s.advance())
	s.Now, s.SpeakersAway = time.Unix(1e9, 0), make(map[string]time.Time)
	for i, n := range s.Nodes[:2] {
		setReady(n, corev1.ConditionUnknown)
		setPodReady(s.SpeakerPods[i], corev1.ConditionFalse)
		s.SpeakersAway[n.Name] = time.Unix(1, 0)
	}
	for svc, owner := range owners(s.advance()) {
		if before[svc] != owner {
			t.Errorf("%s moved from %s to %s", svc, before[svc], owner)
		}
	}
}

// TestNodesThatTurnOneAfterTheOther: the controller that marks them takes its time.
func TestNodesThatTurnOneAfterTheOther(t *testing.T) {
	s := lanCluster(3, 30)
	before := owners(s.advance())
	start := time.Unix(1e9, 0)
	s.NotReadySince = make(map[string]time.Time)
	turn := func(i int, after time.Duration) *Plan {
		s.Now = start.Add(after)
		setReady(s.Nodes[i], corev1.ConditionUnknown)
		s.NotReadySince[s.Nodes[i].Name] = s.Now
		return s.advance()
	}
	if p := turn(0, 0); !p.Next.Equal(start.Add(settle)) || !maps.Equal(owners(p), before) {
		t.Fatalf("next plan at %v, owners %v", p.Next, owners(p))
	}
	turn(1, settle/2)
	s.Now = start.Add(time.Hour)
	if p := s.advance(); !maps.Equal(owners(p), before) {
		t.Errorf("owners moved: %v", owners(p))
	}
	// One alone counts, after a moment.
	s = lanCluster(3, 30)
	s.advance()
	s.NotReadySince = make(map[string]time.Time)
	turn(0, 0)
	s.Now = start.Add(settle)
	if got := spread(s.advance()); !slices.Equal(got, []int{15, 15}) {
		t.Errorf("owners are spread %v", got)
	}
}

func TestLeavingSpeakerHandsOver(t *testing.T) {
	s := lanCluster(3, 30)
	s.advance()
	r, err := announce.DecodeReport(s.Nodes[1].Annotations[v1alpha1.NodeSpeaker])
	if err != nil {
		t.Fatal(err)
	}
	r.Leaving = true
	report(s.Nodes[1], r)
	if got := spread(s.advance()); !slices.Equal(got, []int{15, 15}) {
		t.Errorf("owners are spread %v", got)
	}
}

func TestNodesKnowEachOtherOnSmallLANs(t *testing.T) {
	for nodes, want := range map[int]int{smallLAN: smallLAN, smallLAN + 1: 1 + maxStandbys} {
		s := lanCluster(nodes, 1)
		p := s.advance()
		program := p.Programs[p.Services[0].Addresses[0].Layer2.Owner()]
		if len(program.Nodes) != want {
			t.Errorf("of %d nodes, the owner knows %d, want %d", nodes, len(program.Nodes), want)
		}
	}
}

func TestReasonOfAnOwnerThatIsAway(t *testing.T) {
	s := lanCluster(3, 1)
	s.advance()
	setPodReady(s.SpeakerPods[0], corev1.ConditionFalse)
	p := s.advance()
	if _, reason, message := p.Services[0].Condition(); reason != string(Retains) {
		t.Errorf("reason %s: %s", reason, message)
	}
}

func TestOwnersAreSpreadOverManyNodesAndZones(t *testing.T) {
	s := lanCluster(10, 500)
	for i, n := range s.Nodes {
		n.Labels[corev1.LabelTopologyZone] = string(rune('a' + i%3))
	}
	p := s.advance()
	if got := spread(p); got[0] != 50 || got[len(got)-1] != 50 || len(got) != 10 {
		t.Errorf("owners are spread %v", got)
	}
	byName := make(map[string]*corev1.Node)
	for _, n := range s.Nodes {
		byName[n.Name] = n
	}
	standbys := make(map[string]map[string]bool)
	for i := range p.Services {
		c := p.Services[i].Addresses[0].Layer2.Candidates
		if len(c) != 3 {
			t.Fatalf("candidates %v, want an owner and two standbys", c)
		}
		if byName[c[0]].Labels[corev1.LabelTopologyZone] == byName[c[1]].Labels[corev1.LabelTopologyZone] {
			t.Errorf("%s stands by for %s, of the same zone", c[1], c[0])
		}
		if standbys[c[0]] == nil {
			standbys[c[0]] = make(map[string]bool)
		}
		standbys[c[0]][c[1]], standbys[c[0]][c[2]] = true, true
	}
	for owner, set := range standbys {
		if len(set) > maxPartners {
			t.Errorf("%d nodes stand by for %s, want %d at most", len(set), owner, maxPartners)
		}
	}
	// Those that stood by inherit, evenly.
	setReady(s.Nodes[4], corev1.ConditionUnknown)
	if got := spread(s.advance()); !slices.Equal(got, []int{50, 50, 50, 50, 50, 50, 66, 67, 67}) {
		t.Errorf("after the loss of a node, owners are spread %v", got)
	}
	// Who empties a node spreads its addresses over all.
	s.Nodes[5].Annotations[v1alpha1.NodeDrain] = "true"
	if got := spread(s.advance()); len(got) != 8 || got[len(got)-1] != 67 || got[0] < 56 {
		t.Errorf("after a drain, owners are spread %v", got)
	}
	// With fewer addresses than nodes, each zone has its share.
	s = lanCluster(6, 3)
	for i, n := range s.Nodes {
		n.Labels[corev1.LabelTopologyZone] = string(rune('a' + i/2))
	}
	zones := make(map[string]bool)
	for _, owner := range owners(s.advance()) {
		at := slices.IndexFunc(s.Nodes, func(n *corev1.Node) bool { return n.Name == owner })
		zones[s.Nodes[at].Labels[corev1.LabelTopologyZone]] = true
	}
	if len(zones) != 3 {
		t.Errorf("three addresses are in %d of three zones", len(zones))
	}
}

func TestFirstStandbysAreSpread(t *testing.T) {
	p := lanCluster(3, 300).advance()
	count := make(map[[2]string]int)
	for i := range p.Services {
		c := p.Services[i].Addresses[0].Layer2.Candidates
		count[[2]string{c[0], c[1]}]++
	}
	for pair, n := range count {
		if n != 50 {
			t.Errorf("%s is the first standby of %d addresses of %s, want 50", pair[1], n, pair[0])
		}
	}
}

func TestNewAddressesAreProbedAndMovedOnesAreNot(t *testing.T) {
	s := lanCluster(3, 1)
	probes := func(p *Plan) bool {
		owner := p.Services[0].Addresses[0].Layer2.Owner()
		program := p.Programs[owner]
		return program.Groups[0].Layer2.Probe
	}
	for range 2 {
		if !probes(s.advance()) {
			t.Error("the first owner is not to probe, though its program has not changed")
		}
	}
	setReady(s.Nodes[0], corev1.ConditionUnknown)
	if p := s.advance(); p.Services[0].Addresses[0].Layer2.Owner() == "node01" || probes(p) {
		t.Error("an owner that takes over is to probe")
	}
	if probes(s.advance()) {
		t.Error("the flag came back")
	}
	// What its owner could not announce yet, the next one must ask for as well.
	s = lanCluster(2, 1)
	owner := s.advance().Services[0].Addresses[0].Layer2.Owner()
	at := slices.IndexFunc(s.Nodes, func(n *corev1.Node) bool { return n.Name == owner })
	r, err := announce.DecodeReport(s.Nodes[at].Annotations[v1alpha1.NodeSpeaker])
	if err != nil {
		t.Fatal(err)
	}
	r.Conflicts = []announce.Conflict{{Address: netip.MustParseAddr("198.18.0.1"), Held: true}}
	report(s.Nodes[at], r)
	setReady(s.Nodes[at], corev1.ConditionUnknown)
	if p := s.advance(); p.Services[0].Addresses[0].Layer2.Owner() == owner || !probes(p) {
		t.Error("an address that is in use is announced by its next owner without a question")
	}
}

// TestHalfWrittenMove: some nodes have the next plan, others the one before.
func TestHalfWrittenMove(t *testing.T) {
	s := lanCluster(3, 30)
	old := s.advance().Programs
	for name, p := range old {
		p.Epoch = 100
		old[name] = p
	}
	s.Previous = old
	setReady(s.Nodes[0], corev1.ConditionUnknown)
	want := owners(Compute(s))
	next := Compute(s).Programs
	s.Previous = make(map[string]announce.Program)
	for name, p := range old {
		if name != "node01" { // the gainers only
			p = next[name]
			p.Epoch = 200
		}
		s.Previous[name] = p
	}
	// The dead node is back before it was written.
	setReady(s.Nodes[0], corev1.ConditionTrue)
	for svc, owner := range owners(Compute(s)) {
		if want[svc] != owner {
			t.Errorf("%s went on to %s, want %s", svc, owner, want[svc])
		}
	}
}

func TestLocalTrafficIsOwnedWhereItsEndpointsAre(t *testing.T) {
	s := lanCluster(3, 1)
	svc := s.Services[0]
	svc.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	svc.Spec.HealthCheckNodePort = 32000
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: svc.Namespace, Name: "s", Labels: map[string]string{discoveryv1.LabelServiceName: svc.Name}},
		Endpoints:  []discoveryv1.Endpoint{{NodeName: ptr.To("node03")}},
	}
	s.EndpointSlices = []*discoveryv1.EndpointSlice{slice}
	p := s.advance()
	if got := p.Services[0].Addresses[0].Layer2.Candidates; !slices.Equal(got, []string{"node03"}) {
		t.Fatalf("candidates %v, want node03 alone", got)
	}
	if program := p.Programs["node03"]; program.Groups[0].HealthCheckNodePort != 32000 {
		t.Error("no health check port in the program")
	}
	slice.Endpoints = []discoveryv1.Endpoint{{NodeName: ptr.To("node02")}, {NodeName: ptr.To("node03")}}
	if got := s.advance().Services[0].Addresses[0].Layer2.Candidates; !slices.Equal(got, []string{"node03", "node02"}) {
		t.Errorf("candidates %v, want the owner to stay and node02 to stand by", got)
	}
	slice.Endpoints = nil
	p = s.advance()
	if _, reason, _ := p.Services[0].Condition(); reason != "NoEndpoint" {
		t.Errorf("reason %s", reason)
	}
}

func TestDrainedOwnerHandsOver(t *testing.T) {
	s := lanCluster(3, 30)
	s.advance()
	s.Nodes[1].Annotations[v1alpha1.NodeDrain] = "true"
	if got := spread(s.advance()); !slices.Equal(got, []int{15, 15}) {
		t.Errorf("owners are spread %v", got)
	}
	// Drain withdraws, also where nobody is left.
	s = lanCluster(1, 1)
	s.advance()
	s.Nodes[0].Annotations[v1alpha1.NodeDrain] = "true"
	if owner := owners(s.advance())["s00001"]; owner != "" {
		t.Errorf("the draining node %s owns the address", owner)
	}
}

func TestPatienceWithSpeakers(t *testing.T) {
	s := lanCluster(3, 3)
	s.advance()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	s.Now = now
	s.SpeakersAway = map[string]time.Time{"node01": now.Add(-time.Second)}
	s.SpeakerPods = slices.DeleteFunc(s.SpeakerPods, func(p *corev1.Pod) bool { return p.Spec.NodeName == "node01" })
	p := s.advance()
	if got := spread(p); !slices.Equal(got, []int{1, 1, 1}) {
		t.Errorf("owners are spread %v at once, want patience", got)
	}
	if want := now.Add(patience - time.Second); !p.Next.Equal(want) {
		t.Errorf("next plan at %v, want %v", p.Next, want)
	}
	if program := p.Programs["node01"]; len(program.Groups) == 0 {
		t.Error("the node lost its program")
	}
	s.Now = p.Next
	p = s.advance()
	if got := spread(p); !slices.Equal(got, []int{1, 2}) {
		t.Errorf("owners are spread %v, want two nodes", got)
	}
	if !p.Next.IsZero() {
		t.Errorf("next plan at %v, want none", p.Next)
	}
	// The only node keeps its addresses, for there is no better place.
	s = lanCluster(1, 1)
	s.advance()
	s.Now, s.SpeakersAway = now, map[string]time.Time{"node01": now.Add(-time.Hour)}
	setPodReady(s.SpeakerPods[0], corev1.ConditionFalse)
	p = s.advance()
	if owner := owners(p)["s00001"]; owner != "node01" {
		t.Errorf("the address went to %q", owner)
	}
	if announced, reason, _ := p.Services[0].Condition(); announced || reason != string(Retains) {
		t.Errorf("condition %t %s", announced, reason)
	}
}

func setPodReady(p *corev1.Pod, ready corev1.ConditionStatus) {
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}}
}

func TestInterfacesOfNodes(t *testing.T) {
	eth := func(name, prefix string) announce.Interface {
		i := announce.Interface{Name: name, MAC: macOf(1).String()}
		if prefix != "" {
			i.Prefixes = []netip.Prefix{netip.MustParsePrefix(prefix)}
		}
		return i
	}
	down := eth("eth0", "192.0.2.11/24")
	down.NoCarrier = true
	infiniband := eth("ib0", "192.0.2.11/24")
	infiniband.MAC = "00:00:00:00:fe:80:00:00:00:00:00:00:02:00:5e:10:00:00:00:01"
	for name, test := range map[string]struct {
		interfaces []announce.Interface
		reach      []announce.Reach
		ofNode     string
		selectors  []string
		addr       string
		want       bool
	}{
		"its subnet":               {interfaces: []announce.Interface{eth("eth0", "192.0.2.11/24")}, want: true},
		"IPv6 subnet":              {interfaces: []announce.Interface{eth("eth0", "2001:db8::1/64")}, addr: "2001:db8::5", want: true},
		"another subnet":           {interfaces: []announce.Interface{eth("eth0", "198.51.100.11/24")}},
		"no interface":             {},
		"no carrier":               {interfaces: []announce.Interface{down}},
		"not Ethernet":             {interfaces: []announce.Interface{infiniband}},
		"named":                    {interfaces: []announce.Interface{eth("eth1", "")}, selectors: []string{"eth1"}, want: true},
		"another one named":        {interfaces: []announce.Interface{eth("eth0", "192.0.2.11/24")}, selectors: []string{"eth1"}},
		"pattern":                  {interfaces: []announce.Interface{eth("eno3", "")}, selectors: []string{"eth*", "eno[0-9]"}, want: true},
		"malformed pattern":        {interfaces: []announce.Interface{eth("eno3", "")}, selectors: []string{"eno["}},
		"address of the interface": {interfaces: []announce.Interface{eth("eth0", "198.51.100.11/24")}, selectors: []string{"198.51.100.11"}, want: true},
		"address of none":          {interfaces: []announce.Interface{eth("eth0", "198.51.100.11/24")}, selectors: []string{"198.51.100.12"}},
		"reached":                  {interfaces: []announce.Interface{eth("eth0", "")}, reach: []announce.Reach{{Target: netip.MustParseAddr("198.51.100.1"), Interface: "eth0"}}, selectors: []string{"can-reach:198.51.100.1"}, want: true},
		"reached, no carrier":      {interfaces: []announce.Interface{down}, reach: []announce.Reach{{Target: netip.MustParseAddr("198.51.100.1"), Interface: "eth0"}}, selectors: []string{"can-reach:198.51.100.1"}},
		"not reached":              {reach: []announce.Reach{{Target: netip.MustParseAddr("198.51.100.1"), Error: "no route"}}, selectors: []string{"can-reach:198.51.100.1"}},
		"not tried yet":            {selectors: []string{"can-reach:198.51.100.1"}},
		"the node's choice wins":   {interfaces: []announce.Interface{eth("eth0", "192.0.2.11/24"), eth("eth1", "")}, ofNode: " eth1 ,", selectors: []string{"eth9"}, want: true},
		"the node's choice fails":  {interfaces: []announce.Interface{eth("eth0", "192.0.2.11/24")}, ofNode: "eth1", want: false},
	} {
		t.Run(name, func(t *testing.T) {
			n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{v1alpha1.NodeLayer2Interfaces: test.ofNode}}}
			l := newLAN(n, &announce.Report{Interfaces: test.interfaces, Reach: test.reach})
			addr := netip.MustParseAddr("192.0.2.200")
			if test.addr != "" {
				addr = netip.MustParseAddr(test.addr)
			}
			p := &pool{layer2: &layer2{interfaces: test.selectors}}
			if got := l.has(p.selectors(&node{object: n, lan: l}), addr); got != test.want {
				t.Errorf("%t, want %t", got, test.want)
			}
		})
	}
}

func TestReachTargetsAreAsked(t *testing.T) {
	s := lanCluster(2, 1)
	s.Pools[0].Spec.Layer2 = &v1alpha1.AddressPoolLayer2{Interfaces: []string{"can-reach:192.0.2.1", "eth9"}}
	s.Nodes[1].Annotations[v1alpha1.NodeLayer2Interfaces] = "can-reach:192.0.2.2"
	p := s.advance()
	for node, want := range map[string]string{"node01": "192.0.2.1", "node02": "192.0.2.2"} {
		if got := p.Programs[node].Reach; len(got) != 1 || got[0].String() != want {
			t.Errorf("%s is to reach %v, want %s", node, got, want)
		}
	}
	if _, reason, _ := p.Services[0].Condition(); reason != string(NoInterface) {
		t.Errorf("reason %s before the answer", reason)
	}
	report(s.Nodes[1], announce.Report{
		Interfaces: []announce.Interface{{Name: "eth0", MAC: macOf(1).String()}},
		Reach:      []announce.Reach{{Target: netip.MustParseAddr("192.0.2.2"), Interface: "eth0"}},
	})
	p = s.advance()
	if owner := owners(p)["s00001"]; owner != "node02" {
		t.Errorf("owner %q, want node02, which has answered", owner)
	}
	if program := p.Programs["node02"]; !slices.Equal(program.Groups[0].Layer2.Interfaces, []string{"can-reach:192.0.2.2"}) {
		t.Errorf("interfaces %v", program.Groups[0].Layer2.Interfaces)
	}
}

func TestConflictsAreTold(t *testing.T) {
	s := lanCluster(3, 1)
	s.advance()
	owner := s.Nodes[0]
	if got := owners(s.advance())["s00001"]; got != owner.Name {
		t.Fatalf("owner %s", got)
	}
	base, err := announce.DecodeReport(owner.Annotations[v1alpha1.NodeSpeaker])
	if err != nil {
		t.Fatal(err)
	}
	foreign := announce.MAC{2, 0, 0x5e, 0, 0x53, 0xff}
	for name, test := range map[string]struct {
		conflict announce.Conflict
		want     bool
		reason   string
		message  string
		knows    string // node that the program has to speak of
	}{
		"in use":               {conflict: announce.Conflict{MAC: foreign, Held: true}, reason: "AddressInUse", message: foreign.String()},
		"defended":             {conflict: announce.Conflict{MAC: foreign}, want: true, reason: "Announced", message: "defended"},
		"proxy":                {conflict: announce.Conflict{MAC: foreign, Proxy: true}, want: true, reason: "Announced", message: "proxy"},
		"answered by a fellow": {conflict: announce.Conflict{MAC: macOf(2), Held: true}, reason: "AddressInUse", message: "node node03", knows: "node03"},
		"of another address":   {conflict: announce.Conflict{Address: netip.MustParseAddr("198.18.9.9"), MAC: foreign, Held: true}, want: true, reason: "Announced"},
	} {
		t.Run(name, func(t *testing.T) {
			r := base
			test.conflict.Interface = "eth0"
			if !test.conflict.Address.IsValid() {
				test.conflict.Address = netip.MustParseAddr("198.18.0.1")
			}
			r.Conflicts = []announce.Conflict{test.conflict}
			report(owner, r)
			p := Compute(s)
			announced, reason, message := p.Services[0].Condition()
			if announced != test.want || reason != test.reason || !strings.Contains(message, test.message) {
				t.Errorf("condition %t %s %q", announced, reason, message)
			}
			if got := owners(p)["s00001"]; got != owner.Name {
				t.Errorf("owner %s: a conflict is no reason to move, for the LAN is the same", got)
			}
			program := p.Programs[owner.Name]
			if test.knows != "" && !slices.ContainsFunc(program.Nodes, func(n announce.Node) bool { return n.Name == test.knows }) {
				t.Errorf("the program does not say that the MAC address is %s's", test.knows)
			}
		})
	}
}

// TestBothProtocols: one pool, announced to routers by all and on the LAN by one.
func TestBothProtocols(t *testing.T) {
	s := lanCluster(3, 1)
	s.Pools[0].Spec.Protocols = append(s.Pools[0].Spec.Protocols, v1alpha1.ProtocolBGP)
	s.Peers = cluster(0).Peers
	p := s.advance()
	a := &p.Services[0].Addresses[0]
	if len(a.NextHops()) != 3 || a.Layer2.Owner() == "" {
		t.Fatalf("next hops %v, owner %q", a.NextHops(), a.Layer2.Owner())
	}
	announced, _, message := p.Services[0].Condition()
	if !announced || !strings.Contains(message, "announced by node01, node02, node03; announced on the LAN by node01") {
		t.Errorf("condition %t %q", announced, message)
	}
	// Routers need no interface in the subnet, and the other way round.
	for _, n := range s.Nodes {
		report(n, announce.Report{})
	}
	s.Previous = nil
	if announced, _, message = Compute(s).Services[0].Condition(); !announced || !strings.Contains(message, "on the LAN: no node announces it") {
		t.Errorf("condition %t %q", announced, message)
	}
}

func TestAddressOutsideAllPoolsStaysOnTheLAN(t *testing.T) {
	s := lanCluster(4, 1)
	s.Nodes[0].Annotations[v1alpha1.NodeLayer2Interfaces] = "et*"
	s.Pools[0].Spec.Layer2 = &v1alpha1.AddressPoolLayer2{Interfaces: []string{"eth0"}}
	before := s.advance()
	s.Pools = nil
	s.Services[0].Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionAnnounced}}
	after := s.advance()
	for name := range before.Programs {
		if before.Programs[name].Hash != after.Programs[name].Hash {
			t.Errorf("%s has another program:\n%s", name, after)
		}
	}
	// Its standbys take over, and nobody else.
	candidates := before.Services[0].Addresses[0].Layer2.Candidates
	setReady(s.Nodes[0], corev1.ConditionUnknown)
	if owner := owners(s.advance())["s00001"]; !slices.Contains(candidates[1:], owner) {
		t.Errorf("owner %q, want one of %v", owner, candidates[1:])
	}
}

// unplug takes the carrier from a node's only interface.
func unplug(t *testing.T, n *corev1.Node) {
	t.Helper()
	r, err := announce.DecodeReport(n.Annotations[v1alpha1.NodeSpeaker])
	if err != nil {
		t.Fatal(err)
	}
	r.Interfaces[0].NoCarrier = true
	report(n, r)
}

func TestLostInterfacesMoveOwnersAndNobodyLeftKeepsThem(t *testing.T) {
	s := lanCluster(2, 2)
	s.advance()
	unplug(t, s.Nodes[0])
	if got := spread(s.advance()); !slices.Equal(got, []int{2}) {
		t.Fatalf("owners are spread %v", got)
	}
	unplug(t, s.Nodes[1])
	p := s.advance()
	if got := spread(p); !slices.Equal(got, []int{2}) || owners(p)["s00001"] != "node02" {
		t.Errorf("owners %v", owners(p))
	}
	if _, reason, _ := p.Services[0].Condition(); reason != "KeptLastNodes" {
		t.Errorf("reason %s", reason)
	}
}

// TestMissingReportMovesNothing: somebody removed the annotation, or it is cut.
func TestMissingReportMovesNothing(t *testing.T) {
	for _, text := range []string{"", "{", `{"version":"v1"}`} {
		s := lanCluster(3, 30)
		before := owners(s.advance())
		s.Nodes[0].Annotations[v1alpha1.NodeSpeaker] = text
		s.addService(31)
		p := s.advance()
		for svc, owner := range before {
			if owners(p)[svc] != owner {
				t.Fatalf("report %q: %s moved from %s to %s", text, svc, owner, owners(p)[svc])
			}
		}
		if owner := owners(p)["s00031"]; owner == "node01" {
			t.Errorf("report %q: a new address went to the node of which nothing is known", text)
		}
	}
}

// TestOnlyCapableNodeKeepsItsAddresses: nobody else could answer.
func TestOnlyCapableNodeKeepsItsAddresses(t *testing.T) {
	only := func() *State {
		s := lanCluster(5, 1)
		s.Pools[0].Spec.NodeSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"lan": "yes"}}
		s.Nodes[2].Labels["lan"] = "yes"
		s.advance()
		return s
	}
	for name, test := range map[string]struct {
		change func(*State, *corev1.Node)
		owner  string
		reason string
	}{
		"not ready":             {func(_ *State, n *corev1.Node) { setReady(n, corev1.ConditionUnknown) }, "node03", string(NotReady)},
		"excluded":              {func(_ *State, n *corev1.Node) { n.Labels[corev1.LabelNodeExcludeBalancers] = "" }, "node03", "KeptLastNodes"},
		"not selected":          {func(_ *State, n *corev1.Node) { delete(n.Labels, "lan") }, "node03", "KeptLastNodes"},
		"drained":               {func(_ *State, n *corev1.Node) { n.Annotations[v1alpha1.NodeDrain] = "true" }, "", string(Draining)},
		"not selected, drained": {func(_ *State, n *corev1.Node) { delete(n.Labels, "lan"); n.Annotations[v1alpha1.NodeDrain] = "true" }, "", string(NotSelected)},
		"excluded, not ready": {func(_ *State, n *corev1.Node) {
			n.Labels[corev1.LabelNodeExcludeBalancers] = ""
			setReady(n, corev1.ConditionUnknown)
		}, "", string(Excluded)},
		"not selected, no local": {func(s *State, n *corev1.Node) {
			delete(n.Labels, "lan")
			s.Services[0].Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
		}, "", string(NotSelected)},
	} {
		t.Run(name, func(t *testing.T) {
			s := only()
			test.change(s, s.Nodes[2])
			p := s.advance()
			_, reason, message := p.Services[0].Condition()
			if owner := owners(p)["s00001"]; owner != test.owner || reason != test.reason {
				t.Errorf("owner %q, %s: %s", owner, reason, message)
			}
		})
	}
}

func TestMassAbsenceOfSpeakersIsWaitedFor(t *testing.T) {
	s := lanCluster(5, 50)
	before := owners(s.advance())
	now := time.Unix(1e9, 0)
	s.SpeakersAway = make(map[string]time.Time)
	for i, pod := range s.SpeakerPods[:4] {
		setPodReady(pod, corev1.ConditionFalse)
		s.SpeakersAway[s.Nodes[i].Name] = now
	}
	s.Now = now.Add(2 * patience)
	p := s.advance()
	for svc, owner := range before {
		if owners(p)[svc] != owner {
			t.Fatalf("%s moved from %s to %s, which came first", svc, owner, owners(p)[svc])
		}
	}
	s.Now = now.Add(massPatience)
	if got := spread(s.advance()); !slices.Equal(got, []int{50}) {
		t.Errorf("owners are spread %v for ever", got)
	}
}

func TestUnwritableNodesGetNothing(t *testing.T) {
	s := lanCluster(3, 30)
	s.advance()
	s.Unwritable = map[string]bool{"node02": true}
	setReady(s.Nodes[0], corev1.ConditionUnknown)
	if got := spread(s.advance()); !slices.Equal(got, []int{30}) {
		t.Errorf("owners are spread %v, want all on the node that can be written", got)
	}
}

func TestHugeRangesAreNoMemory(t *testing.T) {
	s := lanCluster(3, 30)
	before := owners(s.advance())
	huge := s.Previous["node01"]
	huge.Groups = append(slices.Clone(huge.Groups), announce.Group{
		Pool: "x", Layer2: &announce.Layer2{Candidates: []string{"node01"}},
		Addresses: []announce.Range{announce.Range(netipx.MustParseIPRange("2001:db8::-2001:db8:ffff::"))},
	})
	s.Previous["node01"] = huge
	for svc, owner := range owners(Compute(s)) {
		if before[svc] != owner {
			t.Errorf("%s moved from %s to %s", svc, before[svc], owner)
		}
	}
}

// TestNodesGoOnToKnowEachOther: a node that is told whose MAC address claims its
// address reports that no longer, and must not forget it for that reason.
func TestNodesGoOnToKnowEachOther(t *testing.T) {
	s := lanCluster(smallLAN+2, 1)
	owner := s.advance().Services[0].Addresses[0].Layer2.Owner()
	at := slices.IndexFunc(s.Nodes, func(n *corev1.Node) bool { return n.Name == owner })
	stranger := smallLAN + 1
	r, err := announce.DecodeReport(s.Nodes[at].Annotations[v1alpha1.NodeSpeaker])
	if err != nil {
		t.Fatal(err)
	}
	r.Conflicts = []announce.Conflict{{Address: netip.MustParseAddr("198.18.0.1"), MAC: macOf(stranger)}}
	report(s.Nodes[at], r)
	told := s.advance().Programs[owner]
	r.Conflicts = nil
	report(s.Nodes[at], r)
	if after := s.advance().Programs[owner]; after.Hash != told.Hash {
		t.Errorf("the owner forgets node %s:\n%v", s.Nodes[stranger].Name, after.Nodes)
	}
}

func TestNoRoomForAnOwnedAddress(t *testing.T) {
	s := lanCluster(1, 1)
	p := s.advance()
	left := p.LeaveOut("node01", []announce.Range{announce.Single(netip.MustParseAddr("198.18.0.1"))})
	if len(left) != 1 {
		t.Fatalf("%d Services concerned", len(left))
	}
	if announced, reason, _ := p.Services[0].Condition(); announced || reason != string(NoRoom) {
		t.Errorf("condition %t %s", announced, reason)
	}
}

func BenchmarkComputeLayer2(b *testing.B) {
	for _, size := range []struct{ nodes, services int }{{10, 1000}, {100, 2000}, {1000, 10000}} {
		b.Run(fmt.Sprintf("nodes=%d/services=%d", size.nodes, size.services), func(b *testing.B) {
			s := lanCluster(size.nodes, size.services)
			s.advance()
			for b.Loop() {
				Compute(s)
			}
		})
	}
}
