package lab

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/addr"
	"github.com/baremetal-lb/cloud-provider-baremetal/test/lab/internal/wire"
)

// Packet is an ARP packet, a neighbour solicitation or a neighbour
// advertisement.
type Packet = wire.Packet

// Answer is what came of asking for an address.
type Answer = wire.Answer

// TrafficReport is what a program sent, and what it read.
type TrafficReport = wire.Report

// Options of the programs that speak ARP and NDP.
type (
	AskOptions     = wire.AskOptions
	CaptureOptions = wire.CaptureOptions
	FloodOptions   = wire.FloodOptions
	ClaimOptions   = wire.ClaimOptions
	RespondOptions = wire.RespondOptions
	GarbleOptions  = wire.GarbleOptions
)

// Addresses lists the addresses of single ones, of ranges (FROM-TO) and of
// prefixes.
func Addresses(items ...string) ([]netip.Addr, error) { return wire.Expand(items) }

// Ask asks on a host's LAN for addresses by ARP and NDP, and returns the answers
// in the order of the addresses. The neighbour table of the host's kernel has
// no part in it.
func (l *Lab) Ask(ctx context.Context, host string, options AskOptions) ([]Answer, error) {
	program, err := l.startWire(ctx, host, wire.AskProgram, options)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = program.stdin.Close() })
	defer stop()
	if _, err := program.wait(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("asking on %s: %w", host, err)
	}
	return program.answers, nil
}

// Capture is a list of packets that grows.
type Capture struct{ program *wireProgram }

// StartCapture listens to ARP and NDP on a host. When it returns, it hears.
func (l *Lab) StartCapture(ctx context.Context, host string, options CaptureOptions) (*Capture, error) {
	program, err := l.startReady(ctx, host, wire.CaptureProgram, options)
	return &Capture{program}, err
}

// Packets returns what was heard so far.
func (c *Capture) Packets() []Packet {
	c.program.mu.Lock()
	defer c.program.mu.Unlock()
	return slices.Clone(c.program.packets)
}

// Wait waits for a packet that is wanted, and returns the first one.
func (c *Capture) Wait(ctx context.Context, what string, want func(*Packet) bool) (*Packet, error) {
	for seen := 0; ; {
		c.program.mu.Lock()
		packets, changed := c.program.packets, c.program.changed
		c.program.mu.Unlock()
		for ; seen < len(packets); seen++ {
			if want(&packets[seen]) {
				return &packets[seen], nil
			}
		}
		select {
		case <-changed:
		case <-c.program.ended:
			return nil, fmt.Errorf("%s: the capture has ended after %d packets", what, seen)
		case <-ctx.Done():
			return nil, fmt.Errorf("%s: not in %d packets: %w", what, seen, ctx.Err())
		}
	}
}

// Follow calls f with each packet until the capture ends by itself, or ctx.
func (c *Capture) Follow(ctx context.Context, f func(*Packet)) error {
	_, err := c.Wait(ctx, "next packet", func(p *Packet) bool {
		f(p)
		return false
	})
	if ctx.Err() != nil || err == nil {
		return nil
	}
	select {
	case <-c.program.ended:
		return nil
	default:
		return err
	}
}

// Stop ends the capture and returns all of it. It is an error if the kernel had
// no room for some packets.
func (c *Capture) Stop() ([]Packet, error) {
	report, err := c.program.stop()
	if err == nil && report.Dropped > 0 {
		err = fmt.Errorf("the capture missed %d packets", report.Dropped)
	}
	return c.Packets(), err
}

// Traffic is something that a host sends, or answers.
type Traffic struct{ program *wireProgram }

// Wait waits until it ends by itself.
func (t *Traffic) Wait() (TrafficReport, error) { return t.program.wait() }

// Stop ends it.
func (t *Traffic) Stop() (TrafficReport, error) { return t.program.stop() }

// StartFlood makes a host ask for addresses at a high rate.
func (l *Lab) StartFlood(ctx context.Context, host string, options FloodOptions) (*Traffic, error) {
	return l.startTraffic(ctx, host, wire.FloodProgram, options)
}

// StartClaim makes a host claim addresses by gratuitous ARP and unsolicited
// neighbour advertisements.
func (l *Lab) StartClaim(ctx context.Context, host string, options ClaimOptions) (*Traffic, error) {
	return l.startTraffic(ctx, host, wire.ClaimProgram, options)
}

