package ipam

import (
	"errors"
	"flag"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/apis/lb/v1alpha1"
)

var (
	operations = flag.Int("operations", 1_000_000, "number of random operations of TestRandomLives")
	lifeSeed   = flag.Uint64("seed", 0, "seed of the one life that TestRandomLives leads (0: many, with random seeds)")
)

// The world of a random life is small, so that its Services meet often. It has 64
// addresses: they are numbered, and a set of them is one word.
const (
	fours      = 40 // addresses 0 to 39 are IPv4, the others IPv6
	services   = 20
	poolCount  = 5
	lifeLength = 20_000
)

// set has a bit for each address.
type set uint64

const (
	ipv4 set = 1<<fours - 1
	ipv6     = ^ipv4
	none     = -1
)

func (s set) has(i int) bool { return s>>i&1 == 1 }

func (s set) count() int { return bits.OnesCount64(uint64(s)) }

// first is the lowest number, or none.
func (s set) first() int {
	if s == 0 {
		return none
	}
	return bits.TrailingZeros64(uint64(s))
}

// behind is the part with higher numbers than i.
func (s set) behind(i int) set { return s &^ (set(2)<<i - 1) }

func (s set) String() string { return join(list(s, nil)) }

// world are the addresses by number. Both families lie across the end of a block
// of 256, and IPv4 has a .255 and a .0.
var world, numbers = func() (world [64]netip.Addr, numbers map[netip.Addr]int) {
	numbers = map[netip.Addr]int{}
	four, six := netip.MustParseAddr("203.0.112.244"), netip.MustParseAddr("2001:db8::f4")
	for i := range world {
		if i < fours {
			world[i], four = four, four.Next()
		} else {
			world[i], six = six, six.Next()
		}
		numbers[world[i]] = i
	}
	return world, numbers
}()

// buggies are the .255 and the .0.
const buggies set = 3 << 11

func list(s set, into []netip.Addr) []netip.Addr {
	for ; s != 0; s &= s - 1 {
		into = append(into, world[s.first()])
	}
	return into
}

func setOf(addresses []netip.Addr) (s set) {
	for _, addr := range addresses {
		i, ok := numbers[addr]
		if !ok {
			panic(addr.String() + " is not of this world")
		}
		s |= 1 << i
	}
	return s
}

// bargain is what a Service has to say about sharing.
type bargain struct {
	namespace int
	key       int // 0 is none
	ports     int // a bit for each
	// policy 0 is Cluster, 1 Local without selector, 2 and 3 Local with one of two.
	policy int
}

const (
	portCount   = 5
	keyCount    = 3
	policyCount = 4
)

// bargains are the Terms of each bargain.
var bargains = func() (all [2][keyCount][1 << portCount][policyCount]*Terms) {
	for namespace := range all {
		for key := range keyCount {
			for ports := range 1 << portCount {
				for policy := range policyCount {
					t := &Terms{Namespace: []string{"default", "other"}[namespace], Key: []string{"", "k", "l"}[key]}
					for i, port := range [portCount]Port{{corev1.ProtocolSCTP, 80}, {corev1.ProtocolTCP, 80}, {corev1.ProtocolUDP, 80}, {corev1.ProtocolTCP, 443}, {corev1.ProtocolUDP, 443}} {
						if ports>>i&1 == 1 {
							t.Ports = append(t.Ports, port)
						}
					}
					t.Local = policy > 0
					t.Selector = []string{"", "", "app=a", "app=b"}[policy]
					all[namespace][key][ports][policy] = t
				}
			}
		}
	}
	return all
}()

func (b bargain) terms() *Terms { return bargains[b.namespace][b.key][b.ports][b.policy] }

// clashes is true of two that a node cannot tell apart, or that want different
// things of it.
func clashes(a, b bargain) bool {
	if a.ports&b.ports != 0 {
		return true
	}
	if a.policy == 0 && b.policy == 0 {
		return false
	}
	return a.policy != b.policy || a.policy < 2 || a.namespace != b.namespace
}

// permits is true where a pool of the mode lets the two share.
func permits(mode v1alpha1.SharingMode, a, b bargain) bool {
	sameKey := a.key > 0 && a.key == b.key
	switch mode {
	case v1alpha1.SharingPorts:
		return true
	case v1alpha1.SharingKeyAnyNamespace:
		return sameKey
	case v1alpha1.SharingKey:
		return sameKey && a.namespace == b.namespace
	}
	return false
}

