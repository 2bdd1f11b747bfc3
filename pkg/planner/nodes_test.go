package planner

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/client-go/kubernetes/fake"
	ktesting "k8s.io/client-go/testing"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/plan"
)

// programOf announces the addresses.
func programOf(epoch int64, addresses ...string) announce.Program {
	p := announce.Program{Epoch: epoch, Cluster: "c"}
	for _, a := range addresses {
		p.Groups = append(p.Groups, announce.Group{Pool: "lan", BGP: &announce.BGP{}, Addresses: []announce.Range{announce.Single(netip.MustParseAddr(a))}})
	}
	p.Normalize()
	return p
}

func encoded(t testing.TB, p announce.Program) string {
	t.Helper()
	text, err := announce.Encode(p)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func nodeAt(resourceVersion, name string, announcements ...string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, UID: "u", ResourceVersion: resourceVersion}}
	for _, value := range announcements {
		n.Annotations = map[string]string{v1alpha1.NodeAnnouncements: value}
	}
	return n
}

func TestProgramsOfNodes(t *testing.T) {
	old, own, other := programOf(1, "203.0.113.1"), programOf(2, "203.0.113.2"), programOf(3, "203.0.113.3")
	afterOwnWrite := map[string]knownProgram{"a": {value: encoded(t, own), program: own, resourceVersion: 20}}
	for name, test := range map[string]struct {
		known map[string]knownProgram
		node  *corev1.Node
		want  announce.Program // zero for none
		epoch int64            // that the next one has to exceed
	}{
		"no announcements":                    {node: nodeAt("10", "a")},
		"read from the Node":                  {node: nodeAt("10", "a", encoded(t, old)), want: old, epoch: 1},
		"malformed":                           {node: nodeAt("10", "a", "{")},
		"malformed base64":                    {node: nodeAt("10", "a", "H4sI!")},
		"empty":                               {node: nodeAt("10", "a", "")},
		"edited, so that the hash is wrong":   {node: nodeAt("10", "a", `{"version":1,"epoch":9,"hash":"00"}`)},
		"a cache older than our write":        {known: afterOwnWrite, node: nodeAt("19", "a", encoded(t, old)), want: own, epoch: 2},
		"a malformed cache older than ours":   {known: afterOwnWrite, node: nodeAt("19", "a", "{"), want: own, epoch: 2},
		"an empty cache older than our write": {known: afterOwnWrite, node: nodeAt("19", "a"), want: own, epoch: 2},
		"the cache of our write":              {known: afterOwnWrite, node: nodeAt("20", "a", encoded(t, own)), want: own, epoch: 2},
		"our write and a later heartbeat":     {known: afterOwnWrite, node: nodeAt("25", "a", encoded(t, own)), want: own, epoch: 2},
		"written by others after us":          {known: afterOwnWrite, node: nodeAt("21", "a", encoded(t, other)), want: other, epoch: 3},
		"removed after us":                    {known: afterOwnWrite, node: nodeAt("21", "a"), epoch: 2},
		"made malformed after us":             {known: afterOwnWrite, node: nodeAt("21", "a", "{"), epoch: 2},
		"an older one written after us":       {known: afterOwnWrite, node: nodeAt("21", "a", encoded(t, old)), want: old, epoch: 2},
		"versions that cannot be compared":    {known: map[string]knownProgram{"a": {value: encoded(t, own), program: own}}, node: nodeAt("x", "a", encoded(t, old)), want: old, epoch: 2},
	} {
		t.Run(name, func(t *testing.T) {
			w := newNodeWriter(nil)
			for n, k := range test.known {
				w.known[n] = k
			}
			for range 2 { // twice: from the annotation, and from memory
				got, ok := w.programs([]*corev1.Node{test.node})["a"]
				if ok != (test.want.Hash != "") || got.Hash != test.want.Hash {
					t.Errorf("program %+v; want %+v", got, test.want)
				}
				if epoch := max(w.known["a"].program.Epoch, w.known["a"].floor); epoch != test.epoch {
					t.Errorf("the next epoch has to exceed %d; want %d", epoch, test.epoch)
				}
			}
		})
	}
}

