package plan

import (
	"fmt"
	"math"
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

// tells changes what the i-th node's speaker reports.
func (s *State) tells(t testing.TB, i int, change func(*announce.Report)) {
	t.Helper()
	r, err := announce.DecodeReport(s.Nodes[i].Annotations[v1alpha1.NodeSpeaker])
	if err != nil {
		t.Fatal(err)
	}
	change(&r)
	report(s.Nodes[i], r)
}

// took reports that the i-th node took ranges over.
func (s *State) took(t testing.TB, i int, epoch, term uint32, ranges ...string) {
	t.Helper()
	takeover := announce.Takeover{Epoch: epoch, Term: term}
	for _, text := range ranges {
		var r announce.Range
		if err := r.UnmarshalText([]byte(text)); err != nil {
			t.Fatal(err)
		}
		takeover.Addresses = append(takeover.Addresses, r)
	}
	s.tells(t, i, func(r *announce.Report) { r.Takeovers = append(r.Takeovers, takeover) })
}

// lan is how the first Service's address is announced on the LAN, by the programs of
// all its candidates.
func (p *Plan) lan(t testing.TB) announce.Layer2 {
	t.Helper()
	a := &p.Services[0].Addresses[0]
	var told *announce.Layer2
	for _, name := range a.Layer2.Candidates {
		program := p.Programs[name]
		for _, g := range program.Groups {
			if g.Layer2 == nil || !g.Contains(a.From()) {
				continue
			}
			if told != nil && (told.Epoch != g.Layer2.Epoch || told.Probe != g.Layer2.Probe || !slices.Equal(told.Candidates, g.Layer2.Candidates)) {
				t.Fatalf("candidates are told different things: %+v, %+v", *told, *g.Layer2)
			}
			told = g.Layer2
		}
	}
	if told == nil {
		t.Fatal("nobody announces the address on the LAN")
	}
	return *told
}

func TestEpochsCountOwners(t *testing.T) {
	s := lanCluster(5, 1)
	if got := s.advance().lan(t); got.Epoch != 0 || got.Candidates[0] != "node01" {
		t.Fatalf("%+v of an address that is new", got)
	}
	standby := 1 + slices.IndexFunc(s.Nodes[1:], func(n *corev1.Node) bool { return n.Name == s.advance().lan(t).Candidates[1] })
	s.Nodes[standby].Annotations[v1alpha1.NodeDrain] = "true"
	if got := s.advance().lan(t); got.Epoch != 0 || slices.Contains(got.Candidates, s.Nodes[standby].Name) {
		t.Errorf("%+v after another standby was chosen, want epoch 0", got)
	}
	delete(s.Nodes[standby].Annotations, v1alpha1.NodeDrain)
	former := s.Previous["node01"]
	for want := uint32(1); want < 4; want++ {
		at := slices.IndexFunc(s.Nodes, func(n *corev1.Node) bool { return n.Name == s.advance().lan(t).Candidates[0] })
		s.Nodes[at].Annotations[v1alpha1.NodeDrain] = "true"
		for range 2 {
			if got := s.advance().lan(t); got.Epoch != want || got.Probe {
				t.Errorf("%+v after %d moves", got, want)
			}
		}
		delete(s.Nodes[at].Annotations, v1alpha1.NodeDrain)
	}
	// A node that was away has a program of the first owner, written late.
	former.Epoch = math.MaxInt64
	s.Previous["node01"] = former
	if got := s.advance().lan(t); got.Epoch != 3 {
		t.Errorf("%+v after an old program came back, want epoch 3", got)
	}
	// Without any program that tells of it, it is new.
	s.Previous = nil
	if got := s.advance().lan(t); got.Epoch != 0 || !got.Probe {
		t.Errorf("%+v without the past", got)
	}
}

func TestEpochsEnd(t *testing.T) {
	p := past{layer2: &announce.Layer2{Candidates: []string{"a"}, Epoch: math.MaxUint32}}
	if got := p.nextEpoch("b", 0); got != math.MaxUint32 {
		t.Errorf("epoch %d follows the last one", got)
	}
}

// TestTakeovers: three nodes, of which node01 owns 198.18.0.1, and node02 and node03
// stand by in this order.
func TestTakeovers(t *testing.T) {
	const other = "198.18.0.9" // another address
	for name, test := range map[string]struct {
		change func(t *testing.T, s *State)
		owner  string
		epoch  uint32
	}{
		"none":                {func(*testing.T, *State) {}, "node01", 0},
		"the owner lives":     {func(t *testing.T, s *State) { s.took(t, 1, 0, 1, "198.18.0.1") }, "node02", 1},
		"a range":             {func(t *testing.T, s *State) { s.took(t, 1, 0, 1, "198.18.0.0-198.18.0.5", other) }, "node02", 1},
		"by the second":       {func(t *testing.T, s *State) { s.took(t, 2, 0, 1, "198.18.0.1") }, "node03", 1},
		"by both":             {func(t *testing.T, s *State) { s.took(t, 1, 0, 1, "198.18.0.1"); s.took(t, 2, 0, 1, "198.18.0.1") }, "node02", 1},
		"by both, one later":  {func(t *testing.T, s *State) { s.took(t, 1, 0, 1, "198.18.0.1"); s.took(t, 2, 0, 2, "198.18.0.1") }, "node03", 1},
		"back by the owner":   {func(t *testing.T, s *State) { s.took(t, 1, 0, 1, "198.18.0.1"); s.took(t, 0, 0, 2, "198.18.0.1") }, "node01", 0},
		"by the owner":        {func(t *testing.T, s *State) { s.took(t, 0, 0, 1, "198.18.0.1") }, "node01", 0},
		"of a later epoch":    {func(t *testing.T, s *State) { s.took(t, 1, 6, 1, "198.18.0.1") }, "node02", 7},
		"an epoch nobody has": {func(t *testing.T, s *State) { s.took(t, 1, 6, 0, "198.18.0.1") }, "node02", 7},
		"by the owner, later": {func(t *testing.T, s *State) { s.took(t, 0, 6, 2, "198.18.0.1") }, "node01", 7},
		"another address":     {func(t *testing.T, s *State) { s.took(t, 1, 0, 1, other) }, "node01", 0},
		"another family":      {func(t *testing.T, s *State) { s.took(t, 1, 0, 1, "::-ffff::") }, "node01", 0},
		"by no candidate":     {func(t *testing.T, s *State) { s.took(t, 3, 0, 1, "198.18.0.1") }, "node01", 0},
		"without a term":      {func(t *testing.T, s *State) { s.took(t, 1, 0, 0, "198.18.0.1") }, "node01", 0},
		"overlapping ranges":  {func(t *testing.T, s *State) { s.took(t, 1, 0, 1, "198.18.0.1", "198.18.0.0-198.18.0.9") }, "node01", 0},
		"contradictory terms": {func(t *testing.T, s *State) { s.took(t, 1, 0, 1, "198.18.0.1"); s.took(t, 1, 0, 2, "198.18.0.1") }, "node01", 0},
		"all of the Internet": {func(t *testing.T, s *State) { s.took(t, 1, 0, 1, "0.0.0.0-255.255.255.255", "::-ffff::") }, "node02", 1},
		"by a draining node": {func(t *testing.T, s *State) {
			s.took(t, 1, 0, 1, "198.18.0.1")
			s.Nodes[1].Annotations[v1alpha1.NodeDrain] = "true"
		}, "node01", 0},
		"by a node that is away": {func(t *testing.T, s *State) {
			s.took(t, 1, 0, 1, "198.18.0.1")
			setReady(s.Nodes[1], corev1.ConditionUnknown)
		}, "node01", 0},
		"while the owner drains": {func(t *testing.T, s *State) {
			s.took(t, 2, 0, 1, "198.18.0.1")
			s.Nodes[0].Annotations[v1alpha1.NodeDrain] = "true"
		}, "node03", 1},
		"though a fellow hears it": {func(t *testing.T, s *State) {
			s.took(t, 1, 0, 1, "198.18.0.1")
			s.hears(t, 2, "node01")
			setReady(s.Nodes[0], corev1.ConditionUnknown)
		}, "node02", 1},
		"the owner's Node is gone": {func(t *testing.T, s *State) { s.took(t, 2, 0, 1, "198.18.0.1"); s.Nodes = s.Nodes[1:] }, "node03", 1},
		"too large a report": {func(t *testing.T, s *State) {
			s.took(t, 1, 0, 1, "198.18.0.1")
			s.tells(t, 1, func(r *announce.Report) { r.Problems = []string{strings.Repeat("x", 32<<10)} })
		}, "node01", 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := lanCluster(4, 1)
			s.advance()
			if got := s.advance().lan(t).Candidates; !slices.Equal(got, []string{"node01", "node02", "node03"}) {
				t.Fatalf("candidates %v", got)
			}
			test.change(t, s)
			for range 2 { // the second time, the plan is official and the report is old
				got := s.advance().lan(t)
				if got.Candidates[0] != test.owner || got.Epoch != test.epoch || got.Probe != (test.owner == "node01") {
					t.Errorf("%+v, want owner %s, epoch %d", got, test.owner, test.epoch)
				}
			}
		})
	}
}