// being is a Service: what its user wrote, what the API shows, and what the
// allocator owes it.
type being struct {
	owner Owner

	// The spec.
	bargain
	families  []corev1.IPFamily
	partial   bool
	pool      int // 0 is any, the others are of pool number-1; one of them never exists
	protocol  int // 0 is any
	requested set
	external  set

	// The status in the API.
	recorded        set
	marked, settled bool

	current, retiring set
	// told are the terms that the allocator was told last.
	told bargain
	// served is what the claim that was served last asked for.
	served struct {
		pool, protocol int
		external       set
	}
	// known is false between an adoption and the next claim that is served.
	known bool
	// adoptedSettled is what the record said.
	adoptedSettled bool
	// followed Services are another controller's: they may show what they like.
	followed bool
	// foreign are those as long as no claim of theirs is served: nobody shares with
	// them.
	foreign bool
	// dim are Services whose terms the allocator need not know: they share nothing
	// and could not until the pools were changed.
	dim bool
}

func (b *being) all() set { return b.current | b.retiring }

// clear forgets what is meaningless of a Service that holds nothing.
func (b *being) clear() {
	if b.all() == 0 {
		b.known, b.adoptedSettled, b.followed, b.foreign, b.dim = false, false, false, false, false
		b.served.pool, b.served.protocol, b.served.external = 0, 0, 0
	}
}

// preserve is an AddressPool.
type preserve struct {
	exists           bool
	declared, owned  set
	born             int
	priority         int32
	byHand, disabled bool
	avoid, external  bool
	mode             v1alpha1.SharingMode
	namespaces       int // a bit for each; 0 is all
	protocols        int // a bit for each
	// last is the address of each family that was given last, if that is known,
	// and freed are those that were freed last, by one operation.
	last  [2]int
	freed [2]set
}

var poolNames = [...]string{"p0", "p1", "p2", "p3", "p4", "nowhere"}

// model is the allocator as one would explain it: who has which address, and who
// had it. It does not predict which of several sharable addresses is given, only
// what must hold.
type model struct {
	beings [services]being
	pools  [poolCount]preserve
	owner  [64]int // the number of the pool that an address belongs to, or none
	// nodes have these addresses, and speakers report those.
	nodes, reported set
}

// held are the addresses that any Service has or had.
func (m *model) held() (s set) {
	for i := range m.beings {
		s |= m.beings[i].all()
	}
	return s
}

// taken are the addresses of nodes.
func (m *model) taken() set { return m.nodes | m.reported }

// poolOf is the pool of the address, or nil.
func (m *model) poolOf(addr int) *preserve {
	if m.owner[addr] == none {
		return nil
	}
	return &m.pools[m.owner[addr]]
}

// pooled are the addresses of all pools.
func (m *model) pooled() (s set) {
	for i := range m.pools {
		s |= m.pools[i].owned
	}
	return s
}

// verdict of the model, which does not always know what the allocator does.
type verdict int

const (
	no verdict = iota
	maybe
	yes
)

// room says whether the Service may have the address next to all others that have
// or had it.
func (m *model) room(b *being, addr int) verdict {
	pool := m.poolOf(addr)
	if pool == nil || m.taken().has(addr) || pool.avoid && buggies.has(addr) {
		return no
	}
	answer := yes
	for i := range m.beings {
		other := &m.beings[i]
		switch {
		case other == b || !other.all().has(addr):
		case other.foreign || clashes(b.bargain, other.told) || !permits(pool.mode, b.bargain, other.told):
			return no
		case other.dim:
			answer = maybe
		}
	}
	return answer
}

// mayKeep is true of two that show an address, when the pool may have allowed
// more.
func (m *model) mayKeep(addr int, a, b bargain, settled bool) bool {
	if clashes(a, b) {
		return false
	}
	pool := m.poolOf(addr)
	return settled || a.key > 0 && a.key == b.key || pool != nil && permits(pool.mode, a, b)
}

// broken are the addresses that the Service cannot share on its new terms, where
// it could on those that it told. Where it could not the other one changed, and it
// is that one's turn to leave.
func (m *model) broken(b *being) (broken set) {
	if b.bargain == b.told {
		return 0
	}
	for i := range m.beings {
		other := &m.beings[i]
		if other == b || clashes(b.told, other.told) {
			continue
		}
		for common := b.current & other.all(); common != 0; common &= common - 1 {
			addr := common.first()
			if !m.mayKeep(addr, b.bargain, other.told, b.key == b.told.key) {
				broken |= 1 << addr
			}
		}
	}
	return broken
}

// admits is true where the pool is for the claim.
func (p *preserve) admits(b *being) bool {
	return p.exists && !p.disabled &&
		(p.namespaces == 0 || p.namespaces>>b.namespace&1 == 1) &&
		(b.protocol == 0 || p.protocols>>(b.protocol-1)&1 == 1)
}

// mayPick says whether the Service may have the address that it picked.
func (m *model) mayPick(b *being, addr int) verdict {
	pool := m.poolOf(addr)
	if pool == nil || b.pool > 0 && m.owner[addr] != b.pool-1 || !pool.admits(b) {
		return no
	}
	return m.room(b, addr)
}