func TestNodesThatAreGoneAreForgotten(t *testing.T) {
	w := newNodeWriter(fake.NewClientset(nodeAt("", "a"), nodeAt("", "b")))
	nodes := []*corev1.Node{nodeAt("1", "a"), nodeAt("1", "b")}
	result := &plan.Plan{Programs: map[string]announce.Program{"a": programOf(0, "203.0.113.1"), "b": programOf(0)}}
	if _, err := w.write(t.Context(), nodes, result); err != nil {
		t.Fatal(err)
	}
	w.programs([]*corev1.Node{nodeAt("2", "b", w.known["b"].value)})
	if len(w.known) != 1 || len(w.sent) != 1 || w.known["b"].program.Hash == "" || w.sent["b"] == "" {
		t.Errorf("known %v, sent %v; want those of b", w.known, w.sent)
	}
}

func TestWroteTellsOurProgramsFromOthers(t *testing.T) {
	client := fake.NewClientset(nodeAt("", "a"))
	w := newNodeWriter(client)
	node := nodeAt("1", "a")
	if w.wrote(node) {
		t.Error("wrote nothing yet")
	}
	// The event may come before the response.
	var early bool
	client.PrependReactor("patch", "nodes", func(action ktesting.Action) (bool, runtime.Object, error) {
		value := w.sent["a"]
		early = w.wrote(nodeAt("2", "a", value))
		return false, nil, nil
	})
	result := &plan.Plan{Programs: map[string]announce.Program{"a": programOf(0, "203.0.113.1")}}
	if _, err := w.write(t.Context(), []*corev1.Node{node}, result); err != nil {
		t.Fatal(err)
	}
	value := w.known["a"].value
	for name, test := range map[string]struct {
		got, want bool
	}{
		"before the response": {early, true},
		"ours":                {w.wrote(nodeAt("2", "a", value)), true},
		"edited":              {w.wrote(nodeAt("3", "a", value+" ")), false},
		"removed":             {w.wrote(nodeAt("3", "a")), false},
		"another node's":      {w.wrote(nodeAt("3", "b", value)), false},
	} {
		if test.got != test.want {
			t.Errorf("%s: %t; want %t", name, test.got, test.want)
		}
	}
	w.forget()
	if w.wrote(nodeAt("2", "a", value)) {
		t.Error("a later term knows what an earlier one wrote")
	}
}

// recordWrites returns what tells the names of the nodes in the order of the
// writes to them.
func recordWrites(client *fake.Clientset) func() []string {
	var (
		mu    sync.Mutex
		names []string
	)
	client.PrependReactor("patch", "nodes", func(action ktesting.Action) (bool, runtime.Object, error) {
		mu.Lock()
		defer mu.Unlock()
		names = append(names, action.(ktesting.PatchAction).GetName())
		return false, nil, nil
	})
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(names)
	}
}

func TestGainersAreWrittenFirst(t *testing.T) {
	programs := map[string]announce.Program{}
	var nodes []*corev1.Node
	client := fake.NewClientset()
	for i := range 40 {
		name := fmt.Sprintf("n%02d", i)
		had, gets := []string{"203.0.113.1", "203.0.113.2"}, []string{"203.0.113.1"} // loses
		switch {
		case i%4 == 1:
			gets = []string{"203.0.113.3"} // gains and loses
		case i%4 == 3:
			gets = had // keeps
		}
		nodes = append(nodes, nodeAt("1", name, encoded(t, programOf(1, had...))))
		programs[name] = programOf(0, gets...)
		if err := client.Tracker().Add(nodes[i]); err != nil {
			t.Fatal(err)
		}
	}
	written := recordWrites(client)
	w := newNodeWriter(client)
	w.programs(nodes)
	if _, err := w.write(t.Context(), nodes, &plan.Plan{Programs: programs}); err != nil {
		t.Fatal(err)
	}
	order := written()
	if len(order) != 30 {
		t.Fatalf("%d nodes were written; want 30: those that change", len(order))
	}
	for i, name := range order {
		gains := programs[name].Hash == programOf(0, "203.0.113.3").Hash
		if gains != (i < 10) {
			t.Errorf("node %s, which gains: %t, is number %d of %v", name, gains, i, order)
		}
	}
}