// hears reports whom the i-th node hears.
func (s *State) hears(t testing.TB, i int, names ...string) {
	t.Helper()
	s.tells(t, i, func(r *announce.Report) { r.Hears = names })
}

// TestATakeoverNeedsNoQuestion: the owner before found the address in use, and yet
// the node that took it over answers already.
func TestATakeoverNeedsNoQuestion(t *testing.T) {
	s := lanCluster(3, 1)
	s.advance()
	s.tells(t, 0, func(r *announce.Report) {
		r.Conflicts = []announce.Conflict{{Address: netip.MustParseAddr("198.18.0.1"), Held: true}}
	})
	s.took(t, 1, 0, 1, "198.18.0.1")
	if got := s.advance().lan(t); got.Probe || got.Candidates[0] != "node02" {
		t.Errorf("%+v", got)
	}
}

// TestTakeoversStay: what nodes took over is not evened out.
func TestTakeoversStay(t *testing.T) {
	s := lanCluster(3, 30)
	s.advance()
	s.took(t, 1, 0, 1, "0.0.0.0-255.255.255.255")
	for range 3 {
		if got := spread(s.advance()); !slices.Equal(got, []int{30}) {
			t.Fatalf("owners are spread %v", got)
		}
	}
}

func TestOwnersThatAreHeardStay(t *testing.T) {
	unready := func(s *State) { setReady(s.Nodes[0], corev1.ConditionUnknown) }
	silent := func(s *State) {
		unready(s)
		setPodReady(s.SpeakerPods[0], corev1.ConditionFalse)
	}
	away := func(s *State) { setPodReady(s.SpeakerPods[0], corev1.ConditionFalse) }
	for name, test := range map[string]struct {
		change func(t *testing.T, s *State)
		stays  bool
		text   string
	}{
		"not ready":               {func(t *testing.T, s *State) { unready(s) }, false, ""},
		"not ready, heard":        {func(t *testing.T, s *State) { unready(s); s.hears(t, 1, "node01") }, true, "that node is not Ready, but nodes that stand by hear it"},
		"silent, heard":           {func(t *testing.T, s *State) { silent(s); s.hears(t, 2, "node01") }, true, "that node is not Ready, but nodes that stand by hear it"},
		"away":                    {func(t *testing.T, s *State) { away(s) }, false, ""},
		"away, heard":             {func(t *testing.T, s *State) { away(s); s.hears(t, 1, "node02", "node01", "nobody", "node01") }, true, "its speaker is not running, but nodes that stand by hear it"},
		"away, another one heard": {func(t *testing.T, s *State) { away(s); s.hears(t, 1, "node03") }, false, ""},
		"heard by itself":         {func(t *testing.T, s *State) { unready(s); s.hears(t, 0, "node01") }, false, ""},
		"heard by no candidate":   {func(t *testing.T, s *State) { unready(s); s.hears(t, 3, "node01") }, false, ""},
		"heard by one that drains": {func(t *testing.T, s *State) {
			away(s)
			s.hears(t, 1, "node01")
			s.Nodes[1].Annotations[v1alpha1.NodeDrain] = "true"
		}, false, ""},
		"heard by one that is away": {func(t *testing.T, s *State) {
			away(s)
			s.hears(t, 1, "node01")
			setPodReady(s.SpeakerPods[1], corev1.ConditionFalse)
		}, false, ""},
		"draining": {func(t *testing.T, s *State) {
			unready(s)
			s.hears(t, 1, "node01")
			s.Nodes[0].Annotations[v1alpha1.NodeDrain] = "true"
		}, false, ""},
		"excluded": {func(t *testing.T, s *State) {
			unready(s)
			s.hears(t, 1, "node01")
			s.Nodes[0].Labels[corev1.LabelNodeExcludeBalancers] = ""
		}, false, ""},
		"deleted": {func(t *testing.T, s *State) { s.hears(t, 1, "node01"); s.Nodes = s.Nodes[1:] }, false, ""},
		"on its way": {func(t *testing.T, s *State) {
			s.hears(t, 1, "node01")
			s.Nodes[0].DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)}
		}, false, ""},
		"not selected": {func(t *testing.T, s *State) { unready(s); s.hears(t, 1, "node01"); s.Nodes[0].Labels["lan"] = "no" }, false, ""},
		"leaving": {func(t *testing.T, s *State) {
			unready(s)
			s.hears(t, 1, "node01")
			s.tells(t, 0, func(r *announce.Report) { r.Leaving = true })
		}, false, ""},
		"not forwarding": {func(t *testing.T, s *State) {
			unready(s)
			s.hears(t, 1, "node01")
			s.tells(t, 0, func(r *announce.Report) { r.NotForwarding = "503" })
		}, false, ""},
		"unplugged": {func(t *testing.T, s *State) { unready(s); s.hears(t, 1, "node01"); unplug(t, s.Nodes[0]) }, false, ""},
		"unreadable": {func(t *testing.T, s *State) {
			unready(s)
			s.hears(t, 1, "node01")
			s.Nodes[0].Annotations[v1alpha1.NodeSpeaker] = "{"
		}, true, "that node is not Ready"},
		"no endpoint": {func(t *testing.T, s *State) {
			unready(s)
			s.hears(t, 1, "node01")
			s.Services[0].Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
			s.EndpointSlices = []*discoveryv1.EndpointSlice{{
				ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "s", Labels: map[string]string{discoveryv1.LabelServiceName: s.Services[0].Name}},
				Endpoints:  []discoveryv1.Endpoint{{NodeName: ptr.To("node02")}},
			}}
		}, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := lanCluster(4, 1)
			s.Pools[0].Spec.NodeSelector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "lan", Operator: metav1.LabelSelectorOpDoesNotExist}}}
			s.advance()
			if got := s.advance().lan(t).Candidates; !slices.Equal(got, []string{"node01", "node02", "node03"}) {
				t.Fatalf("candidates %v", got)
			}
			s.Now = time.Unix(1e9, 0)
			s.SpeakersAway = map[string]time.Time{"node01": time.Unix(1, 0), "node02": time.Unix(1, 0)}
			test.change(t, s)
			for range 2 {
				p := s.advance()
				got := p.lan(t)
				if stays := got.Candidates[0] == "node01"; stays != test.stays {
					t.Fatalf("candidates %v", got.Candidates)
				}
				announced, reason, message := p.Services[0].Condition()
				if !announced || reason != "Announced" || !strings.Contains(message, test.text) {
					t.Errorf("condition %t %s: %s", announced, reason, message)
				}
				if test.stays && !p.Next.IsZero() {
					t.Errorf("another plan at %v, want none: there is no limit of time", p.Next)
				}
			}
		})
	}
}