// StartResponder makes a host answer for addresses, until it is stopped. Its
// kernel does not know.
func (l *Lab) StartResponder(ctx context.Context, host string, options RespondOptions) (*Traffic, error) {
	return l.startTraffic(ctx, host, wire.RespondProgram, options)
}

// StartGarble makes a host send malformed ARP packets and NDP messages. They
// come from addresses that nobody has, unless Strangers are given.
func (l *Lab) StartGarble(ctx context.Context, host string, options GarbleOptions) (*Traffic, error) {
	if len(options.Strangers) == 0 {
		options.Strangers = []string{addr.Strangers, addr.StrangersV6}
	}
	return l.startTraffic(ctx, host, wire.GarbleProgram, options)
}

func (l *Lab) startTraffic(ctx context.Context, host, name string, options any) (*Traffic, error) {
	program, err := l.startReady(ctx, host, name, options)
	return &Traffic{program}, err
}

// wireProgram is a program of package wire on a host. It ends when its input is
// closed, so also with the process that started it, and with the host.
type wireProgram struct {
	what   string
	cmd    *exec.Cmd
	stdin  io.Closer
	stderr bytes.Buffer
	ready  chan struct{} // closed when it listens, or is about to send
	ended  chan struct{} // closed when its output is read

	mu      sync.Mutex
	changed chan struct{} // closed and replaced at each packet
	packets []Packet

	// Set when ended is closed.
	answers []Answer
	report  *TrafficReport
	err     error

	waited func() error
}

func (l *Lab) startWire(ctx context.Context, host, name string, options any) (*wireProgram, error) {
	text, err := json.Marshal(options)
	if err != nil {
		return nil, err
	}
	cmd := Command(context.WithoutCancel(ctx), l.command(), "wire", name, string(text))
	p := &wireProgram{
		what: name + " on " + host, cmd: cmd,
		ready: make(chan struct{}), ended: make(chan struct{}), changed: make(chan struct{}),
	}
	cmd.Stderr = &p.stderr
	if p.stdin, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := l.StartOn(ctx, host, cmd); err != nil {
		return nil, err
	}
	p.waited = sync.OnceValue(func() error {
		<-p.ended
		if err := cmd.Wait(); err != nil {
			return fmt.Errorf("%s: %w: %s", p.what, err, strings.TrimSpace(p.stderr.String()))
		}
		if p.err == nil && p.report == nil {
			return fmt.Errorf("%s: it has ended without a report", p.what)
		}
		return p.err
	})
	go p.read(stdout)
	return p, nil
}

// startReady returns when the program is ready.
func (l *Lab) startReady(ctx context.Context, host, name string, options any) (*wireProgram, error) {
	p, err := l.startWire(ctx, host, name, options)
	if err != nil {
		return nil, err
	}
	select {
	case <-p.ready:
		return p, nil
	case <-p.ended:
		_, err := p.wait()
		return nil, err
	case <-ctx.Done():
		_, err := p.stop()
		return nil, errors.Join(ctx.Err(), err)
	}
}

func (p *wireProgram) read(r io.Reader) {
	defer close(p.ended)
	lines := json.NewDecoder(bufio.NewReaderSize(r, 1<<16))
	for {
		var line wire.Line
		if err := lines.Decode(&line); err != nil {
			if !errors.Is(err, io.EOF) {
				p.err = fmt.Errorf("output of %s: %w", p.what, err)
				_, _ = io.Copy(io.Discard, r) // it must not block
			}
			return
		}
		switch {
		case line.Ready:
			close(p.ready)
		case line.Answer != nil:
			p.answers = append(p.answers, *line.Answer)
		case line.Report != nil:
			p.report = line.Report
		case line.Packet != nil:
			p.mu.Lock()
			p.packets = append(p.packets, *line.Packet)
			close(p.changed)
			p.changed = make(chan struct{})
			p.mu.Unlock()
		}
	}
}

// wait waits until the program ends.
func (p *wireProgram) wait() (TrafficReport, error) {
	if err := p.waited(); err != nil {
		return TrafficReport{}, err
	}
	return *p.report, nil
}

// stop ends the program.
func (p *wireProgram) stop() (TrafficReport, error) {
	_ = p.stdin.Close()
	t := time.AfterFunc(10*time.Second, func() { _ = p.cmd.Process.Kill() })
	defer t.Stop()
	return p.wait()
}