func TestGains(t *testing.T) {
	ranged := programOf(1, "203.0.113.1", "203.0.113.2", "203.0.113.3", "2001:db8::1")
	edge := announce.Program{Groups: []announce.Group{{BGP: &announce.BGP{}, Addresses: []announce.Range{announce.Single(netip.MustParseAddr("255.255.255.255"))}}}}
	for name, test := range map[string]struct {
		next, previous announce.Program
		want           bool
	}{
		"nothing":           {programOf(1), programOf(1), false},
		"the first":         {ranged, programOf(1), true},
		"all lost":          {programOf(1), ranged, false},
		"equal":             {ranged, ranged, false},
		"a part":            {programOf(1, "203.0.113.2"), ranged, false},
		"one at the end":    {programOf(1, "203.0.113.2", "203.0.113.3", "203.0.113.4"), ranged, true},
		"the other family":  {programOf(1, "203.0.113.2", "2001:db8::2"), ranged, true},
		"the last address":  {edge, ranged, true},
		"the last again":    {edge, edge, false},
		"without a program": {ranged, announce.Program{}, true},
	} {
		if got := gains("a", &test.next, &test.previous); got != test.want {
			t.Errorf("%s: %t; want %t", name, got, test.want)
		}
	}
}

func TestEpochsGrow(t *testing.T) {
	future := time.Now().Add(time.Hour).UnixMilli()
	for name, test := range map[string]struct {
		had  []string // one after the other
		over int64
	}{
		"the first":                       {nil, time.Now().Add(-time.Minute).UnixMilli()},
		"a clock ahead":                   {[]string{encoded(t, programOf(future, "203.0.113.9"))}, future},
		"malformed after a clock ahead":   {[]string{encoded(t, programOf(future, "203.0.113.9")), "{"}, future},
		"older after a clock ahead":       {[]string{encoded(t, programOf(future, "203.0.113.9")), encoded(t, programOf(5, "203.0.113.8"))}, future},
		"removed after a clock ahead":     {[]string{encoded(t, programOf(future, "203.0.113.9")), ""}, future},
		"the last of all is no dead end":  {[]string{encoded(t, programOf(math.MaxInt64, "203.0.113.9"))}, 0},
		"negative, from a malicious hand": {[]string{encoded(t, programOf(-5, "203.0.113.9"))}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			w := newNodeWriter(fake.NewClientset(nodeAt("", "a")))
			node := nodeAt("0", "a")
			for i, value := range test.had {
				node = nodeAt(fmt.Sprint(i+1), "a", value)
				w.programs([]*corev1.Node{node})
			}
			last := test.over
			for _, address := range []string{"203.0.113.1", "203.0.113.2"} {
				result := &plan.Plan{Programs: map[string]announce.Program{"a": programOf(0, address)}}
				if _, err := w.write(t.Context(), []*corev1.Node{node}, result); err != nil {
					t.Fatal(err)
				}
				p, err := announce.Decode(w.known["a"].value)
				if err != nil {
					t.Fatal(err)
				}
				if p.Epoch <= last {
					t.Errorf("epoch %d after %d", p.Epoch, last)
				}
				last = p.Epoch
			}
		})
	}
}

// incompressible returns texts of together n random bytes, each in base64.
func incompressible(n int) (texts []string) {
	random := rand.NewChaCha8([32]byte{})
	part := make([]byte, 1500)
	for ; n > 0; n -= len(part) {
		_, _ = random.Read(part) // never fails
		texts = append(texts, base64.StdEncoding.EncodeToString(part))
	}
	return texts
}