// TestNodesThatDoNotForward: node01 and node02 own one address each.
func TestNodesThatDoNotForward(t *testing.T) {
	for name, test := range map[string]struct {
		nodes   int
		without []int
		owners  []string
		reason  string
	}{
		"one":               {nodes: 4, without: []int{0}, owners: []string{"node02", "node02"}, reason: "Announced"},
		"one of two":        {nodes: 2, without: []int{0}, owners: []string{"node02", "node02"}, reason: "Announced"},
		"the only one":      {nodes: 1, without: []int{0}, owners: []string{"node01", "node01"}, reason: "KeptLastNodes"},
		"two of four":       {nodes: 4, without: []int{0, 1}, owners: []string{"node01", "node02"}, reason: "KeptLastNodes"},
		"two of six":        {nodes: 6, without: []int{0, 1}, owners: []string{"node03", "node03"}, reason: "Announced"},
		"all":               {nodes: 3, without: []int{0, 1, 2}, owners: []string{"node01", "node02"}, reason: "KeptLastNodes"},
		"nobody who has it": {nodes: 4, without: []int{3}, owners: []string{"node01", "node02"}, reason: "Announced"},
	} {
		t.Run(name, func(t *testing.T) {
			s := lanCluster(test.nodes, 2)
			s.advance()
			before := s.advance()
			for _, i := range test.without {
				s.tells(t, i, func(r *announce.Report) { r.NotForwarding = "kube-proxy answers 503" })
			}
			p := s.advance()
			for i, want := range test.owners {
				if got := p.Services[i].Addresses[0].Layer2.Owner(); got != want {
					t.Errorf("%s owns %s, want %s", got, p.Services[i].Name, want)
				}
			}
			announced, reason, message := p.Services[0].Condition()
			if !announced || reason != test.reason || (reason == "KeptLastNodes") != strings.Contains(message, "look at kube-proxy") {
				t.Errorf("condition %t %s: %s", announced, reason, message)
			}
			if len(test.without) > 1 && reason == "KeptLastNodes" {
				if got, want := p.lan(t).Candidates, before.lan(t).Candidates; !slices.Equal(got, want) {
					t.Errorf("candidates %v, want %v: so many nodes are no reason to change them", got, want)
				}
				// What is new goes to a node that forwards, if there is one.
				s.addService(3)
				owner, most := owners(s.advance())["s00003"], slices.Max(test.without)
				if test.nodes > len(test.without) && owner <= fmt.Sprintf("node%02d", most+1) {
					t.Errorf("a new address went to %s", owner)
				}
			}
		})
	}
	// A speaker that does not run says nothing.
	s := lanCluster(3, 1)
	s.advance()
	s.tells(t, 0, func(r *announce.Report) { r.NotForwarding = "kube-proxy answers 503" })
	setPodReady(s.SpeakerPods[0], corev1.ConditionFalse)
	if owner := owners(s.advance())["s00001"]; owner != "node01" {
		t.Errorf("the address went to %s", owner)
	}
	// Nobody is left for a new address.
	s = lanCluster(1, 1)
	s.tells(t, 0, func(r *announce.Report) { r.NotForwarding = "kube-proxy answers 503" })
	if _, reason, message := s.advance().Services[0].Condition(); reason != string(NotForwarding) || !strings.Contains(message, "kube-proxy") {
		t.Errorf("reason %s: %s", reason, message)
	}
}

