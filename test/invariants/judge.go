package invariants

import (
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

// Kind is a rule.
type Kind string

// Kinds of findings.
const (
	// Duplicate: two Services show an address that they may not share.
	Duplicate Kind = "Duplicate"
	// Moved: the addresses of a Service changed, and nobody asked for it.
	Moved Kind = "Moved"
	// Leaked: an address is announced for no Service, or a Service that is to
	// have none does not get rid of it, or a finalizer stays.
	Leaked Kind = "Leaked"
	// Miscounted: the status of a pool does not say how many addresses Services
	// have.
	Miscounted Kind = "Miscounted"
	// Waiting: a Service has no address though there is one for it.
	Waiting Kind = "Waiting"
	// WrongNode: a node announces an address that it must not.
	WrongNode Kind = "WrongNode"
	// NotAnnounced: a node that should announce an address does not.
	NotAnnounced Kind = "NotAnnounced"
	// Owners: an address on the LAN has not one owner.
	Owners Kind = "Owners"
)

// Finding is something that is as it should not stay.
type Finding struct {
	Kind Kind
	// Subjects are what it is about, the most important one first: "Service
	// default/web", "Node node1", "AddressPool main", "address 203.0.113.1".
	Subjects []string
	Text     string

	grace time.Duration
	actor actor  // who has to mend it
	also  string // tells findings of one kind about the same subjects apart
}

// String is the finding in a line.
func (f Finding) String() string { return string(f.Kind) + ": " + f.Text }

func (f *Finding) key() string {
	return string(f.Kind) + "\n" + strings.Join(f.Subjects, "\n") + "\n" + f.also
}

// Violation is a finding that outlasted its grace.
type Violation struct {
	Finding
	// Since is when it began, and Time when its grace had passed.
	Since, Time time.Time
	History     []Entry
}

// String is the violation with its history.
func (v Violation) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s (since %s, %s after grace of %s)", v.Finding, v.Since.Format("15:04:05.000"), v.Time.Format("15:04:05.000"), v.grace)
	for _, e := range v.History {
		fmt.Fprintf(&b, "\n    %s", e)
	}
	return b.String()
}

// Disturbance is a status that was wrong, and was mended within its grace.
type Disturbance struct {
	Time    time.Time
	Subject string
	Text    string
}

// String is the disturbance in a line.
func (d Disturbance) String() string {
	return fmt.Sprintf("%s %s: %s", d.Time.Format("15:04:05.000"), d.Subject, d.Text)
}

// Judge is fed with what the API shows, and with the time. It has no clock and
// no client of its own, and is not safe for concurrent use.
type Judge struct {
	options Options
	clocks  *clocks
	world   *world
	moves   *moves
	sharing *sharing
	history history

	dirty        bool
	open         map[string]*observed
	permits      map[int]permit
	nextPermit   int
	violations   []Violation
	disturbances []Disturbance
}

// observed is a finding since it began.
type observed struct {
	Finding
	since  time.Time
	active time.Duration // of its actor's clock, when it began
	told   bool
}

// permit is what the caller provokes on purpose.
type permit struct {
	kind    Kind
	subject *regexp.Regexp
}

// NewJudge returns a Judge to which nothing is known yet.
func NewJudge(options Options, now time.Time) *Judge {
	options = options.withDefaults()
	j := &Judge{
		options: options,
		clocks:  newClocks(options, now),
		world:   newWorld(options),
		history: make(history),
		open:    make(map[string]*observed),
		permits: make(map[int]permit),
	}
	j.moves = newMoves(j)
	j.sharing = newSharing(j)
	return j
}

// Set takes note of an object that was created or changed. Kinds that no rule
// knows are passed over.
func (j *Judge) Set(now time.Time, object any) {
	j.clocks.advance(now)
	j.dirty = true
	switch o := object.(type) {
	case *corev1.Service:
		j.setService(now, newService(o))
	case *corev1.Node:
		j.setNode(now, newNode(o))
	case *v1alpha1.AddressPool:
		j.setPool(now, newPool(o))
	case *v1alpha1.BGPPeer:
		if before := j.world.peers[o.Name]; before == nil || before.Generation != o.Generation {
			j.history.add(now, everywhere, "BGPPeer %s is set", o.Name)
		}
		j.world.peers[o.Name] = o
	case *discoveryv1.EndpointSlice:
		j.world.slices[o.Namespace+"/"+o.Name] = o
		j.noteEndpoints(now, o)
	case *corev1.Pod:
		j.setPod(now, o)
	case *coordinationv1.Lease:
		if j.clocks.see(now, o) {
			j.history.add(now, everywhere, "Lease %s: held by %s", o.Name, holderOf(o))
		}
		j.world.planTerm = j.clocks.leases[planner].term
	}
}