func TestOneNodeDoesNotHoldUpTheOthers(t *testing.T) {
	// Sessions are never left out, so that these are too many.
	tooLarge := programOf(0)
	for i, name := range incompressible(announce.MaxEncoded + 50000) {
		tooLarge.Peers = append(tooLarge.Peers, announce.Peer{
			Name: name, LocalASN: 1, PeerASN: 1, Port: 179, Address: netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}),
		})
	}
	tooLarge.RouterID = netip.MustParseAddr("192.0.2.1")
	tooLarge.Normalize()
	nodes := []*corev1.Node{nodeAt("1", "a"), nodeAt("1", "b"), nodeAt("1", "c"), nodeAt("1", "d"), nodeAt("1", "e")}
	client := fake.NewClientset(nodes[0], nodes[1], nodes[2], nodes[4])
	client.PrependReactor("patch", "nodes", func(action ktesting.Action) (bool, runtime.Object, error) {
		if action.(ktesting.PatchAction).GetName() == "b" {
			return true, nil, apierrors.NewInternalError(errors.New("a webhook is broken"))
		}
		return false, nil, nil
	})
	w := newNodeWriter(client)
	_, err := w.write(t.Context(), nodes, &plan.Plan{Programs: map[string]announce.Program{
		"a": tooLarge,
		"b": programOf(0, "203.0.113.1"),
		"c": programOf(0, "203.0.113.1"), // is written
		"d": programOf(0, "203.0.113.1"), // is no more
		// e has no program
	}})
	if !errors.Is(err, announce.ErrTooLarge) || !strings.Contains(fmt.Sprint(err), "node b: writing the annotation") {
		t.Errorf("error %v; want those of a and b", err)
	}
	if len(w.known) != 1 || w.known["c"].program.Hash != programOf(0, "203.0.113.1").Hash {
		t.Errorf("known: %v; want c", w.known)
	}
}

func TestWhatDoesNotFitIsLeftOutAndTold(t *testing.T) {
	big := announce.Program{Cluster: "c"}
	addr := netip.MustParseAddr("203.0.113.0")
	for _, pool := range incompressible(announce.MaxEncoded + 50000) {
		addr = addr.Next()
		big.Groups = append(big.Groups, announce.Group{Pool: pool, BGP: &announce.BGP{}, Addresses: []announce.Range{announce.Single(addr)}})
	}
	service := func() plan.Service {
		s := plan.Service{Namespace: "default", Name: "last"}
		for addr := netip.MustParseAddr("203.0.113.1"); len(s.Addresses) < len(big.Groups); addr = addr.Next() {
			s.Addresses = append(s.Addresses, plan.Judged(announce.Single(addr), plan.NodeVerdict{Node: "a", Verdict: plan.Announces}))
		}
		return s
	}
	big.Normalize()
	if _, err := announce.Encode(big); !errors.Is(err, announce.ErrTooLarge) {
		t.Fatalf("the program is to be too large: %v", err)
	}
	node := nodeAt("1", "a")
	w := newNodeWriter(fake.NewClientset(node))
	result := &plan.Plan{Programs: map[string]announce.Program{"a": big}, Services: []plan.Service{service()}}
	if _, err := w.write(t.Context(), []*corev1.Node{node}, result); err != nil {
		t.Fatal(err)
	}
	first := w.known["a"]
	if fit, all := len(addressesOf(&first.program)), len(addressesOf(&big)); len(first.value) > announce.MaxEncoded || fit == 0 || fit >= all {
		t.Errorf("%d bytes with %d addresses of %d", len(first.value), fit, all)
	}
	if announced, reason, _ := result.Services[0].Condition(); announced || reason != string(plan.NoRoom) {
		t.Errorf("the condition says %t, %s", announced, reason)
	}
	// The same plan again writes nothing, and tells the same.
	result = &plan.Plan{Programs: map[string]announce.Program{"a": big}, Services: []plan.Service{service()}}
	if _, err := w.write(t.Context(), []*corev1.Node{node}, result); err != nil {
		t.Fatal(err)
	}
	if again := w.known["a"]; again.program.Epoch != first.program.Epoch {
		t.Error("what does not fit is written again and again")
	}
	if announced, reason, _ := result.Services[0].Condition(); announced || reason != string(plan.NoRoom) {
		t.Errorf("the next condition says %t, %s", announced, reason)
	}
}