// order are the pools in the order of automatic assignment.
func (m *model) order() (order [poolCount]int) {
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order[:], func(a, b int) int { return int(m.pools[b].priority) - int(m.pools[a].priority) })
	return order
}

// hopes are the addresses of which a search has to find one.
type hopes struct {
	accept set
	// certain is true if there is one for sure.
	certain bool
}

// search finds what may be given in a family.
func (m *model) search(b *being, family set) (h hopes) {
	if b.pool > 0 {
		if b.pool <= poolCount && m.pools[b.pool-1].admits(b) {
			m.searchPool(&h, &m.pools[b.pool-1], b, family)
		}
		return h
	}
	order := m.order()
	for _, join := range []bool{true, false} {
		for _, i := range order {
			pool := &m.pools[i]
			if h.certain || pool.byHand || !pool.admits(b) {
				continue
			}
			if join {
				m.join(&h, pool, b, family)
			} else {
				m.searchPool(&h, pool, b, family)
			}
		}
	}
	return h
}

// join hopes for an address of a Service with the same share-key.
func (m *model) join(h *hopes, pool *preserve, b *being, family set) {
	if b.key == 0 {
		return
	}
	var candidates set
	for i := range m.beings {
		if other := &m.beings[i]; other != b && other.told.key == b.key {
			candidates |= other.current & pool.owned & family
		}
	}
	m.crowd(h, candidates, b)
}

// crowd hopes for an address of the candidates with room.
func (m *model) crowd(h *hopes, candidates set, b *being) {
	for ; candidates != 0; candidates &= candidates - 1 {
		addr := candidates.first()
		if answer := m.room(b, addr); answer != no {
			h.accept |= 1 << addr
			h.certain = h.certain || answer == yes
		}
	}
}

// free are the addresses of the pool that nobody has or had.
func (m *model) free(pool *preserve, family set) set {
	free := pool.owned & family &^ m.held() &^ m.taken()
	if pool.avoid {
		free &^= buggies
	}
	return free
}

func (m *model) searchPool(h *hopes, pool *preserve, b *being, family set) {
	m.join(h, pool, b, family)
	if h.certain {
		return
	}
	if free := m.free(pool, family); free != 0 {
		n := familyNumber(family)
		h.accept |= nextFit(free, pool.last[n], pool.freed[n])
		h.certain = true
		return
	}
	if pool.mode == v1alpha1.SharingPorts {
		m.crowd(h, pool.owned&family&m.held(), b)
	}
}

// nextFit are the free addresses that may come behind the one that was given
// last: the next one, and where that was freed just now the one behind it.
func nextFit(free set, last int, freed set) set {
	if last == none {
		if freed.count() == 1 && free != freed {
			free &^= freed
		}
		return free
	}
	next := func(addr int) int {
		if behind := free.behind(addr); behind != 0 {
			return behind.first()
		}
		return free.first()
	}
	first := next(last)
	if !freed.has(first) {
		return 1 << first
	}
	second := next(first)
	if freed.count() == 1 {
		return 1 << second
	}
	return 1<<first | 1<<second
}

func familyNumber(family set) int {
	if family == ipv4 {
		return 0
	}
	return 1
}

func familySet(family corev1.IPFamily) set {
	if family == corev1.IPv4Protocol {
		return ipv4
	}
	return ipv6
}

// adoptable are the recorded addresses that this project gave out.
func (m *model) adoptable(b *being) set {
	pooled := m.pooled()
	if b.marked {
		return b.recorded &^ (m.nodes &^ pooled)
	}
	return b.recorded & pooled &^ m.nodes
}

// asksForAnother is true where the user changed pool or protocol such that the
// address no longer answers the claim.
func (m *model) asksForAnother(b *being, addr int) bool {
	pool := m.poolOf(addr)
	elsewhere := b.pool != b.served.pool && b.pool > 0 && m.owner[addr] != b.pool-1
	otherwise := b.protocol != b.served.protocol && b.protocol > 0 && (pool == nil || pool.protocols>>(b.protocol-1)&1 == 0)
	return b.known && (elsewhere || otherwise)
}

// life is one run.
type life struct {
	testing.TB
	*rand.Rand
	seed  uint64
	step  int
	trace bool
	model
	a     *Allocator
	pools *Pools

	claim                                 Claim
	into, requested, external, recordedTo []netip.Addr
	records                               []Record
	recordsOf                             []int
}

func (l *life) failf(format string, args ...any) {
	l.Helper()
	l.Fatalf("seed %d, operation %d: %s", l.seed, l.step, fmt.Sprintf(format, args...))
}

func (l *life) logf(format string, args ...any) {
	if l.trace {
		l.Logf("%d: %s", l.step, fmt.Sprintf(format, args...))
	}
}