// TestHeirs: who inherits is who claims the address; who is asked to leave it leaves
// it to the node with the fewest.
func TestHeirs(t *testing.T) {
	for name, test := range map[string]struct {
		change   func(t *testing.T, s *State)
		inherits bool
	}{
		"not ready": {func(_ *testing.T, s *State) { setReady(s.Nodes[0], corev1.ConditionUnknown) }, true},
		"speaker away": {func(_ *testing.T, s *State) {
			setPodReady(s.SpeakerPods[0], corev1.ConditionFalse)
			s.Now, s.SpeakersAway = time.Unix(1e9, 0), map[string]time.Time{"node01": time.Unix(1, 0)}
		}, true},
		"leaving":        {func(t *testing.T, s *State) { s.tells(t, 0, func(r *announce.Report) { r.Leaving = true }) }, true},
		"not forwarding": {func(t *testing.T, s *State) { s.tells(t, 0, func(r *announce.Report) { r.NotForwarding = "503" }) }, true},
		"unplugged":      {func(t *testing.T, s *State) { unplug(t, s.Nodes[0]) }, true},
		"drained":        {func(_ *testing.T, s *State) { s.Nodes[0].Annotations[v1alpha1.NodeDrain] = "true" }, false},
		"excluded":       {func(_ *testing.T, s *State) { s.Nodes[0].Labels[corev1.LabelNodeExcludeBalancers] = "" }, false},
		"drained, then not ready": {func(_ *testing.T, s *State) {
			s.Nodes[0].Annotations[v1alpha1.NodeDrain] = "true"
			setReady(s.Nodes[0], corev1.ConditionUnknown)
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := lanCluster(8, 80)
			before := s.advance()
			// The last node is new, and has nothing.
			test.change(t, s)
			s.addNode(9)
			after := s.advance()
			var wants []Move
			for i := range before.Services {
				was, is := before.Services[i].Addresses[0].Layer2.Candidates, after.Services[i].Addresses[0].Layer2.Owner()
				if was[0] != "node01" {
					if is != was[0] {
						t.Errorf("an address of %s moved to %s", was[0], is)
					}
					continue
				}
				if inherits := is == was[1]; inherits != test.inherits {
					t.Errorf("an address went to %s, the first of %v stood by", is, was[1:])
				}
				at := slices.IndexFunc(wants, func(m Move) bool { return m.To == is })
				if at < 0 {
					at = len(wants)
					wants = append(wants, Move{From: "node01", To: is})
				}
				wants[at].Addresses++
			}
			if !test.inherits {
				wants = nil
			}
			slices.SortFunc(wants, func(a, b Move) int { return strings.Compare(a.To, b.To) })
			if !slices.EqualFunc(after.Moves, wants, func(got, want Move) bool {
				return got.From == want.From && got.To == want.To && got.Addresses == want.Addresses && !got.TakenOver && got.Why() != ""
			}) {
				t.Errorf("moves %+v, want %+v", after.Moves, wants)
			}
			if again := s.advance(); len(again.Moves) > 0 {
				t.Errorf("moves are told again: %+v", again.Moves)
			}
		})
	}
	// The second inherits where the first cannot.
	s := lanCluster(7, 1)
	candidates := s.advance().lan(t).Candidates
	for _, n := range s.Nodes {
		if n.Name == candidates[0] || n.Name == candidates[1] {
			setReady(n, corev1.ConditionUnknown)
		}
	}
	if owner := s.advance().lan(t).Candidates[0]; owner != candidates[2] {
		t.Errorf("%s inherits, of %v", owner, candidates)
	}
}

