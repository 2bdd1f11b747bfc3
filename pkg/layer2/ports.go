package layer2

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go4.org/netipx"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/announce"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/layer2/internal/filter"
	"github.com/baremetal-lb/cloud-provider-baremetal/pkg/layer2/internal/wire"
)

const (
	// reopenTime is how long after a socket could not be opened, or died, the
	// next one is opened.
	reopenTime = time.Second
	// adjustTime is the same for a filter or group that the kernel refuses.
	adjustTime = 10 * time.Second
	// renewTime is how often the groups are compared with those of the kernel.
	renewTime = time.Minute
	// joinSlice is how many groups are joined at a time: to join many takes longer
	// than what else is to be sent may wait.
	joinSlice = 128
	// frameSize is more than any ARP or NDP frame has, with all its options. The
	// rest of a longer one is cut off, and it is malformed.
	frameSize = 2048
	// maxHeard are the frames that may wait for the book.
	maxHeard = 1024
)

var errClosed = errors.New("the socket is closed")

// heard is a message for the book.
type heard struct {
	link    *link
	message wire.Message
}

type portKey struct {
	link   *link
	family family
}

// port is a socket with the goroutine that reads it.
type port struct {
	portKey
	name   string // of the interface
	socket socket
	ranges []netipx.IPRange
	groups map[netip.Addr]announce.MAC
	shape  uint64 // of the interface when groups was set
	// joining means that groups are left to join; filterErr and groupErr are what
	// went wrong.
	joining             bool
	filterErr, groupErr error
	// closed ends the goroutine; failed means that the interface has gone down.
	closed chan struct{}
	failed atomic.Bool
}

// ports are the sockets of an Announcer, for the goroutine in Run.
type ports struct {
	open func(index int, f family, program []bpf.RawInstruction) (socket, error)
	// dead takes ports whose socket cannot be read any more, heard what was read.
	dead  chan *port
	heard chan heard
	// poke wakes the goroutine in Run.
	poke     func()
	counters *counters

	byKey    map[portKey]*port
	unopened map[portKey]string // why ports are missing
	readers  sync.WaitGroup
}

// set opens, closes and adjusts sockets so that these are there, and reports
// which are new, which have gone, and after which time to try again, if not zero.
func (ps *ports) set(wanted []ears) (opened, closed []portKey, again time.Duration) {
	keep := make(map[portKey]bool, len(wanted))
	for _, w := range wanted {
		keep[portKey{w.link, w.family}] = true
	}
	for key, p := range ps.byKey {
		if !keep[key] {
			ps.close(p)
			closed = append(closed, key)
		}
	}
	clear(ps.unopened)
	for _, w := range wanted {
		key := portKey{w.link, w.family}
		p := ps.byKey[key]
		if p == nil {
			var err error
			if p, err = ps.start(w); err != nil {
				ps.unopened[key] = explain(w.name, w.family, err)
				again = reopenTime
				continue
			}
			opened = append(opened, key)
		}
		if p.adjust(w); p.filterErr != nil && again == 0 {
			again = adjustTime
		}
	}
	return opened, closed, again
}

// join joins and leaves some groups, and reports whether there are more, and which
// ports are done with theirs.
func (ps *ports) join() (more bool, done []*port) {
	for _, p := range ps.byKey {
		if !p.joining {
			continue
		}
		if p.joining, p.groupErr = p.socket.Join(joinSlice); p.joining {
			return true, done
		}
		done = append(done, p)
	}
	return false, done
}

// renew joins the groups again that the kernel has forgotten, and reports whether
// there are any.
func (ps *ports) renew() (grouped bool) {
	for _, p := range ps.byKey {
		if len(p.groups) == 0 {
			continue
		}
		grouped = true
		if !p.joining {
			p.joining = true
			p.socket.SetGroups(p.groups)
		}
	}
	return grouped
}

// problems say what keeps the sockets from hearing, in order.
func (ps *ports) problems() []string {
	out := slices.Collect(maps.Values(ps.unopened))
	for _, p := range ps.byKey {
		if err := errors.Join(p.filterErr, p.groupErr); err != nil {
			out = append(out, fmt.Sprintf("interface %s: some addresses may not be answered: %s", p.name, strings.ReplaceAll(err.Error(), "\n", "; ")))
		}
	}
	slices.Sort(out)
	return out
}