// TestRandomLives lets Services come, change, share, move, go and crash in any
// order, among pools and nodes that do the same, and compares the allocator with
// a model after each operation: no address is given to two that may not share it,
// none leaks, and none moves by itself.
func TestRandomLives(t *testing.T) {
	if *lifeSeed > 0 {
		live(t, *lifeSeed, min(*operations, lifeLength), testing.Verbose())
		return
	}
	n := *operations
	if testing.Short() {
		n = min(n, 50_000)
	}
	lives := max(1, n/lifeLength)
	for worker := range 2 {
		t.Run(fmt.Sprint(worker), func(t *testing.T) {
			t.Parallel()
			for range (lives + worker) / 2 {
				live(t, rand.Uint64(), min(n, lifeLength), false)
			}
		})
	}
}

func live(t *testing.T, seed uint64, length int, trace bool) {
	l := &life{TB: t, Rand: rand.New(rand.NewPCG(seed, 0)), seed: seed, trace: trace, a: NewAllocator(), pools: Compile(nil)}
	for i := range l.beings {
		l.bear(i)
	}
	for i := range l.owner {
		l.owner[i] = none
	}
	l.compile()
	for range 3 {
		l.changePools()
	}
	for ; l.step < length; l.step++ {
		l.operate()
		if l.step%64 == 0 {
			l.agree()
		}
	}
	l.agree()
	for i := range l.beings {
		l.a.Forget(l.beings[i].owner.UID)
	}
	l.a.SetNodes(nil)
	l.a.SetReported(nil)
	if len(l.a.book.blocks) > 0 || len(l.a.holdings) > 0 || len(l.a.keyed) > 0 {
		l.failf("leaked: blocks %v, holdings %v, keys %v", l.a.book.blocks, l.a.holdings, l.a.keyed)
	}
}

// bear makes the Service a new one.
func (l *life) bear(i int) {
	name := fmt.Sprintf("s%d", i)
	b := &l.beings[i]
	*b = being{
		owner:    Owner{UID: types.UID(name), Namespace: []string{"default", "other"}[i%2], Name: name},
		bargain:  bargain{namespace: i % 2, ports: 1 << l.IntN(portCount)},
		families: familyChoices[0],
	}
	if l.IntN(3) == 0 {
		l.rewrite(b)
	}
}

var familyChoices = [][]corev1.IPFamily{
	{corev1.IPv4Protocol},
	{corev1.IPv6Protocol},
	{corev1.IPv4Protocol, corev1.IPv6Protocol},
	{corev1.IPv6Protocol, corev1.IPv4Protocol},
}

func (l *life) oneIn(n int) bool { return l.IntN(n) == 0 }

// some are up to n addresses.
func (l *life) some(n int) (s set) {
	for range l.IntN(n + 1) {
		s |= 1 << l.IntN(64)
	}
	return s
}

// rewrite has the user change a field of the spec.
func (l *life) rewrite(b *being) {
	switch l.IntN(10) {
	case 0:
		b.ports = 1 << l.IntN(portCount)
		b.ports |= 1 << l.IntN(portCount)
	case 1:
		b.ports = 1 << l.IntN(portCount)
		b.key = l.IntN(keyCount)
	case 2:
		b.key = l.IntN(keyCount)
	case 3:
		b.policy = 0
		if l.oneIn(2) {
			b.policy = 1 + l.IntN(policyCount-1)
		}
	case 4:
		b.families = familyChoices[l.IntN(len(familyChoices))]
		b.partial = l.oneIn(2)
	case 5:
		b.pool = 0
		if l.oneIn(3) {
			b.pool = 1 + l.IntN(len(poolNames))
		}
	case 6:
		b.protocol = 0
		if l.oneIn(3) {
			b.protocol = 1 + l.IntN(2)
		}
	case 7:
		b.external = 0
		if l.oneIn(3) {
			b.external = l.some(2)
		}
	case 8:
		b.requested = 0
	case 9:
		b.requested = l.some(3)
		if held := l.held(); held != 0 && l.oneIn(2) {
			// Somebody's address, for the sake of sharing.
			for range 1 + l.IntN(held.count()) {
				b.requested = held & -held
				held &= held - 1
			}
		}
	}
}

func (l *life) operate() {
	i := l.IntN(services)
	b := &l.beings[i]
	switch n := l.IntN(1000); {
	case n < 500:
		for range l.IntN(3) {
			l.rewrite(b)
		}
		l.assign(b)
	case n < 580:
		l.logf("%s is released", b.owner.Name)
		l.a.Release(b.owner.UID)
		if b.all() != 0 {
			b.retiring, b.current, b.known = b.all(), 0, true
		}
	case n < 700:
		// The status is written, and seen at once or later.
		b.recorded, b.marked, b.settled = b.current, true, b.current != 0 && !l.oneIn(4)
		l.logf("%s is recorded with %v, settled %v", b.owner.Name, b.recorded, b.settled)
	case n < 860:
		l.observe(b)
	case n < 920:
		l.logf("%s is gone", b.owner.Name)
		freed := l.a.Forget(b.owner.UID)
		l.checkFreed(b, freed, b.all())
		l.bear(i)
	case n < 940:
		l.follow(b)
	case n < 965:
		l.changePools()
	case n < 985:
		l.changeNodes()
	case n < 990:
		// What a deposed leader still writes.
		b.recorded, b.settled = l.some(3), false
		b.marked = b.marked || l.oneIn(2)
		l.logf("%s is recorded with %v by somebody else", b.owner.Name, b.recorded)
	case n < 993:
		l.restart()
	default:
		l.setPools(false)
	}
	l.check(b)
}