func TestGone(t *testing.T) {
	nodes := schema.GroupResource{Resource: "nodes"}
	kind := schema.GroupKind{Kind: "Node"}
	invalid := func(path ...string) error {
		var all field.ErrorList
		for _, p := range path {
			all = append(all, field.Invalid(field.NewPath("metadata").Child(p), "x", "field is immutable"))
		}
		return apierrors.NewInvalid(kind, "a", all)
	}
	for name, test := range map[string]struct {
		err  error
		want bool
	}{
		"written":                     {nil, false},
		"deleted":                     {apierrors.NewNotFound(nodes, "a"), true},
		"replaced":                    {invalid("uid"), true},
		"replaced and more":           {invalid("name", "uid"), true},
		"deleted while being patched": {apierrors.NewConflict(nodes, "a", errors.New("uid mismatch")), true},
		"an annotation too large":     {invalid("annotations"), false},
		"invalid without details":     {&apierrors.StatusError{ErrStatus: metav1.Status{Reason: metav1.StatusReasonInvalid}}, false},
		"forbidden":                   {apierrors.NewForbidden(nodes, "a", errors.New("RBAC")), false},
		"unreachable":                 {errors.New("connection refused"), false},
	} {
		if got := gone(test.err); got != test.want {
			t.Errorf("%s: %t; want %t", name, got, test.want)
		}
	}
}

// A node that loses an address waits for the one that gets it, but not for ever.
func TestLosersWaitForGainersForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := []*corev1.Node{nodeAt("1", "from", encoded(t, programOf(1, "203.0.113.1"))), nodeAt("1", "to")}
		client := fake.NewClientset(nodes[0], nodes[1])
		broken := true
		client.PrependReactor("patch", "nodes", func(action ktesting.Action) (bool, runtime.Object, error) {
			if broken && action.(ktesting.PatchAction).GetName() == "to" {
				return true, nil, apierrors.NewInternalError(errors.New("a webhook is broken"))
			}
			return false, nil, nil
		})
		written := recordWrites(client)
		move := &plan.Plan{Programs: map[string]announce.Program{"from": programOf(0), "to": programOf(0, "203.0.113.1")}}
		w := newNodeWriter(client)
		w.programs(nodes)
		for range 2 {
			if _, err := w.write(t.Context(), nodes, move); err == nil {
				t.Error("no error, though a write failed")
			}
			if slices.Contains(written(), "from") {
				t.Fatal("the address was withdrawn before it was announced elsewhere")
			}
			time.Sleep(losersPatience / 2)
		}
		time.Sleep(losersPatience)
		_, _ = w.write(t.Context(), nodes, move) // its error is that of "to"
		if !slices.Contains(written(), "from") {
			t.Error("the withdrawal waits for ever")
		}
		broken = false
		if _, err := w.write(t.Context(), nodes, move); err != nil {
			t.Error(err)
		}
	})
}

// onLAN is the program of a node for addresses that the owner owns.
func onLAN(epoch int64, owner string, addresses ...string) announce.Program {
	p := programOf(epoch, addresses...)
	p.Nodes = []announce.Node{{Name: "a"}, {Name: "b"}}
	for i := range p.Groups {
		p.Groups[i].BGP = nil
		p.Groups[i].Layer2 = &announce.Layer2{Candidates: []string{owner}}
	}
	p.Normalize()
	return p
}