// addNode adds another node like the others of a lanCluster.
func (s *State) addNode(number int) {
	larger := lanCluster(number, 0)
	s.Nodes = append(s.Nodes, larger.Nodes[number-1])
	s.SpeakerPods = append(s.SpeakerPods, larger.SpeakerPods[number-1])
}

func TestMovesOfTakeovers(t *testing.T) {
	s := lanCluster(3, 30)
	s.advance()
	setReady(s.Nodes[0], corev1.ConditionUnknown)
	s.took(t, 1, 0, 1, "198.18.0.1-198.18.0.12")
	want := []Move{
		{From: "node01", To: "node02", Verdict: NotReady, Addresses: 3},
		{From: "node01", To: "node03", Verdict: NotReady, Addresses: 3},
		{From: "node01", To: "node02", Verdict: NotReady, TakenOver: true, Addresses: 4},
		{From: "node03", To: "node02", Verdict: Spare, TakenOver: true, Addresses: 4},
	}
	if got := s.advance().Moves; !slices.Equal(got, want) {
		t.Errorf("moves %+v, want %+v", got, want)
	}
}

// TestLinksOfFellows: programs tell the interfaces of nodes that share addresses, and
// of no others.
func TestLinksOfFellows(t *testing.T) {
	s := lanCluster(10, 2)
	s.tells(t, 1, func(r *announce.Report) {
		r.Interfaces = append(r.Interfaces,
			announce.Interface{Name: "eth1", MAC: "02:00:5e:00:54:01", NoCarrier: true},
			announce.Interface{Name: "eth2", MAC: "02:00:5e:00:54:02", Prefixes: []netip.Prefix{
				netip.MustParsePrefix("192.0.2.9/24"), netip.MustParsePrefix("::ffff:192.0.2.9/120"), {},
			}},
			announce.Interface{Name: "ib0", MAC: "00:00:00:00:fe:80:00:00:00:00:00:00:02:00:5e:10:00:00:00:01"},
			announce.Interface{Name: "tun0"})
	})
	p := s.advance()
	for _, name := range []string{"node01", "node02", "node09"} {
		program := p.Programs[name]
		var fellows []string
		for _, g := range program.Groups {
			fellows = append(fellows, g.Layer2.Candidates...)
		}
		for _, n := range program.Nodes {
			if want := n.Name != name && slices.Contains(fellows, n.Name); want != (len(n.Links) > 0) {
				t.Errorf("%s is told %d links of %s, with which it shares addresses: %t", name, len(n.Links), n.Name, want)
			}
			if n.Name != "node02" || len(n.Links) == 0 {
				continue
			}
			want := []string{"02:00:5e:00:53:02 [198.18.255.2/16]", "02:00:5e:00:54:01 []", "02:00:5e:00:54:02 [192.0.2.9/24]"}
			if got := linkTexts(n.Links); !slices.Equal(got, want) {
				t.Errorf("links %q, want %q", got, want)
			}
		}
		// Its speaker reads what it is told.
		text, err := announce.Encode(program)
		if err == nil {
			_, err = announce.Decode(text)
		}
		if err != nil {
			t.Errorf("the program of %s: %v", name, err)
		}
	}
	// However many there are, they have room.
	s.tells(t, 1, func(r *announce.Report) {
		for i := range 300 {
			r.Interfaces = append(r.Interfaces, announce.Interface{Name: fmt.Sprint("vlan", i), MAC: macOf(100).String()})
		}
	})
	program := s.advance().Programs["node01"]
	at := slices.IndexFunc(program.Nodes, func(n announce.Node) bool { return n.Name == "node02" })
	if got := len(program.Nodes[at].Links); got == 0 || got > maxLinks {
		t.Errorf("%d links", got)
	}
}