func (l *life) record(b *being) Record {
	return Record{Owner: b.owner, Addresses: list(b.recorded, nil), Marked: b.marked, Settled: b.settled, Foreign: b.foreign, Terms: b.terms()}
}

// checkFreed notes what became free of a Service.
func (l *life) checkFreed(b *being, said bool, freed set) {
	if said != (freed != 0) {
		l.failf("%s: freed is %v; want %v", b.owner.Name, said, freed)
	}
	for i := range l.model.pools {
		p := &l.model.pools[i]
		for n, family := range []set{ipv4, ipv6} {
			if gone := freed & p.owned & family; gone != 0 {
				p.freed[n] = gone
			}
		}
	}
	b.current &^= freed
	b.retiring &^= freed
	b.clear()
}

func (l *life) observe(b *being) {
	// The API may show more than was written last.
	shown := b.recorded
	if l.oneIn(8) {
		shown |= l.some(2)
	}
	l.logf("%s shows %v", b.owner.Name, shown)
	l.recordedTo = list(shown, l.recordedTo[:0])
	freed := l.a.Observe(b.owner.UID, l.recordedTo)
	l.checkFreed(b, freed, b.retiring&^shown)
}

// follow has another controller serve the Service, which may write anything.
func (l *life) follow(b *being) {
	if l.oneIn(2) {
		b.recorded = l.some(2) &^ l.nodes
		b.marked, b.settled = b.marked && l.oneIn(2), l.oneIn(4)
	}
	if l.oneIn(2) {
		l.rewrite(b)
	}
	record := l.record(b)
	l.logf("%s is followed with %v, key %d, ports %b, policy %d", b.owner.Name, b.recorded, b.key, b.ports, b.policy)
	freed := l.a.Follow(record)
	l.checkFreed(b, freed, b.all()&^b.recorded)
	b.current, b.retiring, b.known = b.all(), 0, false
	keeps := b.current
	l.adopt(b, false)
	b.foreign = b.current != 0
	if b.followed = b.current != 0; b.followed {
		b.told = b.bargain
	}
	if b.current&^keeps == 0 && keeps != 0 {
		b.adoptedSettled = b.adoptedSettled && b.settled
	}
}

// adopt takes over what the Service has recorded, and returns with how many others
// it collides. Of the addresses that it need not get, only those are taken over
// that the allocator did: it does not know the terms of all that share nothing, but
// in a fresh start it does.
func (l *life) adopt(b *being, fresh bool) (conflicts, unsure int) {
	if b.known {
		b.dim = false
		return 0, 0
	}
	got := l.actual(b)
	for addresses := l.adoptable(b); addresses != 0; addresses &= addresses - 1 {
		addr := addresses.first()
		answer := yes
		for i := range l.beings {
			other := &l.beings[i]
			switch {
			case other == b || !other.all().has(addr):
			case !l.mayKeep(addr, b.bargain, other.told, b.settled && other.adoptedSettled):
				answer = no
			case !fresh && other.told.key == 0 && answer == yes:
				answer = maybe
			}
		}
		if answer == no {
			conflicts++
			continue
		}
		if answer == maybe {
			unsure++
			if !got.has(addr) {
				continue
			}
		}
		b.current |= 1 << addr
		b.retiring &^= 1 << addr
		b.adoptedSettled, b.told, b.dim = b.settled, b.bargain, false
	}
	return conflicts, unsure
}

// actual is what the allocator says that the Service has.
func (l *life) actual(b *being) set {
	return setOf(l.a.holdings[b.owner.UID].has())
}

// setPools gives the allocator its pools and the records, by seniority.
func (l *life) setPools(fresh bool) {
	l.records, l.recordsOf = l.records[:0], l.recordsOf[:0]
	for _, settled := range []bool{true, false} {
		for i := range l.beings {
			if b := &l.beings[i]; b.recorded != 0 && b.settled == settled {
				l.records = append(l.records, l.record(b))
				l.recordsOf = append(l.recordsOf, i)
			}
		}
	}
	conflicts := l.a.SetPools(l.pools, l.records)
	for i := range l.beings {
		l.beings[i].dim = l.beings[i].key == 0
	}
	certain, unsure := 0, 0
	for _, i := range l.recordsOf {
		c, u := l.adopt(&l.beings[i], fresh)
		certain, unsure = certain+c, unsure+u
	}
	if n := len(conflicts); n < certain || n > certain+unsure {
		l.failf("%d conflicts %v; want %d to %d", n, conflicts, certain, certain+unsure)
	}
	l.agree()
}