// start opens a socket and begins to read it.
func (ps *ports) start(w ears) (*port, error) {
	key, ranges := portKey{w.link, w.family}, w.ranges()
	program, err := key.program(ranges)
	if err != nil {
		return nil, err
	}
	s, err := ps.open(w.link.index, w.family, program)
	if errors.Is(err, unix.ENOMEM) && len(ranges) > 1 {
		if program, err = key.program(span(ranges)); err == nil {
			s, err = ps.open(w.link.index, w.family, program)
		}
	}
	if err != nil {
		return nil, err
	}
	p := &port{portKey: key, socket: s, ranges: ranges, closed: make(chan struct{})}
	ps.byKey[p.portKey] = p
	ps.readers.Go(func() { ps.read(p) })
	return p, nil
}

// read answers and passes on what comes in until the socket ends.
func (ps *ports) read(p *port) {
	buffer := make([]byte, frameSize)
	send := func(frame []byte) error { return ps.send(p, frame) }
	for {
		n, err := p.socket.Read(buffer)
		if err != nil {
			select {
			case ps.dead <- p:
			case <-p.closed:
			}
			return
		}
		m, tell := p.link.station.receive(buffer[:n], send)
		if !tell {
			continue
		}
		select {
		case ps.heard <- heard{p.link, m}:
		default:
			ps.counters.dropped.Add(1)
		}
	}
}

// send sends a frame. That the interface has gone down is not always told to the
// reader, too.
func (ps *ports) send(p *port, frame []byte) error {
	if p == nil {
		return errClosed // the book knows better; it costs a retry
	}
	err := p.socket.Write(frame)
	if isGone(err) && p.failed.CompareAndSwap(false, true) {
		ps.poke()
	}
	return err
}

// close ends a port; what its goroutine still does changes nothing any more.
func (ps *ports) close(p *port) {
	delete(ps.byKey, p.portKey)
	close(p.closed)
	_ = p.socket.Close() // it is not used any more either way
}

// closeAll ends all ports and waits for their goroutines.
func (ps *ports) closeAll() {
	for _, p := range ps.byKey {
		ps.close(p)
	}
	ps.readers.Wait()
}

// adjust brings the filter up to date, and begins to do so with the groups.
func (p *port) adjust(w ears) {
	p.name = w.name
	p.filterErr = nil
	if ranges := w.ranges(); !slices.Equal(ranges, p.ranges) {
		if err := p.setFilter(ranges); err != nil {
			p.filterErr = fmt.Errorf("setting the socket's filter (raise net.core.optmem_max): %w", err)
		} else {
			p.ranges = ranges
		}
	}
	// The kernel may have forgotten the groups when the interface's addresses
	// changed.
	if !maps.Equal(p.groups, w.groups) || p.groupErr != nil || p.shape != w.shape {
		p.groups, p.shape, p.joining = w.groups, w.shape, true
		p.socket.SetGroups(w.groups)
	}
}

// setFilter sets the exact filter or, where the kernel has no room for it, a wide
// one: the station looks at each frame again.
func (p *port) setFilter(ranges []netipx.IPRange) error {
	program, err := p.program(ranges)
	if err != nil {
		return err
	}
	err = p.socket.SetFilter(program)
	if errors.Is(err, unix.ENOMEM) && len(ranges) > 1 {
		if program, err = p.program(span(ranges)); err == nil {
			err = p.socket.SetFilter(program)
		}
	}
	return err
}

// program is the filter of a socket of the family on the link.
func (k *portKey) program(ranges []netipx.IPRange) ([]bpf.RawInstruction, error) {
	if k.family == ipv4 {
		return filter.ARP(k.link.index, ranges)
	}
	return filter.NDP(k.link.index, ranges)
}

// span is one range that contains the others, which ascend.
func span(ranges []netipx.IPRange) []netipx.IPRange {
	return []netipx.IPRange{netipx.IPRangeFrom(ranges[0].From(), ranges[len(ranges)-1].To())}
}

func (e *ears) ranges() []netipx.IPRange { return rangesOf(e.addresses) }