// TestLoserWaitsForTheGainersReport: an address that moves on the LAN is taken
// from the old owner when the new one reports that it answers, or after a second.
func TestLoserWaitsForTheGainersReport(t *testing.T) {
	for name, test := range map[string]struct {
		reports bool
		after   time.Duration
	}{
		"reported": {reports: true},
		"silent":   {after: handoverPatience},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := nodeAt("1", "a", encoded(t, onLAN(1, "a", "203.0.113.1", "203.0.113.2")))
				b := nodeAt("1", "b", encoded(t, onLAN(1, "b")))
				client := fake.NewClientset(a, b)
				written := recordWrites(client)
				w := newNodeWriter(client)
				nodes := []*corev1.Node{a, b}
				w.programs(nodes)
				moved := &plan.Plan{Programs: map[string]announce.Program{
					"a": onLAN(0, "a", "203.0.113.1"), "b": onLAN(0, "b", "203.0.113.2"),
				}}
				again, err := w.write(t.Context(), nodes, moved)
				if err != nil || again != handoverPatience {
					t.Fatalf("again after %v, error %v; want %v", again, err, handoverPatience)
				}
				if got := written(); !slices.Equal(got, []string{"b"}) {
					t.Fatalf("wrote %v, want the gainer only", got)
				}
				if test.reports {
					b.Annotations[v1alpha1.NodeSpeaker] = fmt.Sprintf(`{"epoch":%d}`, w.known["b"].program.Epoch)
				}
				time.Sleep(test.after)
				if again, err = w.write(t.Context(), nodes, moved); err != nil || again != 0 {
					t.Fatalf("again after %v, error %v; want none", again, err)
				}
				if got := written(); !slices.Equal(got, []string{"b", "a"}) {
					t.Errorf("wrote %v, want the loser, too", got)
				}
			})
		})
	}
}

// TestLoserOfWhatWasTakenOverDoesNotWait: the new owner answers before it is told.
func TestLoserOfWhatWasTakenOverDoesNotWait(t *testing.T) {
	for name, test := range map[string]struct {
		takeovers string
		want      []string
		again     time.Duration
	}{
		"all":        {`[{"term":1,"addresses":["203.0.113.1-203.0.113.2"]}]`, []string{"b", "a"}, 0},
		"by terms":   {`[{"term":1,"addresses":["203.0.113.1"]},{"term":2,"addresses":["203.0.113.2"]}]`, []string{"b", "a"}, 0},
		"everything": {`[{"term":1,"addresses":["0.0.0.0-255.255.255.255","::-ffff::"]}]`, []string{"b", "a"}, 0},
		"one of two": {`[{"term":1,"addresses":["203.0.113.2"]}]`, []string{"b"}, handoverPatience},
		"malformed":  {`[{"term":1,"addresses":[null]}]`, []string{"b"}, handoverPatience},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := nodeAt("1", "a", encoded(t, onLAN(1, "a", "203.0.113.1", "203.0.113.2")))
				b := nodeAt("1", "b", encoded(t, onLAN(1, "a", "203.0.113.1", "203.0.113.2")))
				b.Annotations[v1alpha1.NodeSpeaker] = `{"epoch":1,"takeovers":` + test.takeovers + `}`
				client := fake.NewClientset(a, b)
				written := recordWrites(client)
				w := newNodeWriter(client)
				nodes := []*corev1.Node{a, b}
				w.programs(nodes)
				official := onLAN(0, "b", "203.0.113.1", "203.0.113.2")
				moved := &plan.Plan{
					Programs: map[string]announce.Program{"a": official, "b": official},
					Moves:    []plan.Move{{From: "a", To: "b", TakenOver: true, Addresses: 2}},
				}
				again, err := w.write(t.Context(), nodes, moved)
				if err != nil || again != test.again {
					t.Errorf("again after %v, error %v; want %v", again, err, test.again)
				}
				if got := written(); !slices.Equal(got, test.want) {
					t.Errorf("wrote %v, want %v", got, test.want)
				}
				if got := w.made(moved); len(got) != 1 {
					t.Errorf("the new owner was told, and no move is made of it: %v", got)
				}
			})
		})
	}
}

