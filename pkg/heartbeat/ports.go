package heartbeat

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
)

// reopenTime is how long after a socket could not be opened, or failed soon, it is
// tried again.
const reopenTime = time.Second

type connKey struct {
	link int
	v4   bool
}

// port is a socket with the goroutine that reads it.
type port struct {
	conn
	name    string // of the interface
	opened  time.Time
	fellows []id          // that the kernel lets through
	failed  chan struct{} // closed by the reader
	err     error         // why; set before
}

// wanted is what a socket is to be like.
type wanted struct {
	name    string
	fellows []id
}

// unopened is a socket that there is to be and that there is not.
type unopened struct {
	problem string
	again   time.Time // when it is tried again
}

// adjust opens and closes sockets if the state has changed, or one has failed.
func (x *Exchange) adjust(ctx context.Context) {
	due := x.closeFailed()
	now := time.Now()
	for _, u := range x.unopened {
		due = due || !now.Before(u.again)
	}
	x.mu.Lock()
	if due = due || x.reset; !due {
		x.mu.Unlock()
		return
	}
	reset, all, self := x.reset, x.wanted(), x.core.self
	x.reset = false
	x.mu.Unlock()

	for key, p := range x.ports {
		if all[key] == nil {
			x.close(key, p)
		}
	}
	maps.DeleteFunc(x.unopened, func(key connKey, _ unopened) bool { return all[key] == nil })
	x.reopen = time.Time{}
	for key, w := range all {
		if u, failed := x.unopened[key]; !failed || reset || !now.Before(u.again) {
			if err := x.ensure(ctx, key, self, w); err != nil {
				x.unopened[key] = unopened{explain(w.name, err), now.Add(reopenTime)}
			} else {
				delete(x.unopened, key)
			}
		}
		if u, failed := x.unopened[key]; failed && (x.reopen.IsZero() || u.again.Before(x.reopen)) {
			x.reopen = u.again
		}
	}
	x.publish(ctx)
}

// wanted are the sockets that there are to be. The lock is held.
func (x *Exchange) wanted() map[connKey]*wanted {
	all := make(map[connKey]*wanted)
	for _, a := range x.core.adjacencies {
		key := connKey{a.link, a.to.Is4()}
		if all[key] == nil {
			all[key] = &wanted{name: x.core.links[a.link].Name}
		}
		all[key].fellows = append(all[key].fellows, a.peer.id)
	}
	return all
}

// ensure makes the socket what it is to be.
func (x *Exchange) ensure(ctx context.Context, key connKey, self id, w *wanted) error {
	if p := x.ports[key]; p != nil {
		if slices.Equal(p.fellows, w.fellows) {
			return nil
		}
		if err := p.Admit(self, w.fellows); err != nil {
			x.close(key, p)
			return err
		}
		p.fellows = w.fellows
		return nil
	}
	c, err := x.open(ctx, w.name, key.v4)
	if err != nil {
		return err
	}
	if err := c.Admit(self, w.fellows); err != nil {
		return errors.Join(err, c.Close())
	}
	p := &port{conn: c, name: w.name, opened: time.Now(), fellows: w.fellows, failed: make(chan struct{})}
	x.ports[key] = p
	x.helpers.Go(func() { x.read(p, key.link) })
	return nil
}

// closeFailed closes sockets that have failed, and reports whether there are such. One
// that did so soon waits until it is opened again.
func (x *Exchange) closeFailed() (failed bool) {
	for key, p := range x.ports {
		select {
		case <-p.failed:
		default:
			continue
		}
		failed = true
		x.close(key, p)
		again := time.Now()
		if again.Sub(p.opened) < reopenTime {
			again = again.Add(reopenTime)
		}
		x.unopened[key] = unopened{explain(p.name, p.err), again}
	}
	return failed
}

// publish makes the reasons why sockets are not open problems.
func (x *Exchange) publish(ctx context.Context) {
	var problems []string
	for _, u := range x.unopened {
		problems = append(problems, u.problem)
	}
	slices.Sort(problems)
	x.mu.Lock()
	defer x.mu.Unlock()
	if slices.Equal(problems, x.problems) {
		return
	}
	for _, p := range problems {
		klog.FromContext(ctx).Info("Heartbeat problem", "problem", p)
	}
	x.problems, x.core.news = problems, true
}

// explain says what to do about a socket that cannot be opened, or has failed.
func explain(name string, err error) string {
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return fmt.Sprintf("interface %s: no heartbeats, for another program has UDP port %d: end it", name, Port)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Sprintf("interface %s: no heartbeats: the speaker needs the capability NET_RAW", name)
	}
	return fmt.Sprintf("interface %s: no heartbeats, tried again each second: %v", name, err)
}

func (x *Exchange) close(key connKey, p *port) {
	_ = p.Close() // it is not used any more either way
	delete(x.ports, key)
}

func (x *Exchange) closeAll() {
	for key, p := range x.ports {
		x.close(key, p)
	}
}

// read passes on what comes in and is authentic, until the socket ends.
func (x *Exchange) read(p *port, link int) {
	defer x.poke()
	defer close(p.failed)
	var (
		keys    keyring
		secrets *announce.HeartbeatKeys // that keys are made of
		buffer  = make([]byte, 2*maxPacket)
		dropped uint32
	)
	for {
		e, err := p.Receive(buffer)
		if err != nil {
			p.err = err
			return
		}
		if e.refused.IsValid() {
			select {
			case x.refusals <- refusal{link, e.refused}:
				x.poke()
			default: // the next one does it
			}
			continue
		}
		if e.dropped != dropped {
			x.tally.dropped(uint64(e.dropped - dropped))
			dropped = e.dropped
		}
		if s := x.secrets.Load(); s != nil && s != secrets {
			keys, secrets = newKeyring(*s), s
		}
		r := received{link: link}
		var why rejection
		if r.packet, r.newest, why = authenticate(&keys, buffer[:e.n], e.hops); why != accepted {
			x.tally.received(why)
			continue
		}
		select {
		case x.packets <- r:
			x.poke()
		default:
			x.tally.dropped(1)
		}
	}
}

// authenticate decodes a packet that one of the keys has signed. The cheapest checks
// come first, for whoever is on the LAN can send any.
func authenticate(keys *keyring, b []byte, arrived int) (m packet, newest keyID, why rejection) {
	if arrived != hops {
		return m, 0, rejectHops
	}
	data, newest, err := keys.verify(b)
	switch {
	case errors.Is(err, errNoKey):
		return m, 0, rejectKey
	case errors.Is(err, errUnsigned):
		return m, 0, rejectSignature
	case err != nil:
		return m, 0, rejectMalformed
	}
	if m, err = parsePacket(data); err != nil {
		return m, 0, rejectMalformed
	}
	return m, newest, accepted
}