// Delete takes note of an object that is gone.
func (j *Judge) Delete(now time.Time, object any) {
	j.clocks.advance(now)
	j.dirty = true
	switch o := object.(type) {
	case *corev1.Service:
		delete(j.world.services, o.UID)
		j.moves.forget(o.UID)
		j.history.add(now, serviceSubject(newService(o)), "gone (UID %s)", o.UID)
	case *corev1.Node:
		delete(j.world.nodes, o.Name)
		j.history.add(now, nodeSubject(o.Name), "gone")
	case *v1alpha1.AddressPool:
		j.sharing.former(j.world.pools[o.UID])
		delete(j.world.pools, o.UID)
		j.history.add(now, everywhere, "AddressPool %s is gone", o.Name)
	case *v1alpha1.BGPPeer:
		delete(j.world.peers, o.Name)
		j.history.add(now, everywhere, "BGPPeer %s is gone", o.Name)
	case *discoveryv1.EndpointSlice:
		delete(j.world.slices, o.Namespace+"/"+o.Name)
	case *corev1.Pod:
		delete(j.world.speakers, o.Name)
	case *coordinationv1.Lease:
		gone := o.DeepCopy()
		gone.Spec.HolderIdentity = nil
		j.clocks.see(now, gone)
	}
}

func (j *Judge) setService(now time.Time, s *service) {
	before := j.world.services[s.UID]
	j.world.services[s.UID] = s
	if text := describe(s); before == nil || text != describe(before) {
		j.history.add(now, serviceSubject(s), "version %s; %s", s.ResourceVersion, text)
	}
	for _, a := range s.addresses {
		if before == nil || !slices.Contains(before.addresses, a) {
			j.history.add(now, addressSubject(a), "shown by Service %s", s.id())
		}
	}
	if before != nil {
		for _, a := range before.addresses {
			if !slices.Contains(s.addresses, a) {
				j.history.add(now, addressSubject(a), "no longer shown by Service %s", s.id())
			}
		}
	}
	j.moves.see(now, s)
}

// describe is what matters of a Service, in a line.
func describe(s *service) string {
	var parts []string
	add := func(name, value string) {
		if value != "" {
			parts = append(parts, name+" "+value)
		}
	}
	add("type", string(s.Spec.Type))
	if s.DeletionTimestamp != nil {
		parts = append(parts, "deleting")
	}
	add("finalizers", strings.Join(s.Finalizers, ","))
	add("addresses", list(s.addresses))
	add("policy", string(s.Spec.ExternalTrafficPolicy))
	add("ports", fmt.Sprint(portsOf(s)))
	add("asks", askOf(s).String())
	return strings.Join(parts, "; ")
}

func (j *Judge) setNode(now time.Time, n *node) {
	before := j.world.nodes[n.Name]
	j.world.nodes[n.Name] = n
	if text := describeNode(n); before == nil || text != describeNode(before) {
		j.history.add(now, nodeSubject(n.Name), "%s", text)
	}
	addresses := make(map[netip.Addr]bool)
	for a := range n.announces {
		addresses[a] = true
	}
	if before == nil {
		before = &node{}
	}
	for a := range before.announces {
		addresses[a] = true
	}
	for a := range addresses {
		if was, is := before.says(a), n.says(a); was != is {
			j.history.add(now, addressSubject(a), "program of %s: %s", n.Name, is)
		}
	}
}

func describeNode(n *node) string {
	return fmt.Sprintf("ready %t, excluded %t, draining %t, unschedulable %t, speaker leaving %t, %d interfaces reported",
		n.ready(), n.excluded(), n.draining(), n.Spec.Unschedulable, n.report.Leaving, len(n.report.Interfaces))
}

func (j *Judge) setPool(now time.Time, p *pool) {
	before := j.world.pools[p.UID]
	if before != nil && before.Generation != p.Generation {
		j.sharing.former(before)
	}
	j.world.pools[p.UID] = p
	if before == nil || before.Generation != p.Generation {
		j.history.add(now, everywhere, "AddressPool %s: %s, protocols %v, sharing %s, disabled %t, priority %d",
			p.Name, strings.Join(p.Spec.Addresses, ", "), p.Spec.Protocols, p.Spec.Sharing, p.Spec.Disabled, p.Spec.Priority)
	}
	if before == nil || before.Status.Allocated != p.Status.Allocated {
		j.history.add(now, poolSubject(p.Name), "allocated %q", p.Status.Allocated)
	}
}

func (j *Judge) setPod(now time.Time, pod *corev1.Pod) {
	if pod.Labels[v1alpha1.SpeakerPodLabel] != v1alpha1.SpeakerPodName {
		return
	}
	before := j.world.speakers[pod.Name]
	j.world.speakers[pod.Name] = pod
	j.world.everPods = true
	if before == nil || podRuns(before) != podRuns(pod) {
		j.history.add(now, nodeSubject(pod.Spec.NodeName), "speaker runs: %t", podRuns(pod))
	}
}