func linkTexts(links []announce.Link) (texts []string) {
	for _, l := range links {
		texts = append(texts, fmt.Sprint(l.MAC, " ", l.Prefixes))
	}
	return texts
}

// TestReportsThatSayTheSame give the same programs: nothing is written.
func TestReportsThatSayTheSame(t *testing.T) {
	s := lanCluster(4, 40)
	before := s.advance()
	s.hears(t, 1, "node01", "node03")
	s.hears(t, 2, "node04", "node02", "node01")
	s.took(t, 3, 0, 0, "198.18.0.0-198.18.255.255")
	for name, program := range s.advance().Programs {
		if program.Hash != before.Programs[name].Hash {
			t.Errorf("%s has another program", name)
		}
	}
}

// TestClaimsAgainstSets: a claim is what a set of each takeover would hold.
func TestClaimsAgainstSets(t *testing.T) {
	takeovers := []announce.Takeover{
		{Epoch: 1, Term: 3, Addresses: ranges(t, "198.18.0.5-198.18.0.9", "198.18.0.20")},
		{Epoch: 0, Term: 1, Addresses: ranges(t, "198.18.0.1-198.18.0.4", "2001:db8::-2001:db8::5")},
		{Epoch: 1, Term: 2, Addresses: ranges(t, "198.18.0.11-198.18.0.19", "255.255.255.255")},
	}
	all := newClaims(takeovers)
	for _, addr := range slices.Collect(ranges(t, "198.18.0.0-198.18.0.22")[0].All()) {
		for epoch := range uint32(3) {
			var want claim
			for _, takeover := range takeovers {
				for _, r := range takeover.Addresses {
					if takeover.Epoch >= epoch && netipx.IPRange(r).Contains(addr) {
						want = claim{r, takeover.Epoch, takeover.Term}
					}
				}
			}
			if got := all.on(addr, epoch); got != want {
				t.Errorf("%+v on %s beyond epoch %d, want %+v", got, addr, epoch, want)
			}
		}
	}
}