// TestMovesAreMadeWhenTheNewOwnerIsTold: until then each plan has them again.
func TestMovesAreMadeWhenTheNewOwnerIsTold(t *testing.T) {
	a, b := nodeAt("1", "a", encoded(t, onLAN(1, "a", "203.0.113.1"))), nodeAt("1", "b", encoded(t, onLAN(1, "b")))
	client := fake.NewClientset(a, b)
	client.PrependReactor("patch", "nodes", func(ktesting.Action) (bool, runtime.Object, error) { return true, nil, errors.New("no") })
	w := newNodeWriter(client)
	nodes := []*corev1.Node{a, b}
	w.programs(nodes)
	official := onLAN(0, "b", "203.0.113.1")
	moved := &plan.Plan{Programs: map[string]announce.Program{"a": official, "b": official}, Moves: []plan.Move{{From: "a", To: "b", Addresses: 1}}}
	if _, err := w.write(t.Context(), nodes, moved); err == nil {
		t.Fatal("the nodes can be written")
	}
	if got := w.made(moved); len(got) > 0 {
		t.Errorf("moves %+v are told, and nobody knows of them", got)
	}
}

// TestLoserKeepsWhatTheGainerWasNotTold: a node that cannot be written is no owner.
func TestLoserKeepsWhatTheGainerWasNotTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := nodeAt("1", "a", encoded(t, onLAN(1, "a", "203.0.113.1")))
		b := nodeAt("1", "b", encoded(t, onLAN(1, "b")))
		client := fake.NewClientset(a, b)
		client.PrependReactor("patch", "nodes", func(action ktesting.Action) (bool, runtime.Object, error) {
			if action.(ktesting.PatchAction).GetName() == "b" {
				return true, nil, errors.New("annotations are too long")
			}
			return false, nil, nil
		})
		written := recordWrites(client)
		w := newNodeWriter(client)
		nodes := []*corev1.Node{a, b}
		w.programs(nodes)
		moved := &plan.Plan{Programs: map[string]announce.Program{"a": onLAN(0, "b", "203.0.113.1"), "b": onLAN(0, "b", "203.0.113.1")}}
		for range 3 {
			if _, err := w.write(t.Context(), nodes, moved); err == nil {
				t.Fatal("b can be written")
			}
			time.Sleep(losersPatience)
		}
		if got := written(); slices.Contains(got, "a") {
			t.Errorf("wrote %v; a is the only one that answers", got)
		}
		if got := w.unwritable(); !got["b"] || got["a"] {
			t.Errorf("unwritable: %v, want b", got)
		}
	})
}

// TestHandoversBeginAnew: what was waited for once is not what is waited for later.
func TestHandoversBeginAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		had := onLAN(1, "a", "203.0.113.1")
		a, b := nodeAt("1", "a", encoded(t, had)), nodeAt("1", "b", encoded(t, onLAN(1, "b")))
		w := newNodeWriter(fake.NewClientset(a, b))
		nodes := []*corev1.Node{a, b}
		w.programs(nodes)
		move := &plan.Plan{Programs: map[string]announce.Program{"a": onLAN(0, "b", "203.0.113.1"), "b": onLAN(0, "b", "203.0.113.1")}}
		stay := &plan.Plan{Programs: map[string]announce.Program{"a": had, "b": onLAN(0, "b")}}
		for _, p := range []*plan.Plan{move, stay, move} {
			again, err := w.write(t.Context(), nodes, p)
			if err != nil {
				t.Fatal(err)
			}
			if p == move && again != handoverPatience {
				t.Errorf("again after %v, want %v", again, handoverPatience)
			}
			time.Sleep(time.Hour)
		}
	})
}