func (j *Judge) noteEndpoints(now time.Time, slice *discoveryv1.EndpointSlice) {
	service := slice.Labels[discoveryv1.LabelServiceName]
	only := newWorld(j.options)
	only.slices[slice.Name] = slice
	only.findEndpoints()
	nodes := slices.Sorted(maps.Keys(only.endpoints[slice.Namespace+"/"+service]))
	subject, text := "Service "+slice.Namespace+"/"+service, fmt.Sprintf("endpoints on %v", nodes)
	j.history.add(now, subject, "%s", text)
}

func holderOf(o *coordinationv1.Lease) string {
	if o.Spec.HolderIdentity == nil || *o.Spec.HolderIdentity == "" {
		return "nobody"
	}
	return *o.Spec.HolderIdentity
}

// Connect says whether all that is watched is being watched.
func (j *Judge) Connect(now time.Time, up bool) {
	j.clocks.advance(now)
	if up != j.clocks.connected {
		j.history.add(now, everywhere, "the API server is watched: %t", up)
	}
	j.clocks.connect(now, up)
}

// Suspend stops all clocks until Resume is called with its result.
func (j *Judge) Suspend(now time.Time, why string) (id int) {
	j.clocks.advance(now)
	j.history.add(now, everywhere, "suspended: %s", why)
	return j.clocks.suspend(why)
}

// Resume ends a Suspend.
func (j *Judge) Resume(now time.Time, id int) {
	j.clocks.advance(now)
	j.history.add(now, everywhere, "resumed: %s", j.clocks.suspended[id])
	j.clocks.resume(id)
}

// Permit passes over findings of a kind about a subject, given as a regular
// expression of the whole of it, until EndPermit is called with its result.
func (j *Judge) Permit(now time.Time, kind Kind, subject, why string) (id int) {
	j.nextPermit++
	j.permits[j.nextPermit] = permit{kind, regexp.MustCompile("^(?:" + subject + ")$")}
	j.history.add(now, everywhere, "permitted: %s of %s: %s", kind, subject, why)
	j.dirty = true
	return j.nextPermit
}

// EndPermit ends a Permit.
func (j *Judge) EndPermit(now time.Time, id int) {
	delete(j.permits, id)
	j.dirty = true
}

func (j *Judge) permitted(f *Finding) bool {
	for _, p := range j.permits {
		if p.kind == f.Kind && slices.ContainsFunc(f.Subjects, p.subject.MatchString) {
			return true
		}
	}
	return false
}

// Note enters what the caller does, a fault for example, into the history.
func (j *Judge) Note(now time.Time, format string, args ...any) {
	j.history.add(now, everywhere, format, args...)
}

// Tick judges what is known at this time.
func (j *Judge) Tick(now time.Time) {
	j.clocks.advance(now)
	j.moves.settle()
	if j.dirty || len(j.sharing.recent) > 0 { // what was permitted a moment ago ends
		j.dirty = false
		j.update(now)
	}
	for _, key := range slices.Sorted(maps.Keys(j.open)) {
		o := j.open[key]
		if o.told || j.clocks.active[o.actor]-o.active <= o.grace {
			continue
		}
		o.told = true
		j.violations = append(j.violations, Violation{
			Finding: o.Finding, Since: o.since, Time: now, History: j.history.of(now, o.Subjects),
		})
		if o.Kind == Moved {
			j.moves.accept(o.also)
		}
	}
}

// update finds what is not as it should be, and what is again.
func (j *Judge) update(now time.Time) {
	j.world.findEndpoints()
	found := make(map[string]bool)
	report := func(f Finding) {
		if j.permitted(&f) {
			return
		}
		key := f.key()
		found[key] = true
		if o := j.open[key]; o != nil {
			o.Text, o.grace = f.Text, f.grace
			return
		}
		j.open[key] = &observed{Finding: f, since: now, active: j.clocks.active[f.actor]}
	}
	holders := j.world.holders()
	j.moves.findings(report)
	j.sharing.findings(holders, report)
	j.world.findLeaks(holders, report)
	j.world.findPools(holders, report)
	j.world.findMiscounts(holders, report)
	j.world.findWaiting(holders, report)
	j.world.findNodes(holders, report)
	maps.DeleteFunc(j.open, func(key string, _ *observed) bool { return !found[key] })
}

// Violations so far.
func (j *Judge) Violations() []Violation { return slices.Clone(j.violations) }

// Disturbances so far.
func (j *Judge) Disturbances() []Disturbance { return slices.Clone(j.disturbances) }

// Open are the findings of this moment, whatever their grace; none means that
// all is as it should be.
func (j *Judge) Open() []Finding {
	var open []Finding
	for _, key := range slices.Sorted(maps.Keys(j.open)) {
		open = append(open, j.open[key].Finding)
	}
	return open
}

// Judged is for how long the allocation of addresses and the programs of nodes
// could be judged.
func (j *Judge) Judged() (allocation, programs time.Duration) {
	return j.clocks.active[allocator], j.clocks.active[planner]
}