// changePools edits, deletes or makes a pool.
func (l *life) changePools() {
	i := l.IntN(poolCount)
	p := &l.model.pools[i]
	switch {
	case !p.exists || l.oneIn(3):
		*p = preserve{exists: true, born: l.IntN(3), last: p.last, freed: p.freed, mode: modes[l.IntN(len(modes))], protocols: 1 + l.IntN(3)}
		p.declared = l.stretch(2, 37) | l.stretch(42, 61)
		switch l.IntN(3) {
		case 0:
			p.declared |= l.stretch(2, 37)
		case 1:
			p.declared &= ipv4
		}
		p.priority = int32(l.IntN(3))
		p.byHand, p.disabled, p.avoid, p.external = l.oneIn(5), l.oneIn(10), l.oneIn(3), l.oneIn(2)
		if l.oneIn(5) {
			p.namespaces = 1 + l.IntN(3)
		}
	case l.oneIn(6):
		*p = preserve{}
	default:
		switch l.IntN(8) {
		case 0:
			p.declared |= l.stretch(2, 37)
		case 1:
			if less := p.declared &^ l.stretch(2, 61); less != 0 {
				p.declared = less
			}
		case 2:
			p.disabled = !p.disabled
		case 3, 4:
			p.mode = modes[l.IntN(len(modes))]
		case 5:
			p.priority = int32(l.IntN(3))
		case 6:
			p.avoid, p.external = l.oneIn(2), l.oneIn(2)
		case 7:
			p.namespaces = l.IntN(4)
		}
	}
	l.compile()
	l.logf("pool %d is now %+v", i, *p)
	l.setPools(false)
}

var modes = [...]v1alpha1.SharingMode{v1alpha1.SharingNever, v1alpha1.SharingKey, v1alpha1.SharingKeyAnyNamespace, v1alpha1.SharingPorts}

// stretch are up to 16 neighbours between two addresses.
func (l *life) stretch(first, last int) (s set) {
	from := first + l.IntN(last-first+1)
	for i := from; i <= min(last, from+l.IntN(16)); i++ {
		s |= 1 << i
	}
	return s
}

// compile makes the pools, and says in its own way whose each address is.
func (l *life) compile() {
	var objects []*v1alpha1.AddressPool
	for i := range l.owner {
		l.owner[i] = none
	}
	for i := range l.model.pools {
		p := &l.model.pools[i]
		if !p.exists {
			p.last, p.freed, p.owned = [2]int{none, none}, [2]set{}, 0
			continue
		}
		object := &v1alpha1.AddressPool{ObjectMeta: metav1.ObjectMeta{Name: poolNames[i], CreationTimestamp: metav1.Unix(int64(p.born), 0)}}
		for addr := range world {
			if !p.declared.has(addr) {
				continue
			}
			object.Spec.Addresses = append(object.Spec.Addresses, world[addr].String())
			if rival := l.owner[addr]; rival == none || p.born < l.model.pools[rival].born {
				l.owner[addr] = i
			}
		}
		object.Spec.Priority = p.priority
		if p.byHand {
			object.Spec.AutoAssign = new(bool)
		}
		object.Spec.Disabled, object.Spec.AvoidBuggyIPs, object.Spec.AllowExternalIPs = p.disabled, p.avoid, p.external
		object.Spec.Sharing = p.mode
		for n, name := range []string{"default", "other"} {
			if p.namespaces>>n&1 == 1 {
				object.Spec.Namespaces = append(object.Spec.Namespaces, name)
			}
		}
		for n, protocol := range []v1alpha1.Protocol{v1alpha1.ProtocolBGP, v1alpha1.ProtocolLayer2} {
			if p.protocols>>n&1 == 1 {
				object.Spec.Protocols = append(object.Spec.Protocols, protocol)
			}
		}
		objects = append(objects, object)
	}
	for i := range l.model.pools {
		l.model.pools[i].owned = 0
	}
	for addr, i := range l.owner {
		if i != none {
			l.model.pools[i].owned |= 1 << addr
		}
	}
	l.pools = Compile(objects)
}

func (l *life) changeNodes() {
	if l.oneIn(2) {
		l.nodes = l.some(4)
	} else {
		l.reported = l.some(3)
	}
	l.logf("nodes have %v, and report %v", l.nodes, l.reported)
	l.setNodes()
}

func (l *life) setNodes() {
	named := func(s set) map[netip.Addr]string {
		names := map[netip.Addr]string{}
		for _, addr := range list(s, nil) {
			names[addr] = "n"
		}
		return names
	}
	l.a.SetNodes(named(l.nodes))
	l.a.SetReported(named(l.reported))
}