func ranges(t testing.TB, texts ...string) (all []announce.Range) {
	t.Helper()
	for _, text := range texts {
		var r announce.Range
		if err := r.UnmarshalText([]byte(text)); err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

// FuzzReport: whatever a speaker reports, each program can be read, and addresses that
// its node does not stand by for stay where they are.
func FuzzReport(f *testing.F) {
	for _, seed := range []string{
		"", "{", `{"leaving":true}`, `{"notForwarding":"503"}`, `{"hears":["node01","node01","x"]}`,
		`{"interfaces":[{"name":"eth0","mac":"02:00:5e:00:53:04","prefixes":["198.18.0.1/16"]}],"hears":["node01"],` +
			`"takeovers":[{"epoch":0,"term":1,"addresses":["198.18.0.1-198.18.0.9"]}]}`,
		`{"interfaces":[{"name":"a","mac":"02:00:5e:00:53:04","prefixes":["::ffff:192.0.2.1/120","","198.18.9.9/16"]}]}`,
		`{"takeovers":[{"term":1,"addresses":["0.0.0.0-255.255.255.255"]},{"term":4294967295,"addresses":["::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]}]}`,
		`{"takeovers":[{"term":1,"addresses":["198.18.0.1","198.18.0.1"]},{"addresses":[null]},{"epoch":4294967295,"term":1}]}`,
	} {
		f.Add(seed)
	}
	s := lanCluster(8, 12)
	before := s.advance()
	f.Fuzz(func(t *testing.T, text string) {
		const name = "node04"
		s.Nodes[3].Annotations[v1alpha1.NodeSpeaker] = text
		p := Compute(s)
		for i := range p.Services {
			was, is := before.Services[i].Addresses[0].Layer2, p.Services[i].Addresses[0].Layer2
			if !slices.Contains(was.Candidates, name) && was.Owner() != is.Owner() {
				t.Errorf("%s moved from %s to %s", p.Services[i].Name, was.Owner(), is.Owner())
			}
		}
		for node, program := range p.Programs {
			encoded, err := announce.Encode(program)
			if err == nil {
				_, err = announce.Decode(encoded)
			}
			if err != nil {
				t.Errorf("the program of %s: %v", node, err)
			}
		}
	})
}

// BenchmarkTakeover plans after a node with a share of 10,000 addresses died, and its
// fellows said that they took these over.
func BenchmarkTakeover(b *testing.B) {
	for _, nodes := range []int{10, 1000} {
		b.Run(fmt.Sprintf("nodes=%d", nodes), func(b *testing.B) {
			s := lanCluster(nodes, 10000)
			before := s.advance()
			taken := make(map[string][]string)
			for i := range before.Services {
				if o := before.Services[i].Addresses[0].Layer2; o.Owner() == "node01" {
					taken[o.Candidates[1]] = append(taken[o.Candidates[1]], before.Services[i].Addresses[0].From().String())
				}
			}
			for i, n := range s.Nodes {
				s.took(b, i, 0, 1, taken[n.Name]...)
			}
			setReady(s.Nodes[0], corev1.ConditionUnknown)
			for b.Loop() {
				Compute(s)
			}
		})
	}
}
