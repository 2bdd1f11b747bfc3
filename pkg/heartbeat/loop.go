package heartbeat

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"time"

	"k8s.io/klog/v2"
)

// apiTimeout bounds the question to the API server.
const apiTimeout = 300 * time.Millisecond

// Run exchanges heartbeats until ctx ends, and returns nil then. It may be called
// once.
func (x *Exchange) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer x.helpers.Wait()
	defer x.closeAll()
	defer cancel()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-x.wake:
		case <-timer.C:
		}
		next := x.turn(ctx)
		if next.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(next))
		}
	}
}

// turn does what is due, and returns when there is more.
func (x *Exchange) turn(ctx context.Context) (next time.Time) {
	x.adjust(ctx)
	arrived := x.config.Checker.Arrived()
	x.mu.Lock()
	x.hear() // before anything is judged
	x.core.arrived = arrived
	now := time.Now()
	out := x.core.turn(now)
	changed := x.core.changed
	x.core.changed = false
	hosts := x.listened
	if x.core.news {
		x.core.news = false
		changed = x.tell(now) || changed
		hosts = x.core.listens()
	}
	if x.parted != nil && x.core.acknowledged(x.parting, now) {
		close(x.parted)
		x.parted = nil
	}
	keys := x.keys
	x.mu.Unlock()

	x.send(out.packets, keys)
	if changed {
		x.config.Changed()
	}
	if !maps.EqualFunc(hosts, x.listened, slices.Equal) {
		x.listened = hosts
		x.config.Prober.Listen(hosts)
	}
	x.ask(ctx, &out)
	if next = out.next; !x.reopen.IsZero() && (next.IsZero() || x.reopen.Before(next)) {
		next = x.reopen
	}
	return next
}

// hear takes what has come in. The lock is held. What comes in meanwhile is heard the
// next time, for who brings it wakes the loop.
func (x *Exchange) hear() {
	for range len(x.packets) {
		r := <-x.packets
		x.tally.received(x.core.receive(r.link, &r.packet, r.newest, time.Now()))
	}
	for range len(x.refusals) {
		r := <-x.refusals
		x.core.refused(r.link, r.host, time.Now())
	}
	for range len(x.answers) {
		a := <-x.answers
		x.core.answered(a.link, a.host, a.mac, a.reply, time.Now())
	}
}

// tell reports whether there is something else to report of fellows. The lock is
// held.
func (x *Exchange) tell(now time.Time) bool {
	adjacencies, problems := x.core.status(now), x.allProblems()
	if slices.Equal(adjacencies, x.told.adjacencies) && slices.Equal(problems, x.told.problems) {
		return false
	}
	x.told.adjacencies, x.told.problems = adjacencies, problems
	return true
}

// send signs and sends packets. What the kernel refuses is like what gets lost.
func (x *Exchange) send(packets []outgoing, keys keyring) {
	if !keys.ready() {
		return
	}
	sent := uint64(0)
	for i := range packets {
		o := &packets[i]
		p := x.ports[connKey{o.link, o.to.Is4()}]
		if p == nil {
			continue
		}
		x.buffer = keys.sign(o.packet.append(x.buffer[:0]), o.newest)
		if p.Send(x.buffer, o.route) == nil {
			sent++
		}
	}
	x.tally.sent(sent)
}

// ask asks hosts, fellows by answers in their place, the kernel for hosts to ask, and
// the API server.
func (x *Exchange) ask(ctx context.Context, out *actions) {
	for _, q := range out.asks {
		if err := x.config.Prober.Ask(q.link, q.host, q.mac); err != nil {
			x.mu.Lock()
			x.core.unasked(q)
			x.mu.Unlock()
		}
	}
	for _, c := range out.checks {
		if err := x.config.Checker.Check(c.Link, c.Address, c.Owner); err != nil {
			klog.FromContext(ctx).V(2).Info("No check for ARP inspection", "reason", err.Error())
			x.mu.Lock()
			x.core.unchecked(c)
			x.mu.Unlock()
		}
	}
	if len(out.scouts) > 0 && x.take(&x.scouting) {
		x.helpers.Go(func() { x.scout(out.scouts) })
	}
	if out.api && x.take(&x.asking) {
		x.helpers.Go(func() { x.askAPI(ctx) })
	}
}

// take reports whether the task is nobody's yet.
func (x *Exchange) take(task *bool) (taken bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	taken, *task = !*task, true
	return taken
}

// scout looks for hosts on links.
func (x *Exchange) scout(links []int) {
	hosts := make([][]netip.Addr, len(links))
	for i, index := range links {
		hosts[i] = x.config.Neighbors(index)
	}
	x.mu.Lock()
	defer x.poke()
	defer x.mu.Unlock()
	x.scouting = false
	for i, index := range links {
		x.core.found(index, hosts[i])
	}
	x.core.news = true
}

// askAPI asks the API server for a sign of life.
func (x *Exchange) askAPI(ctx context.Context) {
	asked := time.Now()
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	err := x.config.API(ctx)
	x.mu.Lock()
	defer x.poke()
	defer x.mu.Unlock()
	x.asking = false
	if err == nil {
		x.core.apiAnswer(asked, time.Now())
	}
}