// restart loses what was not written. Users go on meanwhile.
func (l *life) restart() {
	l.logf("crash")
	type expectation struct {
		*being
		keeps set
	}
	var settled []expectation
	for i := range l.beings {
		b := &l.beings[i]
		if l.oneIn(10) {
			l.rewrite(b)
		} else if b.settled && b.recorded == b.current && !b.followed {
			settled = append(settled, expectation{b, b.current &^ l.nodes})
		}
		b.current, b.retiring = 0, 0
		b.clear()
		b.told = b.bargain
	}
	for i := range l.model.pools {
		l.model.pools[i].last, l.model.pools[i].freed = [2]int{none, none}, [2]set{}
	}
	l.a = NewAllocator()
	l.setNodes()
	l.setPools(true)
	for _, b := range settled {
		b.keeps &= l.adoptable(b.being)
		for i := range l.beings {
			if other := &l.beings[i]; other != b.being && other.settled && clashes(b.bargain, other.bargain) {
				b.keeps &^= other.recorded
			}
		}
		if b.keeps&^b.current != 0 {
			l.failf("%s lost %v over a restart", b.owner.Name, b.keeps&^b.current)
		}
	}
}

func (l *life) assign(b *being) {
	allowed := set(0)
	for _, family := range b.families {
		allowed |= familySet(family)
	}
	b.requested &= allowed // NewClaim refuses the others
	l.logf("%s claims %+v", b.owner.Name, *b)
	l.requested, l.external = list(b.requested, l.requested[:0]), list(b.external, l.external[:0])
	l.recordedTo = list(b.recorded, l.recordedTo[:0])
	c := &l.claim
	*c = Claim{
		Owner: b.owner, Families: b.families, Partial: b.partial,
		Protocol:  [...]v1alpha1.Protocol{"", v1alpha1.ProtocolBGP, v1alpha1.ProtocolLayer2}[b.protocol],
		Requested: l.requested, External: l.external, Recorded: l.recordedTo,
		Terms: b.terms(), Marked: b.marked,
	}
	if b.pool > 0 {
		c.Pool = poolNames[b.pool-1]
	}

	broken := l.broken(b)
	var explained *Refusal
	asked := l.oneIn(8)
	if asked {
		if got, _ := l.a.Retell(Record{Owner: b.owner, Terms: c.Terms}); got != (broken != 0) {
			l.failf("%s renegotiates: %v; want it to leave %v", b.owner.Name, got, broken)
		}
		explained = l.a.Explain(c)
	}
	assignment, err := l.a.Assign(c, l.into[:0])
	got := setOf(assignment.Addresses)
	l.into = assignment.Addresses[:0]
	l.logf("%s got %v (%v)", b.owner.Name, got, err)
	if asked && broken == 0 && (explained == nil) != (err == nil && assignment.Missing == nil) {
		l.failf("%s is explained with %v, but refused with %v or %v", b.owner.Name, explained, err, assignment.Missing)
	}

	kept := b.current &^ broken
	picked := b.requested
	for i := range l.model.pools {
		if l.model.pools[i].external {
			picked |= b.external & l.model.pools[i].owned
		}
	}
	// The picked ones: all or nothing.
	must, may := picked&^allowed != 0, false // be refused
	for rest := picked &^ kept; rest != 0; rest &= rest - 1 {
		answer := l.mayPick(b, rest.first())
		must, may = must || answer == no, may || answer == maybe
	}
	want := picked
	// The other families.
	lacks, mayLack, finds, free := 0, 0, picked != 0, set(0)
	if !must {
		for _, family := range b.families {
			family := familySet(family)
			if picked&family != 0 {
				want |= l.beside(b, kept, family)
				continue
			}
			hope := l.hope(b, kept, family, &free)
			switch found := got & family; {
			case hope.exact != 0:
				want |= hope.exact
				finds = true
			case err != nil:
				if hope.accept == 0 {
					lacks++
				} else if !hope.certain {
					mayLack++
				} else {
					finds = true
				}
			case found == 0:
				if hope.certain {
					l.failf("%s got no address of %v, though there is %v", b.owner.Name, family, hope.accept)
				}
				lacks++
			case found.count() > 1 || found&^hope.accept != 0:
				l.failf("%s found %v; want one of %v", b.owner.Name, found, hope.accept)
			default:
				want |= found
				finds = true
			}
		}
	}
	if lacks > 0 && (!b.partial || !finds && mayLack == 0) {
		must = true
	}
	may = may || mayLack > 0 && (!b.partial || !finds)
	if err != nil {
		var refusal *Refusal
		if !errors.As(err, &refusal) || !must && !may {
			l.failf("%s was refused: %v; kept %v, picked %v", b.owner.Name, err, kept, picked)
		}
		if b.all() != 0 {
			b.told, b.dim = b.bargain, false
		}
		b.retiring |= broken
		b.current = kept
		return
	}
	if must || got != want {
		l.failf("%s got %v; want %v (to be refused: %v)", b.owner.Name, got, want, must)
	}
	if (assignment.Missing != nil) != (lacks > 0) {
		l.failf("%s misses %v; want %d families missing", b.owner.Name, assignment.Missing, lacks)
	}
	for i := 1; i < len(assignment.Addresses); i++ {
		if before, after := familyOf(assignment.Addresses[i-1]), familyOf(assignment.Addresses[i]); before != after && before != b.families[0] {
			l.failf("%s got %v; want %s first", b.owner.Name, assignment.Addresses, b.families[0])
		}
	}
	for found := got & free; found != 0; found &= found - 1 {
		addr := found.first()
		l.poolOf(addr).last[familyNumber(familySet(familyOf(world[addr])))] = addr
	}
	b.retiring = b.all() &^ got
	b.current, b.known, b.told, b.dim, b.foreign = got, true, b.bargain, false, false
	b.served.pool, b.served.protocol, b.served.external = b.pool, b.protocol, b.external
}

// beside is what the Service keeps in a family of which it picked some: nothing,
// unless it was a pool that changed, not what it picks.
func (l *life) beside(b *being, kept, family set) (beside set) {
	if b.requested&family != 0 || b.known && b.external != b.served.external {
		return 0
	}
	for rest := kept & family; rest != 0; rest &= rest - 1 {
		if addr := rest.first(); !l.asksForAnother(b, addr) {
			beside |= 1 << addr
		}
	}
	return beside
}

// hope is what a claim must get in a family.
type hope struct {
	// exact addresses, if there is no choice.
	exact set
	hopes
}

// hope says what the Service must get in a family of which it picked none. The
// addresses that a search may find are added to free.
func (l *life) hope(b *being, kept, family set, free *set) (h hope) {
	for rest := kept & family; rest != 0; rest &= rest - 1 {
		if addr := rest.first(); !l.asksForAnother(b, addr) {
			h.exact |= 1 << addr
		}
	}
	if h.exact != 0 {
		return h
	}
	if kept&family == 0 {
		others := set(0)
		for i := range l.beings {
			if other := &l.beings[i]; other != b {
				others |= other.all()
			}
		}
		for own := l.adoptable(b) & family &^ others; own != 0; own &= own - 1 {
			if addr := own.first(); !l.asksForAnother(b, addr) {
				h.exact = 1 << addr
				return h
			}
		}
	}
	h.hopes = l.search(b, family)
	*free |= h.accept &^ l.held()
	return h
}

// check compares what the allocator has of the Service with the model.
func (l *life) check(b *being) {
	h := l.a.holdings[b.owner.UID]
	if h == nil {
		if b.all() != 0 {
			l.failf("%s holds nothing; want %v and %v retiring", b.owner.Name, b.current, b.retiring)
		}
		return
	}
	if current, retiring := setOf(h.has()), setOf(h.all[h.current:]); current != b.current || retiring != b.retiring || len(h.all) != b.all().count() || len(h.all) == 0 {
		l.failf("%s has %v and %v retiring; want %v and %v", b.owner.Name, current, retiring, b.current, b.retiring)
	}
}

// agree compares all that the allocator knows with the model.
func (l *life) agree() {
	keyed := 0
	for i := range l.beings {
		b := &l.beings[i]
		l.check(b)
		if b.all() != 0 && b.told.key > 0 {
			keyed++
		}
		for j := range i {
			other := &l.beings[j]
			if common := b.current & other.current; common != 0 && clashes(b.told, other.told) && !b.followed && !other.followed {
				l.failf("%s and %s have %v", b.owner.Name, other.owner.Name, common)
			}
		}
	}
	for _, list := range l.a.keyed {
		keyed -= len(list)
	}
	if keyed != 0 {
		l.failf("%d more Services with a share-key than the allocator knows", keyed)
	}
	busy := l.held() | l.taken()
	for i, addr := range world {
		key, offset := locate(addr)
		block := l.a.book.blocks[key]
		got := block != nil && block.busy[offset/64]>>(offset%64)&1 == 1
		if got != busy.has(i) {
			l.failf("%s is busy: %v; want %v", addr, got, busy.has(i))
		}
		tenants := 0
		for j := range l.beings {
			if l.beings[j].all().has(i) {
				tenants++
			}
		}
		if got := len(l.a.book.tenants(addr)); got != tenants {
			l.failf("%s has %d tenants; want %d", addr, got, tenants)
		}
	}
	for key, block := range l.a.book.blocks {
		if block.busy == ([4]uint64{}) {
			l.failf("the book has an empty block %v", key)
		}
	}
}
